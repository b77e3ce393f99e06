-- The same decision in Redis: take from all three limits or from none, and remember what is held for the call.
-- KEYS: three counters of what is left, the reservation. ARGV: three amounts, how long the reservation lives in ms.
-- Asking again under the same reservation holds nothing more. Returns 1 (allowed) or 0 (refused).
if redis.call('EXISTS', KEYS[4]) == 1 then return 1 end
local left = redis.call('MGET', KEYS[1], KEYS[2], KEYS[3])
for i = 1, 3 do
  if tonumber(left[i] or '0') < tonumber(ARGV[i]) then return 0 end
end
for i = 1, 3 do redis.call('DECRBY', KEYS[i], ARGV[i]) end
redis.call('SET', KEYS[4], ARGV[1] .. ' ' .. ARGV[2] .. ' ' .. ARGV[3], 'PX', ARGV[4])
return 1
