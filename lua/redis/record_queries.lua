#!lua
-- record_queries: append audit records, once.
--
-- KEYS: queries, the server's own key
-- ARGV: number of the group, records (empty: append nothing), ms to remember the number
-- Answer: groups that wait to be archived
--
-- A group whose answer was lost is sent again; its number tells that it is there.  Both are written
-- in one step, so a store that forgets one has forgotten the other too.

local done = tonumber(redis.call('GET', KEYS[2]) or 0)
if ARGV[2] ~= '' and done < tonumber(ARGV[1]) then
  redis.call('XADD', KEYS[1], '*', 'e', ARGV[2])
  redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[3])
end
return redis.call('XLEN', KEYS[1])
