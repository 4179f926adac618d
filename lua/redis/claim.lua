#!lua
-- claim: take the next fencing token of a role.
--
-- KEYS: fences      ARGV: role
-- Answer: the token, above every one before it
--
-- It stands in the cell that it protects, so one master's serial order decides who leads: whoever
-- claimed before is refused from here on, however late it wakes up (lua/redis/fence.lua).  It is
-- the store's clock in ms, or one more than the last: new even after everything was wiped, when a
-- count from one would give a leader of before its own number again.

local time = redis.call('TIME')
local ms = time[1] * 1000 + math.floor(time[2] / 1000)
local old = tonumber(redis.call('HGET', KEYS[1], ARGV[1]) or 0)
local token = string.format('%.0f', ms > old and ms or old + 1)
redis.call('HSET', KEYS[1], ARGV[1], token)
return token
