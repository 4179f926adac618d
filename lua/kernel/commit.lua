-- commit: turn a hold, or part of it, into a sale.
--
-- Operation: 2 size id principal operator if_sequence order_ref note n (sku location quantity)*;
-- n = 0 means everything.  A partial commit is final: the rest of the hold is released in the
-- same step.  A second commit of the same lines is a replay.  An expired hold commits only by
-- the late_commit policy of every one of its items:
--   REJECT  never;  RETRY  if the units are still free, within the channel's quota;
--   REVIEW  also from the oversell allowance, marked late and backordered, for review.
-- Order of checks: arguments, unknown reservation, owner, replay, ended, more than held,
-- if_sequence, stock.

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
    has_late = true
  end
  local record = save_hold(hold, COMMIT, not (was_held and not partial) and moves, flat[at + 7])
  return levels_into({ OK, sequence, record }, hold.lines)
end

local function may_be_late(hold)
  for i = 1, #hold.lines, 4 do
    if policy_of(item_of(hold.lines[i])).late == LATE_REJECT then return false end
  end
  return true
end

-- Take the units of an expired hold again, as if they were asked for now.
local function commit_late(hold, taken, flat, at)
  local wanted = {}
  for i = 1, #hold.lines, 4 do
    wanted[i], wanted[i + 1] = hold.lines[i], hold.lines[i + 1]
    wanted[i + 2], wanted[i + 3] = taken[(i + 3) / 4], 0
  end
  local granted = not over_quota(wanted, hold.channel, hold.created) and grant_lines(wanted)
  if more_due and not (granted and is_same(wanted, granted)) then
    return { AGAIN, sequence, false }
  end
  if not granted then return ended_answer(hold) end
  local part = units_of(granted) < units_of(hold.lines) and PARTIAL or 0
  hold.lines = granted
  return commit_hold(hold, taken, flat, at, LATE + part)
end

local function commit(flat, at)
  local count = flat[at + 8]
  if not whole(count, 0, LINES_MAX) then return invalid('lines', 'must number 0 to 100') end
  local failed = check_lines(flat, at, 9, count)
  if failed then return failed end
  local hold
  hold, failed = owned(flat[at + 2], flat[at + 3], flat[at + 4])
  if not hold then return failed end
  local taken, excess = take(hold, flat, at + 9, count)
  if hold.state == 'C' and is_same_commit(hold, taken, count) then return replay(hold) end
  local fenced = hold.state == 'C' or hold.state == 'R' or has(hold.flags, SUPERSEDED)
  if fenced or hold.state == 'X' and not may_be_late(hold) then return ended_answer(hold) end
  if excess then return { EXCEEDS_HOLD, sequence, excess } end
  local stale = changed_since(flat[at + 5], hold.lines, 4)
  if stale then return refuse(STOCK_CHANGED, stale) end
  if hold.state == 'X' then return commit_late(hold, taken, flat, at) end
  local lost = lost_lines(hold, taken)
  if lost then return refuse(STOCK_LOST, lost) end
  return commit_hold(hold, taken, flat, at, 0)
end
