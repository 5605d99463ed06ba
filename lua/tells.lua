#!lua flags=no-writes
-- tells.lua: tells whether the user may ask how Redis keeps its data: a refusal would leave a line in the ACL log.
--
-- KEYS
--   none
-- ARGV
--   none
-- Replies
--   1 yes, 0 no
-- Event
--   none

return redis.acl_check_cmd('CONFIG', 'GET', 'appendfsync') and 1 or 0
