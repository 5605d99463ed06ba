#!lua flags=no-writes
-- top.lua: reads the head of the running totals, and whether minutes wait to be taken out of them.
--
-- KEYS
--   1  meta
--   2  sorted set of the units sold in the window, see sale.lua
-- ARGV
--   1  clock offset in ms (0 in production)
--   2  how many products at most
-- Replies
--   array: time in ms, first minute that may still count (false: none yet), then member, score, ...
-- Event
--   none

local m = redis.call('HMGET', KEYS[1], 'clock', 'clock_at', 'minute', 'rolled')
local reply = { read_clock(m[1], m[2], m[3], tonumber(ARGV[1])), m[4] }
local found = redis.call('ZRANGE', KEYS[2], 0, ARGV[2] - 1, 'WITHSCORES')
for i = 1, #found do reply[2 + i] = found[i] end
return reply
