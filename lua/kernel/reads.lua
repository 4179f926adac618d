-- reads: answers that change nothing but what is due anyway.
--
-- get_reservation: 20 size id principal operator.
-- get_stock: 21 size sku...; one level a SKU in the order asked, false where there is none.
-- Both run in the batch, so they see every hold that is due as ended.

local function get_reservation(flat, at)
  local hold, failed = owned(flat[at + 2], flat[at + 3], flat[at + 4])
  if not hold then return failed end
  return { OK, sequence, raws[hold.id] }
end

local function get_stock(flat, at)
  local out = { OK, sequence, false }
  for i = at + 2, at + flat[at + 1] - 1 do
    local item = item_of(flat[i])
    out[#out + 1] = item and level_of(item) or false
  end
  return out
end
