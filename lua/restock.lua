#!lua
-- restock.lua: changes stock by a signed delta: restocks and write-offs.
--
-- KEYS
--   1         meta
--   2         events
--   3..       N idempotency records, one an operation (equal keys may repeat)
--   then      S stock shares, one a distinct product, in units
--   then      S counters of growth, one a distinct product, or none with one partition
-- ARGV
--   1         header, see door.lua
--   2         msgpack sequence: array of the S product ids, array of the units of each in other partitions,
--             1 where growth is counted or 0
--   3..       N operations, each a msgpack sequence: product id, idempotency key, fingerprint (16 bytes),
--             delta in units (not 0), reason
-- Replies
--   one string: the last seq, then for each operation a msgpack sequence
--   ok                 0, stock of all partitions after
--   replay             1, the same
--   key_reused         2
--   backlog            3
--   product_not_found  5, product id
--   out_of_stock       6, product id, units of the share
--   stock_limit        9, units left
--   error DOOR: not done, the door is shut
-- Event
--   3 restocked: [3, product id, key, fingerprint, delta, reason, time in ms, share after, stock after]

local OK, REPLAY, KEY_REUSED, BACKLOG = code.ok, code.replay, code.key_reused, code.backlog
local PRODUCT_NOT_FOUND, OUT_OF_STOCK, STOCK_LIMIT = code.product_not_found, code.out_of_stock, code.stock_limit
local EVENT_HEAD = '\153\003' -- msgpack: array of 9, kind 3

local door, shut = enter()
if shut then return shut end

local products, elsewhere, counted = cmsgpack.unpack(ARGV[2])
local n, s = #ARGV - 2, #products
local record_at, stock_at = 2, 2 + n
local grown_at = stock_at + s

local found = gather(record_at + 1, stock_at + s)
local grown = gather(grown_at + 1, grown_at + s * counted)
local records, stocks, others = {}, {}, {}
for i = 1, n do records[KEYS[record_at + i]] = found[i] end
for i = 1, s do
    stocks[products[i]] = tonumber(found[n + i] or nil)
    others[products[i]] = elsewhere[i]
end

local replies, events, writes, changed = {}, {}, {}, {}
for i = 1, n do
    local operation = ARGV[2 + i]
    local product, _, fingerprint, delta = cmsgpack.unpack(operation)
    local record_key = KEYS[record_at + i]
    local record, stock = records[record_key], stocks[product]
    if record then
        if sub(record, 1, 16) == fingerprint then
            replies[i] = pack(REPLAY, assert(cmsgpack.unpack(sub(record, 17))))
        else
            replies[i] = pack(KEY_REUSED)
        end
    elseif door.backlog_full then
        replies[i] = pack(BACKLOG)
    elseif not stock then
        replies[i] = pack(PRODUCT_NOT_FOUND, product)
    elseif stock + delta < 0 then
        replies[i] = pack(OUT_OF_STOCK, product, stock)
    elseif stock + delta + others[product] > STOCK_MAX then
        replies[i] = pack(STOCK_LIMIT, stock + others[product])
    else
        stock = stock + delta
        local total = stock + others[product]
        stocks[product] = stock
        changed[product] = true
        records[record_key] = fingerprint .. pack(total)
        local w = #writes
        writes[w + 1], writes[w + 2] = record_key, records[record_key]
        events[#events + 1] = EVENT_HEAD .. operation .. pack(door.now_ms, stock, total)
        replies[i] = pack(OK, total)
    end
end

if #events > 0 then
    emit(door, events, #events)
    for i = 1, s do
        if changed[products[i]] then
            writes[#writes + 1] = KEYS[stock_at + i]
            writes[#writes + 1] = stocks[products[i]]
        end
    end
    put_grown(grown_at, products, grown, changed, writes)
    put(writes)
end
return respond(door, replies)
