#!lua flags=no-writes
-- look.lua: reads the door and everything a repair or a check compares, at one instant.
--
-- KEYS
--   1  meta
-- ARGV
--   1  clock offset in ms (0 in production)
-- Replies
--   array: epoch, node, open, seq, base, bytes, done, run, renewed, let_go, let_go_epoch, let_go_seq, lapsed_epoch,
--   lapsed_seq, leaving (fields of meta; false where missing), the server's replication id, the server's run id, 1 if
--   the server is a replica else 0, the partition's time in ms, by how many ms that leads Redis' TIME
-- Event
--   none

local m = redis.call('HMGET', KEYS[1], 'epoch', 'node', 'open', 'seq', 'base', 'bytes', 'done', 'run', 'renewed',
    'let_go', 'let_go_epoch', 'let_go_seq', 'lapsed_epoch', 'lapsed_seq', 'leaving', 'clock', 'clock_at', 'minute')
local now_ms, time_ms = read_clock(m[16], m[17], m[18], tonumber(ARGV[1]))
local replication = redis.call('INFO', 'replication')
m[16] = string.match(replication, 'master_replid:(%x+)')
m[17] = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
m[18] = string.match(replication, 'role:(%a+)') == 'slave' and 1 or 0
m[19], m[20] = now_ms, now_ms - time_ms
return m
