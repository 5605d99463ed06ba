#!lua flags=no-writes
-- due.lua: finds unpaid orders whose deadline has come, the longest overdue first.
--
-- KEYS
--   1  holds: sorted set of unpaid orders (8 bytes each) by deadline in ms
-- ARGV
--   1  clock offset in ms (0 in production)
--   2  how many at most
-- Replies
--   array: order ids
-- Event
--   none

local t = redis.call('TIME')
local now_ms = t[1] * 1000 + math.floor(t[2] / 1000) + tonumber(ARGV[1])
return redis.call('ZRANGE', KEYS[1], '-inf', string.format('%.0f', now_ms), 'BYSCORE', 'LIMIT', 0, ARGV[2])
