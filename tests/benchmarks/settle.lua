-- What the call really used: give back the difference to what was held, once.
-- KEYS: three counters of what is left, the reservation. ARGV: three amounts.
-- Returns 1 (settled) or 0 (no such reservation).
local held = redis.call('GETDEL', KEYS[4])
if not held then return 0 end
local i = 1
for amount in string.gmatch(held, '%d+') do
  local rest = tonumber(amount) - tonumber(ARGV[i])
  if rest ~= 0 then redis.call('INCRBY', KEYS[i], rest) end
  i = i + 1
end
return 1
