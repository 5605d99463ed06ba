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
--   array: minute now, first minute that may still count (false: none yet), then member, score, ...
-- Event
--   none

local m = redis.call('HMGET', KEYS[1], 'minute', 'rolled')
local t = redis.call('TIME')
local now_ms = t[1] * 1000 + math.floor(t[2] / 1000) + tonumber(ARGV[1])
local reply = { math.max(math.floor(now_ms / 60000), tonumber(m[1] or 0)), m[2] }
local found = redis.call('ZRANGE', KEYS[2], 0, ARGV[2] - 1, 'WITHSCORES')
for i = 1, #found do reply[2 + i] = found[i] end
return reply
