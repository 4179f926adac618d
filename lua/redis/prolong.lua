#!lua
-- prolong: move the expiry of a lock that is still one's own.
--
-- KEYS: lock        ARGV: the owner's random value, the time to live in ms
-- Answer: 1 moved, 0 it had expired, -1 it is another's
--
-- One that has expired is not taken again: another may have led meanwhile.

local owner = redis.call('GET', KEYS[1])
if not owner then return 0 end
if owner ~= ARGV[1] then return -1 end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1
