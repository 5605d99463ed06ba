#!lua flags=allow-oom
-- pulse.lua: moves the pulse of an open partition one step, towards the token that Postgres holds. The next token is
-- noted here before Postgres takes it: so Postgres always holds the pulse or the next one of the Redis that sells,
-- and a Redis of which it holds neither is a copy. Tokens of earlier epochs count as none.
--
-- KEYS
--   1  meta
-- ARGV
--   1  token that Postgres holds ('': none)
--   2  random part of a further token
-- Replies
--   array: epoch (false: none), 1 if the partition is open here else 0, the pulse, the next one ('': none, as of a
--   partition that is not open), the server's run id
-- Event
--   none

local m = redis.call('HMGET', KEYS[1], 'epoch', 'node', 'open', 'seq', 'pulse', 'pulse_next')
local replication = redis.call('INFO', 'replication')
local run = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
local epoch = m[1]
if not epoch or m[3] ~= '1' or m[2] ~= string.match(replication, 'master_replid:(%x+)') then
    return { epoch, 0, '', '', run }
end

local function of_this_epoch(token)
    if token and string.match(token, '^(%d+):') == epoch then return token end
    return ''
end

local known, pulse, coming = of_this_epoch(ARGV[1]), of_this_epoch(m[5]), of_this_epoch(m[6])
if coming ~= '' and coming == known then
    redis.call('HSET', KEYS[1], 'pulse', coming)
    redis.call('HDEL', KEYS[1], 'pulse_next')
    pulse, coming = coming, ''
end
if pulse == known and coming == '' then
    coming = table.concat({ epoch, m[4], ARGV[2] }, ':')
    redis.call('HSET', KEYS[1], 'pulse_next', coming)
end
return { epoch, 1, pulse, coming, run }
