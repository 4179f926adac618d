-- archived: note how far the ledger is archived, drop what need not be kept, and tell who waits.
--
-- KEYS: meta ledger fences channel
-- ARGV: role, token, epoch, archived sequence, entries to keep
-- Answer: the archived sequence; FENCED for who no longer leads, ROLLBACK for another history
--
-- A higher epoch than the archived is the store's after a recovery, until it has a new entry.
-- Nothing that is not archived is ever dropped: the sequence is that of the caller's transaction.

--- @include "redis/fence"

local refused = fenced(KEYS[3], ARGV[1], ARGV[2])
if refused then return refused end
local meta = redis.call('HMGET', KEYS[1], 'epoch', 'sequence')
if tonumber(meta[1] or 0) < tonumber(ARGV[3]) or tonumber(meta[2] or 0) < tonumber(ARGV[4]) then
  return redis.error_reply('ROLLBACK ' .. (meta[1] or '0') .. ' ' .. (meta[2] or '0'))
end
redis.call('HSET', KEYS[1], 'archived', ARGV[4], 'archived_epoch', ARGV[3])
local oldest = tonumber(ARGV[4]) - tonumber(ARGV[5]) + 1
if oldest > 1 then
  redis.call('XTRIM', KEYS[2], 'MINID', '~', string.format('%.0f-0', oldest))
end
redis.call('PUBLISH', KEYS[4], ARGV[3] .. ' ' .. ARGV[4])
return ARGV[4]
