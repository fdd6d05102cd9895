package ratelimit

import "github.com/redis/go-redis/v9"

// Each script has one key, so that a batch of them suits a Cluster, and reads the
// time of the server, so that processes whose clocks differ agree. Numbers are
// written with string.format: Lua's own way loses digits.

// takeRate is the generic cell rate algorithm. The key holds when all of the
// limit is there again, in Unix microseconds. Arguments: the step and the room of
// the limit in microseconds. It returns how long to wait, 0 if it took.
const takeRate = `
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local step, room = tonumber(ARGV[1]), tonumber(ARGV[2])
local full = tonumber(redis.call('GET', KEYS[1]) or 0)
full = math.min(math.max(full, now), now + room) + step
if full - now > room then return full - now - room end
redis.call('SET', KEYS[1], string.format('%.0f', full), 'PX', string.format('%.0f', math.ceil((full - now) / 1000)))
return 0`

// giveRate gives back. Argument: the step. What it gives back beyond what there
// can be is lost, so a key never has more than its limit.
const giveRate = `
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local full = tonumber(redis.call('GET', KEYS[1]) or 0) - ARGV[1]
if full > now then
  redis.call('SET', KEYS[1], string.format('%.0f', full), 'PX', string.format('%.0f', math.ceil((full - now) / 1000)))
else
  redis.call('DEL', KEYS[1])
end
return 0`

// takeMembers adds to a hash whose fields are members, of 8 bytes each, until
// their window ends. The value is the request that a member was new to, as long
// as that request is the only one. Arguments: the greatest number of members, the
// window in milliseconds, the request, the members. It returns how long to wait in
// microseconds, 0 if it took.
const takeMembers = `
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local window, members = tonumber(ARGV[2]), ARGV[4]
local ending = now - now % window + window
local new, shared = {}, {}
for from = 1, #members, 8000 do
  local names = {}
  for i = from, math.min(from + 7999, #members), 8 do names[#names + 1] = string.sub(members, i, i + 7) end
  local owners = redis.call('HMGET', KEYS[1], unpack(names))
  for i, owner in ipairs(owners) do
    if not owner then
      new[#new + 1] = names[i]
    elseif owner ~= '' then
      shared[#shared + 1] = names[i]
    end
  end
end
if #new > 0 and redis.call('HLEN', KEYS[1]) + #new > tonumber(ARGV[1]) then
  return (ending - now) * 1000
end
local function write(names, value)
  for from = 1, #names, 1000 do
    local fields = {}
    for i = from, math.min(from + 999, #names) do
      fields[#fields + 1] = names[i]
      fields[#fields + 1] = value
    end
    redis.call('HSET', KEYS[1], unpack(fields))
  end
end
write(new, ARGV[3])
write(shared, '')
redis.call('PEXPIREAT', KEYS[1], string.format('%.0f', ending))
return 0`

// giveMembers removes the members that were new to a request and that no other
// was told are free. Arguments: the request, the members.
const giveMembers = `
local members = ARGV[2]
for from = 1, #members, 8000 do
  local names, mine = {}, {}
  for i = from, math.min(from + 7999, #members), 8 do names[#names + 1] = string.sub(members, i, i + 7) end
  for i, owner in ipairs(redis.call('HMGET', KEYS[1], unpack(names))) do
    if owner == ARGV[1] then mine[#mine + 1] = names[i] end
  end
  if #mine > 0 then redis.call('HDEL', KEYS[1], unpack(mine)) end
end
return 0`

// scripts are the scripts with their hashes, by which Redis knows them.
type scripts struct{ takeRate, giveRate, takeMembers, giveMembers *redis.Script }

func newScripts() scripts {
	return scripts{
		takeRate: redis.NewScript(takeRate), giveRate: redis.NewScript(giveRate),
		takeMembers: redis.NewScript(takeMembers), giveMembers: redis.NewScript(giveMembers),
	}
}
