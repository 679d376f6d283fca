package redisreplay

import (
	"context"
	"crypto/tls"
	"strings"

	"github.com/redis/go-redis/v9"
)

// clockKey holds the time of a test's own clock, in Unix milliseconds.
const clockKey = "test-clock"

// OpenWithClock opens a store that takes the time of the key "test-clock" for the
// server's, with hooks of the connections.
func OpenWithClock(ctx context.Context, rawURL string, o Options, hooks ...redis.Hook) (*Store, error) {
	t, err := parseURL(rawURL, &o)
	if err != nil {
		return nil, err
	}
	t.hooks = hooks
	clocked := func(source string) string {
		const own = "redis.call('TIME')"
		if strings.Count(source, own) != 1 {
			panic("a script asks for the time otherwise than the test expects")
		}
		return strings.Replace(source, own, "{ math.floor(redis.call('GET', '"+clockKey+"') / 1000), redis.call('GET', '"+clockKey+"') % 1000 * 1000 }", 1)
	}
	return open(ctx, t, o, scripts{clocked(transactionScript), clocked(foundScript), clocked(renewScript)})
}

// Script is the script of a transaction.
func Script() string { return transactionScript }

// SweepNow folds pages and drops old streams of a group.
func (s *Store) SweepNow(ctx context.Context, group string) error {
	g := s.engine.of(group)
	_, err := g.run(&task{ctx: ctx, alone: func(ctx context.Context) error {
		if err := g.sweep(ctx, true); err != nil {
			return err
		}
		return g.sweep(ctx, false)
	}})
	return err
}

// TLSConfig is that of the connections to the server of a URL.
func TLSConfig(rawURL string) (*tls.Config, error) {
	var o Options
	t, err := parseURL(rawURL, &o)
	if err != nil {
		return nil, err
	}
	return t.base.TLSConfig, nil
}
