#!lua flags=allow-oom
-- lapse.lua: drops idempotency records whose time has passed, and notes up to which event it did. A lifetime of its own
-- for each record would be a command each, where a call writes all of them in one.
--
-- KEYS
--   1         meta
--   2..       idempotency records
-- ARGV
--   1         epoch in which the books believe Redis to sell
--   2         epoch of the event up to which records have lapsed, as the caller has read it (0: none)
--   3         its seq
--   4         epoch of that event after this call
--   5         its seq
--   6..       what each key must hold: its time may have begun anew
-- Replies
--   1 done, 0 refused: Redis is in another epoch, another process was here, or the door is shut: a copy of the keys may
--   be on its way to another master
-- Event
--   none

local UNPACK_MAX = 4000

local m = redis.call('HMGET', KEYS[1], 'epoch', 'lapsed_epoch', 'lapsed_seq', 'open')
if m[1] ~= ARGV[1] or m[4] ~= '1' or (m[2] or '0') ~= ARGV[2] or (m[3] or '0') ~= ARGV[3] then return 0 end

local n, gone = #KEYS - 1, {}
for from = 1, n, UNPACK_MAX do
    local to = math.min(from + UNPACK_MAX - 1, n)
    local records = redis.call('MGET', unpack(KEYS, 1 + from, 1 + to))
    for i = from, to do
        if records[i - from + 1] == ARGV[5 + i] then gone[#gone + 1] = KEYS[1 + i] end
    end
end
for from = 1, #gone, UNPACK_MAX do
    redis.call('UNLINK', unpack(gone, from, math.min(from + UNPACK_MAX - 1, #gone)))
end
redis.call('HSET', KEYS[1], 'lapsed_epoch', ARGV[4], 'lapsed_seq', ARGV[5])
return 1
