#!lua
-- load.lua: brings a part of what the books hold into a partition that a restore has begun. Values are final ones, so
-- that a restore that was cut short loads them again.
--
-- KEYS
--   1         meta
--   2..       N strings
--   then      T strings that end by themselves
--   then      C hashes and sorted sets to add to
-- ARGV
--   1         msgpack sequence: token of the restore, N, array of how many values each of the C gets: below 0 for
--             a sorted set; array of when each of the T ends, in ms
--   2..       N values
--   then      T values
--   then      the values of each of the C: field, value, ... or score, member, ...
-- Replies
--   1 done, 0 refused: another repair has claimed the door, or it was opened
-- Event
--   none

-- unpack fails near 8,000 values (LUAI_MAXCSTACK).
local UNPACK_MAX = 4000

local token, n, counts, ends = cmsgpack.unpack(ARGV[1])
local m = redis.call('HMGET', KEYS[1], 'repair', 'epoch')
if m[1] ~= token or m[2] then return 0 end

local plain_at, ending_at, many_at = 1, 1 + n, 1 + n + #ends

for from = 1, n, UNPACK_MAX / 2 do
    local writes = {}
    for i = from, math.min(from + UNPACK_MAX / 2 - 1, n) do
        writes[#writes + 1] = KEYS[plain_at + i]
        writes[#writes + 1] = ARGV[1 + i]
    end
    redis.call('MSET', unpack(writes))
end
for i = 1, #ends do redis.call('SET', KEYS[ending_at + i], ARGV[ending_at + i], 'PXAT', ends[i]) end
local before = many_at
for i = 1, #counts do
    local count = math.abs(counts[i])
    for from = 1, count, UNPACK_MAX do
        local first, last = before + from, before + math.min(from + UNPACK_MAX - 1, count)
        if counts[i] > 0 then
            redis.call('HSET', KEYS[many_at + i], unpack(ARGV, first, last))
        else
            redis.call('ZADD', KEYS[many_at + i], unpack(ARGV, first, last))
        end
    end
    before = before + count
end
return 1
