#!lua flags=allow-oom
-- replay.lua: brings Redis forward along the journal behind a shut door. Values are final ones, so that a call stands
-- for many events; the position in meta moves in the same step, so that a repair that died goes on where it was.
--
-- KEYS
--   1         meta
--   2..       keys to set
-- ARGV
--   1         msgpack sequence: epoch and seq found in meta, epoch and seq reached by this call,
--             cumulative bytes of the journal there, token of the repair
--   2..       one a key, a msgpack sequence: kind, then
--               1  value            set
--               2  value, ttl in s  set with a lifetime (0 or less: skipped)
--               3  field, delta     add to a field of a hash
-- Replies
--   1 done, 0 refused: another repair has claimed the door, or Redis is at another position
-- Event
--   none

local from_epoch, from_seq, to_epoch, to_seq, bytes, token = cmsgpack.unpack(ARGV[1])
local m = redis.call('HMGET', KEYS[1], 'epoch', 'seq', 'repair')
if tonumber(m[1] or 0) ~= from_epoch or tonumber(m[2] or 0) ~= from_seq or m[3] ~= token then
    return 0
end
redis.call('HSET', KEYS[1], 'epoch', to_epoch, 'seq', to_seq, 'bytes', bytes, 'done', bytes, 'open', 0)
for i = 2, #KEYS do
    local kind, a, b = cmsgpack.unpack(ARGV[i])
    if kind == 1 then
        redis.call('SET', KEYS[i], a)
    elseif kind == 2 then
        if b > 0 then redis.call('SET', KEYS[i], a, 'EX', b) end
    else
        redis.call('HINCRBY', KEYS[i], a, b)
    end
end
return 1
