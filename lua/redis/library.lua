-- library: the shell as a FUNCTION library, for FCALL.
--
-- A script runs its definitions again at every call, a library once when it is loaded: half the cost
-- of a small batch.  NAME stands for the library's name, which holds a hash of this text, so that
-- servers of two versions can share a store.

local KEYS, ARGV

--- @include "redis/shell"

local function call(keys, args)
  KEYS, ARGV = keys, args
  return execute()
end

redis.register_function('NAME', call)
redis.register_function{
  function_name = 'NAME_allow_oom', callback = call, flags = { 'allow-oom' },
}
