-- host: the kernel for a program that runs Lua itself and keeps the rows wherever it likes.
--
-- A batch is these functions in this order, with the reads and the one write in between:
--   plan_holds(flat, due) -> ids of records to read
--   plan_rows(input, records, flat, ids) -> fields of rows to read
--   decide(flat, due, rows) -> outcomes, and whether they want the soonest expiries
--   note_expiries(ids, records): the next holds to expire, where decide wants them
--   changes() -> what to write; past(ids, before) -> which overdue records may be deleted
-- The state of the batch is in upvalues, so one Lua runs one batch at a time.

--- @include "kernel/kernel"

bind()

return {
  sweep_base = SWEEP_BASE, soonest_max = SOONEST_MAX,
  plan_holds = plan_holds,
  plan_rows = function(input, records, flat, ids)
    begin(input)
    raws = records
    return plan_rows(flat, ids)
  end,
  decide = function(flat, due, found)
    rows = found
    return decide(flat, due), #short > 0
  end,
  note_expiries = function(ids, records)
    for id, raw in pairs(records) do if raws[id] == nil then raws[id] = raw end end
    fill_next_expiry(ids)
  end,
  changes = function()
    return sequence, changed_rows(), changed_holds, expiry, unexpiry, ended, fresh, events
  end,
  past = past,
}
