-- extend: move the expiry of a live hold to `ttl` from now.
--
-- Operation: 4 size id principal operator ttl note.  The expiry never moves back: an Extend that
-- would not move it later is a replay, so a delayed duplicate cannot shorten a hold.

local function extend(flat, at)
  local ttl = flat[at + 5]
  if not whole(ttl, TTL_MIN_MS, TTL_MAX_MS) then return invalid('ttl', 'must be from 0.1 s to 24 h') end
  local hold, failed = owned(flat[at + 2], flat[at + 3], flat[at + 4])
  if not hold then return failed end
  if hold.state ~= 'H' then return ended_answer(hold) end
  local allowed, lifetime
  allowed, failed = ttl_for(ttl, hold.lines)
  if not allowed then return failed end
  if now + ttl <= hold.expires then return replay(hold) end
  for i = 1, #hold.lines, 4 do
    local item = item_of(hold.lines[i])
    if not lifetime or item.lifetime < lifetime then lifetime = item.lifetime end
  end
  if now + ttl > hold.created + lifetime then
    return { LIFETIME_EXCEEDED, sequence, hold.created + lifetime }
  end
  sequence = sequence + 1
  hold.expires = now + ttl
  expiry[#expiry + 1], expiry[#expiry + 2] = hold.expires, hold.id
  return { OK, sequence, save_hold(hold, EXTEND, false, flat[at + 6]) }
end
