#!lua
-- reserve.lua: places orders that are paid later: holds the stock of each until a deadline. Where an order buys from a
-- cart, what it buys leaves the cart in the same step.
--
-- KEYS
--   1         meta
--   2         events
--   3         holds: sorted set of unpaid orders by deadline in ms
--   4..       N idempotency records, one an operation (equal keys may repeat)
--   then      C carts, one an operation that buys from a cart (equal keys may repeat)
--   then      U balances, one a distinct user: a user without one is unknown
--   then      S stock shares, one a distinct product, in units
--   then      S catalogue records, one a distinct product
--   then      N orders, one an operation
-- ARGV
--   1         header, see door.lua
--   2         msgpack sequence: how long to hold in ms, array of the C operations that buy from a cart (from 1),
--             array of the U user ids, array of the S product ids, array of the index of each operation's user,
--             array of the lines of each operation: how many, then product by index, quantity, ...,
--             1 with several partitions or 0
--   3..       N operations, each a msgpack sequence: user id, order id (8 bytes), idempotency key,
--             fingerprint (16 bytes)
--   then      N arrays in msgpack, the lines of each: product id, quantity, ...; each product once
-- Replies
--   one string: the last seq, then for each operation a msgpack sequence; behind them, with several partitions, an
--   array of the S stock shares after the call (false where there is none)
--   ok                    0, time in ms, total, array of prices
--   replay                1, order id
--   key_reused            2
--   backlog               3
--   user_not_found        4
--   product_not_found     5, product id
--   out_of_stock          6, product id, units left
--   corrupt               10, product id whose share is missing
--   cart_changed          14
--   cart_empty            15
--   order_limit           19
--   error DOOR: not done, the door is shut
-- Event
--   4 stepped: [4, user id, order id, key, fingerprint, scope, record, balance after (-1: untouched), stocks after]
--   5 carted: [5, user id, key, fingerprint, time in ms, cart, answer], with an empty key, after an order from a cart

local OK, REPLAY, KEY_REUSED, BACKLOG = code.ok, code.replay, code.key_reused, code.backlog
local USER_NOT_FOUND, CART_CHANGED, CART_EMPTY = code.user_not_found, code.cart_changed, code.cart_empty

-- The order's record begins with its version 1 and the status PENDING (1), and ends with the deadline and the history
-- PENDING.
local RECORD_HEAD, HISTORY = '\001\001', pack({ 1, 0, '' })
local OK_HEAD = pack(OK)

local door, shut = enter()
if shut then return shut end

local hold_ms, buys, users, products, who, what, several = cmsgpack.unpack(ARGV[2])
local n, c, u, s = (#ARGV - 2) / 2, #buys, #users, #products
local idempotency_at, cart_at = 3, 3 + n
local balance_at = cart_at + c
local stock_at = balance_at + u
local catalogue_at = stock_at + s
local order_at = catalogue_at + s

if redis.call('EXISTS', unpack(KEYS, order_at + 1, order_at + n)) > 0 then
    return redis.error_reply('ERR an order id is already taken')
end
redis.call('ZCARD', KEYS[3]) -- refuses a wrong type before the first write
local records, carts, cart_of, balances, stocks, prices = read_sale(idempotency_at, n, buys, u, s)

local replies, events, event_count, writes = {}, {}, 0, {}
local changed_carts, taken, holds = {}, {}, {}
local expires_ms = door.now_ms + hold_ms

local function reserve(i, operation, packed_lines, first, last)
    local user, cart_key, rest = who[i], cart_of[i], nil
    if not balances[user] then return pack(USER_NOT_FOUND) end
    if cart_key then
        if last < first then return pack(CART_EMPTY) end
        rest = without(carts[cart_key], cmsgpack.unpack(packed_lines))
        if not rest then return pack(CART_CHANGED) end
    end
    local refusal, total, line_prices = price_lines(what, first, last, products, stocks, prices)
    if refusal then return refusal end

    local stocks_after = take_lines(what, first, last, stocks, taken)
    local outcome = pack(door.now_ms, total, line_prices)
    local record = RECORD_HEAD .. packed_user(operation) .. outcome .. packed_lines .. pack(expires_ms) .. HISTORY
    local w, h = #writes, #holds
    writes[w + 1], writes[w + 2] = KEYS[order_at + i], record
    holds[h + 1], holds[h + 2] = expires_ms, order_id(operation)
    events[#events + 1] = stepped(operation, users[user], record, BALANCE_UNTOUCHED, stocks_after)
    event_count = event_count + 1
    if cart_key then
        carts[cart_key] = rest
        changed_carts[cart_key] = true
        events[#events + 1] = carted(users[user], '', '', door.now_ms, close_cart(rest), '')
        event_count = event_count + 1
    end
    return OK_HEAD .. outcome, true
end

local lines_end = 0 -- of the operation before, in what
for i = 1, n do
    local operation, record_key = ARGV[2 + i], KEYS[idempotency_at + i]
    local first = lines_end + 2
    lines_end = first - 1 + 2 * what[lines_end + 1]
    local record = records[record_key]
    if record then
        if sub(record, 1, 16) == fingerprint(operation) then
            replies[i] = pack(REPLAY, sub(record, 17, 24))
        else
            replies[i] = pack(KEY_REUSED)
        end
    elseif door.backlog_full then
        replies[i] = pack(BACKLOG)
    else
        local reply, done = reserve(i, operation, ARGV[2 + n + i], first, lines_end)
        replies[i] = reply
        if done then
            record = fingerprint(operation) .. order_id(operation)
            records[record_key] = record
            local w = #writes
            writes[w + 1], writes[w + 2] = record_key, record
        end
    end
end

if event_count > 0 then
    emit(door, events, event_count)
    put_indexed(stock_at, stocks, taken, writes)
    put_carts(carts, changed_carts, writes)
    put(writes)
    redis.call('ZADD', KEYS[3], unpack(holds))
end
if several == 1 then replies[n + 1] = pack(stocks) end
return respond(door, replies)
