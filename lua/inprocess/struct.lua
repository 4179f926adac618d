-- struct: the kernel's pack and unpack where Lua is LuaJIT, as memory that it lays out itself.
--
-- Same formats and results as the module that Redis and Valkey build in, on machines that are
-- little-endian, as the formats say.  A call of the host for each record would cost more than the
-- decision.

local ffi = require('ffi')

local TYPES = { i4 = 'int32_t', d = 'double', B = 'uint8_t', c1 = 'uint8_t' }

local FORMS = [[
local ffi, layout, size = ...
local pointer, cast, text = ffi.typeof('$ const *', layout), ffi.cast, ffi.string
return function(PARAMETERS)
  local record = layout()
  ASSIGNMENTS
  return text(record, size)
end, function(data, position)
  local at = (position or 1) - 1
  if at < 0 or #data < at + size then error('data is too short for its format', 2) end
  local record = cast(pointer, cast('const char *', data) + at)
  return READS, at + size + 1
end
]]

local function compile(form)
  local fields, names, assignments, reads = {}, {}, {}, {}
  for kind in form:sub(2):gmatch('%a%d?') do
    local name = 'v' .. #fields + 1
    fields[#fields + 1] = TYPES[kind] .. ' ' .. name .. ';'
    names[#names + 1] = name
    local is_text = kind == 'c1'
    assignments[#assignments + 1] = 'record.' .. name .. ' = ' ..
      (is_text and name .. ':byte()' or name)
    reads[#reads + 1] = is_text and 'string.char(record.' .. name .. ')' or 'record.' .. name
  end
  local layout = ffi.typeof('struct __attribute__((packed)) {' .. table.concat(fields) .. '}')
  local text = FORMS:gsub('%u%u+', {
    PARAMETERS = table.concat(names, ', '), ASSIGNMENTS = table.concat(assignments, '; '),
    READS = table.concat(reads, ', '),
  })
  return loadstring(text)(ffi, layout, ffi.sizeof(layout))
end

local packs, unpacks = {}, {}

local function prepare(form)
  packs[form], unpacks[form] = compile(form)
end

return {
  pack = function(form, ...)
    if not packs[form] then prepare(form) end
    return packs[form](...)
  end,
  unpack = function(form, data, position)
    if not unpacks[form] then prepare(form) end
    return unpacks[form](data, position)
  end,
}
