-- Claims a network of an exchange for the feeders of one prefix. KEYS[1] is the hash of the claim, which has no expiry:
-- each feeder of the network raises `count` once a second, and a claim is alive while it rises. No clock is read.
--
-- ARGV  1 action: look | claim | cleaned | release   2 network   3 source   4 feeder
--       5 the count at which the claim of another network is taken over, or empty
-- reply {status, network, source, feeder, count}
--       absent: nobody has claimed it (look alone)     held: ours
--       cleaning: ours, and `feeder` still removes the books of the network before it
--       other: another network's

local SILENT = 8 -- a feeder has gone if the others have each claimed this often since it did
local MEMBER = 'feeder:'

local key, action, network, source, feeder, expected = KEYS[1], ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local claim, members, size = {}, {}, 0
local fields = redis.call('HGETALL', key)
for at = 1, #fields, 2 do
    claim[fields[at]] = fields[at + 1]
    if string.sub(fields[at], 1, #MEMBER) == MEMBER then
        members[fields[at]] = tonumber(fields[at + 1]) or 0
        size = size + 1
    end
end
local count = tonumber(claim.count) or 0
local ours = claim.network == network and claim.source == source

local function heard(member)
    return members[member] and count - members[member] <= SILENT * size
end

if action == 'release' then
    redis.call('HDEL', key, MEMBER .. feeder)
    members[MEMBER .. feeder] = nil
    local alone = true
    for member in pairs(members) do
        alone = alone and not heard(member)
    end
    if ours and alone then
        redis.call('HSET', key, 'released', '1')
    end
    return {'other', claim.network or '', claim.source or '', claim.feeder or '', count}
end

if not claim.network then
    if action == 'look' then
        return {'absent', '', '', '', 0}
    end
elseif not ours then
    if not claim.released and expected ~= claim.count then
        return {'other', claim.network, claim.source or '', claim.feeder or '', count}
    end
    redis.call('DEL', key)
    redis.call('HSET', key, 'cleaning', feeder)
    claim.cleaning = feeder
elseif claim.cleaning == feeder and action == 'cleaned' then
    redis.call('HDEL', key, 'cleaning')
    claim.cleaning = nil
elseif claim.cleaning and claim.cleaning ~= feeder and not heard(MEMBER .. claim.cleaning) then
    redis.call('HSET', key, 'cleaning', feeder)
    claim.cleaning = feeder
end

count = count + 1
for member in pairs(members) do
    if ours and not heard(member) then
        redis.call('HDEL', key, member)
    end
end
redis.call('HSET', key, 'network', network, 'source', source, 'feeder', feeder, 'count', string.format('%.0f', count),
    MEMBER .. feeder, string.format('%.0f', count))
if claim.released then
    redis.call('HDEL', key, 'released')
end
if claim.cleaning then
    return {'cleaning', network, source, claim.cleaning, count}
end
return {'held', network, source, feeder, count}
