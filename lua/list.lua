#!lua
-- list.lua: lists products in this partition: catalogue record and stock share. Safe to repeat: a record is replaced
-- only by a later version, and a share is created only together with the first record. A share that is missing beside
-- a record has been lost: creating it again would invent its initial units, so it stays missing for the audit to find.
--
-- KEYS
--   1         meta
--   2         events
--   3         highest product id listed here
--   4..       N catalogue records, one an operation
--   then      N stock shares, one an operation
-- ARGV
--   1         header, see door.lua
--   2..       N operations, each a msgpack sequence: product id, version, catalogue record, initial units of the share
-- Replies
--   one string: the last seq, then for each operation a msgpack sequence
--   ok              0
--   backlog         3
--   error DOOR: not done, the door is shut
-- Event
--   3 restocked, with an empty key and fingerprint and the reason "initial stock", where a share starts with units:
--   [3, product id, key, fingerprint, delta, reason, time in ms, share after, the same]

local OK, BACKLOG = code.ok, code.backlog
local EVENT_HEAD = '\153\003' -- msgpack: array of 9, kind 3

local door, shut = enter()
if shut then return shut end

local n = #ARGV - 1
local catalogue_at, stock_at = 3, 3 + n
local found = gather(3, stock_at + n)
local highest = tonumber(found[1] or 0)

local catalogue, stocks = {}, {}
for i = 1, 2 * n do
    local value = found[1 + i]
    if i <= n then catalogue[KEYS[catalogue_at + i]] = value else stocks[KEYS[catalogue_at + i]] = value end
end

local replies, events, writes = {}, {}, {}
for i = 1, n do
    local product, version, record, initial = cmsgpack.unpack(ARGV[1 + i])
    local catalogue_key, stock_key = KEYS[catalogue_at + i], KEYS[stock_at + i]
    local old = catalogue[catalogue_key]
    local is_new = not old and not stocks[stock_key]
    if is_new and initial > 0 and door.backlog_full then
        replies[i] = pack(BACKLOG)
    else
        if is_new then
            stocks[stock_key] = initial
            writes[#writes + 1] = stock_key
            writes[#writes + 1] = initial
            if initial > 0 then
                events[#events + 1] = EVENT_HEAD
                    .. pack(product, '', '', initial, 'initial stock', door.now_ms, initial, initial)
            end
        end
        if not old or tonumber(string.match(old, '^(%d+):')) < version then
            catalogue[catalogue_key] = record
            writes[#writes + 1] = catalogue_key
            writes[#writes + 1] = record
        end
        highest = math.max(highest, product)
        replies[i] = pack(OK)
    end
end

if #writes > 0 then
    emit(door, events, #events)
    writes[#writes + 1] = KEYS[3]
    writes[#writes + 1] = highest
    put(writes)
end
return respond(door, replies)
