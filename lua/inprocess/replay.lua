-- replay: the kernel over batches of the past, on rows and records that stay in this Lua.
--
--   keep(rows, records): add to what is there, by field and by id
--   reads(input, flat, due, records) -> fields of rows that a batch reads
--   decide_again(input, flat, due, fresh) -> events, rows written
--   judge(input, flat, due) -> outcomes
--   follow(input, flat, due, fresh, events, rows) -> nothing, or what is not as it was recorded
--   kept() -> rows and records
-- `fresh` are ids that an operation of the batch makes anew: what was known of them had been purged.
-- A batch reads what is kept here as it goes; `reads` is for who has to fetch it first.

--- @include "kernel/kernel"

bind()

local kept_rows, kept_records = {}, {}

local function decide_again(input, flat, due, fresh)
  begin(input)
  rows, raws = kept_rows, kept_records
  for i = 1, #fresh do raws[fresh[i]] = nil end
  plan_holds(flat, due)
  decide(flat, due)
  local written = changed_rows()
  for i = 1, #written, 2 do kept_rows[written[i]] = written[i + 1] end
  for i = 1, #changed_holds, 2 do
    local id = changed_holds[i]
    local record = raws[id]
    local state = record and sub(record, 1, 1)   -- of a sale and of a request nothing follows
    if state == 'C' or state == 'A' then raws[id] = nil end
  end
  return events, written
end

local function difference(what, found, recorded)
  if #found ~= #recorded then return what, #found, #recorded end
  for i = 1, #found do
    if found[i] ~= recorded[i] then return what, i, i end
  end
end

local function keep(found, from)
  for key, value in pairs(from) do found[key] = value end
end

return {
  keep = function(more_rows, more_records)
    keep(kept_rows, more_rows)
    keep(kept_records, more_records)
  end,
  reads = function(input, flat, due, records)
    begin(input)
    raws = records
    return plan_rows(flat, plan_holds(flat, due))
  end,
  decide_again = decide_again,
  judge = function(input, flat, due)
    begin(input)
    rows, raws = kept_rows, kept_records
    return decide(flat, due)
  end,
  follow = function(input, flat, due, fresh, recorded_events, recorded_rows)
    local made, written = decide_again(input, flat, due, fresh)
    local what, found, recorded = difference('entries', made, recorded_events)
    if not what then what, found, recorded = difference('rows', written, recorded_rows) end
    return what, found, recorded
  end,
  kept = function() return kept_rows, kept_records end,
}
