#!lua flags=allow-oom
-- open.lua: moves the door: starts an epoch behind it, or opens it. Only a repair that holds the partition's lock in
-- Postgres calls it. It refuses when another repair has claimed the door, or Redis is no longer as the repair found it.
--
-- KEYS
--   1  meta
-- ARGV
--   1   replication id the repair saw, which becomes the node
--   2   run id the repair saw
--   3   epoch found in meta (0: none yet)
--   4   seq found in meta
--   5   epoch to stand from now on; greater than 3 starts it at seq 0
--   6   base: events of all earlier epochs together (kept when the epoch stays)
--   7   1 to open, 0 to leave shut
--   8   token of the repair
--   9   minute of Unix time from which units sold may count, where Redis has none yet
--   10  time in ms that the clock must not be before (0: what meta notes is enough)
--   11  clock offset in ms (0 in production)
-- Replies
--   1 done, 0 refused: look again
-- Event
--   none

local node = string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)')
local run = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
local m = redis.call('HMGET', KEYS[1], 'epoch', 'seq', 'repair', 'clock', 'clock_at', 'minute')
if m[3] ~= ARGV[8] or node ~= ARGV[1] or run ~= ARGV[2] or (m[1] or '0') ~= ARGV[3] or (m[2] or '0') ~= ARGV[4] then
    return 0
end
redis.call('HSET', KEYS[1], 'epoch', ARGV[5], 'node', node, 'run', run, 'open', ARGV[7])
if ARGV[7] == '1' then redis.call('HDEL', KEYS[1], 'repair', 'leaving') end
if ARGV[5] ~= ARGV[3] then
    redis.call('HSET', KEYS[1], 'seq', 0, 'base', ARGV[6])
    redis.call('HSETNX', KEYS[1], 'bytes', 0)
    redis.call('HSETNX', KEYS[1], 'done', 0)
    redis.call('HSETNX', KEYS[1], 'minute', 0)
end
redis.call('HSETNX', KEYS[1], 'rolled', ARGV[9])
start_clock(KEYS[1], m[4], m[5], m[6], tonumber(ARGV[10]), tonumber(ARGV[11]))
return 1
