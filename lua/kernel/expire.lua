-- expire: end a hold whose time has run out.
--
-- Exact, not timely: every operation that meets a due hold ends it first, so an expired hold
-- never blocks a Reserve and never commits, whether or not a sweep has reached it.

local function expire(hold)
  sequence = sequence + 1
  give_back(hold)
  finish(hold, 'X')
  save_hold(hold, EXPIRE, false, '')
end

-- The reservation as it stands now, decoded once a batch; nil where there is none.
local function live(id)
  local hold = holds[id]
  if not hold then
    local raw = raws[id]
    if not raw then return nil end
    hold = decode_hold(id, raw)
    holds[id] = hold
  end
  if hold.state == 'H' and hold.expires <= now then expire(hold) end
  return hold
end

local function sweep(due)
  for i = 1, #due do
    local hold = live(due[i])
    if not hold or hold.state ~= 'H' then unexpiry[#unexpiry + 1] = due[i] end
  end
end
