#!lua flags=allow-oom
-- forget.lua: drops orders that have ended and whose events Postgres holds, and notes up to which event it did.
--
-- KEYS
--   1         meta
--   2..       orders
-- ARGV
--   1         epoch in which the books believe Redis to sell
--   2         the mark: events of all epochs up to it
--   3         its epoch
--   4         its seq
--   5         a byte for each order: its status after the last of those events. An order in another state stays: it
--             has taken a step since. So does one that is unpaid (1)
-- Replies
--   1 done, 0 refused: Redis is in another epoch, or has not so many events, or the door is shut: a copy of the keys
--   may be on its way to another master
-- Event
--   none

local UNPACK_MAX = 4000

local m = redis.call('HMGET', KEYS[1], 'epoch', 'base', 'seq', 'let_go', 'open')
local mark = tonumber(ARGV[2])
if m[1] ~= ARGV[1] or m[5] ~= '1' or tonumber(m[2]) + tonumber(m[3]) < mark then return 0 end

local gone = {}
for from = 2, #KEYS, UNPACK_MAX do
    local to = math.min(from + UNPACK_MAX - 1, #KEYS)
    local records = redis.call('MGET', unpack(KEYS, from, to))
    for i = from, to do
        local record, status = records[i - from + 1], string.sub(ARGV[5], i - 1, i - 1)
        -- A record begins with its version and the status.
        if record and status ~= '\001' and string.sub(record, 2, 2) == status then gone[#gone + 1] = KEYS[i] end
    end
end
for from = 1, #gone, UNPACK_MAX do
    redis.call('UNLINK', unpack(gone, from, math.min(from + UNPACK_MAX - 1, #gone)))
end
if mark > tonumber(m[4] or 0) then
    redis.call('HSET', KEYS[1], 'let_go', ARGV[2], 'let_go_epoch', ARGV[3], 'let_go_seq', ARGV[4])
end
return 1
