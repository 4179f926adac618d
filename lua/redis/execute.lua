-- execute: one batch against Redis or Valkey, as one atomic script.
--
-- KEYS: meta items holds expiry ended ledger skus
-- ARGV: epoch, known sequence, hold budget (units, 0 = none), retention ms, number of operations,
--   operations (msgpack, one flat list)
-- Answer: msgpack [now, sequence, more_due, outcomes]; or the error ROLLBACK <epoch> <sequence>
--   when the epoch differs or the store is behind what the caller has seen.
--
-- Reads first, then the kernel, then one write phase.  Redis undoes nothing when a script fails,
-- so the write that can still fail comes first: XADD refuses an id that is not above the last.

--- @include "kernel/env"
--- @include "kernel/codes"
--- @include "kernel/record"
--- @include "kernel/batch_state"
--- @include "kernel/channels"
--- @include "kernel/moves"
--- @include "kernel/expire"
--- @include "kernel/checks"
--- @include "kernel/reserve"
--- @include "kernel/commit"
--- @include "kernel/release"
--- @include "kernel/extend"
--- @include "kernel/reads"
--- @include "kernel/put_item"
--- @include "kernel/count_stock"
--- @include "kernel/batch"

local SWEEP_BASE, SOONEST_MAX, CHUNK = 64, 64, 4000   -- unpack() passes at most 7990 values

local function chunked(command, key, list)
  local size = #list
  if size == 0 then return end
  if size <= CHUNK then return redis.call(command, key, spread(list)) end
  for first = 1, size, CHUNK do
    local last = first + CHUNK - 1 < size and first + CHUNK - 1 or size
    redis.call(command, key, spread(list, first, last))
  end
end

local function read_fields(key, fields)
  local values, size = {}, #fields
  for first = 1, size, CHUNK do
    local last = first + CHUNK - 1 < size and first + CHUNK - 1 or size
    local part = redis.call('HMGET', key, spread(fields, first, last))
    for i = 1, #part do values[fields[first + i - 1]] = part[i] end
  end
  return values
end

-- Ids of ended reservations that are past retention, at most two batches' worth a call: two pops
-- for at most one push always catch up.
local function overdue(key, before)
  local purged, pops = {}, 0
  for i = 0, 1 do
    local element = redis.call('LINDEX', key, i)
    if not element then break end
    local entry = cmsgpack.unpack(element)
    if entry[1] > before then break end
    for k = 2, #entry do purged[#purged + 1] = entry[k] end
    pops = pops + 1
  end
  return purged, pops
end

local function clock_ms(stored)
  local time = redis.call('TIME')
  local ms = time[1] * 1000 + floor(time[2] / 1000)
  return ms > stored and ms or stored
end

local function note_expiries(key)
  if #short == 0 then return end
  local ids = redis.call('ZRANGE', key, format('(%.0f', now), '+inf', 'BYSCORE', 'LIMIT', 0,
    SOONEST_MAX)
  local missing = {}
  for i = 1, #ids do if raws[ids[i]] == nil then missing[#missing + 1] = ids[i] end end
  for id, raw in pairs(read_fields(KEYS[3], missing)) do raws[id] = raw end
  fill_next_expiry(ids)
end

local function write(epoch, first)
  local written = changed_rows()
  redis.call('XADD', KEYS[6], format('%.0f-0', sequence), 'e',
    cmsgpack.pack({ 1, epoch, now, first, events, written }))
  redis.call('HSET', KEYS[1], 'sequence', format('%.0f', sequence), 'clock', format('%.0f', now))
  chunked('HSET', KEYS[2], written)
  chunked('HSET', KEYS[3], changed_holds)
  for i = 1, #expiry, 2 do expiry[i] = format('%.0f', expiry[i]) end
  chunked('ZADD', KEYS[4], expiry)
  chunked('ZREM', KEYS[4], unexpiry)
  if #ended > 0 then redis.call('RPUSH', KEYS[5], cmsgpack.pack({ now, spread(ended) })) end
  for i = 1, #fresh do redis.call('ZADD', KEYS[7], 0, fresh[i]) end
end

local function execute()
  bind()
  local meta = redis.call('HMGET', KEYS[1], 'epoch', 'sequence', 'clock')
  local stored = tonumber(meta[2] or 0)
  if meta[1] ~= ARGV[1] or stored < tonumber(ARGV[2]) then
    return redis.error_reply('ROLLBACK ' .. (meta[1] or '0') .. ' ' .. format('%.0f', stored))
  end
  local flat = cmsgpack.unpack(ARGV[6])
  local time, limit = clock_ms(tonumber(meta[3] or 0)), SWEEP_BASE + tonumber(ARGV[5])
  local due = redis.call('ZRANGE', KEYS[4], '-inf', format('%.0f', time), 'BYSCORE', 'LIMIT', 0,
    limit)
  local ids = plan_holds(flat, due)
  local purged, pops = overdue(KEYS[5], time - tonumber(ARGV[4]))
  begin({ now = time, sequence = stored, budget = tonumber(ARGV[3]), more_due = #due == limit,
    raws = read_fields(KEYS[3], ids) })
  rows = read_fields(KEYS[2], plan_rows(flat, ids))
  local outs = decide(flat, due)
  note_expiries(KEYS[4])
  if sequence > stored then write(tonumber(meta[1]), stored + 1) end
  if pops > 0 then
    redis.call('LPOP', KEYS[5], pops)
    chunked('HDEL', KEYS[3], purged)
  end
  return cmsgpack.pack({ now, sequence, more_due, outs })
end

return execute()
