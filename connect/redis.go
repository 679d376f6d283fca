package connect

import (
	"context"
	"fmt"

	"github.com/queue-runtime/queue/redis/redisreplay"
)

// openRedis opens a replay store in Redis. The bounds are parameters of this package, and
// the others those of redisreplay.Open.
func openRedis(ctx context.Context, rawURL string) (*ReplayStore, error) {
	u, err := parse("replay store", rawURL, "rediss://user@host:6379/0")
	if err != nil {
		return nil, err
	}
	if _, given := u.User.Password(); given {
		return nil, fmt.Errorf("connect: replay store: the URL has a password: put it into an environment variable, and name that with password_env")
	}
	if err := checkNames("replay store", rawURL); err != nil {
		return nil, err
	}
	p := parameters{what: "replay store", values: u.Query()}
	o := &redisreplay.Options{Bounds: p.bounds()}
	if p.err != nil {
		return nil, p.err
	}
	for _, name := range p.taken {
		p.values.Del(name)
	}
	u.RawQuery = p.values.Encode()
	s, err := redisreplay.Open(ctx, u.String(), o)
	if err != nil {
		return nil, err
	}
	return &ReplayStore{s, s.Close}, nil
}
