-- ARGV: skus

local now, levels = now_ms(), {}
for _, sku in ipairs(ARGV) do
  levels[#levels + 1] = level_of(sku, now)
end
return answer('granted', now, #levels > 0 and levels or nil)
