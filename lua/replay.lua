#!lua flags=allow-oom
-- replay.lua: brings Redis forward along the journal behind a shut door. Values are final ones, so that a call stands
-- for many events; the position in meta moves in the same step, so that a repair that died goes on where it was.
--
-- KEYS
--   1         meta
--   2..       keys to set
-- ARGV
--   1         msgpack sequence: epoch and seq found in meta, epoch and seq reached by this call,
--             cumulative bytes of the journal there, token of the repair, cumulative events there if ended orders are
--             left out, else 0, time in ms of the latest of the events, clock offset in ms (0 in production)
--   2..       one a key, a msgpack sequence: kind, then
--               1  value            set
--               2  field, delta     add to a field of a hash
--               3                   delete
--               4  member, score    set in a sorted set
--               5  member           take out of a sorted set
--               6  member, delta    add to a score; members at 0 leave
--               7  out, in          put into a record of transfers, in place of what it says of the same peers: flat
--                                   arrays as it has them, see transfer.lua
-- Replies
--   1 done, 0 refused: another repair has claimed the door, or Redis is at another position
-- Event
--   none

-- The fields of a peer in a record of transfers.
local OUT_FIELDS, IN_FIELDS = 4, 3

-- merge puts groups of fields, by peer, into others.
local function merge(flat, groups, fields)
    for g = 1, #groups, fields do
        local at = 1
        while flat[at] and flat[at] ~= groups[g] do at = at + fields end
        for i = 0, fields - 1 do flat[at + i] = groups[g + i] end
    end
    return flat
end

local from_epoch, from_seq, to_epoch, to_seq, bytes, token, let_go, latest_ms, offset_ms = cmsgpack.unpack(ARGV[1])
local m = redis.call('HMGET', KEYS[1], 'epoch', 'seq', 'repair', 'clock', 'clock_at', 'minute')
if tonumber(m[1] or 0) ~= from_epoch or tonumber(m[2] or 0) ~= from_seq or m[3] ~= token then
    return 0
end
redis.call('HSET', KEYS[1], 'epoch', to_epoch, 'seq', to_seq, 'bytes', bytes, 'done', bytes, 'open', 0)
start_clock(KEYS[1], m[4], m[5], m[6], latest_ms, offset_ms)
if let_go > 0 then
    redis.call('HSET', KEYS[1], 'let_go', let_go, 'let_go_epoch', to_epoch, 'let_go_seq', to_seq)
end
for i = 2, #KEYS do
    local kind, a, b = cmsgpack.unpack(ARGV[i])
    if kind == 1 then
        redis.call('SET', KEYS[i], a)
    elseif kind == 2 then
        redis.call('HINCRBY', KEYS[i], a, b)
    elseif kind == 3 then
        redis.call('DEL', KEYS[i])
    elseif kind == 4 then
        redis.call('ZADD', KEYS[i], b, a)
    elseif kind == 5 then
        redis.call('ZREM', KEYS[i], a)
    elseif kind == 7 then
        local record = redis.call('MGET', KEYS[i])[1]
        local leased_ms, out, came = 0, {}, {}
        if record then leased_ms, out, came = unpack(cmsgpack.unpack(record)) end
        redis.call('SET', KEYS[i], cmsgpack.pack({ leased_ms, merge(out, a, OUT_FIELDS), merge(came, b, IN_FIELDS) }))
    elseif redis.call('ZINCRBY', KEYS[i], b, a) == '0' then
        redis.call('ZREM', KEYS[i], a)
    end
end
return 1
