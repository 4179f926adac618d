-- seal: begin to rebuild the store from the archive, or go on with what a crash left.
--
-- KEYS: meta fences
-- ARGV: role, token, epoch of the archive
-- Answer: [epoch, phase, common], all text
--
-- The epoch is above every one before it, so that no server's batch is taken any more; and while
-- `sealed` stands, none adopts the new one (lua/redis/open.lua).  `building`: the state is the old
-- one.  `applying`: it is the archive's, and what the store had beyond `common` is applied again.

--- @include "redis/fence"

local refused = fenced(KEYS[2], ARGV[1], ARGV[2])
if refused then return refused end
local meta = redis.call('HMGET', KEYS[1], 'epoch', 'sealed', 'common')
if meta[2] == 'applying' then return { meta[1], meta[2], meta[3] } end
local time = redis.call('TIME')
local epoch = time[1] * 1000 + math.floor(time[2] / 1000)
for _, old in ipairs({ tonumber(meta[1] or 0), tonumber(ARGV[3]) }) do
  if epoch <= old then epoch = old + 1 end
end
local text = string.format('%.0f', epoch)
redis.call('HSET', KEYS[1], 'epoch', text, 'sealed', 'building')
return { text, 'building', '0' }
