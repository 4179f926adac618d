-- execute: the shell as a script, for EVAL and EVALSHA.

--- @include "redis/shell"

return execute()
