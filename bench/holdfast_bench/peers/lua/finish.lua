-- ARGV: id, the state to end in: committed or released

local id, state, now = ARGV[1], ARGV[2], now_ms()
local hold = hold_of(id)
if not hold then
  return answer('unknown', now)
end

local lines, levels = cjson.decode(hold[2]), {}
local is_replay = hold[1] == state
if not is_replay and hold[1] ~= 'held' then
  return answer(hold[1], now)
end
if not is_replay and hold[4] <= now then
  return answer('expired', now)
end

for index, line in ipairs(lines) do
  local sku, units = line[1], line[2]
  if not is_replay then
    redis.call('ZREM', 'due:' .. sku, units .. ':' .. id)
    redis.call('HINCRBY', 'item:' .. sku, 'held', -units)
    if state == 'committed' then
      redis.call('HINCRBY', 'item:' .. sku, 'sold', units)
    end
  end
  levels[index] = level_of(sku, now)
end
if is_replay then
  return answer('replayed', now, levels, hold)
end
redis.call('HSET', 'hold:' .. id, 'state', state, 'ended', now)
return answer('granted', now, levels, { state, hold[2], hold[3], hold[4], now })
