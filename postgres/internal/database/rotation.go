package database

import (
	"context"
	"crypto/tls"
	"sync"

	"github.com/jackc/pgx/v5"
)

// rotation reads the files of a URL again: pgx reads them once, and a pool would be
// refused for ever after a password or a certificate was rotated.
type rotation struct {
	url  string
	mu   sync.Mutex      // guards last
	last *pgx.ConnConfig // what was read last
}

// beforeConnect has cc connect with what the files hold now, or while they cannot be read,
// because they are being written for example, with what they held last. Nothing but secrets
// is taken over: neither another user nor another server, and no connection without TLS in
// the place of one with it.
func (r *rotation) beforeConnect(_ context.Context, cc *pgx.ConnConfig) error {
	now, err := pgx.ParseConfig(r.url)
	r.mu.Lock()
	defer r.mu.Unlock()
	if err == nil && now.User == cc.User && now.Host == cc.Host && len(now.Fallbacks) == len(cc.Fallbacks) {
		if now.Password == "" { // the passfile is gone, or has no line for it
			now.Password = r.last.Password
		}
		r.last = now
	}
	cc.Password = r.last.Password
	cc.TLSConfig = renewed(cc.TLSConfig, r.last.TLSConfig)
	for i, f := range r.last.Fallbacks {
		cc.Fallbacks[i].TLSConfig = renewed(cc.Fallbacks[i].TLSConfig, f.TLSConfig)
	}
	return nil
}

// renewed is now, if it replaces one like it.
func renewed(was, now *tls.Config) *tls.Config {
	if was == nil || now == nil {
		return was
	}
	return now
}
