-- Applies one submission to the book KEYS[1]; an accepted one is published on the channel of the same name. In a
-- database other than 0 script_text replaces that name by the channel of that database.
-- A feeder confirms a book by submitting it again. A twin is another feeder of the same book.
--
-- ARGV  1 kind: new | again | state   2 feeder   3 update_id   4 state   5 published_us
--       6 bid   7 bid_qty   8 ask   9 ask_qty   10 body: the message after its seq
-- reply 0 refused   1 accepted   2 confirmed
--
-- Ids and times stay strings: Lua prints large numbers with an exponent. As doubles they are exact below 2^53.

local HEAD = '\142\161v\001\163seq\207'
local LEVELS = '\164bids' -- the levels begin here and end the message
local TWIN_LIMIT = 3000000 -- a twin heard within this time still confirms the book
local STAND_LIMIT = 10000000 -- a book that was not confirmed for this time is abandoned
local CLOSED_SECONDS = 86400

local key, kind, feeder, state = KEYS[1], ARGV[1], ARGV[2], ARGV[4]
local stored = redis.call('HMGET', key, 'seq', 'update_id', 'state', 'feeder', 'confirmed_us', 'twin_us')
local seq, stored_id, stored_state = tonumber(stored[1]), tonumber(stored[2]), stored[3]
local exists, same_feeder = seq and stored_id, stored[4] == feeder

if kind == 'state' and not (exists and same_feeder and stored_state ~= state) then
    return 0
end

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local now_text = time[1] .. string.sub('00000' .. time[2], -6) -- cheaper than formatting the number
local confirmed = stored[5] or '0'

if kind == 'state' then
    if now - (tonumber(stored[6]) or 0) < TWIN_LIMIT then
        return 0
    end
elseif exists then
    local id = tonumber(ARGV[3])
    if id == stored_id then
        if stored_state == 'live' and not (same_feeder and kind == 'new') then
            if same_feeder then
                redis.call('HSET', key, 'confirmed_us', now_text)
                return 2
            end
            -- Two books may have the same id if it is a time: only equal levels confirm the stored one.
            local levels = string.sub(ARGV[10], string.find(ARGV[10], LEVELS, 1, true) or 1)
            if string.sub(redis.call('HMGET', key, 'book')[1] or '', -#levels) == levels then
                redis.call('HSET', key, 'confirmed_us', now_text, 'feeder', feeder, 'twin_us', confirmed)
                return 2
            end
            if now - (tonumber(confirmed) or 0) < TWIN_LIMIT then
                return 0
            end
        end
    elseif id < stored_id then
        local abandoned = stored_state == 'closed' or now - (tonumber(confirmed) or 0) > STAND_LIMIT
        -- A feeder is never so far behind the id that it published itself: the exchange restarted its ids.
        local restarted = same_feeder and (stored_state ~= 'live' or kind == 'new' and id < stored_id / 2)
        if not abandoned and not restarted then
            if not same_feeder then
                redis.call('HSET', key, 'twin_us', now_text)
            end
            return 0
        end
    end
end

-- Begins at the clock, so that it also rises after a loss of data.
seq = exists and seq + 1 or now
local twin = same_feeder and (stored[6] or '0') or confirmed
-- Eight bytes, big end first. The highest is 0 below 2^53. Unrolled: a loop over a table costs 3 us more.
local rest = seq
local byte8 = rest % 256
rest = (rest - byte8) / 256
local byte7 = rest % 256
rest = (rest - byte7) / 256
local byte6 = rest % 256
rest = (rest - byte6) / 256
local byte5 = rest % 256
rest = (rest - byte5) / 256
local byte4 = rest % 256
rest = (rest - byte4) / 256
local byte3 = rest % 256
local byte2 = (rest - byte3) / 256
local message = HEAD .. string.char(0, byte2, byte3, byte4, byte5, byte6, byte7, byte8) .. ARGV[10]

redis.call('HSET', key, 'seq', string.format('%.0f', seq), 'update_id', ARGV[3], 'state', state, 'feeder', feeder,
    'published_us', ARGV[5], 'confirmed_us', now_text, 'twin_us', twin,
    'bid', ARGV[6], 'bid_qty', ARGV[7], 'ask', ARGV[8], 'ask_qty', ARGV[9], 'book', message)
if state == 'closed' then
    redis.call('EXPIRE', key, CLOSED_SECONDS)
elseif stored_state == 'closed' then
    redis.call('PERSIST', key)
end
redis.call('PUBLISH', key, message)
return 1
