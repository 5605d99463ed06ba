#!lua
-- credit.lua: adds units that left another partition's share to the one here: the credits of transfers. Whoever calls
-- it knows that Postgres holds the debit. Safe to repeat: of what came from a partition the last is remembered, and the
-- next leaves there only when this one is settled.
--
-- KEYS
--   1         meta
--   2         events
--   3..       S stock shares, one a distinct product, in units
--   then      S records of transfers, one a distinct product, see transfer.lua
--   then      S counters of growth, one a distinct product
-- ARGV
--   1         header, see door.lua
--   2         msgpack sequence: array of the S product ids
--   3..       N operations, each a msgpack sequence: product id, sending partition, epoch and seq of the transfer,
--             units, how long they stay here in ms
-- Replies
--   one string: the last seq, then for each operation a msgpack sequence
--   ok                 0, epoch, seq of the credit
--   replay             1, epoch, seq of the last event here: it came before
--   backlog            3
--   product_not_found  5, product id
--   error DOOR: not done, the door is shut
-- Event
--   6 moved: [6, product id, sender, units, epoch, seq (of the debit), time in ms, share after]

local OK, REPLAY, BACKLOG = code.ok, code.replay, code.backlog
local PRODUCT_NOT_FOUND = code.product_not_found

local door, shut = enter()
if shut then return shut end

local products = cmsgpack.unpack(ARGV[2])
local n, s = #ARGV - 2, #products
local stock_at, record_at = 2, 2 + s
local grown_at = record_at + s
local stocks, transfers = read_shares(stock_at, record_at, products)
local grown = gather(grown_at + 1, grown_at + s)

local replies, events, changed = {}, {}, {}

local function credit(product, sender, of_epoch, of_seq, units, stay_ms)
    local stock, record = stocks[product], transfers[product]
    if not stock then return pack(PRODUCT_NOT_FOUND, product) end
    local came = record[3]
    local at, known = place_of(came, IN_FIELDS, sender)
    if known and (came[at + 1] > of_epoch or (came[at + 1] == of_epoch and came[at + 2] >= of_seq)) then
        return pack(REPLAY, epoch, door.seq + #events)
    end
    -- Whoever waited for units that came earlier has bought them where none are left.
    record[1] = math.max(stock > 0 and record[1] or 0, door.now_ms + stay_ms)
    stock = stock + units
    stocks[product] = stock
    changed[product] = true
    came[at], came[at + 1], came[at + 2] = sender, of_epoch, of_seq
    events[#events + 1] = moved(product, sender, units, of_epoch, of_seq, door.now_ms, stock)
    return pack(OK, epoch, door.seq + #events)
end

for i = 1, n do
    replies[i] = door.backlog_full and pack(BACKLOG) or credit(cmsgpack.unpack(ARGV[2 + i]))
end

if #events > 0 then
    local writes = {}
    emit(door, events, #events)
    put_shares(stock_at, record_at, products, stocks, transfers, changed, writes)
    put_grown(grown_at, products, grown, changed, writes)
    put(writes)
end
return respond(door, replies)
