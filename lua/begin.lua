#!lua flags=allow-oom
-- begin.lua: begins to restore a partition, or takes up a restore of it that was cut short. Meta takes what the books
-- say of it, all but the epoch: without one the door is shut for whoever sells, and for any repair.
--
-- KEYS
--   1  meta
-- ARGV
--   1  token of the restore
--   2  the checkpoint of the books: events of all epochs
--   3  its epoch
--   4  its seq
--   5  its cumulative bytes
--   6  minute of Unix time of its last event
--   7  minute of Unix time from which units sold may count, where no earlier attempt has noted one
-- Replies
--   minute from which units sold may count; 0 refused: another repair has claimed the door, or the partition has an
--   epoch; -1 refused: the restore that was cut short found other books
-- Event
--   none

local m = redis.call('HMGET', KEYS[1], 'repair', 'epoch', 'let_go', 'let_go_epoch', 'let_go_seq')
if m[1] ~= ARGV[1] or m[2] then return 0 end
if m[3] and (m[3] ~= ARGV[2] or m[4] ~= ARGV[3] or m[5] ~= ARGV[4]) then return -1 end
-- What had ended by the checkpoint stays in the books: it counts as let go.
redis.call('HSET', KEYS[1], 'let_go', ARGV[2], 'let_go_epoch', ARGV[3], 'let_go_seq', ARGV[4],
    'bytes', ARGV[5], 'done', ARGV[5], 'minute', ARGV[6])
-- Totals are the sums of the minutes from here on, also of those that only an earlier attempt found young enough.
redis.call('HSETNX', KEYS[1], 'rolled', ARGV[7])
return tonumber(redis.call('HGET', KEYS[1], 'rolled'))
