-- grant: what may be had now, and why not more.
--
-- Used by reserve, and by a commit that takes the units of an expired hold again.  Nothing here
-- changes a counter for good: what is tallied or lent is taken back before the operation decides.

-- Add units to the counters that `grant` reads, or take them off again.
local function tally(sku, location, units)
  local item = item_of(sku)
  item.held = item.held + units
  if location ~= '' then
    local place = place_of(sku .. US .. location)
    place.held = place.held + units
  end
end

-- Lend the units of a hold to the reservation that would replace it, or take them back.
local function lend(hold, sign)
  local lines = hold.lines
  for i = 1, #lines, 4 do
    tally(lines[i], lines[i + 1], sign * lines[i + 2])
    local quota = channel_of(item_of(lines[i]), hold.channel)
    if quota and hold.created >= quota.since then quota.used = quota.used + sign * lines[i + 2] end
  end
  if has(hold.flags, BUDGETED) then
    local account = budget_of(hold.principal)
    account.held = account.held + sign * units_of(lines)
  end
end

-- What a line may get: units from stock, and units beyond it, given what is free now.
local function grant(item, location, quantity, flags)
  local free = available_of(item)
  local left = has(flags, ALLOW_BACKORDER) and oversell_left(item, free) or 0
  if location ~= '' then
    local place = place_of(item.sku .. US .. location)
    local here = place.on_hand - place.held - place.committed
    if here < free then free = here end
  end
  local stock = free > 0 and free or 0
  if quantity <= stock then return quantity, 0, free end
  if quantity <= stock + left then return quantity, quantity - stock, free end
  if has(flags, ALLOW_PARTIAL) then return stock + left, left, free end
  return nil, 0, free
end

local function refuse_line(refused, line, at, free)
  local n = #refused
  refused[n + 1], refused[n + 2], refused[n + 3], refused[n + 4], refused[n + 5] =
    line[at], line[at + 1], line[at + 2], free, 0
end

-- What every line gets, in the layout of a hold's lines; or nil and the refused lines, five values
-- each.  Lines of one SKU at several locations draw on the same stock, so each is counted while
-- the next is judged; the counters are left as they were.  Without flags each item's late_commit
-- policy says whether units beyond stock will do.
local function grant_lines(lines, flags)
  local granted, total, frees, refusing = {}, 0, {}, false
  for i = 1, #lines, 4 do
    local sku, location = lines[i], lines[i + 1]
    local item = item_of(sku)
    local allowed = flags or policy_of(item).late == LATE_REVIEW and ALLOW_BACKORDER or 0
    local units, beyond, free = grant(item, location, lines[i + 2], allowed)
    refusing = refusing or not units
    granted[i], granted[i + 1], granted[i + 2], granted[i + 3] = sku, location, units or -1, beyond
    frees[i] = free
    if units then
      tally(sku, location, units)
      total = total + units
    end
  end
  for i = 1, #granted, 4 do
    if granted[i + 2] > 0 then tally(granted[i], granted[i + 1], -granted[i + 2]) end
  end
  if not refusing and total > 0 then return granted end
  local refused = {}
  for i = 1, #lines, 4 do
    if granted[i + 2] <= 0 then
      refuse_line(refused, lines, i, frees[i])
      if item_of(lines[i]).held > 0 then short[#short + 1] = { refused, #refused, lines[i] } end
    end
  end
  return nil, refused
end

-- The lines whose channel has used up its quota of the item; a claim made before the quota was set
-- is not bound by it.
local function over_quota(lines, channel, created)
  if channel == '' then return nil end
  local wanted, refused = {}, {}
  for i = 1, #lines, 4 do
    local quota = channel_of(item_of(lines[i]), channel)
    if quota and created >= quota.since then
      local sku = lines[i]
      wanted[sku] = (wanted[sku] or 0) + lines[i + 2]
      if quota.used + wanted[sku] > quota.quota then
        refuse_line(refused, lines, i, quota.quota - quota.used)
      end
    end
  end
  return refused[1] and refused
end

-- All lines, when together they are more than the principal may still hold.
local function over_budget(lines, principal)
  if budget == 0 then return nil end
  local left = budget - budget_of(principal).held
  if units_of(lines) <= left then return nil end
  local refused = {}
  for i = 1, #lines, 4 do refuse_line(refused, lines, i, left) end
  return refused
end

-- Whether the lines got all that they asked for, and from stock.
local function is_same(lines, granted)
  for i = 3, #lines, 4 do
    if lines[i] ~= granted[i] or granted[i + 1] > 0 then return false end
  end
  return true
end
