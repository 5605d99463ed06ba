#!lua flags=allow-oom
-- leave.lua: shuts the door of a partition that is to move to another master of the cluster, and notes where to once
-- it is about to go: from then on no repair opens it elsewhere. Whatever a repair still has on its way is refused, as
-- after claim.lua. Only who holds the partition's lock in Postgres calls it.
--
-- KEYS
--   1  meta
-- ARGV
--   1  epoch in which the partition was found
--   2  token of the move
--   3  the note ('': none)
-- Replies
--   1 done, 0 refused: Redis is in another epoch
-- Event
--   none

if redis.call('HGET', KEYS[1], 'epoch') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'open', 0, 'repair', ARGV[2])
if ARGV[3] == '' then
    redis.call('HDEL', KEYS[1], 'leaving')
else
    redis.call('HSET', KEYS[1], 'leaving', ARGV[3])
end
return 1
