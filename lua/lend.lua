#!lua
-- lend.lua: takes units out of shares, on their way to shares in other partitions: the debits of transfers. From a
-- share to another partition one transfer is open at a time.
--
-- KEYS
--   1         meta
--   2         events
--   3         moving: sorted set of what left and is not settled yet, "<product>:<receiver>" by time in ms
--   4..       S stock shares, one a distinct product, in units
--   then      S records of transfers, one a distinct product, see transfer.lua
-- ARGV
--   1         header, see door.lua
--   2         msgpack sequence: array of the S product ids
--   3..       N operations, each a msgpack sequence: product id, receiving partition, units at most
-- Replies
--   one string: the last seq, then for each operation a msgpack sequence
--   ok                 0, units, epoch, seq
--   replay             1, units, epoch, seq of the transfer that is still open
--   backlog            3
--   product_not_found  5, product id
--   out_of_stock       6, product id, 0
--   share_leased       20, product id
--   error DOOR: not done, the door is shut
-- Event
--   6 moved: [6, product id, receiver, units (below 0), epoch, seq (its own), time in ms, share after]

local OK, REPLAY, BACKLOG = code.ok, code.replay, code.backlog
local PRODUCT_NOT_FOUND, OUT_OF_STOCK, SHARE_LEASED = code.product_not_found, code.out_of_stock, code.share_leased

local door, shut = enter()
if shut then return shut end

local products = cmsgpack.unpack(ARGV[2])
local n, s = #ARGV - 2, #products
local stock_at, record_at = 3, 3 + s
local stocks, transfers = read_shares(stock_at, record_at, products)
redis.call('ZCARD', KEYS[3]) -- refuses a wrong type before the first write

local replies, events, changed, moving = {}, {}, {}, {}

local function lend(product, receiver, most)
    local stock, record = stocks[product], transfers[product]
    if not stock then return pack(PRODUCT_NOT_FOUND, product) end
    local out = record[2]
    local at, is_open = place_of(out, OUT_FIELDS, receiver)
    if is_open then return pack(REPLAY, out[at + 3], out[at + 1], out[at + 2]) end
    if stock < 1 then return pack(OUT_OF_STOCK, product, 0) end
    if record[1] > door.now_ms then return pack(SHARE_LEASED, product) end
    local units, seq = math.min(most, stock), door.seq + #events + 1
    stock = stock - units
    stocks[product] = stock
    changed[product] = true
    out[at], out[at + 1], out[at + 2], out[at + 3] = receiver, epoch, seq, units
    local m = #moving
    moving[m + 1], moving[m + 2] = door.now_ms, string.format('%d:%d', product, receiver)
    events[#events + 1] = moved(product, receiver, -units, epoch, seq, door.now_ms, stock)
    return pack(OK, units, epoch, seq)
end

for i = 1, n do
    replies[i] = door.backlog_full and pack(BACKLOG) or lend(cmsgpack.unpack(ARGV[2 + i]))
end

if #events > 0 then
    local writes = {}
    emit(door, events, #events)
    put_shares(stock_at, record_at, products, stocks, transfers, changed, writes)
    put(writes)
    redis.call('ZADD', KEYS[3], unpack(moving))
end
return respond(door, replies)
