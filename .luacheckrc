-- The locals at the top level of lua/clock.lua, lua/door.lua, lua/sale.lua and lua/transfer.lua. Go puts those files before other scripts' bodies, so from
-- there they look like globals. A new one that scripts use is added here, and nowhere else.
local clock = { "read_clock", "start_clock", "NOTE_MAX_MS", "NOTE_AGE_MS" }
local door = {
    "pack", "sub", "epoch", "behind", "clock_offset_ms", "backlog_cap_bytes",
    "code", "BALANCE_MAX", "STOCK_MAX", "ENTRY_OVERHEAD_BYTES", "UNPACK_MAX", "EVENT_VERSION",
    "enter", "gather", "emit", "respond", "put", "put_grown",
}
local sale = {
    "PENDING", "SUCCESS", "FAILED", "CANCELED", "EXPIRED", "REFUNDED", "WINDOW_MINUTES",
    "named", "minute_sums", "count_minute", "top_sums", "count_top",
    "open_cart", "close_cart", "without", "carted", "put_carts",
    "read_sale", "packed_user", "order_id", "fingerprint", "price_lines", "take_lines", "put_indexed", "move", "put_changed",
    "open_order", "last_step", "step", "stepped", "BALANCE_UNTOUCHED",
}
local transfer = {
    "OUT_FIELDS", "IN_FIELDS", "open_transfers", "place_of", "moved", "read_shares", "put_shares",
}

std = "lua51"
max_line_length = 120
read_globals = { "redis", "cjson", "cmsgpack", "struct", "bit", "KEYS", "ARGV" }
-- Lua 5.1 has these, Redis has not.
not_globals = { "dofile", "io", "loadfile", "module", "package", "print", "require" }

-- In the shared files themselves some of them have no use.
local unused_here = {}
for _, names in ipairs({ clock, door, sale, transfer }) do
    for _, name in ipairs(names) do
        read_globals[#read_globals + 1] = name
        unused_here[#unused_here + 1] = "2[0-9][0-9]/" .. name
    end
end
files["lua/clock.lua"] = { ignore = unused_here }
files["lua/door.lua"] = { ignore = unused_here }
files["lua/transfer.lua"] = { ignore = unused_here }
files["lua/sale.lua"] = { ignore = unused_here }
