// Package ratelimit says how often something may happen: so many requests from
// an address, so many messages to a country, so many distinct addresses looked up
// by an account. It counts in memory or, for several processes together, in
// Redis; while Redis is unreachable each process counts by itself. It knows
// neither HTTP nor the meaning of what it limits.
package ratelimit
