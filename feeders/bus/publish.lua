-- Applies one submission to the book KEYS[1]; an accepted one is published on the channel of the same name. In a
-- database other than 0 script_text replaces that name by the channel of that database.
-- A feeder confirms a book by submitting it again. A twin is another feeder of the same book.
--
-- ARGV  1 kind: new | again | state   2 feeder   3 update_id   4 state   5 published_us
--       6 bid   7 bid_qty   8 ask   9 ask_qty   10 body: the message after its seq
--       11 network   12 mode   13 depth: the feeder's claim on the book; an absent or empty one is not compared
--       14 the highest id that this feeder sent before its ids fell; absent while they rise
-- reply 0 refused   1 accepted   2 confirmed   3 refused: a feeder with another claim owns the book
--
-- `others` lists the feeders beside the stored one: when each was last heard, behind the book or with a lower id. One
-- that was first heard after the book's last confirmation has that confirmed_us after an `n`: it may be a new one.
-- `rival` is the feeder that reply 3 was last given to, and when: it waits for the book.
-- `fallen` lists the feeders whose ids fell, after the confirmed_us for which that holds. Once all feeders say so, the
-- exchange has restarted its ids.
--
-- Ids and times stay strings: Lua prints large numbers with an exponent. As doubles they are exact below 2^53.

local HEAD = '\142\161v\001\163seq\207'
local LEVELS = '\164bids' -- the levels begin here and end the message
local TWIN_LIMIT = 3000000 -- a twin heard within this time still confirms the book
local STAND_LIMIT = 10000000 -- a book that was not confirmed for this time is abandoned
local CLOSED_SECONDS = 86400
local OTHER = '(n?)(%d+) ([^\n]*)\n'

local key, kind, feeder, state = KEYS[1], ARGV[1], ARGV[2], ARGV[4]
local stored = redis.call('HMGET', key, 'seq', 'update_id', 'state', 'feeder', 'confirmed_us', 'twin_us')
local seq, stored_id, stored_state = tonumber(stored[1]), tonumber(stored[2]), stored[3]
local exists, same_feeder = seq and stored_id, stored[4] == feeder

if kind == 'state' and not (exists and (same_feeder and stored_state ~= state or state == 'closed')) then
    return 0
end

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local now_text = time[1] .. string.sub('00000' .. time[2], -6) -- cheaper than formatting the number
local confirmed = stored[5] or '0'
local claims = not exists and ARGV[11] -- whether network, mode and depth are written
local others -- written if given

