#!lua
-- settle.lua: closes transfers whose units have come where they went: from then on the next may leave. Whoever calls it
-- knows that Postgres holds the credit. Safe to repeat.
--
-- KEYS
--   1         meta
--   2         events (not written: debit and credit have theirs)
--   3         moving: sorted set of what left and is not settled yet, "<product>:<receiver>" by time in ms
--   4..       S records of transfers, one a distinct product, see transfer.lua
-- ARGV
--   1         header, see door.lua
--   2         msgpack sequence: array of the S product ids
--   3..       N operations, each a msgpack sequence: product id, receiving partition, epoch and seq of the transfer
-- Replies
--   one string: the last seq, then for each operation a msgpack sequence
--   ok              0
--   error DOOR: not done, the door is shut
-- Event
--   none

local door, shut = enter()
if shut then return shut end

local products = cmsgpack.unpack(ARGV[2])
local n, s = #ARGV - 2, #products
local found, transfers = gather(4, 3 + s), {}
for i = 1, s do transfers[products[i]] = open_transfers(found[i]) end

local changed, settled = {}, {}
for i = 1, n do
    local product, receiver, of_epoch, of_seq = cmsgpack.unpack(ARGV[2 + i])
    local out = transfers[product][2]
    local at, is_open = place_of(out, OUT_FIELDS, receiver)
    if is_open and out[at + 1] == of_epoch and out[at + 2] == of_seq then
        for _ = 1, OUT_FIELDS do table.remove(out, at) end
        changed[product] = true
        settled[#settled + 1] = string.format('%d:%d', product, receiver)
    end
end

if #settled > 0 then
    redis.call('ZREM', KEYS[3], unpack(settled))
    local writes = {}
    for i = 1, s do
        if changed[products[i]] then
            local w = #writes
            writes[w + 1], writes[w + 2] = KEYS[3 + i], pack(transfers[products[i]])
        end
    end
    put(writes)
end
return respond(door, { string.rep(pack(code.ok), n) })
