#!lua
-- give_back: end a lock that is one's own.
--
-- KEYS: lock        ARGV: the owner's random value
-- Answer: 1 ended, 0 it had expired, -1 it is another's

local owner = redis.call('GET', KEYS[1])
if not owner then return 0 end
if owner ~= ARGV[1] then return -1 end
redis.call('DEL', KEYS[1])
return 1
