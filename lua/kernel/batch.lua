-- batch: one batch of operations, decided in order, from what was read to what is to be written.
--
-- A batch is one flat list: each operation starts with its kind and its size in values.  plan_*
-- say what to read; decide runs the operations; the host reads, and writes what decide returns.
-- No input or output here: the host is a Redis script, a SQL transaction or a test.

local OPERATIONS

local function each_hold(flat, add)
  local at, size = 1, #flat
  while at <= size do
    local kind = flat[at]
    if kind ~= GET_STOCK then add(flat[at + 2]) end
    if kind == RESERVE and flat[at + 7] ~= '' then add(flat[at + 7]) end
    at = at + flat[at + 1]
  end
end

-- Ids of the reservations and requests to read, the due ones first; repeats are cheaper than a set.
local function plan_holds(flat, due)
  local ids = {}
  for i = 1, #due do ids[i] = due[i] end
  each_hold(flat, function(id) ids[#ids + 1] = id end)
  return ids
end

local function plan_operation(flat, at, add)
  local kind = flat[at]
  if kind == RESERVE then
    for i = at + 11, at + flat[at + 1] - 1, 3 do
      add(flat[i])
      if flat[i + 1] ~= '' then add(flat[i] .. US .. flat[i + 1]) end
    end
    if budget > 0 then add(US .. flat[at + 3]) end
  elseif kind == GET_STOCK then
    for i = at + 2, at + flat[at + 1] - 1 do add(flat[i]) end
  elseif kind == PUT_ITEM then
    add(flat[at + 5])
  elseif kind == ADJUST_STOCK or kind == SET_STOCK then
    local i = kind == SET_STOCK and at + 7 or at + 5
    add(flat[i])
    add(flat[i] .. US .. flat[i + 1])
  end
end

local function plan_hold(id, add)
  if sub(id, 1, 1) == '~' or not raws[id] or holds[id] then return end
  local hold = decode_hold(id, raws[id])
  holds[id] = hold
  for i = 1, #hold.lines, 4 do
    add(hold.lines[i])
    if hold.lines[i + 1] ~= '' then add(hold.lines[i] .. US .. hold.lines[i + 1]) end
  end
  if has(hold.flags, BUDGETED) then add(US .. hold.principal) end
end

-- Fields of the items hash to read, each once.
local function plan_rows(flat, ids)
  local fields, seen = {}, {}
  local function add(field)
    if not seen[field] then
      seen[field] = true
      fields[#fields + 1] = field
    end
  end
  for i = 1, #ids do plan_hold(ids[i], add) end
  local at, size = 1, #flat
  while at <= size do
    plan_operation(flat, at, add)
    at = at + flat[at + 1]
  end
  return fields
end

local function decide(flat, due)
  OPERATIONS = OPERATIONS or {
    [RESERVE] = reserve, [COMMIT] = commit, [RELEASE] = release, [EXTEND] = extend,
    [PUT_ITEM] = put_item, [ADJUST_STOCK] = adjust_stock, [SET_STOCK] = set_stock,
    [GET_RESERVATION] = get_reservation, [GET_STOCK] = get_stock,
  }
  sweep(due)
  local outs, at, size = {}, 1, #flat
  while at <= size do
    outs[#outs + 1] = OPERATIONS[flat[at]](flat, at)
    at = at + flat[at + 1]
  end
  return outs
end

-- Fill in, for refused lines whose item has units held, when the next of those holds expires:
-- `ids` are the next live holds to expire, in order, with raws and holds as decide left them.
-- A line keeps 0 where none of them holds its item.
local function fill_next_expiry(ids)
  local soonest = {}
  for i = 1, #ids do
    local id = ids[i]
    local hold = holds[id] or (raws[id] and decode_hold(id, raws[id]))
    if hold and hold.state == 'H' then
      for k = 1, #hold.lines, 4 do
        local sku = hold.lines[k]
        if not soonest[sku] or hold.expires < soonest[sku] then soonest[sku] = hold.expires end
      end
    end
  end
  for i = 1, #short do
    local line = short[i]
    line[1][line[2]] = soonest[line[3]] or 0
  end
end
