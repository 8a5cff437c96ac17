-- Applies one batch of stats exactly once.
--   KEYS[1]    last seq of the worker
--   KEYS[2..]  windows (hashes)
--   ARGV       seq, the seq it must follow, seconds to remember the seq, payload
-- The payload is MessagePack: { groups, texts }
--   group  { key numbers, unix times at which they expire, max names, rows }
--   row    { name, n, errors, queries, wire, db_us, sum_us, max_us, durations, counts }, histograms as {lane, n, ...}
--   text   { key number, unix time at which it expires, max texts, { key, text, ... } }
-- Answers { 1 applied | 0 duplicate | -1 gap, last seq }. Packed rows: see stats/row.py, whose twin this is.
local last = tonumber(redis.call('GET', KEYS[1]) or '0')
local seq = tonumber(ARGV[1])
if seq <= last then return {0, last} end
if tonumber(ARGV[2]) > last then return {-1, last} end

local unpack, pack = struct.unpack, struct.pack
local sub, rep, gsub, concat = string.sub, string.rep, string.gsub, table.concat
local call = redis.call

local OTHER = '(other)'
local COUNTERS, LANES = '<I8I8I8I8I8I8I8', '<I2I2B'
local HISTOGRAMS_AT = 57
local COUNT = {[1] = 'B', [2] = '<I2', [4] = '<I4', [8] = '<I8'}
local LARGEST = {[1] = 255, [2] = 65535, [4] = 4294967295, [8] = 9007199254740991}
local WIDER = {[1] = {'.', '%0\0'}, [2] = {'..', '%0\0\0'}, [4] = {'....', '%0\0\0\0\0'}}

-- Adds {lane, n, ...} to a packed histogram; lanes change in ascending order, so the text is copied once.
local function add(lo, len, width, lanes, pairs)
  local size = #pairs
  if size == 0 then return pack(LANES, lo, len, width) .. lanes end
  local first, final = pairs[1], pairs[size - 1]
  if len == 0 then lo = first end
  if first < lo then
    lanes = rep('\0', (lo - first) * width) .. lanes
    len, lo = len + lo - first, first
  end
  if final >= lo + len then
    lanes = lanes .. rep('\0', (final - lo - len + 1) * width)
    len = final - lo + 1
  end
  local out, used, from = {}, 0, 1
  for i = 1, size, 2 do
    local at = (pairs[i] - lo) * width + 1
    local count = unpack(COUNT[width], lanes, at) + pairs[i + 1]
    if count > LARGEST[width] then
      out[used + 1] = sub(lanes, from)
      lanes = concat(out, '', 1, used + 1)
      out, used, from = {}, 0, 1
      while count > LARGEST[width] do
        lanes = gsub(lanes, WIDER[width][1], WIDER[width][2])
        width = width * 2
      end
      at = (pairs[i] - lo) * width + 1
    end
    out[used + 1] = sub(lanes, from, at - 1)
    out[used + 2] = pack(COUNT[width], count)
    used, from = used + 2, at + width
  end
  out[used + 1] = sub(lanes, from)
  return pack(LANES, lo, len, width) .. concat(out, '', 1, used + 1)
end

local function merged(old, row)
  if not old then
    return pack(COUNTERS, row[2], row[3], row[4], row[5], row[6], row[7], row[8])
      .. add(0, 0, 1, '', row[9]) .. add(0, 0, 1, '', row[10])
  end
  local n, errors, queries, wire, db_us, sum_us, max_us = unpack(COUNTERS, old)
  local lo, len, width, from = unpack(LANES, old, HISTOGRAMS_AT)
  local lo2, len2, width2, from2 = unpack(LANES, old, from + len * width)
  if row[8] > max_us then max_us = row[8] end
  return pack(COUNTERS, n + row[2], errors + row[3], queries + row[4], wire + row[5], db_us + row[6], sum_us + row[7], max_us)
    .. add(lo, len, width, sub(old, from, from + len * width - 1), row[9])
    .. add(lo2, len2, width2, sub(old, from2), row[10])
end

local payload = cmsgpack.unpack(ARGV[4])
call('SET', KEYS[1], seq, 'EX', ARGV[3])
for _, group in ipairs(payload[1]) do
  local numbers, expires, max_names, rows = group[1], group[2], group[3], group[4]
  for i, number in ipairs(numbers) do
    local key = KEYS[number]
    local room = max_names - call('HLEN', key) + call('HEXISTS', key, OTHER)
    for _, row in ipairs(rows) do
      local name = row[1]
      local old = call('HGET', key, name)
      if not old and name ~= OTHER then
        if room > 0 then
          room = room - 1
        else
          name = OTHER
          old = call('HGET', key, OTHER)
        end
      end
      call('HSET', key, name, merged(old, row))
    end
    call('EXPIREAT', key, expires[i])
  end
end
for _, text in ipairs(payload[2]) do
  local key, expires, max_texts, items = KEYS[text[1]], text[2], text[3], text[4]
  local room = max_texts - call('HLEN', key)
  for i = 1, #items, 2 do
    if call('HEXISTS', key, items[i]) == 1 then
      call('HSET', key, items[i], items[i + 1])
    elseif room > 0 then
      call('HSET', key, items[i], items[i + 1])
      room = room - 1
    end
  end
  call('EXPIREAT', key, expires)
end
return {1, last}
