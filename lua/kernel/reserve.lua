-- reserve: hold 1..100 lines, all or nothing, or as much as there is when the caller allows it.
--
-- Operation: 1 size id principal ttl flags if_sequence replaces channel request n (sku location
-- quantity)*, where ttl 0 = the smallest default of the items, flags = ALLOW_PARTIAL +
-- ALLOW_BACKORDER, replaces '' = nothing; each (sku, location) occurs once.
-- Order of checks: arguments, unknown SKU, reused id, limits of the items, replaced reservation,
-- if_sequence, hold budget, channel quota, stock.  A replay answers before limits that may have
-- changed since.  While overdue holds are left to end, less than all that was asked is AGAIN:
-- what they still hold may be the units, the quota or the budget that is missing.

local FLAGS = { [0] = true, [1] = true, [2] = true, [3] = true }

local function unknown_skus(flat, at, count)
  local missing
  for i = at, at + count * 3 - 1, 3 do
    if not item_of(flat[i]) then
      missing = missing or {}
      missing[#missing + 1] = flat[i]
    end
  end
  return missing and { UNKNOWN_SKU, sequence, missing }
end

-- The time to live that the items allow; or nil and the answer.
local function ttl_for(ttl, lines)
  local default, longest
  for i = 1, #lines, 4 do
    local item = policy_of(item_of(lines[i]))
    if not default or item.ttl < default then default = item.ttl end
    if not longest or item.ttl_max < longest then longest = item.ttl_max end
  end
  if ttl == 0 then return default end
  if ttl > longest then
    return nil, invalid('ttl', format('must be at most %.3f s, the hold_ttl_max of its items',
      longest / 1000))
  end
  return ttl
end

-- The reservation that a new one replaces, or the answer that forbids it.  One that has expired or
-- was released is returned too: it must not commit late beside its successor.  Nothing has two
-- successors: whoever lost the answer of the first one would hold the units twice.
local function replaced(id, principal)
  if id == '' then return nil end
  local old, answer = owned(id, principal, 0)
  if old and (old.state == 'C' or has(old.flags, SUPERSEDED)) then return nil, ended_answer(old) end
  return old, answer
end

local function supersede(old, id)
  local was_live = old.state == 'H'
  sequence = sequence + 1
  if was_live then
    give_back(old)
    finish(old, 'R')
  end
  old.flags, old.note = old.flags + SUPERSEDED, id
  save_hold(old, SUPERSEDE, not was_live and '', '')
end

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

local function over_budget(lines, principal)
  if budget == 0 then return nil end
  local left = budget - budget_of(principal).held
  if units_of(lines) <= left then return nil end
  local refused = {}
  for i = 1, #lines, 4 do refuse_line(refused, lines, i, left) end
  return refused
end

local function judge(op, lines)
  local refused = over_budget(lines, op.principal)
  if refused then return HOLD_BUDGET, refused end
  refused = over_quota(lines, op.channel, now)
  if refused then return CHANNEL_QUOTA, refused end
  local granted
  granted, refused = grant_lines(lines, op.flags)
  if granted then return nil, granted end
  return OUT_OF_STOCK, refused
end

local function is_same(lines, granted)
  for i = 3, #lines, 4 do
    if lines[i] ~= granted[i] or granted[i + 1] > 0 then return false end
  end
  return true
end

-- The refusal, if any, and what is granted.  Runs while the units of the replaced hold are free.
local function decide_grant(op, lines)
  local stale = changed_since(op.if_sequence, lines, 4)
  if stale then return STOCK_CHANGED, stale end
  local refusal, granted = judge(op, lines)
  if more_due and (refusal or not is_same(lines, granted)) then return AGAIN, false end
  return refusal, granted
end

local function hold_lines(op, lines, granted, ttl)
  sequence = sequence + 1
  local hold = {
    id = op.id, state = 'H', flags = budget > 0 and BUDGETED or 0, created = now,
    expires = now + ttl, ended = 0, note = '', request = op.request, lines = granted,
    whole = is_same(lines, granted), principal = op.principal, channel = op.channel,
  }
  for i = 1, #granted, 4 do
    local beyond = granted[i + 3]
    move_line(hold, granted[i], granted[i + 1], granted[i + 2], 0, beyond, 0)
  end
  charge_budget(hold, units_of(granted))
  holds[op.id] = hold
  expiry[#expiry + 1], expiry[#expiry + 2] = hold.expires, op.id
  return levels_into({ OK, sequence, save_hold(hold, RESERVE, false, '') }, granted)
end

local function read_reserve(flat, at)
  local lines, n = {}, 0
  for i = at + 11, at + 10 + flat[at + 10] * 3, 3 do
    lines[n + 1], lines[n + 2], lines[n + 3], lines[n + 4] = flat[i], flat[i + 1], flat[i + 2], 0
    n = n + 4
  end
  return {
    id = flat[at + 2], principal = flat[at + 3], ttl = flat[at + 4], flags = flat[at + 5],
    if_sequence = flat[at + 6], replaces = flat[at + 7], channel = flat[at + 8],
    request = flat[at + 9],
  }, lines
end

local function check_reserve(flat, at)
  local count, ttl = flat[at + 10], flat[at + 4]
  if not whole(count, 1, LINES_MAX) then return invalid('lines', 'must number 1 to 100') end
  if ttl ~= 0 and not whole(ttl, TTL_MIN_MS, TTL_MAX_MS) then
    return invalid('ttl', 'must be from 0.1 s to 24 h')
  end
  if flat[at + 7] == flat[at + 2] then
    return invalid('replaces', 'must differ from reservation_id')
  end
  if not FLAGS[flat[at + 5]] then return invalid('flags', 'must be known') end
  length_of(flat[at + 7], flat[at + 8], flat[at + 9])
  return check_lines(flat, at, 11, count) or unknown_skus(flat, at + 11, count)
end

local function reserve(flat, at)
  local failed = check_reserve(flat, at)
  if failed then return failed end
  local op, lines = read_reserve(flat, at)
  local existing = live(op.id)
  if existing then
    if existing.request == op.request then return replay(existing) end
    return { RESERVATION_ID_REUSED, sequence, op.id }
  end
  local ttl, old
  ttl, failed = ttl_for(op.ttl, lines)
  if ttl then old, failed = replaced(op.replaces, op.principal) end
  if failed then return failed end
  local free_old = old and old.state == 'H'
  if free_old then lend(old, -1) end
  local refusal, granted = decide_grant(op, lines)
  if free_old then lend(old, 1) end
  if refusal then return levels_into({ refusal, sequence, granted }, lines) end
  if old then supersede(old, op.id) end
  return hold_lines(op, lines, granted, ttl)
end
