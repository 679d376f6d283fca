-- One transaction: if everything that the caller has read is still as it was, what
-- it wants to write is written. Otherwise nothing is, and the answer has what the
-- caller needs to try again.
--
-- KEYS[1] is the hash of the store, KEYS[2] the hash of the counts of a group; the
-- arguments name further keys by their index. A stored value begins with 8 random
-- bytes, its version; an absent value has the version ''.
local position = 0
local function take()
	position = position + 1
	return ARGV[position]
end
local function number() return tonumber(take()) end

local want, confirmed, history, expected, slack, write, version, handle = take(), number(), take(), number(), number(), take() == 'w', take(), take()
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local info = redis.call('INFO', 'replication')
local id = string.match(info, 'master_replid:(%w+)') or ''
local replicas = select(2, string.gsub(info, 'state=online', ''))
local store = redis.call('HMGET', KEYS[1], 'id', 'birth', 'change', 'replicas', 'R', 'T', 'S', 'I', handle)

-- The most replicas that this history of the server had.
local most, known = string.match(store[4] or '', '^(%w+):(%d+)$')
if most == id then
	replicas = math.max(replicas, tonumber(known))
end

local status = 'done'
if string.match(info, 'role:(%w+)') ~= 'master' or id ~= history then
	status = 'server' -- the caller has not checked this server
elseif store[1] ~= want then
	status = 'store'
elseif (tonumber(store[3]) or 0) < confirmed or (tonumber(store[9]) or 0) < confirmed then
	-- The server has forgotten what it had confirmed to the caller. Others may have called
	-- since, so that the change number is as high as before; the caller's own is not.
	status = 'lost'
elseif now < expected or now - expected > slack then
	status = 'clock'
end

local stale = {}
for i = 1, number() do
	local key, field, seen = KEYS[number()], take(), take()
	local value
	if field == '' then
		value = redis.call('EXISTS', key) == 1 and '????????' or '' -- the whole key must be absent
	else
		value = redis.call('HGET', key, field) or ''
	end
	if string.sub(value, 1, 8) ~= seen then
		stale[#stale + 1] = i
		stale[#stale + 1] = value
	end
end
if status == 'done' and #stale > 0 then
	status = 'stale'
end

local counted = {}
local fields = {}
for i = 1, number() do
	fields[#fields + 1] = take()
end
for i = 1, #fields, 1000 do -- unpack takes some thousands
	local part = redis.call('HMGET', KEYS[2], unpack(fields, i, math.min(i + 999, #fields)))
	for j = 1, #part do
		counted[#counted + 1] = part[j] or ''
	end
end

-- Changes of counts: where, field, by how much, and the bound, if there is one.
local changes = {}
for i = 1, number() do
	local c = { KEYS[number()], take(), number(), number() }
	changes[i] = c
	if c[4] > 0 and c[3] > 0 and status == 'done' and (tonumber(redis.call('HGET', c[1], c[2])) or 0) + c[3] > c[4] then
		status = 'full'
	end
end

local change = tonumber(store[3]) or 0
if status == 'done' and write then
	change = redis.call('HINCRBY', KEYS[1], 'change', 1)
	redis.call('HSET', KEYS[1], handle, change)
	if not store[9] and redis.call('HINCRBY', KEYS[1], 'handles', 1) > 65536 then
		-- Of processes that were killed. If there are so many, the older half goes.
		local all, last = redis.call('HGETALL', KEYS[1]), {}
		for i = 1, #all, 2 do
			if string.sub(all[i], 1, 1) == '@' then
				last[#last + 1] = tonumber(all[i + 1])
			end
		end
		table.sort(last)
		local middle = #last > 65536 and last[math.floor(#last / 2)] or 0
		for i = 1, #all, 2 do
			if string.sub(all[i], 1, 1) == '@' and tonumber(all[i + 1]) <= middle then
				redis.call('HDEL', KEYS[1], all[i])
			end
		end
		redis.call('HSET', KEYS[1], 'handles', 0)
	end
	if most ~= id or tonumber(known) < replicas then
		redis.call('HSET', KEYS[1], 'replicas', id .. ':' .. replicas)
	end
	for i = 1, #changes do
		local c = changes[i]
		if redis.call('HINCRBY', c[1], c[2], c[3]) == 0 then
			redis.call('HDEL', c[1], c[2])
		end
	end
	for i = 1, number() do
		local key, field, value = KEYS[number()], take(), take()
		if value == '' then
			redis.call('HDEL', key, field)
		else
			redis.call('HSET', key, field, version .. value)
		end
	end
	for i = 1, number() do
		local key, member, score = KEYS[number()], take(), take()
		if score == '' then
			redis.call('ZREM', key, member)
		else
			redis.call('ZADD', key, score, member)
		end
	end
end
-- The first page with tags, and the first without, whose score is 2^52 more.
local tagged = redis.call('ZRANGE', KEYS[3], 0, 0, 'WITHSCORES')
local untagged = redis.call('ZRANGE', KEYS[3], '4503599627370496', '+inf', 'BYSCORE', 'LIMIT', 0, 1, 'WITHSCORES')
local due = tonumber(tagged[2]) or 0
if untagged[2] then
	due = math.min(due, untagged[2] - 4503599627370496)
end
return { status, now, replicas, store[1] or '', tonumber(store[2]) or 0, change,
	{ store[5] or '', store[6] or '', store[7] or '', store[8] or '' }, counted, stale, due }
