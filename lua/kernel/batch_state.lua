-- batch_state: what one batch has read and what it will write.
--
-- Everything an operation touches is decoded once into these tables and written once at the end,
-- so a later operation of the batch sees what an earlier one did.  An operation decides first
-- and changes afterwards: whatever it refuses, it leaves no trace.

local now, sequence, budget, more_due   -- ms; last sequence given; units per principal, 0 = none
local rows, raws                        -- stored bytes by field and by id, false where absent
local items, places, holds              -- decoded: false where known to be absent
local changed, changed_holds            -- fields in order of first change; ids and records
local expiry, unexpiry, ended, fresh    -- zset pairs to add, ids to remove; ids ended; pairs
local events, short                     -- ledger events, five values each; refused lines
local has_late                          -- whether a reservation committed after it had expired

local function begin(input)
  now, sequence, budget, more_due = input.now, input.sequence, input.budget, input.more_due
  rows, raws = {}, {}
  items, places, holds = {}, {}, {}
  changed, changed_holds = {}, {}
  expiry, unexpiry, ended, fresh = {}, {}, {}, {}
  events, short, has_late = {}, {}, false
end

local function item_of(sku)
  local item = items[sku]
  if item == nil then
    local raw = rows[sku]
    item = raw and decode_item(sku, raw) or false
    items[sku] = item
  end
  return item
end

-- Stock at a place: a location of an item, or the units held by a principal (on_hand nil).
local function place_of(field)
  local place = places[field]
  if not place then
    local raw = rows[field]
    place = { field = field, on_hand = 0, held = 0, committed = 0, revision = 0 }
    if raw then
      place.on_hand, place.held, place.committed, place.revision = unpack_bytes(PLACE, raw)
    else
      place.is_new = true
    end
    places[field] = place
  end
  return place
end

local function budget_of(principal)
  local field = US .. principal
  local account = places[field]
  if not account then
    account = { field = field, held = rows[field] and unpack_bytes('<i4', rows[field]) or 0 }
    places[field] = account
  end
  return account
end

local function touch(row)
  row.revision = sequence
  if not row.dirty then
    row.dirty = true
    changed[#changed + 1] = row
    if row.is_new then fresh[#fresh + 1], fresh[#fresh + 2] = '0', row.sku or row.field end
  end
end

-- `moves` is false where every line of the record moved whole, and the item's row for put_item.
-- Texts only: a number here would read back as something else, or not at all.
local function event(kind, key, record, moves, note)
  length_of(key, record, note)
  local n = #events
  events[n + 1], events[n + 2], events[n + 3], events[n + 4], events[n + 5] =
    kind, key, record, moves, note
end

local function save_hold(hold, kind, moves, note)
  hold.sequence = sequence
  local record = encode_hold(hold)
  raws[hold.id] = record
  changed_holds[#changed_holds + 1] = hold.id
  changed_holds[#changed_holds + 1] = record
  event(kind, hold.id, record, moves, note)
  return record
end

-- Remember a request id, so that repeating an inventory change does nothing.
local function save_request(id, kind, sku, request, moves, note)
  if sub(id, 1, 1) ~= '~' or not find(request, GS .. sku .. GS, 1, true) then
    error('a request has no id of its own, or does not name its item')
  end
  local record = pack_bytes(REQUEST, 'A', sequence) .. request
  raws[id] = record
  changed_holds[#changed_holds + 1] = id
  changed_holds[#changed_holds + 1] = record
  ended[#ended + 1] = id
  event(kind, id, record, moves, note)
end

local function move_text(sku, location, on_hand, held, committed, backordered)
  return concat({ sku, location, format('%d', on_hand), format('%d', held),
    format('%d', committed), format('%d', backordered) }, US) .. RS
end

-- The rows to write, as HSET arguments.
local function changed_rows()
  local out = {}
  for i = 1, #changed do
    local row = changed[i]
    local value
    if row.sku then
      value = encode_item(row)
    elseif row.on_hand then
      value = pack_bytes(PLACE, row.on_hand, row.held, row.committed, row.revision)
    else
      value = pack_bytes('<i4', row.held)
    end
    out[i * 2 - 1], out[i * 2] = row.sku or row.field, value
  end
  return out
end
