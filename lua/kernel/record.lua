-- record: how items, stock at a location and reservations are stored, as bytes.
--
-- item row      <i4 x 5 d d   on_hand held committed backordered owed, revision, demand_at (ms)
--               <i4 x 3       demand damped cover, see outlook.lua                   (48 bytes)
--               <i4 x 12      safety_stock oversell_limit oversell_share plenty_at low_at
--                             scarce_at hold_ttl_default hold_ttl_max hold_lifetime_max (ms)
--                             late_commit sellout_horizon (ms) quota count           (48 bytes)
--               text          title GS system_of_record GS (channel US quota US used RS)*
--               The first 96 bytes are the level that every answer carries.
-- location row  <i4i4i4d      on_hand held committed revision; field `sku US location`
-- budget row    <i4           units held by one principal;     field `US principal`
-- reservation   <c1BBddddB    state flags override-count sequence created expires ended note-size
--               <i4i4 x n     quantity, backordered per line, where they differ from the request
--               text          note (order_ref, the replacing id, or the last partial release)
--               text          the request: principal GS channel GS (sku US quantity US location
--                             RS)* GS whatever else was asked
-- request       <c1d          'A' and the sequence, then the request as text
--
-- The request text is made once by the caller and never changes, so "the same payload" is
-- "the same text".  backordered counts units promised beyond stock, owed those of them already
-- committed.  i4 wraps silently, therefore every number is bounded before it gets here.

local HEAD, POLICY, PLACE = '<i4i4i4i4i4ddi4i4i4', '<i4i4i4i4i4i4i4i4i4i4i4i4', '<i4i4i4d'
local HOLD, LINE, REQUEST = '<c1BBddddB', '<i4i4', '<c1d'
local HEAD_SIZE, LEVEL_SIZE, HOLD_SIZE, NOTE_SIZE_MAX = 48, 96, 36, 255

-- Raises for what is no text, where a number would be taken for one.
local function length_of(a, b, c)
  return #a + #b + #c
end

local function decode_item(sku, raw)
  local on_hand, held, committed, backordered, owed, revision, demand_at, demand, damped, cover =
    unpack_bytes(HEAD, raw)
  return {
    sku = sku, on_hand = on_hand, held = held, committed = committed,
    backordered = backordered, owed = owed, revision = revision, demand_at = demand_at,
    demand = demand, damped = damped, cover = cover, rest = sub(raw, HEAD_SIZE + 1),
  }
end

-- The policy is decoded only for operations that need it; a plain commit does not.
local function policy_of(item)
  if not item.safety then
    item.safety, item.oversell, item.share, item.plenty, item.low, item.scarce, item.ttl,
      item.ttl_max, item.lifetime, item.late, item.horizon, item.quotas =
      unpack_bytes(POLICY, item.rest)
  end
  return item
end

local function head_of(item)
  return pack_bytes(HEAD, item.on_hand, item.held, item.committed, item.backordered, item.owed,
    item.revision, item.demand_at, item.demand, item.damped, item.cover)
end

local function encode_item(item)
  return head_of(item) .. item.rest
end

local function level_of(item)
  return head_of(item) .. sub(item.rest, 1, LEVEL_SIZE - HEAD_SIZE)
end

local function available_of(item)
  return item.on_hand - item.held - item.committed - policy_of(item).safety
end

-- Units that may still be sold beyond available; `available` is passed in as it was just worked out.
local function oversell_left(item, available)
  local allowance = item.oversell
  if item.share > 0 then
    local share = floor(item.on_hand * item.share / 100)
    if share < allowance then allowance = share end
  end
  if available < 0 then allowance = allowance + available end
  return allowance > 0 and allowance or 0
end

local function deficit_of(item)
  local missing = item.held + item.committed - item.backordered - item.on_hand
  return missing > 0 and missing or 0
end

-- Lines are one flat list with four values a line: sku, location, quantity, backordered.
local function decode_hold(id, raw)
  local state, flags, overrides, sequence, created, expires, ended, note_size = unpack_bytes(HOLD, raw)
  local text = HOLD_SIZE + overrides * 8 + note_size + 1
  local principal_end = find(raw, GS, text, true)
  local channel_end = find(raw, GS, principal_end + 1, true)
  local lines_end = find(raw, GS, channel_end + 1, true)
  local lines, n = {}, 0
  for sku, quantity, location in gmatch(sub(raw, channel_end + 1, lines_end - 1),
    '([^\31]*)\31(%d+)\31([^\30]*)\30') do
    lines[n + 1], lines[n + 2], lines[n + 3], lines[n + 4] = sku, location, tonumber(quantity), 0
    n = n + 4
  end
  for i = 1, overrides do
    lines[i * 4 - 1], lines[i * 4] = unpack_bytes(LINE, raw, HOLD_SIZE + i * 8 - 7)
  end
  return {
    id = id, state = state, flags = flags, sequence = sequence, created = created,
    expires = expires, ended = ended, note = sub(raw, text - note_size, text - 1),
    request = sub(raw, text), lines = lines, whole = overrides == 0,
    principal = sub(raw, text, principal_end - 1),
    channel = sub(raw, principal_end + 1, channel_end - 1),
  }
end

local function encode_hold(hold)
  local lines, overrides, count = hold.lines, '', 0
  if #hold.note > NOTE_SIZE_MAX then error('a note is longer than its size can say') end
  if not hold.whole then
    local parts = {}
    for i = 1, #lines, 4 do
      count = count + 1
      parts[count] = pack_bytes(LINE, lines[i + 2], lines[i + 3])
    end
    overrides = concat(parts)
  end
  return pack_bytes(HOLD, hold.state, hold.flags, count, hold.sequence, hold.created, hold.expires,
    hold.ended, #hold.note) .. overrides .. hold.note .. hold.request
end

-- Whether a record may go: a request, or a reservation that ended by `before` and was not changed
-- (committed late) since.
local function is_past(raw, before)
  if sub(raw, 1, 1) == 'A' then return true end
  local state, _, _, _, _, _, ended = unpack_bytes(HOLD, raw)
  return state ~= 'H' and ended <= before
end

-- Reservation flags are few, so arithmetic does for bits on every Lua.
local function has(flags, bit)
  return floor(flags / bit) % 2 == 1
end
