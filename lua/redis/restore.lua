-- restore: put the state that was built from the archive in the place of the store's, at once.
--
-- KEYS: meta fences ledger kept, then items holds expiry ended skus as they are, and as built
-- ARGV: role, token, epoch, sequence, clock, common, number of items' fields, number of holds
-- Answer: the epoch; FENCED for who no longer leads, UNFINISHED if what was built is not all there
--
-- The ledger goes on after the sequence.  What it had is kept until all of it is applied again.

--- @include "redis/fence"

local BUILT, COUNT = 9, 5

local refused = fenced(KEYS[2], ARGV[1], ARGV[2])
if refused then return refused end
local meta = redis.call('HMGET', KEYS[1], 'epoch', 'sealed')
local items, holds = redis.call('HLEN', KEYS[BUILT + 1]), redis.call('HLEN', KEYS[BUILT + 2])
if meta[1] ~= ARGV[3] or meta[2] ~= 'building' or items ~= tonumber(ARGV[7])
  or holds ~= tonumber(ARGV[8]) then
  return redis.error_reply('UNFINISHED what was built is not all there')
end

local function move(from, to)
  redis.call('UNLINK', to)
  if redis.call('EXISTS', from) == 1 then redis.call('RENAME', from, to) end
end

move(KEYS[3], KEYS[4])
for i = 1, COUNT do move(KEYS[BUILT + i], KEYS[BUILT - COUNT + i]) end
redis.call('HSET', KEYS[1], 'sequence', ARGV[4], 'archived', ARGV[4],
  'archived_epoch', ARGV[3], 'clock', ARGV[5],
  'last_late', ARGV[5], 'schema', '1', 'sealed', 'applying', 'common', ARGV[6])
return ARGV[3]
