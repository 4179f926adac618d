-- release: give a hold, or part of it, back.
--
-- Operation: 3 size id principal operator fingerprint note n (sku location quantity)*; n = 0
-- means everything.  The fingerprint names the wanted lines: the same partial release sent
-- twice in a row is a replay, so a retry gives nothing back twice.

local function release_part(hold, taken)
  local lines, moves = hold.lines, {}
  for k = 1, #taken do
    local line = k * 4 - 3
    local units, beyond = lines[line + 2] - taken[k], lines[line + 3]
    local kept = beyond > taken[k] and beyond - taken[k] or 0   -- backordered units go first
    move_line(hold, lines[line], lines[line + 1], -taken[k], 0, kept - beyond, 0)
    moves[k] = move_text(lines[line], lines[line + 1], 0, -taken[k], 0, kept - beyond)
    lines[line + 2], lines[line + 3] = units, kept
  end
  return concat(moves)
end

local function release(flat, at)
  local count = flat[at + 7]
  if not whole(count, 0, LINES_MAX) then return invalid('lines', 'must number 0 to 100') end
  local failed = check_lines(flat, at, 8, count)
  if failed then return failed end
  local hold
  hold, failed = owned(flat[at + 2], flat[at + 3], flat[at + 4])
  if not hold then return failed end
  local is_repeat = count > 0 and hold.note == flat[at + 5]
  if hold.state == 'R' and not has(hold.flags, SUPERSEDED) and (count == 0 or is_repeat) then
    return replay(hold)
  end
  if hold.state ~= 'H' then return ended_answer(hold) end
  if is_repeat then return replay(hold) end
  local taken, excess = take(hold, flat, at + 8, count)
  if excess then return { EXCEEDS_HOLD, sequence, excess } end
  local units, moves = 0, false
  for k = 1, #taken do units = units + taken[k] end
  sequence = sequence + 1
  if units == units_of(hold.lines) then
    give_back(hold)
    finish(hold, 'R')
  else
    moves = release_part(hold, taken)
    charge_budget(hold, -units)
    hold.whole = false
  end
  hold.note = count > 0 and flat[at + 5] or ''
  local record = save_hold(hold, RELEASE, moves, flat[at + 6])
  return levels_into({ OK, sequence, record }, hold.lines)
end
