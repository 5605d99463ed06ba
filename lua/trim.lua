#!lua flags=allow-oom
-- trim.lua: notes what Postgres holds and drops the stream behind it.
--
-- KEYS
--   1  meta
--   2  events
-- ARGV
--   1  epoch of the checkpoint
--   2  cumulative bytes of the journal at the checkpoint
--   3  stream id below which entries go ("0-0": none)
-- Replies
--   entries dropped
-- Event
--   none

local m = redis.call('HMGET', KEYS[1], 'epoch', 'done')
if not m[1] or tonumber(m[1]) < tonumber(ARGV[1]) then
    -- This Redis is new or behind the checkpoint: the repair will set the mark.
    return 0
end
-- A writer that was frozen and wakes up late must not move the mark back.
if tonumber(m[2]) < tonumber(ARGV[2]) then
    redis.call('HSET', KEYS[1], 'done', ARGV[2])
end
if ARGV[3] == '0-0' then return 0 end
return redis.call('XTRIM', KEYS[2], 'MINID', '~', ARGV[3])
