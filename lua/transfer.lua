-- transfer.lua: what the scripts of transfers between shares have in common; lua.go puts it between door.lua and their
-- bodies.
--
-- A transfer takes units out of a share in one partition and adds them to the one in another. Its id is the position of
-- the event with which they left: epoch and seq in the sender's stream.
--
-- KEYS
--   none
-- ARGV
--   none

-- A partition's record of a product's transfers, see engine/transfer.go, is an array of three: the time in ms until
-- which units that came stay here; peer, epoch, seq, units of what left and is not settled yet, in a flat array; peer,
-- epoch, seq of the last that came from each peer, in a flat array.
local OUT_FIELDS, IN_FIELDS = 4, 3

local function open_transfers(record)
    if not record then return { 0, {}, {} } end
    return (cmsgpack.unpack(record))
end

-- place_of returns where a peer's fields begin in a flat array, or where they would be appended.
local function place_of(flat, fields, peer)
    for at = 1, #flat, fields do
        if flat[at] == peer then return at, true end
    end
    return #flat + 1, false
end

local MOVED_HEAD = '\152\006' -- msgpack: array of 8, kind 6

-- moved is the event of units that left or came:
-- [6, product id, peer, units (below 0: they left), epoch and seq of the transfer, time in ms, share after].
local function moved(product, peer, units, of_epoch, of_seq, now_ms, stock)
    return MOVED_HEAD .. pack(product, peer, units, of_epoch, of_seq, now_ms, stock)
end

-- read_shares reads the shares of some products and their records: their keys follow stock_at, and then record_at.
local function read_shares(stock_at, record_at, products)
    local s = #products
    local found = gather(stock_at + 1, record_at + s)
    local stocks, transfers = {}, {}
    for i = 1, s do
        stocks[products[i]] = tonumber(found[i] or nil)
        transfers[products[i]] = open_transfers(found[s + i])
    end
    return stocks, transfers
end

-- put_shares adds the shares and records of products that changed to the writes.
local function put_shares(stock_at, record_at, products, stocks, transfers, changed, writes)
    for i = 1, #products do
        local product = products[i]
        if changed[product] then
            local w = #writes
            writes[w + 1], writes[w + 2] = KEYS[stock_at + i], string.format('%d', stocks[product])
            writes[w + 3], writes[w + 4] = KEYS[record_at + i], pack(transfers[product])
        end
    end
end
