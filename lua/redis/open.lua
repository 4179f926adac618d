#!lua
-- open: join the cell's history, or start one.
--
-- KEYS: meta
-- ARGV: the epoch to leave behind, or '' to leave none
-- Answer: [epoch, sequence, schema, sealed], where sealed is nil unless the store is being rebuilt
--
-- A new epoch begins when there is none yet, or when the caller leaves the current one because
-- history was lost.  It is the store's clock in ms, so it is new even after everything was wiped.

local epoch = redis.call('HGET', KEYS[1], 'epoch')
if not epoch or epoch == ARGV[1] then
  local time = redis.call('TIME')
  local ms = time[1] * 1000 + math.floor(time[2] / 1000)
  local old = tonumber(epoch or 0)
  epoch = string.format('%.0f', ms > old and ms or old + 1)
  redis.call('HSET', KEYS[1], 'epoch', epoch)
  redis.call('HSETNX', KEYS[1], 'sequence', '0')
  redis.call('HSETNX', KEYS[1], 'schema', '1')
end
return redis.call('HMGET', KEYS[1], 'epoch', 'sequence', 'schema', 'sealed')
