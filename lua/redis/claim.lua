#!lua
-- claim: take the next fencing token of a role.
--
-- KEYS: fences      ARGV: role
-- Answer: the token, above every one before it
--
-- It stands in the cell that it protects, so one master's serial order decides who leads: whoever
-- claimed before is refused from here on, however late it wakes up (lua/redis/fence.lua).

return redis.call('HINCRBY', KEYS[1], ARGV[1], 1)
