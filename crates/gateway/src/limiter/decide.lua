-- Limits, decided in Redis: the rules of `domain::rate::state`, line by line, on the same bytes (`state/encoding.rs`).
--
-- One call decides over all limits of a request: all have room and are taken from, or nothing is. Every number is an
-- integer below 2^53, so that the 64-bit floats of this language are exact; products that may be larger are divided piece
-- by piece (`muldiv`). A suite compares every answer and every state with the model's.
--
-- KEYS[1]   who of the nodes lives: a sorted set, by when their lease ends
-- KEYS[i+1] the state of limit i
-- ARGV[1]   "decide", "correct" or "beat"
-- ARGV[2]   this node
-- ARGV[3]   the time in milliseconds; 0 is the server's
-- ARGV[i+3] limit i: rule (8 numbers of 8 bytes), cost; to correct: what was used, and what `decide` said was taken
--
-- decide answers: the time, whether all was taken (1 or 0), whether this node is unknown (1 or 0), then of each limit verdict
-- (0 admitted, 1 wait, 2 never), wait, remaining, milliseconds until it is whole, and what was taken. beat answers: the time,
-- how many nodes live, and whether this one was unknown.

local LEASE_MS = 60000
-- A node whose lease ended is counted again if it comes back within this time; then it is forgotten.
local ABSENCE_MS = 600000
local IN_FLIGHT_WAIT_MS = 1000
-- A key for requests in flight goes when nobody touched it for a day.
local IN_FLIGHT_MS = 86400000
local STEP_BACK_MS = 60000
local MARKS_MAX = 512
local COUNT_MAX = 2 ^ 50
local SPAN_MS_MAX = 2 ^ 50
local FULL_MAX = 2 ^ 48 - 1
local RETURNED_MS_MAX = 2 ^ 40 - 1
local FOREVER_MS = 2 ^ 52
-- A state is kept as long as it matters. Not for less than a minute: a clock may step back.
local TTL_MS_MIN, TTL_MS_MAX = 60000, 1000 * 86400000

local SLIDING, SMOOTH, CALENDAR, SESSION, NOW, REQUEST = 1, 2, 3, 4, 5, 6

local floor, fmod, min, max = math.floor, math.fmod, math.min, math.max
local pack, unpack_at, sub, byte = struct.pack, struct.unpack, string.sub, string.byte

local now

-- The number at that place of a state, from 0.
local function word(state, index)
  return (unpack_at('<i8', state, 2 + 8 * index))
end

local function kind_of(state)
  return byte(state, 1)
end

