#!lua
-- debit.lua: pays held orders. Where the balance is too short the order turns FAILED and its stock goes back, in the
-- same step. From its deadline on an order cannot be paid; rollback.lua cannot expire it before.
--
-- KEYS
--   1         meta
--   2         events
--   3         hash of the units sold in the expected minute, by product
--   4         sorted set of the units sold in the window, see sale.lua
--   5         holds: sorted set of unpaid orders by deadline in ms
--   6..       N idempotency records, one an operation (equal keys may repeat)
--   then      N orders, one an operation (equal keys may repeat)
--   then      U balances, one a distinct user, in minor units
--   then      S stock shares, one a distinct product, in units
--   then      S counters of growth, one a distinct product, or none with one partition
-- ARGV
--   1         header, see door.lua
--   2         msgpack sequence: expected minute (of Unix time), array of the U user ids, array of the S product ids,
--             1 where growth is counted or 0
--   3..       N operations, each a msgpack sequence: user id, order id (8 bytes), idempotency key,
--             fingerprint (16 bytes)
-- Replies
--   one string: the last seq, then for each operation a msgpack sequence
--   ok                 0, balance after, the order's record
--   replay             1, order id, status (2 paid, 3 failed), balance after (0 if paid)
--   key_reused         2
--   backlog            3
--   user_not_found     4
--   corrupt            10, product id whose share is missing
--   order_not_found    11
--   order_not_payable  12, status (PENDING: the deadline has passed)
--   error DOOR: not done, the door is shut. error MINUTE m: not done, call again with minute m
-- Event
--   4 stepped: [4, user id, order id, key, fingerprint, scope, record, balance after, stocks after (none if paid)]

local OK, REPLAY, KEY_REUSED, BACKLOG = code.ok, code.replay, code.key_reused, code.backlog
local USER_NOT_FOUND, CORRUPT = code.user_not_found, code.corrupt
local ORDER_NOT_FOUND, ORDER_NOT_PAYABLE = code.order_not_found, code.order_not_payable

local door, shut = enter()
if shut then return shut end

local expected_minute, users, products, counted = cmsgpack.unpack(ARGV[2])
local n, u, s = #ARGV - 2, #users, #products
local idempotency_at, order_at, balance_at, stock_at = 5, 5 + n, 5 + 2 * n, 5 + 2 * n + u
local grown_at = stock_at + s

local found, grown = gather(idempotency_at + 1, grown_at), gather(grown_at + 1, grown_at + s * counted)
local records, orders, balances, stocks = {}, {}, {}, {}
for i = 1, n do
    records[KEYS[idempotency_at + i]] = found[i]
    local key, record = KEYS[order_at + i], found[n + i]
    if record and not orders[key] then
        orders[key] = open_order(record)
        -- A sale counts in the minute of its step, which does not come before the order's last one: if
        -- another clock stamped that, the partition's goes on from there.
        if orders[key].status == PENDING then door.now_ms = math.max(door.now_ms, last_step(orders[key])) end
    end
end
door.minute = math.floor(door.now_ms / 60000)
if expected_minute ~= door.minute then
    return redis.error_reply(string.format('MINUTE %.0f', door.minute))
end
for i = 1, u do balances[users[i]] = tonumber(found[2 * n + i] or nil) end
for i = 1, s do stocks[products[i]] = tonumber(found[2 * n + u + i] or nil) end
redis.call('ZCARD', KEYS[5]) -- refuses a wrong type before the first write

local replies, events, writes, ended = {}, {}, {}, {}
local changed_users, changed_products, sold, sellers = {}, {}, {}, {}

local function debit(user, order_id, operation, order)
    if not order or order.user ~= user then return pack(ORDER_NOT_FOUND) end
    if order.status ~= PENDING or door.now_ms >= order.expires then
        return pack(ORDER_NOT_PAYABLE, order.status)
    end
    local balance, lines = balances[user], order.lines
    if not balance then return pack(USER_NOT_FOUND) end
    for l = 1, #lines, 2 do
        if not stocks[lines[l]] then return pack(CORRUPT, lines[l]) end
    end
    local stocks_after = {}
    if balance < order.total then
        step(order, FAILED, door.now_ms, 'insufficient_balance')
        stocks_after = move(lines, 1, stocks, changed_products)
    else
        step(order, SUCCESS, door.now_ms, '')
        balance = balance - order.total
        balances[user] = balance
        changed_users[user] = true
        for l = 1, #lines, 2 do
            local product = lines[l]
            if not sold[product] then sellers[#sellers + 1] = product end
            sold[product] = (sold[product] or 0) + lines[l + 1]
        end
    end
    ended[#ended + 1] = order_id
    events[#events + 1] = stepped(operation, user, order.record, balance, stocks_after)
    return pack(OK, balance, order.record), order.status == FAILED and pack(FAILED, balance) or pack(SUCCESS)
end

for i = 1, n do
    local operation = ARGV[2 + i]
    local user, order_id, _, fingerprint = cmsgpack.unpack(operation)
    local record_key = KEYS[idempotency_at + i]
    local record = records[record_key]
    if record then
        if sub(record, 1, 16) == fingerprint then
            local status, balance = cmsgpack.unpack(sub(record, 25))
            replies[i] = pack(REPLAY, sub(record, 17, 24), status, balance or 0)
        else
            replies[i] = pack(KEY_REUSED)
        end
    elseif door.backlog_full then
        replies[i] = pack(BACKLOG)
    else
        local order_key = KEYS[order_at + i]
        local order = orders[order_key]
        local reply, outcome = debit(user, order_id, operation, order)
        replies[i] = reply
        if outcome then
            records[record_key] = fingerprint .. order_id .. outcome
            local w = #writes
            writes[w + 1], writes[w + 2] = record_key, records[record_key]
            writes[#writes + 1] = order_key
            writes[#writes + 1] = order.record
        end
    end
end

if #events > 0 then
    local names, units = named(sellers, sold)
    local in_minute, in_window = minute_sums(KEYS[3], names, units), top_sums(KEYS[4], names, units)
    emit(door, events, #events)
    put_changed(balance_at, users, balances, changed_users, writes)
    put_changed(stock_at, products, stocks, changed_products, writes)
    put_grown(grown_at, products, grown, changed_products, writes)
    put(writes)
    redis.call('ZREM', KEYS[5], unpack(ended))
    count_minute(KEYS[3], in_minute)
    count_top(KEYS[4], in_window)
end
return respond(door, replies)
