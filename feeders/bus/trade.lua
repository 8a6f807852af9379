-- Adds one trade to the stream KEYS[1], unless it was added before. The hash KEYS[2] remembers recent trades by their
-- marks: the first byte of a mark names a field, which holds the last marks with this byte.
--
-- ARGV  1 mark: 8 bytes   2 id   3 price   4 quantity   5 aggressor   6 exchange_us   7 received_us
-- reply 0 known   1 added
--
-- The id and the times stay strings: an id may be above 2^53.

local MOST_BYTES = 512 -- 64 marks in each of 256 fields
local MAXLEN = 10000

local stream, recent, mark = KEYS[1], KEYS[2], ARGV[1]
local bucket = string.sub(mark, 1, 1)
local stored = redis.call('HMGET', recent, bucket, 'epoch', 'count')
local marks, epoch, count = stored[1] or '', stored[2], tonumber(stored[3] or '')

if string.find(marks, mark, 1, true) then
    return 0
end
if not count then
    local time = redis.call('TIME')
    epoch, count = time[1] .. string.sub('00000' .. time[2], -6), 0
end
local count_text = string.format('%.0f', count + 1)

redis.call('XADD', stream, 'MAXLEN', '~', MAXLEN, '*', 'id', ARGV[2], 'price', ARGV[3], 'quantity', ARGV[4],
    'aggressor', ARGV[5], 'exchange_us', ARGV[6], 'received_us', ARGV[7], 'seq', epoch .. '-' .. count_text)
marks = string.sub(marks .. mark, -MOST_BYTES)
redis.call('HSET', recent, bucket, marks, 'epoch', epoch, 'count', count_text)
return 1
