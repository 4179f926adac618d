-- checks: argument checks and refusals shared by the operations.
--
-- The server has checked every argument before; the kernel checks again what would corrupt stock
-- if it were wrong, because a caller with a bug is still a caller.

local function whole(value, low, high)
  return type(value) == 'number' and value >= low and value <= high and value == floor(value)
end

local function invalid(field, message)
  return { INVALID, sequence, { field, message } }
end

-- Wanted lines are the last values of an operation, from its `first` one on: sku, location,
-- quantity each.  Returns an error, or nothing.
local function check_lines(flat, at, first, count)
  if flat[at + 1] ~= first + count * 3 then return invalid('lines', 'must be as many as they say') end
  for i = at + first, at + flat[at + 1] - 1, 3 do
    local sku, location, quantity = flat[i], flat[i + 1], flat[i + 2]
    if type(sku) ~= 'string' or sku == '' then return invalid('lines.sku', 'must be text') end
    if type(location) ~= 'string' then return invalid('lines.location', 'must be text') end
    if not whole(quantity, 1, UNITS_MAX) then
      return invalid('lines.quantity', 'must be a whole number from 1 to 1000000000')
    end
  end
end

-- The reservation, if it exists and the caller may act on it; else nil and the answer.
local function owned(id, principal, operator)
  local hold = live(id)
  if not hold then return nil, { UNKNOWN_RESERVATION, sequence, id } end
  if hold.principal ~= principal and operator ~= 1 then return nil, { NOT_OWNER, sequence, id } end
  return hold
end

-- Why a reservation that has ended cannot be acted on.
local function ended_answer(hold)
  local code = RESERVATION_RELEASED
  if has(hold.flags, SUPERSEDED) then
    code = RESERVATION_SUPERSEDED
  elseif hold.state == 'X' then
    code = RESERVATION_EXPIRED
  elseif hold.state == 'C' then
    code = RESERVATION_COMMITTED
  end
  return { code, sequence, raws[hold.id] }
end

-- STOCK_CHANGED when an item of the lines moved after what the caller had seen; 0 = no check.
local function changed_since(seen, lines, stride)
  if seen <= 0 then return nil end
  local stale
  for i = 1, #lines, stride do
    local item = item_of(lines[i])
    if item.revision > seen then
      stale = stale or {}
      local n = #stale
      stale[n + 1], stale[n + 2], stale[n + 3], stale[n + 4], stale[n + 5] =
        lines[i], lines[i + 1], lines[i + 2], available_of(item), 0
    end
  end
  return stale
end

local function refuse(code, refused)
  return levels_into({ code, sequence, refused }, refused, 5)
end

local function replay(hold)
  return levels_into({ REPLAYED, sequence, raws[hold.id] }, hold.lines)
end

-- How many units the wanted lines (three values each) take of each line of a hold, in the order
-- of the hold's lines; or nil and the first line that asks for more than is held.  No wanted
-- lines means everything.
local function take(hold, flat, at, count)
  local lines, taken, index = hold.lines, {}, {}
  for i = 1, #lines, 4 do
    taken[#taken + 1] = count == 0 and lines[i + 2] or 0
    index[lines[i] .. US .. lines[i + 1]] = #taken
  end
  for i = at, at + count * 3 - 1, 3 do
    local k = index[flat[i] .. US .. flat[i + 1]]
    local held = k and lines[k * 4 - 1] or 0
    if not k or taken[k] + flat[i + 2] > held then
      return nil, { flat[i], flat[i + 1], flat[i + 2], held }
    end
    taken[k] = taken[k] + flat[i + 2]
  end
  return taken
end
