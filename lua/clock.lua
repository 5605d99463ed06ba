-- clock.lua: a partition's clock, which never runs back over anything that was written; lua.go puts it before
-- the scripts that need the time.
--
-- meta has what the clock said at the last write (clock), and Redis' TIME then (clock_at). If TIME was set
-- back since, the clock leads it, and runs at half the speed of TIME until TIME has caught up. So it does not
-- stop, a deadline comes after twice its time at the latest, and the lead shrinks by half a second a second.
-- That holds while the note is renewed (due.lua): when TIME is set ahead again, the clock must not take that
-- for time that has passed.
--
-- KEYS
--   none
-- ARGV
--   none

-- For how many ms a note moves the clock on while it leads, and after how many due.lua renews it.
local NOTE_MAX_MS, NOTE_AGE_MS = 10000, 1000

-- read_clock returns the partition's time in ms, Redis' TIME in ms, and what to write as clock_at with the
-- partition's time. It takes fields of meta, false for those that are missing, and the offset of tests. The
-- release before writes the minute alone.
local function read_clock(clock, clock_at, minute, offset_ms)
    local t = redis.call('TIME')
    local time_ms = t[1] * 1000 + math.floor(t[2] / 1000) + offset_ms
    local since = time_ms - (clock_at or 0)
    local slow = (clock or 0) + math.floor(math.min(math.max(since, 0), NOTE_MAX_MS) / 2)
    local now_ms = math.max(time_ms, slow, (minute or 0) * 60000)
    -- The odd ms that slow leaves out must not be lost, or a write each ms would stop the clock.
    local odd = now_ms == slow and since > 0 and since < NOTE_MAX_MS and since % 2 or 0
    return now_ms, time_ms, time_ms - odd
end

-- start_clock sees to it that the clock of a partition that is about to open is not before the latest event
-- that the partition was given, which another server may have stamped. The minute is for the release before.
local function start_clock(meta, clock, clock_at, minute, latest_ms, offset_ms)
    local now_ms, time_ms = read_clock(clock, clock_at, minute, offset_ms)
    if latest_ms > now_ms or (now_ms == time_ms and latest_ms > tonumber(clock or 0)) then
        redis.call('HSET', meta, 'clock', latest_ms, 'clock_at', math.min(latest_ms, time_ms))
    end
    local latest_minute = math.floor(latest_ms / 60000)
    if latest_minute > tonumber(minute or 0) then redis.call('HSET', meta, 'minute', latest_minute) end
end
