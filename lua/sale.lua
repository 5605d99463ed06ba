-- sale.lua: what the scripts of orders, carts and the top five share; lua.go puts it between door.lua and their bodies.
--
-- KEYS
--   none
-- ARGV
--   none

-- The states of an order, see engine/order.go.
local PENDING, SUCCESS, FAILED, CANCELED, EXPIRED, REFUNDED = 1, 2, 3, 4, 5, 6
-- How many minutes back units sold count: three days.
local WINDOW_MINUTES = 4320

-- Integers below 2^53 are handed to redis.call as text: it prints a number with %.17g, which costs several times what
-- %d does, for each product and user of a call.
local format, byte = string.format, string.byte

-- named returns the ids of some products as text, and the units of each, in one order.
local function named(products, units)
    local names, units_of = {}, {}
    for i = 1, #products do names[i], units_of[i] = format('%d', products[i]), units[products[i]] end
    return names, units_of
end

-- minute_sums adds units to what a minute's hash holds of some products, named by their ids as text; nothing is written
-- yet. It returns field, sum, ... for count_minute.
local function minute_sums(key, names, units)
    local sums = {}
    for from = 1, #names, UNPACK_MAX do
        local to = math.min(from + UNPACK_MAX - 1, #names)
        local found = redis.call('HMGET', key, unpack(names, from, to))
        for i = from, to do
            sums[2 * i - 1] = names[i]
            sums[2 * i] = format('%d', (found[i - from + 1] or 0) + units[i])
        end
    end
    return sums
end

local function count_minute(key, sums)
    for from = 1, #sums, UNPACK_MAX do
        redis.call('HSET', key, unpack(sums, from, math.min(from + UNPACK_MAX - 1, #sums)))
    end
end

local ZEROS = '0000000000000000'

-- top_sums adds units to the window's running totals; nothing is written yet. The set holds minus the units by product
-- id in 16 digits: more units come first, and the lower id among equals. It returns score, member, ... for count_top.
local function top_sums(key, names, units)
    local sums, members = {}, {}
    for i = 1, #names do members[i] = sub(ZEROS, #names[i] + 1) .. names[i] end
    for from = 1, #names, UNPACK_MAX do
        local to = math.min(from + UNPACK_MAX - 1, #names)
        local found = redis.call('ZMSCORE', key, unpack(members, from, to))
        for i = from, to do
            sums[2 * i - 1] = format('%d', (found[i - from + 1] or 0) - units[i])
            sums[2 * i] = members[i]
        end
    end
    return sums
end

local function count_top(key, sums)
    for from = 1, #sums, UNPACK_MAX do
        redis.call('ZADD', key, unpack(sums, from, math.min(from + UNPACK_MAX - 1, #sums)))
    end
end

-- A cart's record is a version and a flat array of product and quantity. An empty cart has none.
local CART_HEAD = pack(1)

local function open_cart(record)
    if not record then return {} end
    local _, lines = cmsgpack.unpack(record)
    return lines
end

local function close_cart(lines)
    return #lines > 0 and CART_HEAD .. pack(lines) or ''
end

-- without returns a cart's lines less some others, or nil when it does not hold them. What came into the cart since the
-- lines were read stays in it.
local function without(cart, lines)
    local left = {}
    for l = 1, #cart, 2 do left[cart[l]] = cart[l + 1] end
    for l = 1, #lines, 2 do
        local product = lines[l]
        left[product] = (left[product] or 0) - lines[l + 1]
        if left[product] < 0 then return nil end
    end
    local rest = {}
    for l = 1, #cart, 2 do
        local units = left[cart[l]]
        if units > 0 then
            rest[#rest + 1] = cart[l]
            rest[#rest + 1] = units
        end
    end
    return rest
end

local CARTED_HEAD = '\151\005' -- msgpack: array of 7, kind 5

-- carted is the event of a changed cart: [5, user id, key, fingerprint, time in ms, cart, answer].
local function carted(user, key, fingerprint, now_ms, record, answer)
    return CARTED_HEAD .. pack(user, key, fingerprint, now_ms, record, answer)
end

-- put_carts adds changed carts to the writes, or drops them where they are empty.
local function put_carts(carts, changed, writes)
    local empty = {}
    for key in pairs(changed) do
        local record = close_cart(carts[key])
        if record == '' then
            empty[#empty + 1] = key
        else
            writes[#writes + 1] = key
            writes[#writes + 1] = record
        end
    end
    if #empty > 0 then redis.call('UNLINK', unpack(empty)) end
end

-- Users and products of a call that places orders are told by their indices in ARGV[2]: an array costs less than a
-- table by id.

-- read_sale reads what N operations that buy need, from the keys behind at: N idempotency records, a cart for each
-- operation in buys, then by index U balances, S stock shares and S prices.
local function read_sale(at, n, buys, u, s)
    local c = #buys
    local found = gather(at + 1, at + n + c + u + 2 * s)
    local records, carts, cart_of, balances, stocks, prices = {}, {}, {}, {}, {}, {}
    for i = 1, n do records[KEYS[at + i]] = found[i] end
    for i = 1, c do
        local key = KEYS[at + n + i]
        cart_of[buys[i]] = key
        carts[key] = open_cart(found[n + i])
    end
    local f = n + c
    for i = 1, u do balances[i] = tonumber(found[f + i] or nil) or false end
    f = f + u
    for i = 1, s do
        stocks[i] = tonumber(found[f + i] or nil) or false
        local record = found[f + s + i]
        prices[i] = record and tonumber(string.match(record, '^%d+:(%d+):'))
    end
    return records, carts, cart_of, balances, stocks, prices
end

-- An operation begins with its user's id in msgpack, whose first byte tells how long it is; the order's id follows, 8
-- bytes behind a byte of type, and at the end stands the fingerprint. Unpacking it costs several times more.
local INTEGER_BYTES = { [0xcc] = 2, [0xcd] = 3, [0xce] = 5, [0xcf] = 9 }

local function packed_user(operation)
    return sub(operation, 1, INTEGER_BYTES[byte(operation)] or 1)
end

local function order_id(operation)
    local user_bytes = INTEGER_BYTES[byte(operation)] or 1
    return sub(operation, user_bytes + 2, user_bytes + 9)
end

local function fingerprint(operation) return sub(operation, -16) end

-- price_lines returns the refusal of the first line that cannot be had, or nil, the total and the lines' prices. Lines
-- are pairs of product, by index, and quantity, from first to last of a flat array.
local function price_lines(flat, first, last, products, stocks, prices)
    local total, line_prices = 0, {}
    for l = first, last, 2 do
        local p = flat[l]
        local price = prices[p]
        if not price then return pack(code.product_not_found, products[p]) end
        if not stocks[p] then return pack(code.corrupt, products[p]) end
        line_prices[#line_prices + 1] = price
        total = total + price * flat[l + 1]
    end
    if total > BALANCE_MAX then return pack(code.order_limit) end
    for l = first, last, 2 do
        local p = flat[l]
        if stocks[p] < flat[l + 1] then return pack(code.out_of_stock, products[p], stocks[p]) end
    end
    return nil, total, line_prices
end

-- take_lines takes the lines' units out of stocks, adds them to taken and returns the stocks after it.
local function take_lines(flat, first, last, stocks, taken)
    local after = {}
    for l = first, last, 2 do
        local p, units = flat[l], flat[l + 1]
        local left = stocks[p] - units
        stocks[p] = left
        taken[p] = (taken[p] or 0) + units
        after[#after + 1] = left
    end
    return after
end

-- put_indexed adds the changed ones of some values to the writes; their keys follow at.
local function put_indexed(at, values, changed, writes)
    for i = 1, #values do
        if changed[i] then
            local w = #writes
            writes[w + 1], writes[w + 2] = KEYS[at + i], format('%d', values[i])
        end
    end
end

-- move adds sign times the lines' units to stocks, notes what changed and returns the stocks after it.
local function move(lines, sign, stocks, changed)
    local after = {}
    for l = 1, #lines, 2 do
        local product = lines[l]
        local units = stocks[product] + sign * lines[l + 1]
        stocks[product] = units
        changed[product] = true
        after[#after + 1] = units
    end
    return after
end

-- put_changed adds the changed ones of some values to the writes; their keys follow at in the order of ids.
local function put_changed(at, ids, values, changed, writes)
    for i = 1, #ids do
        local id = ids[i]
        if changed[id] then
            local w = #writes
            writes[w + 1], writes[w + 2] = KEYS[at + i], format('%d', values[id])
        end
    end
end

-- An order's record, see engine/record.go: version, status, user id, created ms, total, prices, lines, expires ms,
-- history [status, ms after created, reason, ...].
local function open_order(record)
    local _, status, user, created, total, prices, lines, expires, history = cmsgpack.unpack(record)
    return {
        status = status, user = user, created = created, total = total, prices = prices, lines = lines,
        expires = expires, history = history, record = record,
    }
end

-- last_step is the time of an order's last step in ms.
local function last_step(order) return order.created + order.history[#order.history - 1] end

-- step brings an order into another state. Its steps never run back, whichever clock stamped the last one:
-- that of another server, or of the release before.
local function step(order, status, now_ms, reason)
    local h = order.history
    now_ms = math.max(now_ms, last_step(order))
    h[#h + 1], h[#h + 2], h[#h + 3] = status, now_ms - order.created, reason
    order.status = status
    order.record = pack(1, status, order.user, order.created, order.total, order.prices, order.lines, order.expires, h)
end

local STEPPED_HEAD = '\153\004' -- msgpack: array of 9, kind 4
local BALANCE_UNTOUCHED = -1

-- stepped is the event of an order's step:
-- [4, user id, order id, key, fingerprint, scope of the key, record, balance after, stocks after].
local function stepped(operation, scope, record, balance, stocks_after)
    return STEPPED_HEAD .. operation .. pack(scope, record, balance, stocks_after)
end
