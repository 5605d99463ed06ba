#!lua
-- rollback.lua: gives back what orders took: an unpaid order is canceled, or expired from its deadline on, and its
-- stock goes back; a paid one is refunded, its money goes back too and the units sold are taken out of the minute of
-- the sale, as long as that minute counts.
--
-- KEYS
--   1         meta
--   2         events
--   3         sorted set of the units sold in the window, see sale.lua
--   4         holds: sorted set of unpaid orders by deadline in ms
--   5..       K idempotency records, one an operation (equal keys may repeat), or none at all
--   then      N orders, one an operation (equal keys may repeat)
--   then      U balances, one a distinct user, in minor units
--   then      S stock shares, one a distinct product, in units
--   then      S counters of growth, one a distinct product, or none with one partition
--   then      M hashes of the units sold in a minute, one a distinct minute of a sale
-- ARGV
--   1         header, see door.lua
--   2         msgpack sequence: K, array of the U user ids, array of the S product ids, array of the M minutes,
--             1 where growth is counted or 0
--   3..       N operations, each a msgpack sequence: user id, order id (8 bytes), idempotency key,
--             fingerprint (16 bytes)
--   then      N wishes, each a msgpack sequence: 1 to expire or 0 to cancel, scope of the key, reason, how long after
--             the sale it may be given back in ms (-1: at any time), the order's record in the books where Redis was
--             found to have none (else ''), the partition's events that the books held then
-- Replies
--   one string: the last seq, then for each operation a msgpack sequence
--   ok                    0, balance after (-1: untouched), the order's record
--   replay                1, order id, status
--   key_reused            2
--   backlog               3
--   user_not_found        4
--   balance_limit         8, balance
--   corrupt               10, product id whose share is missing
--   order_not_found       11
--   order_not_cancelable  13, status (PENDING: the deadline has passed; SUCCESS: too late)
--   order_changed         17
--   hold_not_due          18
--   error DOOR: not done, the door is shut
-- Event
--   4 stepped: [4, user id, order id, key, fingerprint, scope, record, balance after (-1: untouched), stocks after]

local OK, REPLAY, KEY_REUSED, BACKLOG = code.ok, code.replay, code.key_reused, code.backlog
local USER_NOT_FOUND, BALANCE_LIMIT, CORRUPT = code.user_not_found, code.balance_limit, code.corrupt
local ORDER_NOT_FOUND, ORDER_NOT_CANCELABLE = code.order_not_found, code.order_not_cancelable
local ORDER_CHANGED, HOLD_NOT_DUE = code.order_changed, code.hold_not_due

local door, shut = enter()
if shut then return shut end

