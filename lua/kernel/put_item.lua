-- put_item: create an item, or change its policy.
--
-- Operation: 7 size id request note sku safety_stock oversell_limit oversell_share plenty_at
-- low_at scarce_at ttl ttl_max lifetime late_commit sellout_horizon title system_of_record
-- channels; false keeps what the item has, or its default when it is new.  channels: (name US quota
-- RS)*, where a quota of '-' removes the channel's.

local function repeated(id, request)
  local record = raws[id]
  if not record then return nil end
  if sub(record, 10) == request then return REPLAYED end
  return RESERVATION_ID_REUSED
end

local put_item

do   -- what only put_item needs

local DEFAULTS = { 0, 0, 0, 100, 5, 3, 10000, 900000, 7200000, 1, 30000 }
local LIMITS = {
  { 'safety_stock', 0, UNITS_MAX }, { 'oversell_limit', 0, UNITS_MAX },
  { 'oversell_share', 0, 100 }, { 'plenty_at', 0, UNITS_MAX }, { 'low_at', 0, UNITS_MAX },
  { 'scarce_at', 0, UNITS_MAX }, { 'hold_ttl_default', TTL_MIN_MS, TTL_MAX_MS },
  { 'hold_ttl_max', TTL_MIN_MS, TTL_MAX_MS },
  { 'hold_lifetime_max', TTL_MIN_MS, LIFETIME_MAX_MS },
  { 'late_commit', 1, 3 }, { 'sellout_horizon', 0, HORIZON_MAX_MS },
}

local function new_item(sku)
  local policy = pack_bytes(POLICY, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
  return {
    sku = sku, on_hand = 0, held = 0, committed = 0, backordered = 0, owed = 0, revision = 0,
    demand_at = now, demand = 0, damped = 0, cover = COVER_MAX_MS,
    rest = policy .. GS .. GS, is_new = true,
  }
end

-- The quotas with the changes of `text`, or nil and the answer.
local function merge_channels(item, text)
  local list, at, kept = {}, {}, {}
  for i, channel in ipairs(channels_of(item)) do list[i], at[channel.name] = channel, i end
  for name, quota in gmatch(text, '([^\31]*)\31([^\30]*)\30') do
    local units, i = tonumber(quota), at[name] or #list + 1
    if name == '' or quota ~= '-' and not whole(units, 0, UNITS_MAX) then
      return nil, invalid('item.channels', 'must have a name, and a quota from 0 to 1000000000')
    end
    local old = list[i] or { used = 0, since = now }
    at[name] = i
    list[i] = units and { name = name, quota = units, used = old.used, since = old.since } or false
  end
  for i = 1, #list do if list[i] then kept[#kept + 1] = list[i] end end
  if #kept <= CHANNELS_MAX then return kept end
  return nil, invalid('item.channels', format('must number at most %d', CHANNELS_MAX))
end

-- The new policy as a list in stored order, or an error.
local function merge_policy(item, flat, at)
  local old = { item.safety, item.oversell, item.share, item.plenty, item.low, item.scarce,
    item.ttl, item.ttl_max, item.lifetime, item.late, item.horizon }
  local merged = {}
  for i = 1, #LIMITS do
    local value = flat[at + i - 1]
    if value == false then value = item.is_new and DEFAULTS[i] or old[i] end
    if not whole(value, LIMITS[i][2], LIMITS[i][3]) then
      return nil, invalid('item.' .. LIMITS[i][1], format('must be from %.0f to %.0f',
        LIMITS[i][2], LIMITS[i][3]))
    end
    merged[i] = value
  end
  if merged[6] > merged[5] or merged[5] > merged[4] then
    return nil, invalid('item.low_at', 'must satisfy scarce_at <= low_at <= plenty_at')
  end
  if merged[7] > merged[8] or merged[8] > merged[9] then
    return nil, invalid('item.hold_ttl_max',
      'must satisfy hold_ttl_default <= hold_ttl_max <= hold_lifetime_max')
  end
  return merged
end

put_item = function(flat, at)
  local id, request, sku = flat[at + 2], flat[at + 3], flat[at + 5]
  local before = repeated(id, request)
  if before == REPLAYED then return { REPLAYED, sequence, false, level_of(item_of(sku)) } end
  if before then return { before, sequence, sub(id, 2) } end
  if type(sku) ~= 'string' or sku == '' then return invalid('item.sku', 'must be text') end
  local item = item_of(sku) or new_item(sku)
  local channels, failed = merge_channels(policy_of(item), flat[at + 19])
  if not channels then return failed end
  local merged
  merged, failed = merge_policy(item, flat, at + 6)
  if not merged then return failed end
  sequence = sequence + 1
  item.safety, item.oversell, item.share, item.plenty, item.low, item.scarce, item.ttl,
    item.ttl_max, item.lifetime, item.late, item.horizon = spread(merged)
  item.title = flat[at + 17] or item.title
  item.owner = flat[at + 18] or item.owner
  item.channels = channels
  rebuild(item)
  items[sku] = item
  touch(item)
  follow(item, 0)
  item.is_new = nil
  save_request(id, PUT_ITEM, sku, request, encode_item(item), flat[at + 4])
  return { OK, sequence, false, level_of(item) }
end

end
