-- unseal: let servers write again, when all that the store had is applied.
--
-- KEYS: meta fences kept
-- ARGV: role, token, epoch
-- Answer: the epoch; FENCED for who no longer leads, ROLLBACK for another history

--- @include "redis/fence"

local refused = fenced(KEYS[2], ARGV[1], ARGV[2])
if refused then return refused end
local meta = redis.call('HMGET', KEYS[1], 'epoch', 'sequence')
if meta[1] ~= ARGV[3] then
  return redis.error_reply('ROLLBACK ' .. (meta[1] or '0') .. ' ' .. (meta[2] or '0'))
end
redis.call('HDEL', KEYS[1], 'sealed', 'common')
redis.call('UNLINK', KEYS[3])
return ARGV[3]