if kind == 'state' or exists and not (same_feeder and tonumber(ARGV[3]) > stored_id) then
    -- `entry` and what is in `known` of the feeders, without `name`, that were heard within TWIN_LIMIT.
    local function list_others(entry, known, name)
        for mark, us, other in string.gmatch(known, OTHER) do
            if other ~= name and now - us < TWIN_LIMIT then
                entry = entry .. mark .. us .. ' ' .. other .. '\n'
            end
        end
        return entry
    end

    if kind == 'state' then
        local alone = now - (tonumber(stored[6]) or 0) >= TWIN_LIMIT
        if state == 'closed' then
            local known = redis.call('HMGET', key, 'others', 'rival')
            local beside = list_others('', known[1] or '', feeder)
            local us, name = string.match(beside, '^(%d+) ([^\n]*)\n')
            local rival_us, rival = string.match(known[2] or '', '^(%d+) (.*)$')
            if not same_feeder then
                if (known[1] or '') ~= beside then
                    redis.call('HSET', key, 'others', beside, 'twin_us', us or '0')
                end
                if rival == feeder then
                    redis.call('HSET', key, 'rival', '')
                end
                return 0
            elseif stored_state == state then
                return 0
            elseif not alone and us then
                -- The twin is left alone with the book.
                beside = list_others('', beside, name)
                local next_us = string.match(beside, '^(%d+)') or '0'
                redis.call('HSET', key, 'feeder', name, 'twin_us', next_us, 'others', beside)
            elseif alone and rival and now - rival_us < TWIN_LIMIT then
                -- A feeder with another claim waits: it gets the book without a moment in which it is closed.
                redis.call('HSET', key, 'feeder', '', 'network', '', 'mode', '', 'depth', '')
                return 0
            end
        end
        if not alone then
            return 0
        end
    else
        local id, live = tonumber(ARGV[3]), stored_state == 'live'
        local abandoned = stored_state == 'closed' or now - (tonumber(confirmed) or 0) > STAND_LIMIT
        local known, taken = '', false
        if not same_feeder then
            local claim = redis.call('HMGET', key, 'others', 'network', 'mode', 'depth')
            known = claim[1] or ''
            for i = 2, 4 do
                local own, owned = ARGV[9 + i] or '', claim[i] or ''
                if own ~= '' and own ~= owned then
                    claims = true
                    taken = taken or owned ~= ''
                end
            end
            if taken and not abandoned then
                redis.call('HSET', key, 'rival', now_text .. ' ' .. feeder)
                return 3
            end
            local stood = stored[4] and stored[4] ~= '' and stored_state ~= 'closed'
            others = list_others(stood and confirmed .. ' ' .. stored[4] .. '\n' or '', known, feeder)
        end
        if taken then
            others = '' -- the ids of the feeders before may be of another sequence
        elseif id == stored_id then
            if live and not (same_feeder and kind == 'new') then
                if same_feeder then
                    redis.call('HSET', key, 'confirmed_us', now_text)
                    return 2
                end
                -- Two books may have the same id if it is a time: only equal levels confirm the stored one.
                local levels = string.sub(ARGV[10], string.find(ARGV[10], LEVELS, 1, true) or 1)
                if string.sub(redis.call('HMGET', key, 'book')[1] or '', -#levels) == levels then
                    redis.call('HSET', key, 'confirmed_us', now_text, 'feeder', feeder, 'twin_us', confirmed,
                        'others', others)
                    if claims then
                        redis.call('HSET', key, 'network', ARGV[11] or '', 'mode', ARGV[12] or '',
                            'depth', ARGV[13] or '')
                    end
                    return 2
                end
                if stored[4] ~= '' and now - (tonumber(confirmed) or 0) < TWIN_LIMIT then
                    return 0
                end
            end
        elseif id < stored_id then
            -- A feeder is never so far behind the id that it published itself: the exchange restarted its ids.
            local restarted = abandoned or same_feeder and (not live or kind == 'new' and id < stored_id / 2)
            local highest = tonumber(ARGV[14])
            if not restarted and live and highest and highest <= stored_id then
                local lists = redis.call('HMGET', key, 'others', 'fallen')
                local fallen, head = lists[2] or '', confirmed .. '\n'
                if string.sub(fallen, 1, #head) ~= head then
                    fallen = head -- the book was confirmed since
                end
                if not string.find(fallen, '\n' .. feeder .. '\n', 1, true) then
                    fallen = fallen .. feeder .. '\n'
                    redis.call('HSET', key, 'fallen', fallen)
                end
                restarted = string.find(fallen, '\n' .. (stored[4] or '') .. '\n', 1, true)
                for mark, us, other in string.gmatch(lists[1] or '', OTHER) do
                    local fell = string.find(fallen, '\n' .. other .. '\n', 1, true)
                    restarted = restarted and (fell or mark == 'n' or now - us >= TWIN_LIMIT)
                end
                if not restarted and not same_feeder then
                    redis.call('HSET', key, 'twin_us', now_text)
                end
            elseif not restarted and not same_feeder then
                local entry = 'n' .. confirmed .. ' ' .. feeder .. '\n'
                for mark, us, other in string.gmatch(known, OTHER) do
                    if other == feeder and (mark == '' or us ~= confirmed) then
                        entry = now_text .. ' ' .. feeder .. '\n'
                    end
                end
                redis.call('HSET', key, 'twin_us', now_text, 'others', list_others('', known, feeder) .. entry)
            end
            if not restarted then
                return 0
            end
        end
    end
end

-- Begins at the clock, so that it also rises after a loss of data.
seq = exists and seq + 1 or now
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

redis.call('HSET', key, 'seq', string.format('%.0f', seq), 'update_id', ARGV[3],
    'published_us', ARGV[5], 'confirmed_us', now_text,
    'bid', ARGV[6], 'bid_qty', ARGV[7], 'ask', ARGV[8], 'ask_qty', ARGV[9], 'book', message)
if not (same_feeder and stored_state == state and stored[6]) then
    redis.call('HSET', key, 'state', state, 'feeder', feeder,
        'twin_us', same_feeder and (stored[6] or '0') or confirmed)
    if others then
        redis.call('HSET', key, 'others', others)
    end
    if claims then
        redis.call('HSET', key, 'network', ARGV[11] or '', 'mode', ARGV[12] or '', 'depth', ARGV[13] or '')
    end
    if state == 'closed' then
        redis.call('EXPIRE', key, CLOSED_SECONDS)
    elseif stored_state == 'closed' then
        redis.call('PERSIST', key)
    end
end
redis.call('PUBLISH', key, message)
return 1
