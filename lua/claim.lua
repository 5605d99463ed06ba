#!lua flags=allow-oom
-- claim.lua: gives a shut door to a repair. Whatever an earlier repair still has on its way is refused from now on:
-- it may have lost its lock in Postgres without having noticed.
--
-- KEYS
--   1  meta
-- ARGV
--   1  token of the repair
--   2  run id of the server whose AOF was begun anew
-- Replies
--   1 claimed, 0 the door stands open
-- Event
--   none

local m = redis.call('HMGET', KEYS[1], 'open', 'node')
if m[1] == '1' and m[2] == string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)') then
    return 0
end
redis.call('HSET', KEYS[1], 'repair', ARGV[1], 'renewed', ARGV[2])
return 1
