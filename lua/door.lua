-- door.lua: the prelude of every script that sells; lua.go puts it between a script's first line and its body.
--
-- It reads the arguments that all of them share, keeps the door (design: no stale engine and no stale node
-- sells anything), writes the one stream entry of a call, and begins every reply with the partition's last seq.
--
-- KEYS
--   1  meta    hash: epoch, node, open, seq, bytes, done, minute, clock, clock_at
--   2  events  stream
-- ARGV
--   1  msgpack sequence: epoch the caller knows, 1 to work behind a shut door (repair only) or 0,
--      clock offset in ms (0 in production), backlog cap in bytes
--
-- Numbers: amounts stay below 2^53, which Lua's doubles hold exactly. redis.call prints a number argument
-- with 17 digits, so they are handed over as they are; `..` and tostring keep 14 digits and are never used on them.

local pack, sub = cmsgpack.pack, string.sub
local epoch, behind, clock_offset_ms, backlog_cap_bytes = cmsgpack.unpack(ARGV[1])

-- The answers of an operation. engine/errors.go turns the same numbers into errors; a test holds the two together.
local code = {
    ok = 0,
    replay = 1,
    key_reused = 2,
    backlog = 3,
    user_not_found = 4,
    product_not_found = 5,
    out_of_stock = 6,
    insufficient_balance = 7,
    balance_limit = 8,
    stock_limit = 9,
    corrupt = 10,
    order_not_found = 11,
    order_not_payable = 12,
    order_not_cancelable = 13,
    cart_changed = 14,
    cart_empty = 15,
    cart_full = 16,
    order_changed = 17,
    hold_not_due = 18,
    order_limit = 19,
    share_leased = 20,
}

-- The cap of a balance, a charge and the total of an order, in minor units.
local BALANCE_MAX = 100000000000000
local STOCK_MAX = 1000000000
-- See engine/event.go.
local EVENT_VERSION = 3
-- What a stream entry costs Redis beside its payload: id, field names, listpack and radix tree node.
local ENTRY_OVERHEAD_BYTES = 96
-- unpack fails near 8,000 values (LUAI_MAXCSTACK).
local UNPACK_MAX = 4000

-- enter returns the state of the door, or nil and the error to answer with when it is shut.
local function enter()
    local m = redis.call('HMGET', KEYS[1], 'epoch', 'node', 'open', 'seq', 'bytes', 'done', 'minute', 'clock',
        'clock_at')
    local node = string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)')
    if tonumber(m[1]) ~= epoch or m[2] ~= node or (m[3] ~= '1' and behind ~= 1) then
        return nil, redis.error_reply('DOOR is shut: epoch, node or state is not what the caller expects')
    end
    local now_ms, _, clock_at = read_clock(m[8], m[9], m[7], clock_offset_ms)
    local bytes = tonumber(m[5])
    return {
        seq = tonumber(m[4]),
        bytes = bytes,
        backlog_full = bytes - tonumber(m[6]) > backlog_cap_bytes,
        now_ms = now_ms,
        clock_at = clock_at,
        minute = math.floor(now_ms / 60000), -- the sales of an event count in the minute of its time
    }
end

-- gather reads string keys first to last in as few MGETs as unpack allows; nil stands as false.
local function gather(first, last)
    if last - first < UNPACK_MAX then
        if last < first then return {} end
        return redis.call('MGET', unpack(KEYS, first, last))
    end
    local all = {}
    for from = first, last, UNPACK_MAX do
        local part = redis.call('MGET', unpack(KEYS, from, math.min(from + UNPACK_MAX - 1, last)))
        for i = 1, #part do all[#all + 1] = part[i] end
    end
    return all
end

-- emit writes the call's events, given in pieces, as one stream entry whose id is <epoch>-<last seq>. It is the first
-- write of every script: XADD is the only one that could still fail, on an id that is not new, and then nothing has
-- changed.
local function emit(door, pieces, count)
    if count == 0 then return end
    local payload = table.concat(pieces)
    local last_seq = door.seq + count
    redis.call('XADD', KEYS[2], string.format('%.0f-%.0f', epoch, last_seq),
        'v', EVENT_VERSION, 'f', door.seq + 1, 'd', payload)
    redis.call('HSET', KEYS[1], 'seq', last_seq, 'bytes', door.bytes + #payload + ENTRY_OVERHEAD_BYTES,
        'minute', door.minute, 'clock', door.now_ms, 'clock_at', door.clock_at)
    door.seq = last_seq
end

-- respond joins the replies of a call behind the partition's seq after it: by that the caller knows up to which event
-- it has acknowledged what stands in Redis.
local function respond(door, replies)
    replies[0] = pack(door.seq)
    return table.concat(replies, '', 0)
end

-- put writes pairs of key and value in as few MSETs as unpack allows.
local function put(pairs_flat)
    for from = 1, #pairs_flat, UNPACK_MAX do
        redis.call('MSET', unpack(pairs_flat, from, math.min(from + UNPACK_MAX - 1, #pairs_flat)))
    end
end

-- put_grown counts one more growth of the shares of products that changed, where growth is counted: found holds what
-- the counters at the keys behind at said. Equal counters in two looks tell that a share has only shrunk in between.
local function put_grown(at, ids, found, changed, writes)
    for i = 1, #found do
        if changed[ids[i]] then
            local w = #writes
            writes[w + 1], writes[w + 2] = KEYS[at + i], string.format('%d', (found[i] or 0) + 1)
        end
    end
end
