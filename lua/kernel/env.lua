-- env: names of the standard library that the kernel calls.
--
-- Bound when a batch starts and not when the text is loaded, because a Redis FUNCTION library
-- sees no string, math or struct table while it loads.  `struct` is the module that Redis and
-- Valkey build in; a host without it supplies pack and unpack for the formats c1, B, i4 and d.

local sub, find, gmatch, format, floor, concat, pack_bytes, unpack_bytes, spread

local function bind()
  sub, find, gmatch, format = string.sub, string.find, string.gmatch, string.format
  floor, concat = math.floor, table.concat
  pack_bytes, unpack_bytes, spread = struct.pack, struct.unpack, unpack
end
