-- batch: one batch of operations, decided in order, from what was read to what is to be written.
--
-- A batch is one flat list: each operation starts with its kind and its size in values.  plan_*
-- say what to read; decide runs the operations; the host reads, and writes what decide returns.
-- No input or output here: the host is a Redis script, a SQL transaction or a test.

local OPERATIONS = {
  [RESERVE] = reserve, [COMMIT] = commit, [RELEASE] = release, [EXTEND] = extend,
  [PUT_ITEM] = put_item, [ADJUST_STOCK] = adjust_stock, [SET_STOCK] = set_stock,
  [GET_RESERVATION] = get_reservation, [GET_STOCK] = get_stock,
}
-- The fewest values of an operation: those before its lines, where it has any.
local SIZES = {
  [RESERVE] = 11, [COMMIT] = 9, [RELEASE] = 8, [EXTEND] = 7, [PUT_ITEM] = 20,
  [ADJUST_STOCK] = 8, [SET_STOCK] = 12, [GET_RESERVATION] = 5, [GET_STOCK] = 2,
}

-- Ids of the reservations and requests to read, the due ones first; repeats are cheaper than a set.
-- Raises where the list is no batch, so that nothing after this can run past an operation's end.
local function plan_holds(flat, due)
  local ids = {}
  for i = 1, #due do ids[i] = due[i] end
  local at, size = 1, #flat
  while at <= size do
    local kind, length, id = flat[at], flat[at + 1], flat[at + 2]
    if not (length >= (SIZES[kind] or size + 1) and length <= size + 1 - at) then
      error('no operation starts at value ' .. at)
    end
    if kind ~= GET_STOCK then
      if length_of(id, '', '') == 0 then error('no id at value ' .. at + 2) end
      ids[#ids + 1] = id
    end
    if kind == RESERVE and flat[at + 7] ~= '' then ids[#ids + 1] = flat[at + 7] end
    at = at + length
  end
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
  local raw = raws[id]
  if not raw or holds[id] or sub(id, 1, 1) == '~' then return end
  local hold = decode_hold(id, raw)
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
  sweep(due)
  local outs, at, size = {}, 1, #flat
  while at <= size do
    outs[#outs + 1] = OPERATIONS[flat[at]](flat, at)
    at = at + flat[at + 1]
  end
  return outs
end

-- Fill in, for refused lines whose item has units held, when the next of those holds expires:
-- `ids` are the stored holds that were to expire next, with raws and holds as decide left them;
-- those of this batch are added.  A line keeps 0 where none of them holds its item.
local function fill_next_expiry(ids)
  local soonest = {}
  for i = 2, #expiry, 2 do ids[#ids + 1] = expiry[i] end
  for i = 1, #ids do
    local id = ids[i]
    local hold = holds[id] or (raws[id] and decode_hold(id, raws[id]))
    if hold and hold.state == 'H' then
      for k = 1, #hold.lines, 4 do
        local sku, units = hold.lines[k], hold.lines[k + 2]
        if units > 0 and (not soonest[sku] or hold.expires < soonest[sku]) then
          soonest[sku] = hold.expires
        end
      end
    end
  end
  for i = 1, #short do
    local line = short[i]
    line[1][line[2]] = soonest[line[3]] or 0
  end
end

-- Which of the reservations and requests that are past retention may go; one whose record was
-- read, because it has changed since, decides for itself.
local function past(ids, before)
  local gone = {}
  for i = 1, #ids do
    local raw = raws[ids[i]]
    if not raw or is_past(raw, before) then gone[#gone + 1] = ids[i] end
  end
  return gone
end
