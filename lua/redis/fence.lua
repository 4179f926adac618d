-- fence: refuse whoever no longer leads.

local function fenced(key, role, token)
  local current = redis.call('HGET', key, role) or '0'
  if current == token then return nil end
  return redis.error_reply('FENCED ' .. current)
end
