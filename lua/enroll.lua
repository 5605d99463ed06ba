#!lua
-- enroll.lua: opens accounts: gives users a balance of 0 where they have none. Safe to repeat.
--
-- KEYS
--   1         meta
--   2         events (not written: an account without money is no sales event)
--   3..       N balances, one an operation
-- ARGV
--   1         header, see door.lua
--   2..       N operations, each a msgpack sequence: user id
-- Replies
--   one string: the last seq, then for each operation a msgpack sequence
--   ok              0
--   error DOOR: not done, the door is shut
-- Event
--   none

local door, shut = enter()
if shut then return shut end

local n = #ARGV - 1
for i = 1, n do
    redis.call('SET', KEYS[2 + i], 0, 'NX')
end
return respond(door, { string.rep(pack(code.ok), n) })
