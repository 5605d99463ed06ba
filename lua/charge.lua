#!lua
-- charge.lua: adds to balances.
--
-- KEYS
--   1         meta
--   2         events
--   3..       N idempotency records, one an operation (equal keys may repeat)
--   then      U balances, one a distinct user, in minor units
-- ARGV
--   1         header, see door.lua
--   2         msgpack sequence: array of the U user ids
--   3..       N operations, each a msgpack sequence: user id, charge id (8 bytes), idempotency key,
--             fingerprint (16 bytes), amount in minor units (1 to 10^14)
-- Replies
--   one string: the last seq, then for each operation a msgpack sequence
--   ok              0, balance after
--   replay          1, charge id (8 bytes), balance after
--   key_reused      2
--   backlog         3
--   user_not_found  4
--   balance_limit   8, balance
--   error DOOR: not done, the door is shut
-- Event
--   2 charged: [2, user id, charge id, key, fingerprint, amount, time in ms, balance after]

local OK, REPLAY, KEY_REUSED, BACKLOG = code.ok, code.replay, code.key_reused, code.backlog
local USER_NOT_FOUND, BALANCE_LIMIT = code.user_not_found, code.balance_limit
local EVENT_HEAD = '\152\002' -- msgpack: array of 8, kind 2

local door, shut = enter()
if shut then return shut end

local users = cmsgpack.unpack(ARGV[2])
local n, u = #ARGV - 2, #users
local record_at, balance_at = 2, 2 + n

local found = gather(record_at + 1, balance_at + u)
local records, balances = {}, {}
for i = 1, n do records[KEYS[record_at + i]] = found[i] end
for i = 1, u do balances[users[i]] = tonumber(found[n + i] or nil) end

local replies, events, writes, changed = {}, {}, {}, {}
for i = 1, n do
    local operation = ARGV[2 + i]
    local user, charge_id, _, fingerprint, amount = cmsgpack.unpack(operation)
    local record_key = KEYS[record_at + i]
    local record, balance = records[record_key], balances[user]
    if record then
        if sub(record, 1, 16) == fingerprint then
            replies[i] = pack(REPLAY, sub(record, 17, 24), assert(cmsgpack.unpack(sub(record, 25))))
        else
            replies[i] = pack(KEY_REUSED)
        end
    elseif door.backlog_full then
        replies[i] = pack(BACKLOG)
    elseif not balance then
        replies[i] = pack(USER_NOT_FOUND)
    elseif balance + amount > BALANCE_MAX then
        replies[i] = pack(BALANCE_LIMIT, balance)
    else
        balance = balance + amount
        balances[user] = balance
        changed[user] = true
        records[record_key] = fingerprint .. charge_id .. pack(balance)
        local w = #writes
        writes[w + 1], writes[w + 2] = record_key, records[record_key]
        events[#events + 1] = EVENT_HEAD .. operation .. pack(door.now_ms, balance)
        replies[i] = pack(OK, balance)
    end
end

if #events > 0 then
    emit(door, events, #events)
    for i = 1, u do
        if changed[users[i]] then
            writes[#writes + 1] = KEYS[balance_at + i]
            writes[#writes + 1] = balances[users[i]]
        end
    end
    put(writes)
end
return respond(door, replies)
