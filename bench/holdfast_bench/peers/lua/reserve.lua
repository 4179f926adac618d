-- ARGV: id, lines as JSON [[sku, units]] in order of SKU, ttl_ms

local id, payload, now = ARGV[1], ARGV[2], now_ms()
local lines, levels, is_short = cjson.decode(payload), {}, false

for index, line in ipairs(lines) do
  local level = level_of(line[1], now)
  if not level then
    return answer('unknown_sku', now)
  end
  is_short = is_short or level[2] - level[3] - level[4] < line[2]
  levels[index] = level
end

local before = hold_of(id)
if before then
  return answer(before[2] == payload and 'replayed' or 'reused', now, levels, before)
end
if is_short then
  return answer('refused', now, levels)
end

local expires = now + tonumber(ARGV[3])
for index, line in ipairs(lines) do
  redis.call('HINCRBY', 'item:' .. line[1], 'held', line[2])
  redis.call('ZADD', 'due:' .. line[1], expires, line[2] .. ':' .. id)
  levels[index][3] = levels[index][3] + line[2]
end
redis.call('HSET', 'hold:' .. id, 'state', 'held', 'lines', payload, 'created', now, 'expires', expires, 'ended', 0)
return answer('granted', now, levels, { 'held', payload, now, expires, 0 })