-- Quotient and remainder of a * b / m, exactly: a and b below 2^53, m at most 2^48. A quotient beyond 2^53 is about right.
local function muldiv(a, b, m)
  local product = a * b
  if product < 2 ^ 53 then
    local rest = fmod(product, m)
    return (product - rest) / m, rest
  end
  local digit_of_a = fmod(a, m)
  local whole = (a - digit_of_a) / m * b
  -- By the hexadecimal digits of b, the high one first.
  local digits = {}
  while b > 0 do
    local digit = fmod(b, 16)
    digits[#digits + 1] = digit
    b = (b - digit) / 16
  end
  local quotient, rest = 0, 0
  for index = #digits, 1, -1 do
    local sum = rest * 16 + digit_of_a * digits[index]
    rest = fmod(sum, m)
    quotient = quotient * 16 + (sum - rest) / m
  end
  return whole + quotient, rest
end

-- === Sliding windows: length, forgotten up to, sum of what was forgotten, then (time, running sum) of each mark ===

local function marks_of(state)
  return (#state - 25) / 16
end

local function mark_at(state, index)
  return word(state, 3 + 2 * index)
end

-- The running sum up to and without that mark.
local function sum_before(state, index)
  if index == 0 then
    return word(state, 2)
  end
  return word(state, 2 + 2 * index)
end

local function log_with(length, forgotten, before, marks)
  return pack('<Bi8i8i8', SLIDING, length, forgotten, before) .. marks
end

-- The first mark for which `is_past` does not hold; they are in order.
local function partition(state, from, is_past)
  local low, high = from, marks_of(state)
  while low < high do
    local middle = floor((low + high) / 2)
    if is_past(middle) then
      low = middle + 1
    else
      high = middle
    end
  end
  return low
end

local function first_live(state, length)
  return partition(state, 0, function(index)
    return mark_at(state, index) + length <= now
  end)
end

local function log_used(state, length)
  return sum_before(state, marks_of(state)) - sum_before(state, first_live(state, length))
end

-- The marks from `from` on, their sums less by `less`.
local function lowered(state, from, less)
  local parts = {}
  for index = from, marks_of(state) - 1 do
    parts[#parts + 1] = pack('<i8i8', mark_at(state, index), sum_before(state, index + 1) - less)
  end
  return table.concat(parts)
end

local function log_take(state, length, cost)
  if state == '' then
    state = log_with(length, -1, 0, '')
  end
  local count, expired = marks_of(state), first_live(state, length)
  if expired > 0 and (expired * 2 >= count or count >= MARKS_MAX) then
    local forgotten, before = mark_at(state, expired - 1), sum_before(state, expired)
    local marks = sub(state, 26 + 16 * expired)
    -- Now and then sums start again, lest they grow too large to be exact.
    if before > 2 ^ 51 then
      marks, before = lowered(state, expired, before), 0
    end
    state = log_with(length, forgotten, before, marks)
    count, expired = count - expired, 0
  elseif word(state, 0) ~= length then
    state = log_with(length, word(state, 1), word(state, 2), sub(state, 26))
  end
  local total = sum_before(state, count)
  cost = max(min(cost, COUNT_MAX - (total - sum_before(state, expired))), 0)
  if count > 0 and mark_at(state, count - 1) == now then
    return sub(state, 1, -9) .. pack('<i8', total + cost)
  end
  if count >= MARKS_MAX then
    local later = {}
    for index = 1, count - 1, 2 do
      later[#later + 1] = sub(state, 26 + 16 * index, 41 + 16 * index)
    end
    state = log_with(length, word(state, 1), word(state, 2), table.concat(later))
  end
  return state .. pack('<i8i8', now, total + cost)
end

local function log_give_back(state, taken, length, amount)
  local index = partition(state, 0, function(index)
    return mark_at(state, index) < taken
  end)
  if taken + length <= now or taken <= word(state, 1) or index == marks_of(state) then
    return state
  end
  local own = sum_before(state, index + 1) - sum_before(state, index)
  amount = min(amount, own)
  local from = amount == own and index + 1 or index
  return sub(state, 1, 25 + 16 * index) .. lowered(state, from, amount)
end

local function log_drawn_in(state)
  local count = marks_of(state)
  if count == 0 or mark_at(state, count - 1) <= now then
    return state
  end
  local future = partition(state, 0, function(index)
    return mark_at(state, index) < now
  end)
  local marks = sub(state, 26, 25 + 16 * future) .. pack('<i8i8', now, sum_before(state, count))
  return log_with(word(state, 0), min(word(state, 1), now), word(state, 2), marks)
end

local function log_look(state, rule, cost)
  local first, count = first_live(state, rule.length), marks_of(state)
  local before = sum_before(state, first)
  local excess = sum_before(state, count) - before + cost - rule.amount
  if excess <= 0 then
    return 0, 0
  end
  local enough = partition(state, first, function(index)
    return sum_before(state, index + 1) - before < excess
  end)
  return 1, mark_at(state, enough) + rule.length - now
end

-- === Buckets: full at, remainder, amount, length, busy since, returned ===
-- A stretch of time is milliseconds and `amount`-ths of one.

local function fills_in(rule, units)
  local ms, part = muldiv(units, rule.length, rule.amount)
  if ms >= SPAN_MS_MAX then
    return SPAN_MS_MAX, 0
  end
  return ms, part
end

local function ceil_ms(ms, part)
  return part > 0 and ms + 1 or ms
end

local function plus(ms, part, more_ms, more_part, amount)
  part = part + more_part
  if part >= amount then
    return ms + more_ms + 1, part - amount
  end
  return ms + more_ms, part
end

local function is_less(ms, part, than_ms, than_part)
  return ms < than_ms or ms == than_ms and part < than_part
end

-- The difference, or nil if it is not more than nothing.
local function minus(ms, part, less_ms, less_part, amount)
  if not is_less(less_ms, less_part, ms, part) then
    return nil
  end
  if part < less_part then
    return ms - less_ms - 1, part + amount - less_part
  end
  return ms - less_ms, part - less_part
end

local function reach(rule)
  return max(ceil_ms(fills_in(rule, rule.most)), rule.length)
end

local function missing(state, at)
  local ms = word(state, 0) - max(at, 0)
  if ms < 0 then
    return 0, 0
  end
  return ms, word(state, 1)
end

local function bucket_with(rule, busy_since, returned, ms, part)
  local latest = reach(rule)
  if ms >= latest then
    ms, part = latest, 0
  end
  return pack('<Bi8i8i8i8i8i8', SMOOTH, min(now + ms, FULL_MAX), part, rule.amount, rule.length, busy_since, returned)
end

local function bucket_used(state)
  local ms, part = missing(state, now)
  local length = word(state, 3)
  local quotient, rest = muldiv(word(state, 2), ms, length)
  local more = fmod(rest + part, length)
  quotient = quotient + (rest + part - more) / length
  return min(more > 0 and quotient + 1 or quotient, COUNT_MAX)
end

local function bucket_take(state, rule, cost)
  local ms, part, busy_since, returned = 0, 0, fmod(now, 2 ^ 32), 0
  if state ~= '' then
    ms, part = missing(state, now)
    if ms > 0 or part > 0 then
      busy_since, returned = word(state, 4), word(state, 5)
    end
  end
  local cost_ms, cost_part = fills_in(rule, cost)
  return bucket_with(rule, busy_since, returned, plus(ms, part, cost_ms, cost_part, rule.amount))
end

local function is_of(state, rule)
  return word(state, 2) == rule.amount and word(state, 3) == rule.length
end

local function bucket_adopted(state, rule)
  if rule.amount == 0 then
    return state
  end
  if is_of(state, rule) then
    if word(state, 0) < now + rule.length then
      return state
    end
    local ms, part = missing(state, now)
    return bucket_with(rule, word(state, 4), word(state, 5), ms, part)
  end
  return bucket_take('', rule, bucket_used(state))
end

local function bucket_give_back(state, taken, rule, amount)
  if not is_of(state, rule) or not is_of(taken, rule) or word(taken, 4) ~= word(state, 4) then
    return state
  end
  local returned = max(word(state, 5) - word(taken, 5), 0)
  local back_ms, back_part = fills_in(rule, amount)
  local still_ms, still_part = missing(taken, now + returned)
  if is_less(still_ms, still_part, back_ms, back_part) then
    back_ms, back_part = still_ms, still_part
  end
  local ms, part = missing(state, now)
  if is_less(ms, part, back_ms, back_part) then
    back_ms, back_part = ms, part
  end
  local left_ms, left_part = minus(ms, part, back_ms, back_part, rule.amount)
  returned = min(word(state, 5) + ceil_ms(back_ms, back_part), RETURNED_MS_MAX)
  return bucket_with(rule, word(state, 4), returned, left_ms or 0, left_part or 0)
end

local function bucket_look(state, rule, cost)
  local ms, part = missing(state, now)
  local cost_ms, cost_part = fills_in(rule, cost)
  ms, part = plus(ms, part, cost_ms, cost_part, rule.amount)
  local burst_ms, burst_part = fills_in(rule, rule.most)
  local excess_ms, excess_part = minus(ms, part, burst_ms, burst_part, rule.amount)
  if not excess_ms then
    return 0, 0
  end
  return 1, ceil_ms(excess_ms, excess_part)
end

-- === Calendar periods: which, start, end, used. Sessions: began, used, length ===

-- Start and end of the period of now: of the two that came with the rule the one that is not over.
local function period_of(rule)
  if now >= rule.ends then
    return rule.ends, rule.next_ends
  end
  return rule.starts, rule.ends
end

local function period_with(calendar, starts, ends, used)
  return pack('<Bi8i8i8i8', CALENDAR, calendar, starts, ends, used)
end

local function period_used(state)
  return word(state, 2) <= now and 0 or word(state, 3)
end

local function period_take(state, rule, cost)
  local starts, ends, used
  if state == '' or word(state, 2) <= now then
    starts, ends = period_of(rule)
    used = 0
  else
    starts, ends, used = word(state, 1), word(state, 2), word(state, 3)
  end
  return period_with(rule.calendar, starts, ends, min(used + cost, COUNT_MAX))
end

local function session_with(began, used, length)
  return pack('<Bi8i8i8', SESSION, began, used, length)
end

local function session_used(state, length)
  return word(state, 0) + length <= now and 0 or word(state, 1)
end

local function session_take(state, rule, cost)
  local began, used = now, 0
  if state ~= '' and word(state, 0) + rule.length > now then
    began, used = word(state, 0), word(state, 1)
  end
  return session_with(began, min(used + cost, COUNT_MAX), rule.length)
end

-- === Any state ===

-- How much counts, by the rule that the state was last used with.
local function used(state)
  if state == '' then
    return 0
  end
  local kind = kind_of(state)
  if kind == SLIDING then
    return log_used(state, word(state, 0))
  elseif kind == SMOOTH then
    return bucket_used(state)
  elseif kind == CALENDAR then
    return period_used(state)
  end
  return session_used(state, word(state, 2))
end

-- The state after taking, and what was taken.
local function take(state, rule, cost)
  if cost == 0 then
    return state, ''
  elseif rule.kind == SLIDING then
    return log_take(state, rule.length, cost), pack('<Bi8', SLIDING, now)
  elseif rule.kind == SMOOTH then
    if rule.amount == 0 then
      return state, ''
    end
    state = bucket_take(state, rule, cost)
    return state, state
  elseif rule.kind == CALENDAR then
    state = period_take(state, rule, cost)
    return state, pack('<Bi8', CALENDAR, word(state, 1))
  end
  state = session_take(state, rule, cost)
  return state, pack('<Bi8', SESSION, word(state, 0))
end

local function adopted(state, rule)
  if state == '' then
    return state
  end
  local kind = kind_of(state)
  if kind == SLIDING and rule.kind == SLIDING then
    return log_drawn_in(state)
  elseif kind == SMOOTH and rule.kind == SMOOTH then
    return bucket_adopted(state, rule)
  elseif kind == CALENDAR and rule.kind == CALENDAR
    and word(state, 0) == rule.calendar and word(state, 1) <= now + STEP_BACK_MS then
    return state
  elseif kind == SESSION and rule.kind == SESSION then
    if word(state, 0) <= now then
      return state
    end
    return session_with(now, word(state, 1), word(state, 2))
  end
  return (take('', rule, used(state)))
end

local function look(state, rule, cost)
  if rule.amount == 0 or cost > rule.most then
    return 2, 0
  elseif cost == 0 or state == '' then
    return 0, 0
  elseif rule.kind == SLIDING then
    return log_look(state, rule, cost)
  elseif rule.kind == SMOOTH then
    return bucket_look(state, rule, cost)
  elseif rule.kind == CALENDAR then
    if period_used(state) + cost <= rule.amount then
      return 0, 0
    elseif word(state, 2) == FOREVER_MS then
      return 2, 0
    end
    return 1, word(state, 2) - now
  end
  if session_used(state, rule.length) + cost <= rule.amount then
    return 0, 0
  end
  return 1, word(state, 0) + rule.length - now
end

-- Remaining, and milliseconds until it is whole.
local function standing(state, rule)
  local remaining, whole = rule.most, 0
  if state ~= '' then
    if rule.kind == SLIDING then
      local count = marks_of(state)
      remaining = rule.amount - log_used(state, rule.length)
      whole = count > 0 and mark_at(state, count - 1) + rule.length - now or 0
    elseif rule.kind == SMOOTH then
      remaining = rule.most - bucket_used(state)
      whole = ceil_ms(missing(state, now))
    elseif rule.kind == CALENDAR then
      remaining, whole = rule.amount - period_used(state), word(state, 2) - now
      if word(state, 2) == FOREVER_MS then
        whole = FOREVER_MS
      end
    else
      remaining, whole = rule.amount - session_used(state, rule.length), word(state, 0) + rule.length - now
    end
  end
  if rule.amount == 0 then
    remaining = 0
  end
  return max(remaining, 0), min(max(whole, 0), FOREVER_MS)
end

local function is_idle(state, rule)
  if state == '' then
    return true
  elseif rule.kind == SLIDING and kind_of(state) == SLIDING then
    return log_used(state, rule.length) == 0
  elseif rule.kind == SESSION and kind_of(state) == SESSION then
    return session_used(state, rule.length) == 0
  end
  return used(state) == 0
end

local function give_back(state, rule, taken, amount)
  if state == '' or taken == '' or amount == 0 or kind_of(state) ~= rule.kind or kind_of(taken) ~= rule.kind then
    return state
  elseif rule.kind == SLIDING then
    return log_give_back(state, word(taken, 0), rule.length, amount)
  elseif rule.kind == SMOOTH then
    if rule.amount == 0 then
      return state
    end
    return bucket_give_back(state, taken, rule, amount)
  elseif rule.kind == CALENDAR then
    if word(state, 1) ~= word(taken, 0) then
      return state
    end
    return period_with(word(state, 0), word(state, 1), word(state, 2), max(word(state, 3) - amount, 0))
  end
  if word(state, 0) ~= word(taken, 0) then
    return state
  end
  return session_with(word(state, 0), max(word(state, 1) - amount, 0), word(state, 2))
end

local function keep(key, state, rule)
  if state == '' then
    redis.call('DEL', key)
    return
  end
  local ends
  if rule.kind == CALENDAR then
    ends = word(state, 2)
  elseif rule.kind == SMOOTH then
    ends = now + (rule.amount > 0 and reach(rule) or TTL_MS_MAX)
  else
    ends = now + rule.length
  end
  -- As text: numbers would be written as floats.
  redis.call('SET', key, state, 'PX', string.format('%.0f', min(max(ends - now, TTL_MS_MIN), TTL_MS_MAX)))
end

-- === Requests in flight: of each node a count, that holds while its lease does ===

local nodes, node = KEYS[1], ARGV[2]

local function live()
  redis.call('ZADD', nodes, string.format('%.0f', now + LEASE_MS), node)
  redis.call('ZREMRANGEBYSCORE', nodes, '-inf', string.format('(%.0f', now - ABSENCE_MS))
  redis.call('PEXPIRE', nodes, IN_FLIGHT_MS)
end

local function in_flight(key)
  local counts, sum = redis.call('HGETALL', key), 0
  for index = 1, #counts, 2 do
    local lease = redis.call('ZSCORE', nodes, counts[index])
    if not lease then
      redis.call('HDEL', key, counts[index])
    elseif tonumber(lease) > now then
      sum = sum + tonumber(counts[index + 1])
    end
  end
  return min(sum, COUNT_MAX)
end

local function count_in_flight(key, more)
  local count = tonumber(redis.call('HGET', key, node) or '0')
  count = min(max(count + more, 0), COUNT_MAX)
  if count == 0 then
    redis.call('HDEL', key, node)
  else
    redis.call('HSET', key, node, string.format('%.0f', count))
    redis.call('PEXPIRE', key, IN_FLIGHT_MS)
  end
end

-- === The call ===

now = tonumber(ARGV[3])
if now == 0 then
  local time = redis.call('TIME')
  now = tonumber(time[1]) * 1000 + floor(tonumber(time[2]) / 1000)
end

-- A node that has beaten is known, unless the server lost what it knew.
local unknown = redis.call('ZSCORE', nodes, node) and 0 or 1

if ARGV[1] == 'beat' then
  live()
  return { now, redis.call('ZCOUNT', nodes, string.format('(%.0f', now), '+inf'), unknown }
end

local asked, has_kept, has_in_flight = {}, false, false
for index = 2, #KEYS do
  local argument = ARGV[index + 2]
  local kind, amount, most, length, calendar, starts, ends, next_ends, cost = unpack_at('<i8i8i8i8i8i8i8i8i8', argument)
  asked[index - 1] = {
    key = KEYS[index], argument = argument, cost = cost, state = '',
    kind = kind, amount = amount, most = most, length = length,
    calendar = calendar, starts = starts, ends = ends, next_ends = next_ends,
  }
  has_kept = has_kept or kind < NOW
  has_in_flight = has_in_flight or kind == NOW
end

if has_in_flight then
  live()
end
if has_kept then
  local keys = {}
  for index, ask in ipairs(asked) do
    -- Of what is in flight, which is no text, nothing is found here.
    keys[index] = ask.key
  end
  for index, state in ipairs(redis.call('MGET', unpack(keys))) do
    local ask = asked[index]
    if state and ask.kind < NOW then
      ask.found = state
      ask.state = adopted(state, ask)
      ask.changed = ask.state ~= state
    end
  end
end

if ARGV[1] == 'correct' then
  for _, ask in ipairs(asked) do
    local reserved, actual = ask.cost, (unpack_at('<i8', ask.argument, 73))
    local taken = sub(ask.argument, 81)
    if ask.kind == NOW then
      if taken ~= '' or actual > reserved then
        count_in_flight(ask.key, actual - reserved)
      end
    elseif ask.kind < NOW then
      local state
      if actual > reserved then
        state = take(ask.state, ask, actual - reserved)
      else
        state = give_back(ask.state, ask, taken, reserved - actual)
        if is_idle(state, ask) then
          state = ''
        end
      end
      if state ~= (ask.found or '') then
        keep(ask.key, state, ask)
      end
    end
  end
  return { now }
end

local all = true
for _, ask in ipairs(asked) do
  if ask.kind == NOW then
    ask.count = in_flight(ask.key)
    if ask.amount == 0 or ask.cost > ask.amount then
      ask.verdict, ask.wait = 2, 0
    elseif ask.cost == 0 or ask.count + ask.cost <= ask.amount then
      ask.verdict, ask.wait = 0, 0
    else
      ask.verdict, ask.wait = 1, IN_FLIGHT_WAIT_MS
    end
  else
    ask.verdict, ask.wait = look(ask.state, ask, ask.cost)
  end
  all = all and ask.verdict == 0
end

local answer = { now, all and 1 or 0, unknown }
for index, ask in ipairs(asked) do
  local taken = ''
  if ask.kind == NOW then
    if all and ask.cost > 0 then
      count_in_flight(ask.key, ask.cost)
      ask.count, taken = ask.count + ask.cost, pack('<B', NOW)
    end
  elseif ask.kind < NOW then
    if all then
      ask.state, taken = take(ask.state, ask, ask.cost)
    end
    if all and ask.cost > 0 or ask.changed then
      keep(ask.key, ask.state, ask)
    end
  end
  local remaining, whole
  if ask.kind == NOW then
    remaining, whole = max(ask.amount - ask.count, 0), 0
  else
    remaining, whole = standing(ask.state, ask)
  end
  answer[index + 3] = pack('<i8i8i8i8', ask.verdict, ask.wait, remaining, whole) .. taken
end
return answer
