#!lua
-- place.lua: places orders that are paid at once: reserves, debits and records each in one step.
--
-- KEYS
--   1         meta
--   2         events
--   3         hash of the units sold in the expected minute, by product
--   4..       N idempotency records, one an operation (equal keys may repeat)
--   then      N orders, one an operation
--   then      U balances, one a distinct user, in minor units
--   then      S stock shares, one a distinct product, in units
--   then      S catalogue records, one a distinct product
-- ARGV
--   1         header, see door.lua
--   2         msgpack sequence: expected minute (of Unix time), array of the U user ids, array of the S product ids
--   3..       N operations, each a msgpack sequence: user id, order id (8 bytes), idempotency key,
--             fingerprint (16 bytes)
--   then      N arrays in msgpack, the lines of each: product id, quantity, ...; each product once
-- Replies
--   one string: for each operation a msgpack sequence
--   ok                    0, time in ms, total, array of prices
--   replay                1, order id
--   key_reused            2
--   backlog               3
--   user_not_found        4
--   product_not_found     5, product id
--   out_of_stock          6, product id, units left
--   insufficient_balance  7, balance
--   corrupt               10, product id whose share is missing
--   error DOOR: not done, the door is shut. error MINUTE m: not done, call again with minute m
-- Event
--   1 ordered: [1, user id, order id, key, fingerprint, lines, time in ms, total, prices, balance after, stocks after]

local OK, REPLAY, KEY_REUSED, BACKLOG = code.ok, code.replay, code.key_reused, code.backlog
local USER_NOT_FOUND, PRODUCT_NOT_FOUND = code.user_not_found, code.product_not_found
local OUT_OF_STOCK, INSUFFICIENT_BALANCE, CORRUPT = code.out_of_stock, code.insufficient_balance, code.corrupt
local EVENT_HEAD = '\155\001' -- msgpack: array of 11, kind 1

local pack, sub = cmsgpack.pack, string.sub

-- The order's record, see engine/record.go, begins with its version 1 and the status SUCCESS (2), and ends with no
-- expiry and the history PENDING (1), SUCCESS. Pieces that are packed once serve record, event and reply alike.
local RECORD_HEAD, RECORD_TAIL = '\001\002', '\000' .. pack({ 1, 0, '', 2, 0, '' })
local OK_HEAD = pack(OK)

local door, shut = enter()
if shut then return shut end

local expected_minute, users, products = cmsgpack.unpack(ARGV[2])
if expected_minute ~= door.minute then
    return redis.error_reply(string.format('MINUTE %.0f', door.minute))
end

local n, u, s = (#ARGV - 2) / 2, #users, #products
local idempotency_at, order_at = 3, 3 + n
local balance_at, stock_at, catalogue_at = 3 + 2 * n, 3 + 2 * n + u, 3 + 2 * n + u + s

-- Reads, all of them before the first write.
if redis.call('EXISTS', unpack(KEYS, order_at + 1, order_at + n)) > 0 then
    return redis.error_reply('ERR an order id is already taken')
end
local found = gather(idempotency_at + 1, idempotency_at + n)
local records = {}
for i = 1, n do records[KEYS[idempotency_at + i]] = found[i] end

found = gather(balance_at + 1, catalogue_at + s)
local balances, stocks, prices = {}, {}, {}
for i = 1, u do balances[users[i]] = tonumber(found[i] or nil) end
for i = 1, s do
    stocks[products[i]] = tonumber(found[u + i] or nil)
    local record = found[u + s + i]
    prices[products[i]] = record and tonumber(string.match(record, '^%d+:(%d+):'))
end
local sold = {}
for from = 1, s, UNPACK_MAX do
    local to = math.min(from + UNPACK_MAX - 1, s)
    local part = redis.call('HMGET', KEYS[3], unpack(products, from, to))
    for i = from, to do sold[products[i]] = tonumber(part[i - from + 1] or 0) end
end

-- Decisions, one operation after the other on the values above, so that N in one call equal N in sequence.
local replies, events, event_count, writes, new_records = {}, {}, 0, {}, {}
local changed_users, changed_products = {}, {}

-- check returns the refusal of the first line that cannot be had, or nil, the total and the lines' prices.
local function check(user, lines)
    local balance = balances[user]
    if not balance then return pack(USER_NOT_FOUND) end
    local total, line_prices = 0, {}
    for l = 1, #lines, 2 do
        local product = lines[l]
        local price = prices[product]
        if not price then return pack(PRODUCT_NOT_FOUND, product) end
        if not stocks[product] then return pack(CORRUPT, product) end
        line_prices[#line_prices + 1] = price
        total = total + price * lines[l + 1]
    end
    for l = 1, #lines, 2 do
        local product = lines[l]
        if stocks[product] < lines[l + 1] then return pack(OUT_OF_STOCK, product, stocks[product]) end
    end
    if balance < total then return pack(INSUFFICIENT_BALANCE, balance) end
    return nil, total, line_prices
end

for i = 1, n do
    local operation, packed_lines = ARGV[2 + i], ARGV[2 + n + i]
    local user, order_id, _, fingerprint = cmsgpack.unpack(operation)
    local record_key = KEYS[idempotency_at + i]
    local record = records[record_key]
    if record then
        if sub(record, 1, 16) == fingerprint then
            replies[i] = pack(REPLAY, sub(record, 17, 24))
        else
            replies[i] = pack(KEY_REUSED)
        end
    elseif door.backlog_full then
        replies[i] = pack(BACKLOG)
    else
        local lines = cmsgpack.unpack(packed_lines)
        local refusal, total, line_prices = check(user, lines)
        if refusal then
            replies[i] = refusal
        else
            local stocks_after = {}
            for l = 1, #lines, 2 do
                local product, quantity = lines[l], lines[l + 1]
                local left = stocks[product] - quantity
                stocks[product] = left
                sold[product] = sold[product] + quantity
                changed_products[product] = true
                stocks_after[#stocks_after + 1] = left
            end
            balances[user] = balances[user] - total
            changed_users[user] = true
            records[record_key] = fingerprint .. order_id
            new_records[#new_records + 1] = record_key
            local outcome = pack(door.now_ms, total, line_prices)
            local w, e = #writes, #events
            writes[w + 1] = KEYS[order_at + i]
            writes[w + 2] = RECORD_HEAD .. pack(user) .. outcome .. packed_lines .. RECORD_TAIL
            events[e + 1], events[e + 2], events[e + 3], events[e + 4] = EVENT_HEAD, operation, packed_lines, outcome
            events[e + 5] = pack(balances[user], stocks_after)
            event_count = event_count + 1
            replies[i] = OK_HEAD .. outcome
        end
    end
end

-- Writes.
if event_count > 0 then
    emit(door, events, event_count)
    for i = 1, u do
        if changed_users[users[i]] then
            writes[#writes + 1] = KEYS[balance_at + i]
            writes[#writes + 1] = balances[users[i]]
        end
    end
    local sold_now = {}
    for i = 1, s do
        local product = products[i]
        if changed_products[product] then
            writes[#writes + 1] = KEYS[stock_at + i]
            writes[#writes + 1] = stocks[product]
            sold_now[#sold_now + 1] = product
            sold_now[#sold_now + 1] = sold[product]
        end
    end
    put(writes)
    for _, key in ipairs(new_records) do
        redis.call('SET', key, records[key], 'EX', idempotency_ttl_s)
    end
    for from = 1, #sold_now, UNPACK_MAX do
        redis.call('HSET', KEYS[3], unpack(sold_now, from, math.min(from + UNPACK_MAX - 1, #sold_now)))
    end
end
return table.concat(replies)
