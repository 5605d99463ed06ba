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
--   the server is a replica else 0, 1 if the server was a replica of the node in meta, in this life, and was promoted
--   else 0, pulse, pulse_next (fields of meta), the partition's time in ms, by how many ms that leads Redis' TIME
-- Event
--   none

local m = redis.call('HMGET', KEYS[1], 'epoch', 'node', 'open', 'seq', 'base', 'bytes', 'done', 'run', 'renewed',
    'let_go', 'let_go_epoch', 'let_go_seq', 'lapsed_epoch', 'lapsed_seq', 'leaving', 'pulse', 'pulse_next', 'clock',
    'clock_at', 'minute')
local now_ms, time_ms = read_clock(m[18], m[19], m[20], tonumber(ARGV[1]))
m[20], m[21] = m[16], m[17]
local replication = redis.call('INFO', 'replication')
m[16] = string.match(replication, 'master_replid:(%x+)')
m[17] = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
m[18] = string.match(replication, 'role:(%a+)') == 'slave' and 1 or 0
-- A server that was started from a copy of the files was no replica in this life, whatever they say.
m[19] = 0
if m[2] and m[2] ~= m[16] and m[2] == string.match(replication, 'master_replid2:(%x+)')
    and tonumber(string.match(redis.call('INFO', 'stats'), 'total_net_repl_input_bytes:(%d+)') or 0) > 0 then
    m[19] = 1
end
m[22], m[23] = now_ms, now_ms - time_ms
return m
