-- What every script begins with.
-- item:<sku>  hash on_hand, held, sold        due:<sku>  zset of "units:id" by the hold's expiry
-- hold:<id>   hash state, lines (JSON), created, expires, ended
-- Answer: JSON {status, now, levels [[sku, on_hand, held, sold]], hold [state, lines, created, expires, ended]}

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- Give back what due holds of an item have; return its level, or nil for an unknown SKU.
local function level_of(sku, now)
  local item = redis.call('HMGET', 'item:' .. sku, 'on_hand', 'held', 'sold')
  if not item[1] then
    return nil
  end
  local due = redis.call('ZRANGEBYSCORE', 'due:' .. sku, '-inf', now)
  local freed = 0
  for _, member in ipairs(due) do
    freed = freed + tonumber(string.match(member, '^%d+'))
    redis.call('ZREM', 'due:' .. sku, member)
  end
  if freed > 0 then
    redis.call('HINCRBY', 'item:' .. sku, 'held', -freed)
  end
  return { sku, tonumber(item[1]), tonumber(item[2]) - freed, tonumber(item[3]) }
end

local function hold_of(id)
  local hold = redis.call('HMGET', 'hold:' .. id, 'state', 'lines', 'created', 'expires', 'ended')
  if not hold[1] then
    return nil
  end
  return { hold[1], hold[2], tonumber(hold[3]), tonumber(hold[4]), tonumber(hold[5]) }
end

local function answer(status, now, levels, hold)
  return cjson.encode({ status = status, now = now, levels = levels, hold = hold })
end
