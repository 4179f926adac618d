-- commit: turn a hold, or part of it, into a sale.
--
-- Operation: 2 size id principal operator if_sequence order_ref note n (sku location quantity)*;
-- n = 0 means everything.  A partial commit is final: the rest of the hold is released in the
-- same step.  A second commit of the same lines is a replay.  An expired hold commits only by
-- the late_commit policy of every one of its items:
--   REJECT  never;  RETRY  if the units are still free;
--   REVIEW  also from the oversell allowance, marked late and backordered, for review.

local function is_same_commit(hold, taken, count)
  if count == 0 then return not has(hold.flags, PARTIAL) end
  if not taken then return false end
  for k = 1, #taken do
    if taken[k] ~= hold.lines[k * 4 - 1] then return false end
  end
  return true
end

-- Lines whose units a recount took away: real units sold already leave none to cover these.
local function lost_lines(hold, taken)
  local lost, wanted = {}, {}
  for k = 1, #taken do
    local at = k * 4 - 3
    local item, units = item_of(hold.lines[at]), taken[k]
    local real = hold.lines[at + 2] - hold.lines[at + 3]
    if units < real then real = units end
    wanted[item.sku] = (wanted[item.sku] or 0) + real
    local here = item.on_hand - item.committed + item.owed
    if real > 0 and wanted[item.sku] > here then
      refuse_line(lost, hold.lines, at, here > 0 and here or 0)
    end
  end
  return lost[1] and lost
end

-- Put the taken units of each line into `committed`, real units before backordered ones, and
-- free what was held of it.  Explicit moves are returned when they differ from "all of it".
local function sell(hold, taken, was_held)
  local lines, moves = hold.lines, {}
  for k = 1, #taken do
    local at = k * 4 - 3
    local sku, location, units, beyond = lines[at], lines[at + 1], lines[at + 2], lines[at + 3]
    local owed = taken[k] - (units - beyond)
    if owed < 0 then owed = 0 end
    local held = was_held and units or 0
    local released = was_held and owed - beyond or owed
    move_line(hold, sku, location, -held, taken[k], released, owed)
    moves[k] = move_text(sku, location, 0, -held, taken[k], released)
    lines[at + 2], lines[at + 3] = taken[k], owed
  end
  return concat(moves)
end

local function commit_hold(hold, taken, flat, at, flags)
  local was_held, was_whole = hold.state == 'H', hold.whole
  local units = units_of(hold.lines)
  sequence = sequence + 1
  if was_held then charge_budget(hold, -units) end
  local moves = sell(hold, taken, was_held)
  local partial = units_of(hold.lines) < units
  hold.whole = was_whole and not partial and not has(flags, LATE)
  hold.flags = hold.flags + flags + (partial and PARTIAL or 0)
  hold.note = flat[at + 6]
  if was_held then
    finish(hold, 'C')
  else
    hold.state, hold.ended = 'C', now
    ended[#ended + 1] = hold.id
  end
  local record = save_hold(hold, COMMIT, not (was_held and not partial) and moves, flat[at + 7])
  return levels_into({ OK, sequence, record }, hold.lines)
end

-- How many backordered units each line needs now that its hold is gone; nil if it cannot be had.
local function retake(hold, taken)
  local lines, beyond, tried = hold.lines, {}, 0
  for k = 1, #taken do
    local sku, location = lines[k * 4 - 3], lines[k * 4 - 2]
    local item = policy_of(item_of(sku))
    if item.late ~= LATE_RETRY and item.late ~= LATE_REVIEW then break end
    local flags = item.late == LATE_REVIEW and ALLOW_BACKORDER or 0
    local units, over = grant(item, location, taken[k], flags)
    if not units then break end
    tally(sku, location, units)
    beyond[k], tried = over, k
  end
  for k = 1, tried do tally(lines[k * 4 - 3], lines[k * 4 - 2], -taken[k]) end
  return tried == #taken and beyond
end

local function commit_late(hold, taken, flat, at)
  local beyond = retake(hold, taken)
  if not beyond then
    if more_due then return { AGAIN, sequence, false } end
    return ended_answer(hold)
  end
  local asked = units_of(hold.lines)
  for k = 1, #taken do
    hold.lines[k * 4 - 1], hold.lines[k * 4] = taken[k], beyond[k]
  end
  local part = asked > units_of(hold.lines) and PARTIAL or 0
  return commit_hold(hold, taken, flat, at, LATE + part)
end

local function commit(flat, at)
  local count = flat[at + 8]
  if not whole(count, 0, LINES_MAX) then return invalid('lines', 'must number 0 to 100') end
  local failed = check_lines(flat, at + 9, count)
  if failed then return failed end
  local hold
  hold, failed = owned(flat[at + 2], flat[at + 3], flat[at + 4])
  if not hold then return failed end
  local taken, excess = take(hold, flat, at + 9, count)
  if hold.state == 'C' and is_same_commit(hold, taken, count) then return replay(hold) end
  local fenced = hold.state == 'C' or hold.state == 'R' or has(hold.flags, SUPERSEDED)
  if fenced then return ended_answer(hold) end
  if excess then return { EXCEEDS_HOLD, sequence, excess } end
  local stale = changed_since(flat[at + 5], hold.lines, 4)
  if stale then return levels_into({ STOCK_CHANGED, sequence, stale }, hold.lines) end
  if hold.state == 'X' then return commit_late(hold, taken, flat, at) end
  local lost = lost_lines(hold, taken)
  if lost then return levels_into({ STOCK_LOST, sequence, lost }, hold.lines) end
  return commit_hold(hold, taken, flat, at, 0)
end
