#!lua
-- cart.lua: puts products into carts and takes them out. A cart neither checks nor holds stock.
--
-- KEYS
--   1         meta
--   2         events
--   3..       K idempotency records, one an operation (equal keys may repeat), or none at all
--   then      N carts, one an operation (equal keys may repeat)
--   then      U balances, one a distinct user: a user without one is unknown
--   then      S catalogue records, one a distinct product
--   then      S stock shares, one a distinct product, in units
-- ARGV
--   1         header, see door.lua
--   2         msgpack sequence: K, array of the U user ids, array of the S product ids, array of the S units of each
--             product in other partitions
--   3..       N operations, each a msgpack sequence: user id, idempotency key, fingerprint (16 bytes, or '' without
--             a key), product id, units to add (0: take the product out)
-- Replies
--   one string: the last seq, then for each operation a msgpack sequence
--   ok                 0, the cart's record after ('' where empty) or with a key the answer (see below)
--   replay             1, the answer
--   key_reused         2
--   backlog            3
--   user_not_found     4
--   product_not_found  5, product id
--   cart_changed       14
--   cart_full          16, product id, units of it in the cart (0: too many products)
--   error DOOR: not done, the door is shut
-- Event
--   5 carted: [5, user id, key, fingerprint, time in ms, cart, answer]
--   The answer is what renders the same body again: an array of product id, quantity, stock, catalogue record, ...

local OK, REPLAY, KEY_REUSED, BACKLOG = code.ok, code.replay, code.key_reused, code.backlog
local USER_NOT_FOUND, PRODUCT_NOT_FOUND = code.user_not_found, code.product_not_found
local CART_CHANGED, CART_FULL = code.cart_changed, code.cart_full
local LINES_MAX, QUANTITY_MAX = 100, 10000

local door, shut = enter()
if shut then return shut end

local k, users, products, elsewhere = cmsgpack.unpack(ARGV[2])
local n, u, s = #ARGV - 2, #users, #products
local idempotency_at, cart_at = 2, 2 + k
local balance_at, catalogue_at = cart_at + n, cart_at + n + u
local stock_at = catalogue_at + s

local found = gather(idempotency_at + 1, stock_at + s)
local records, carts, known, catalogue, stocks = {}, {}, {}, {}, {}
for i = 1, k do records[KEYS[idempotency_at + i]] = found[i] end
for i = 1, n do carts[KEYS[cart_at + i]] = open_cart(found[k + i]) end
for i = 1, u do known[users[i]] = found[balance_at - 2 + i] end
for i = 1, s do
    catalogue[products[i]] = found[catalogue_at - 2 + i]
    stocks[products[i]] = tonumber(found[stock_at - 2 + i] or 0) + elsewhere[i]
end

local replies, events, writes, changed = {}, {}, {}, {}

-- add returns the cart with more units of a product, or nil and the refusal.
local function add(cart, product, units)
    if not catalogue[product] then return nil, pack(PRODUCT_NOT_FOUND, product) end
    local after, at = {}, #cart + 1
    for l = 1, #cart do after[l] = cart[l] end
    for l = 1, #cart, 2 do
        if cart[l] == product then at = l end
    end
    local held = cart[at + 1] or 0
    if held == 0 and #cart >= 2 * LINES_MAX then return nil, pack(CART_FULL, product, 0) end
    if held + units > QUANTITY_MAX then return nil, pack(CART_FULL, product, held) end
    after[at], after[at + 1] = product, held + units
    return after
end

local function remove(cart, product)
    local after = {}
    for l = 1, #cart, 2 do
        if cart[l] ~= product then
            after[#after + 1] = cart[l]
            after[#after + 1] = cart[l + 1]
        end
    end
    return after
end

-- answer returns what renders a cart, or nil where it holds a product that the caller did not know of.
local function answer(cart)
    local flat = {}
    for l = 1, #cart, 2 do
        local product = cart[l]
        if not catalogue[product] then return nil end
        flat[#flat + 1], flat[#flat + 2], flat[#flat + 3] = product, cart[l + 1], stocks[product]
        flat[#flat + 1] = catalogue[product]
    end
    return pack(flat)
end

local function change(i, user, product, units)
    if not known[user] then return pack(USER_NOT_FOUND) end
    local key = KEYS[cart_at + i]
    local cart, refusal
    if units > 0 then
        cart, refusal = add(carts[key], product, units)
        if refusal then return refusal end
    else
        cart = remove(carts[key], product)
    end
    local record = close_cart(cart)
    if k == 0 then
        if units > 0 or #cart < #carts[key] then
            carts[key] = cart
            changed[key] = true
            events[#events + 1] = carted(user, '', '', door.now_ms, record, '')
        end
        return pack(OK, record)
    end
    local rendered = answer(cart)
    if not rendered then return pack(CART_CHANGED) end
    carts[key] = cart
    changed[key] = true
    return pack(OK, rendered), rendered, record
end

for i = 1, n do
    local user, key, fingerprint, product, units = cmsgpack.unpack(ARGV[2 + i])
    local record_key = k > 0 and KEYS[idempotency_at + i]
    local record = record_key and records[record_key]
    if record then
        if sub(record, 1, 16) == fingerprint then
            replies[i] = pack(REPLAY, sub(record, 17))
        else
            replies[i] = pack(KEY_REUSED)
        end
    elseif door.backlog_full then
        replies[i] = pack(BACKLOG)
    else
        local reply, rendered, cart_record = change(i, user, product, units)
        replies[i] = reply
        if rendered then
            records[record_key] = fingerprint .. rendered
            local w = #writes
            writes[w + 1], writes[w + 2] = record_key, records[record_key]
            events[#events + 1] = carted(user, key, fingerprint, door.now_ms, cart_record, rendered)
        end
    end
end

if #events > 0 then
    emit(door, events, #events)
    put_carts(carts, changed, writes)
    put(writes)
end
return respond(door, replies)
