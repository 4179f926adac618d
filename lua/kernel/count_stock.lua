-- count_stock: change how many units are owned, at a location.
--
-- adjust_stock: 8 size id request note sku location delta.
-- set_stock: 9 size id request note principal operator sku location on_hand expected if_sequence;
-- expected false = no compare; if_sequence > 0: refused with STOCK_CHANGED when the item moved
-- since, so that a caller can work out an absolute count from older movements and retry.  Such a
-- count may be below 0, as after an adjustment.
-- A count below what is claimed is accepted: the difference is a deficit, and the count is kept.

local function place_bytes(place)
  return pack_bytes(PLACE, place.on_hand, place.held, place.committed, place.revision)
end

local function counted(code, item, place)
  return { code, sequence, place_bytes(place), level_of(item) }
end

local function find_stock(flat, at, sku_at)
  local sku, location = flat[at + sku_at], flat[at + sku_at + 1]
  local item = item_of(sku)
  if not item then return nil, { UNKNOWN_SKU, sequence, { sku } } end
  local place = place_of(sku .. US .. location)
  local before = repeated(flat[at + 2], flat[at + 3])
  if before == REPLAYED then return nil, counted(REPLAYED, item, place) end
  if before then return nil, { before, sequence, sub(flat[at + 2], 2) } end
  return item, place
end

local function change_stock(flat, at, kind, item, place, delta)
  sequence = sequence + 1
  item.on_hand, place.on_hand = item.on_hand + delta, place.on_hand + delta
  touch(item)
  touch(place)
  follow(item, 0)
  local location = sub(place.field, #item.sku + 2)
  local moves = move_text(item.sku, location, delta, 0, 0, 0)
  save_request(flat[at + 2], kind, item.sku, flat[at + 3], moves, flat[at + 4])
  return counted(OK, item, place)
end

local function within_limits(item, place, delta)
  return whole(item.on_hand + delta, -UNITS_MAX, UNITS_MAX)
    and whole(place.on_hand + delta, -UNITS_MAX, UNITS_MAX)
end

local function adjust_stock(flat, at)
  local delta = flat[at + 7]
  if delta == 0 or not whole(delta, -UNITS_MAX, UNITS_MAX) then
    return invalid('delta', 'must be a whole number, not 0, of at most 1000000000 either way')
  end
  local item, place = find_stock(flat, at, 5)
  if not item then return place end
  if not within_limits(item, place, delta) then
    return invalid('delta', 'must leave on_hand within 1000000000 either way')
  end
  return change_stock(flat, at, ADJUST_STOCK, item, place, delta)
end

local function set_stock(flat, at)
  local on_hand, expected = flat[at + 9], flat[at + 10]
  if not whole(on_hand, -UNITS_MAX, UNITS_MAX) then
    return invalid('on_hand', 'must be a whole number of at most 1000000000 either way')
  end
  local item, place = find_stock(flat, at, 7)
  if not item then return place end
  channels_of(policy_of(item))
  if item.owner ~= '' and item.owner ~= flat[at + 5] and flat[at + 6] ~= 1 then
    return { NOT_OWNER, sequence, item.owner }
  end
  if expected and expected ~= place.on_hand then
    return { STALE_QUANTITY, sequence, place.on_hand }
  end
  local stale = changed_since(flat[at + 11], { item.sku, flat[at + 8], on_hand }, 3)
  if stale then return refuse(STOCK_CHANGED, stale) end
  local delta = on_hand - place.on_hand
  if not within_limits(item, place, delta) then
    return invalid('on_hand', 'must leave the total on_hand within 1000000000')
  end
  return change_stock(flat, at, SET_STOCK, item, place, delta)
end
