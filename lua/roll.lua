#!lua
-- roll.lua: takes minutes that have left the window out of the running totals, each product of each minute once. The
-- set of totals is the sum of the minutes' hashes at any time: what is subtracted leaves its hash in the same step.
--
-- KEYS
--   1         meta
--   2         events (not written: what was sold stays sold)
--   3         sorted set of the units sold in the window, see sale.lua
--   4..       hashes of the units sold in a minute, from the first minute that may still count on
-- ARGV
--   1         header, see door.lua
--   2         msgpack sequence: minute of the first hash, cursor in it
-- Replies
--   one string: the last seq, then a msgpack sequence
--   ok              0, first minute that may still count, cursor in it, first minute that should
--   error DOOR: not done, the door is shut
-- Event
--   none

local OK = code.ok
-- About how many products one call subtracts: a whole catalogue at once would block Redis.
local CHUNK = 1000

local door, shut = enter()
if shut then return shut end

local first, cursor = cmsgpack.unpack(ARGV[2])
local rolled = tonumber(redis.call('HGET', KEYS[1], 'rolled') or first)
local horizon = door.minute - WINDOW_MINUTES + 1
if rolled ~= first then return respond(door, { pack(OK, rolled, '0', horizon) }) end -- another process was here

local done = 0
for i = 4, #KEYS do
    if rolled >= horizon or done >= CHUNK then break end
    local scanned = redis.call('HSCAN', KEYS[i], cursor, 'COUNT', CHUNK)
    local names, units = {}, {}
    for f = 1, #scanned[2], 2 do
        local last = #names + 1
        names[last], units[last] = scanned[2][f], -tonumber(scanned[2][f + 1])
    end
    done = done + #names
    if #names > 0 then
        count_top(KEYS[3], top_sums(KEYS[3], names, units))
        for from = 1, #names, UNPACK_MAX do
            redis.call('HDEL', KEYS[i], unpack(names, from, math.min(from + UNPACK_MAX - 1, #names)))
        end
    end
    cursor = scanned[1]
    if cursor ~= '0' or redis.call('EXISTS', KEYS[i]) == 1 then break end
    rolled = rolled + 1
end
if done > 0 then redis.call('ZREMRANGEBYSCORE', KEYS[3], 0, 0) end
-- The clock goes along, as with a sale: a TIME that steps back must not bring back what has left.
if rolled > first or done > 0 then
    redis.call('HSET', KEYS[1], 'rolled', rolled,
        'minute', door.minute, 'clock', door.now_ms, 'clock_at', door.clock_at)
end
return respond(door, { pack(OK, rolled, cursor, horizon) })
