#!lua flags=no-writes
-- rights.lua: names the commands that the user may not run.
--
-- KEYS
--   1  meta
-- ARGV
--   1..  names of commands that take a key first, or none at all
-- Replies
--   array: those of them that are forbidden
-- Event
--   none

local forbidden = {}
for i = 1, #ARGV do
    if not redis.acl_check_cmd(ARGV[i], KEYS[1]) then forbidden[#forbidden + 1] = ARGV[i] end
end
return forbidden
