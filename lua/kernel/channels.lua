-- channels: the quota of each sales channel on one item.
--
-- A quota bounds what the channel may have held plus committed.  It counts the claims made since
-- it was set (`since`, ms): older holds end without being counted, so `used` never goes below 0.

local function channels_of(item)
  if not item.channels then
    local list = {}
    local text = sub(item.rest, LEVEL_SIZE - HEAD_SIZE + 1)
    local title_end = find(text, GS, 1, true)
    local owner_end = find(text, GS, title_end + 1, true)
    for name, quota, used, since in gmatch(sub(text, owner_end + 1),
      '([^\31]*)\31(%d+)\31(%d+)\31(%d+)\30') do
      list[#list + 1] = {
        name = name, quota = tonumber(quota), used = tonumber(used), since = tonumber(since),
      }
    end
    item.title, item.owner = sub(text, 1, title_end - 1), sub(text, title_end + 1, owner_end - 1)
    item.channels = list
  end
  return item.channels
end

local function channel_of(item, name)
  if name == '' or policy_of(item).quotas == 0 then return nil end
  local list = channels_of(item)
  for i = 1, #list do
    if list[i].name == name then return list[i] end
  end
end

-- Put policy, texts and quotas back into the stored form.
local function rebuild(item)
  local list = channels_of(item)
  local parts = {}
  for i = 1, #list do
    local channel = list[i]
    parts[i] = concat({ channel.name, format('%d', channel.quota), format('%d', channel.used),
      format('%.0f', channel.since) }, US) .. RS
  end
  item.quotas = #list
  item.rest = pack_bytes(POLICY, item.safety, item.oversell, item.share, item.plenty, item.low,
    item.scarce, item.ttl, item.ttl_max, item.lifetime, item.late, item.horizon, item.quotas)
    .. item.title .. GS .. item.owner .. GS .. concat(parts)
end

local function count_channel(item, name, created, units)
  local channel = channel_of(item, name)
  if channel and created >= channel.since then
    channel.used = channel.used + units
    if channel.used < 0 then channel.used = 0 end
    rebuild(item)
  end
end
