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
