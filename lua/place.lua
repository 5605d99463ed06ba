#!lua
-- place.lua: places orders that are paid at once: reserves, debits and records each in one step. Where an order buys
-- from a cart, what it buys leaves the cart in the same step.
--
-- KEYS
--   1         meta
--   2         events
--   3         hash of the units sold in the expected minute, by product
--   4         sorted set of the units sold in the window, see sale.lua
--   5..       N idempotency records, one an operation (equal keys may repeat)
--   then      C carts, one an operation that buys from a cart (equal keys may repeat)
--   then      U balances, one a distinct user, in minor units
--   then      S stock shares, one a distinct product, in units
--   then      S catalogue records, one a distinct product
--   then      N orders, one an operation
-- ARGV
--   1         header, see door.lua
--   2         msgpack sequence: expected minute (of Unix time), array of the C operations that buy from a cart
--             (counted from 1), array of the U user ids, array of the S product ids, array of the index of each
--             operation's user, array of the lines of each operation: how many, then product by index, quantity, ...,
--             array of the S product ids as text, 1 with several partitions or 0
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
--   insufficient_balance  7, balance
--   corrupt               10, product id whose share is missing
--   cart_changed          14
--   cart_empty            15
--   order_limit           19
--   error DOOR: not done, the door is shut. error MINUTE m: not done, call again with minute m
-- Event
--   1 ordered: [1, user id, order id, key, fingerprint, lines, time in ms, total, prices, balance after, stocks after]
--   5 carted: [5, user id, key, fingerprint, time in ms, cart, answer], with an empty key, after an order from a cart

local OK, REPLAY, KEY_REUSED, BACKLOG = code.ok, code.replay, code.key_reused, code.backlog
local USER_NOT_FOUND, INSUFFICIENT_BALANCE = code.user_not_found, code.insufficient_balance
local CART_CHANGED, CART_EMPTY = code.cart_changed, code.cart_empty
local EVENT_HEAD = '\155\001' -- msgpack: array of 11, kind 1

-- The order's record begins with its version 1 and the status SUCCESS (2), and ends with no expiry and the history
-- PENDING (1), SUCCESS. Pieces that are packed once serve record, event and reply alike.
local RECORD_HEAD, RECORD_TAIL = '\001\002', '\000' .. pack({ 1, 0, '', 2, 0, '' })
local OK_HEAD = pack(OK)

local door, shut = enter()
if shut then return shut end

local expected_minute, buys, users, products, who, what, names, several = cmsgpack.unpack(ARGV[2])
if expected_minute ~= door.minute then
    return redis.error_reply(string.format('MINUTE %.0f', door.minute))
end

local n, c, u, s = (#ARGV - 2) / 2, #buys, #users, #products
local idempotency_at, cart_at = 4, 4 + n
local balance_at, stock_at = cart_at + c, cart_at + c + u
local catalogue_at = stock_at + s
local order_at = catalogue_at + s

-- Reads, all of them before the first write.
if redis.call('EXISTS', unpack(KEYS, order_at + 1, order_at + n)) > 0 then
    return redis.error_reply('ERR an order id is already taken')
end
local records, carts, cart_of, balances, stocks, prices = read_sale(idempotency_at, n, buys, u, s)

-- Decisions, one operation after the other on the values above, so that N in one call equal N in sequence.
local replies, events, event_count, writes = {}, {}, 0, {}
local changed_users, changed_carts, sold = {}, {}, {}

local function place(i, operation, packed_lines, first, last)
    local user, cart_key, rest = who[i], cart_of[i], nil
    if not balances[user] then return pack(USER_NOT_FOUND) end
    if cart_key then
        if last < first then return pack(CART_EMPTY) end
        rest = without(carts[cart_key], cmsgpack.unpack(packed_lines))
        if not rest then return pack(CART_CHANGED) end
    end
    local refusal, total, line_prices = price_lines(what, first, last, products, stocks, prices)
    if refusal then return refusal end
    if balances[user] < total then return pack(INSUFFICIENT_BALANCE, balances[user]) end

    local stocks_after = take_lines(what, first, last, stocks, sold)
    local balance = balances[user] - total
    balances[user] = balance
    changed_users[user] = true
    local outcome = pack(door.now_ms, total, line_prices)
    local w, e = #writes, #events
    writes[w + 1] = KEYS[order_at + i]
    writes[w + 2] = RECORD_HEAD .. packed_user(operation) .. outcome .. packed_lines .. RECORD_TAIL
    events[e + 1] = EVENT_HEAD .. operation .. packed_lines .. outcome .. pack(balance, stocks_after)
    event_count = event_count + 1
    if cart_key then
        carts[cart_key] = rest
        changed_carts[cart_key] = true
        events[e + 2] = carted(users[user], '', '', door.now_ms, close_cart(rest), '')
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
        local reply, done = place(i, operation, ARGV[2 + n + i], first, lines_end)
        replies[i] = reply
        if done then
            record = fingerprint(operation) .. order_id(operation)
            records[record_key] = record
            local w = #writes
            writes[w + 1], writes[w + 2] = record_key, record
        end
    end
end

-- Writes.
if event_count > 0 then
    local sellers, units = {}, {}
    for i = 1, s do
        local sold_of = sold[i]
        if sold_of then
            local last = #sellers + 1
            sellers[last], units[last] = names[i], sold_of
        end
    end
    local in_minute, in_window = minute_sums(KEYS[3], sellers, units), top_sums(KEYS[4], sellers, units)
    emit(door, events, event_count)
    put_indexed(balance_at, balances, changed_users, writes)
    put_indexed(stock_at, stocks, sold, writes)
    put_carts(carts, changed_carts, writes)
    put(writes)
    count_minute(KEYS[3], in_minute)
    count_top(KEYS[4], in_window)
end
if several == 1 then replies[n + 1] = pack(stocks) end
return respond(door, replies)
