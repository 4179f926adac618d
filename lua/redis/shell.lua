-- shell: one batch against Redis or Valkey, as one atomic step.
--
-- KEYS: meta items holds expiry ended ledger skus
-- ARGV: epoch, known sequence, hold budget (units, 0 = none), retention ms, number of operations,
--   operations (msgpack, one flat list)
-- Answer: msgpack [now, sequence, more_due, outcomes]; or the error ROLLBACK <epoch> <sequence>
--   when the epoch differs or the store is behind what the caller has seen.
--
-- Reads first, then the kernel, then one write phase.  Redis undoes nothing when a script fails,
-- so the write that can still fail comes first: XADD refuses an id that is not above the last.

--- @include "kernel/kernel"

local CHUNK = 4000   -- unpack() passes at most 7990 values

local function chunked(command, key, list)
  local size = #list
  if size == 0 then return end
  if size <= CHUNK then return redis.call(command, key, spread(list)) end
  for first = 1, size, CHUNK do
    local last = first + CHUNK - 1 < size and first + CHUNK - 1 or size
    redis.call(command, key, spread(list, first, last))
  end
end

local function read_fields(key, fields, values)
  local size = #fields
  for first = 1, size, CHUNK do
    local last = first + CHUNK - 1 < size and first + CHUNK - 1 or size
    local part = redis.call('HMGET', key, spread(fields, first, last))
    for i = 1, #part do values[fields[first + i - 1]] = part[i] end
  end
end

-- Ids of reservations that ended by `before`, and how many elements of the list they are: at most
-- two a call, because two pops for at most one push always catch up.  An element is a time (<d)
-- and the ids that ended then.  An id stands there twice when its reservation committed after it
-- had expired; the records of the time up to the last such commit are read, so that the first
-- mention does not purge what the second one keeps.
local function overdue(before, last_late)
  local ids, pops = {}, 0
  for i = 0, 1 do
    local element = redis.call('LINDEX', KEYS[5], i)
    local time = element and unpack_bytes('<d', element)
    if not time or time > before then break end
    local batch = cmsgpack.unpack(sub(element, 9))
    if time <= last_late then read_fields(KEYS[3], batch, raws) end
    for k = 1, #batch do ids[#ids + 1] = batch[k] end
    pops = pops + 1
  end
  return ids, pops
end

local function clock_ms(stored)
  local time = redis.call('TIME')
  local ms = time[1] * 1000 + floor(time[2] / 1000)
  return ms > stored and ms or stored
end

local function note_expiries()
  if #short == 0 then return end
  local ids = redis.call('ZRANGE', KEYS[4], format('(%.0f', now), '+inf', 'BYSCORE', 'LIMIT', 0,
    SOONEST_MAX)
  local missing = {}
  for i = 1, #ids do if raws[ids[i]] == nil then missing[#missing + 1] = ids[i] end end
  read_fields(KEYS[3], missing, raws)
  fill_next_expiry(ids)
end

local function write(epoch, first)
  local written = changed_rows()
  redis.call('XADD', KEYS[6], format('%.0f-0', sequence), 'e',
    cmsgpack.pack({ 1, epoch, now, first, events, written }))
  local clock = format('%.0f', now)
  redis.call('HSET', KEYS[1], 'sequence', format('%.0f', sequence), 'clock', clock)
  if has_late then redis.call('HSET', KEYS[1], 'last_late', clock) end
  chunked('HSET', KEYS[2], written)
  chunked('HSET', KEYS[3], changed_holds)
  for i = 1, #expiry, 2 do expiry[i] = format('%.0f', expiry[i]) end
  chunked('ZADD', KEYS[4], expiry)
  if #ended > 0 then
    redis.call('RPUSH', KEYS[5], pack_bytes('<d', now) .. cmsgpack.pack(ended))
  end
  chunked('ZADD', KEYS[7], fresh)
end

local function purge(ids, pops, before)
  if pops == 0 then return end
  redis.call('LPOP', KEYS[5], pops)
  chunked('HDEL', KEYS[3], past(ids, before))
end

local function execute()
  bind()
  local meta = redis.call('HMGET', KEYS[1], 'epoch', 'sequence', 'clock', 'last_late')
  local stored = tonumber(meta[2] or 0)
  if meta[1] ~= ARGV[1] or stored < tonumber(ARGV[2]) then
    return redis.error_reply('ROLLBACK ' .. (meta[1] or '0') .. ' ' .. format('%.0f', stored))
  end
  local flat = cmsgpack.unpack(ARGV[6])
  local time, limit = clock_ms(tonumber(meta[3] or 0)), SWEEP_BASE + tonumber(ARGV[5])
  local due = redis.call('ZRANGE', KEYS[4], '-inf', format('%.0f', time), 'BYSCORE', 'LIMIT', 0,
    limit)
  local ids = plan_holds(flat, due)
  begin({ now = time, sequence = stored, budget = tonumber(ARGV[3]), more_due = #due == limit })
  read_fields(KEYS[3], ids, raws)
  read_fields(KEYS[2], plan_rows(flat, ids), rows)
  local before = time - tonumber(ARGV[4])
  local old, pops = overdue(before, tonumber(meta[4] or 0))
  local outs = decide(flat, due)
  note_expiries()
  if sequence > stored then write(tonumber(meta[1]), stored + 1) end
  chunked('ZREM', KEYS[4], unexpiry)
  purge(old, pops, before)
  return cmsgpack.pack({ now, sequence, more_due, outs })
end
