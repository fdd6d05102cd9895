package redisstore

import "github.com/redis/go-redis/v9"

// Values of an event's key: "c" and the owner of the claim; "d" and the counts
// of what was delivered; "f", the owner and the outcome of what ended without.
// Each script has one key, so that a batch of them suits a Cluster.

// claim takes what nobody has. Arguments: owner, awaited owner, lease and
// lifetime in milliseconds. It returns the value that is in the way, else "".
const claim = `
local value = redis.call('GET', KEYS[1])
if value then
  local kind = string.sub(value, 1, 1)
  if kind == 'd' then
    redis.call('PEXPIRE', KEYS[1], ARGV[4])
    return value
  elseif kind == 'c' and value ~= 'c' .. ARGV[1] then
    return value
  elseif kind == 'f' and string.find(value, 'f' .. ARGV[2] .. ':', 1, true) == 1 then
    return value
  end
end
redis.call('SET', KEYS[1], 'c' .. ARGV[1], 'PX', ARGV[3])
return ''`

// release ends a claim if it is still the owner's. Arguments: owner, the value
// to leave and its lifetime in milliseconds.
const release = `
if redis.call('GET', KEYS[1]) == 'c' .. ARGV[1] then
  redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
end
return ''`

// tally counts an app's verdicts as push.Memory does. Arguments: how many are
// alive and dead, the window in milliseconds, the pushes and the share in
// percent that trip the guard, and the lifetime of the key in milliseconds. It
// returns whether the app is proven, whether its guard is tripped, and how
// often it was.
const tally = `
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local f = redis.call('HMGET', KEYS[1], 'proven', 'tripped', 'trips', 'start', 'all', 'dead', 'old_all', 'old_dead')
for i = 1, 8 do f[i] = tonumber(f[i] or 0) or 0 end
local proven, tripped, trips, start, all, dead, old_all, old_dead = f[1], f[2], f[3], f[4], f[5], f[6], f[7], f[8]
local window = tonumber(ARGV[3])
if tripped == 0 and now - start >= 2 * window then
  start, all, dead, old_all, old_dead = now, 0, 0, 0, 0
elseif tripped == 0 and now - start >= window then
  start, all, dead, old_all, old_dead = start + window, 0, 0, all, dead
end
all = all + ARGV[1] + ARGV[2]
dead = dead + ARGV[2]
if tonumber(ARGV[1]) > 0 then proven = 1 end
if all + old_all >= tonumber(ARGV[4]) then
  local many = (dead + old_dead) * 100 > (all + old_all) * ARGV[5]
  if many and tripped == 0 then trips = trips + 1 end
  if many or tripped == 1 then
    tripped = many and 1 or 0
    start, all, dead, old_all, old_dead = now, 0, 0, 0, 0
  end
end
redis.call('HSET', KEYS[1], 'proven', proven, 'tripped', tripped, 'trips', trips,
  'start', string.format('%.0f', start), 'all', all, 'dead', dead, 'old_all', old_all, 'old_dead', old_dead)
redis.call('PEXPIRE', KEYS[1], ARGV[6])
return {proven, tripped, trips}`

// scripts are the scripts with their hashes, by which Redis knows them.
type scripts struct{ claim, release, tally *redis.Script }

func newScripts() scripts {
	return scripts{claim: redis.NewScript(claim), release: redis.NewScript(release), tally: redis.NewScript(tally)}
}
