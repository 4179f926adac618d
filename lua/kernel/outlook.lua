-- outlook: what an item remembers, so that its pressure neither flaps nor comes too late.
--
-- demand   units sold of late, in thousandths: claims less what was given back, where a unit counts
--          half after each half-life.  Within a half-life the fall is linear, so that no host needs
--          exp() and all of them agree to the last bit.
-- damped   units available, with backlash: it falls at once, and rises only to a margin below.
-- cover    ms until nothing is left at the current demand, with backlash of the same kind.
--          When stock is counted both are what the count says: a delivery is no flutter.
--
-- The rate of sale is demand / (half-life / ln 2).  A demand goes on fading by the clock of whoever
-- reads it, so a reader knows the signal of any moment without a write.

local follow

do   -- what only follow needs: a chunk has room for 200 names

local HALF_LIFE_MS, LIFETIME_MS, HALVES_MAX = 10000, 14427, 31
local DEMAND_MAX = 2000000000

local function faded(demand, ms)
  if demand == 0 or ms <= 0 then return demand end
  local halves = floor(ms / HALF_LIFE_MS)
  if halves >= HALVES_MAX then return 0 end
  local rest = ms - halves * HALF_LIFE_MS
  return floor((demand - floor(demand * rest / (2 * HALF_LIFE_MS))) / 2 ^ halves)
end

-- `old` followed to `value`: down at once, up to no less than `low`.
local function backlash(old, value, low)
  if old > value then return value end
  return old < low and low or old
end

-- Bring the memory up to date after `claimed` units more were held or committed, which may be
-- negative, or after the stock was counted.  Every change of `available` comes through here.
follow = function(item, claimed)
  local demand = faded(item.demand, now - item.demand_at) + claimed * 1000
  if demand < 0 then demand = 0 elseif demand > DEMAND_MAX then demand = DEMAND_MAX end
  item.demand, item.demand_at = demand, now
  local free = available_of(item)
  if free < 0 then free = 0 end
  local margin = floor(free / 10)
  if margin < 1 then margin = 1 end
  if claimed == 0 then margin = 0 end
  item.damped = backlash(item.damped, free, free - margin)
  local cover = COVER_MAX_MS
  if demand > 0 then cover = floor(free * (1000 * LIFETIME_MS) / demand) end
  if cover > COVER_MAX_MS then cover = COVER_MAX_MS end
  item.cover = backlash(item.cover, cover, claimed == 0 and cover or floor(cover * 4 / 5))
end

end
