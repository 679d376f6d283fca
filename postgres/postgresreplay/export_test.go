package postgresreplay

import "context"

// OpenWithClock is Open with another clock than the server's.
func OpenWithClock(ctx context.Context, rawURL string, o *Options, clock func(server int64) int64) (*Store, error) {
	return open(ctx, rawURL, o, clock)
}

// Reconnect closes idle connections: the next have the settings that a role has then.
func (s *Store) Reconnect() { s.engine.pool.Reset() }

// StoreStatement is the statement that reads what a group and the store hold.
func (s *Store) StoreStatement() string { return s.engine.sql(selectStore) }

// PagesStatement is the statement that finds the pages of a call.
func (s *Store) PagesStatement() string { return s.engine.sql(selectPages) }

// DueStatement is the statement that finds the pages of a sweep.
func (s *Store) DueStatement() string { return s.engine.sql(duePages) }
