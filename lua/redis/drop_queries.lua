-- drop_queries: drop the audit records that are archived.
--
-- KEYS: queries fences
-- ARGV: role, token, id of the last stream entry that is archived
-- Answer: entries dropped; FENCED for who no longer leads

--- @include "redis/fence"

local refused = fenced(KEYS[2], ARGV[1], ARGV[2])
if refused then return refused end
local first = redis.call('XRANGE', KEYS[1], '(' .. ARGV[3], '+', 'COUNT', 1)
-- Emptied and not deleted: the next id has to be above the last one, even in the same millisecond.
if #first == 0 then return redis.call('XTRIM', KEYS[1], 'MAXLEN', 0) end
return redis.call('XTRIM', KEYS[1], 'MINID', first[1][1])
