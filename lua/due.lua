#!lua flags=allow-oom
-- due.lua: finds what is due by the partition's clock, the longest overdue first: unpaid orders whose
-- deadline has come, or transfers that have been open for a while. As it runs all the time, it also renews
-- the note of a clock that leads TIME: otherwise that of a partition in which nothing else is written would
-- wait for TIME to catch up, and holds would not end.
--
-- KEYS
--   1  meta
--   2  sorted set of what may be due, by time in ms
-- ARGV
--   1  clock offset in ms (0 in production)
--   2  how many at most
--   3  for how many ms it must have been due
-- Replies
--   array: members
-- Event
--   none

local m = redis.call('HMGET', KEYS[1], 'clock', 'clock_at', 'minute', 'open')
local now_ms, time_ms, clock_at = read_clock(m[1], m[2], m[3], tonumber(ARGV[1]))
local age = time_ms - (m[2] or 0)
-- Only in a partition that is open: a meta that was moved to another master must not appear again.
if now_ms > time_ms and (age < 0 or age >= NOTE_AGE_MS) and m[4] == '1' then
    redis.call('HSET', KEYS[1], 'clock', now_ms, 'clock_at', clock_at)
end
return redis.call('ZRANGE', KEYS[2], '-inf', string.format('%.0f', now_ms - ARGV[3]), 'BYSCORE', 'LIMIT', 0, ARGV[2])