local k, users, products, minutes, counted = cmsgpack.unpack(ARGV[2])
local n, u, s = (#ARGV - 2) / 2, #users, #products
local idempotency_at, order_at = 4, 4 + k
local balance_at, stock_at = order_at + n, order_at + n + u
local grown_at = stock_at + s
local minute_at = grown_at + s * counted

local found, grown = gather(idempotency_at + 1, grown_at), gather(grown_at + 1, minute_at)
local records, orders, balances, stocks, minute_keys = {}, {}, {}, {}, {}
for i = 1, k do records[KEYS[idempotency_at + i]] = found[i] end
for i = 1, n do
    local key, record = KEYS[order_at + i], found[k + i]
    if record and not orders[key] then orders[key] = open_order(record) end
end
for i = 1, u do balances[users[i]] = tonumber(found[k + n + i] or nil) end
for i = 1, s do stocks[products[i]] = tonumber(found[k + n + u + i] or nil) end
for i = 1, #minutes do minute_keys[minutes[i]] = KEYS[minute_at + i] end
-- An order that the books knew when Redis had let go more than they knew of may have been changed since. Like one that
-- was paid after it was read, it must be read again: order_changed.
local let_go = tonumber(redis.call('HGET', KEYS[1], 'let_go') or 0)
redis.call('ZCARD', KEYS[4]) -- refuses a wrong type before the first write

local replies, events, writes, ended = {}, {}, {}, {}
local changed_users, changed_products = {}, {}
local unsold, unsold_products, unsold_in = {}, {}, {} -- units by product; in all, and by minute

-- take_back notes the units of a refunded order, where the minute of its sale still counts.
local function take_back(lines, minute)
    if minute <= door.minute - WINDOW_MINUTES then return end
    local here = unsold_in[minute]
    if not here then
        here = { products = {}, units = {} }
        unsold_in[minute] = here
    end
    for l = 1, #lines, 2 do
        local product, quantity = lines[l], lines[l + 1]
        if not unsold[product] then unsold_products[#unsold_products + 1] = product end
        unsold[product] = (unsold[product] or 0) - quantity
        if not here.units[product] then here.products[#here.products + 1] = product end
        here.units[product] = (here.units[product] or 0) - quantity
    end
end

local function sold_at(order)
    for h = 1, #order.history, 3 do
        if order.history[h] == SUCCESS then return order.created + order.history[h + 1] end
    end
end

-- target returns the state that the wish brings an order into, or nil and the refusal.
local function target(order, expire, within_ms)
    if expire == 1 then
        if order.status == PENDING and door.now_ms >= order.expires then return EXPIRED end
        return nil, pack(HOLD_NOT_DUE)
    end
    if order.status == PENDING and door.now_ms < order.expires then return CANCELED end
    if order.status == SUCCESS and (within_ms < 0 or door.now_ms - sold_at(order) <= within_ms) then return REFUNDED end
    return nil, pack(ORDER_NOT_CANCELABLE, order.status)
end

local function roll_back(order, order_id, operation, wish)
    local expire, scope, reason, within_ms = cmsgpack.unpack(wish)
    local status, refusal = target(order, expire, within_ms)
    if refusal then return refusal end
    local user, lines, balance = order.user, order.lines, BALANCE_UNTOUCHED
    for l = 1, #lines, 2 do
        if not stocks[lines[l]] then return pack(CORRUPT, lines[l]) end
    end
    if status == REFUNDED then
        balance = balances[user]
        if not balance then return pack(USER_NOT_FOUND) end
        if balance + order.total > BALANCE_MAX then return pack(BALANCE_LIMIT, balance) end
        local minute = math.floor(sold_at(order) / 60000)
        if not minute_keys[minute] then return pack(ORDER_CHANGED) end -- it was paid since
        take_back(lines, minute)
        balance = balance + order.total
        balances[user] = balance
        changed_users[user] = true
    else
        ended[#ended + 1] = order_id
    end
    step(order, status, door.now_ms, reason)
    local stocks_after = move(lines, 1, stocks, changed_products)
    events[#events + 1] = stepped(operation, scope, order.record, balance, stocks_after)
    return pack(OK, balance, order.record), true
end

-- held returns the order as Redis has it, or takes it back from the books.
local function held(i, user, wish)
    local key = KEYS[order_at + i]
    if not orders[key] then
        local _, _, _, _, archived, archived_events = cmsgpack.unpack(wish)
        if archived == '' then return nil, pack(ORDER_NOT_FOUND) end
        if archived_events < let_go then return nil, pack(ORDER_CHANGED) end
        orders[key] = open_order(archived)
    end
    if orders[key].user ~= user then return nil, pack(ORDER_NOT_FOUND) end
    return orders[key]
end

for i = 1, n do
    local operation, wish = ARGV[2 + i], ARGV[2 + n + i]
    local user, order_id, _, fingerprint = cmsgpack.unpack(operation)
    local record_key = k > 0 and KEYS[idempotency_at + i]
    local record = record_key and records[record_key]
    if record then
        if sub(record, 1, 16) == fingerprint then
            replies[i] = pack(REPLAY, sub(record, 17, 24), (cmsgpack.unpack(sub(record, 25))))
        else
            replies[i] = pack(KEY_REUSED)
        end
    elseif door.backlog_full then
        replies[i] = pack(BACKLOG)
    else
        local order, refusal = held(i, user, wish)
        local done
        if order then refusal, done = roll_back(order, order_id, operation, wish) end
        replies[i] = refusal
        if done then
            writes[#writes + 1] = KEYS[order_at + i]
            writes[#writes + 1] = order.record
            if record_key then
                records[record_key] = fingerprint .. order_id .. pack(order.status)
                local w = #writes
                writes[w + 1], writes[w + 2] = record_key, records[record_key]
            end
        end
    end
end

if #events > 0 then
    local names, units = named(unsold_products, unsold)
    local in_window, in_minutes = top_sums(KEYS[3], names, units), {}
    for minute, here in pairs(unsold_in) do
        in_minutes[minute_keys[minute]] = minute_sums(minute_keys[minute], named(here.products, here.units))
    end
    emit(door, events, #events)
    put_changed(balance_at, users, balances, changed_users, writes)
    put_changed(stock_at, products, stocks, changed_products, writes)
    put_grown(grown_at, products, grown, changed_products, writes)
    put(writes)
    if #ended > 0 then redis.call('ZREM', KEYS[4], unpack(ended)) end
    for key, sums in pairs(in_minutes) do count_minute(key, sums) end
    if #in_window > 0 then
        count_top(KEYS[3], in_window)
        redis.call('ZREMRANGEBYSCORE', KEYS[3], 0, 0)
    end
end
return respond(door, replies)
