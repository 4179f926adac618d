-- moves: the one place where units change hands.
--
-- A line of a reservation moves between held and committed on every account that counts it: the
-- item, its location when the line names one, the channel when the item has a quota for it.  A line
-- that moves nothing leaves the item's revision alone.

local function move_line(hold, sku, location, held, committed, backordered, owed)
  if held == 0 and committed == 0 then return end
  local item = item_of(sku)
  item.held, item.committed = item.held + held, item.committed + committed
  item.backordered, item.owed = item.backordered + backordered, item.owed + owed
  touch(item)
  if held + committed ~= 0 then follow(item, held + committed) end
  if location ~= '' then
    local place = place_of(sku .. US .. location)
    place.held, place.committed = place.held + held, place.committed + committed
    touch(place)
  end
  if hold.channel ~= '' then count_channel(item, hold.channel, hold.created, held + committed) end
end

local function charge_budget(hold, units)
  if has(hold.flags, BUDGETED) then
    local account = budget_of(hold.principal)
    account.held = account.held + units
    touch(account)
  end
end

local function units_of(lines)
  local units = 0
  for i = 3, #lines, 4 do units = units + lines[i] end
  return units
end

-- Give back everything a live hold still holds.  Its lines keep their quantities: they say what
-- was held when it ended.
local function give_back(hold)
  local lines = hold.lines
  for i = 1, #lines, 4 do
    move_line(hold, lines[i], lines[i + 1], -lines[i + 2], 0, -lines[i + 3], 0)
  end
  charge_budget(hold, -units_of(lines))
end

local function finish(hold, state)
  hold.state, hold.ended = state, now
  unexpiry[#unexpiry + 1] = hold.id
  ended[#ended + 1] = hold.id
end

-- The levels that the decision left, one a line; lines of a hold are four values, refused ones five.
local function levels_into(out, lines, stride)
  for i = 1, #lines, stride or 4 do out[#out + 1] = level_of(item_of(lines[i])) end
  return out
end
