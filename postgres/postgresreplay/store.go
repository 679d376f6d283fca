package postgresreplay

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/internal/replaystate"
	"github.com/queue-runtime/queue/postgres/internal/database"
	"github.com/queue-runtime/queue/replay"
)

// Store is an open replay store. It is safe for concurrent use, and owns the
// connections of its pool, which end with Close.
type Store struct {
	replay.Store
	engine *engine
}

// engine is the replaystate.Engine of a Store.
type engine struct {
	options  Options
	limits   replaystate.Limits
	pool     *pgxpool.Pool
	clock    func(server int64) int64 // the server's clock as it is; tests have others
	database string                   // see Store.Database
	id       atomic.Pointer[[16]byte] // of the memory that answered last; nil before

	mu     sync.Mutex // guards what follows
	closed bool
	swept  map[string]sweeping   // by group
	known  map[string]remembered // by group
}

// sweeping is how far this process has swept a group.
type sweeping struct {
	at     time.Time
	sender int64 // the one whose old streams were looked at last
}

type conn = pgxpool.Conn

// Open connects to the database at rawURL and makes, migrates or checks the schema. o
// may be nil; what the URL says goes before what o says.
//
//	postgres://user@host:5432/database?sslmode=verify-full&schema=queue_replay
//
// Parameters are those of libpq that concern the connection, and this package's own:
// schema, pooled, timeout, max_conns, must_exist and trust_database_operators as in
// [Options]. The password comes from PGPASSWORD, a passfile (PGPASSFILE), a client
// certificate, or the URL. Without sslmode Open refuses a server on another machine,
// and without target_session_attrs it connects to primaries only.
//
// It fails with ErrForeign, ErrNewer, ErrOlder or ErrAltered; with driver.Permission if
// the role may not log in, may not create the schema, or has more rights in the database
// than the schema's owner, as a superuser has; and with driver.Unavailable if the server
// does not answer. The owner of the schema can add to it later what runs with the rights of
// the roles that use it, those of transactions that call ConsumeTx included.
func Open(ctx context.Context, rawURL string, o *Options) (*Store, error) {
	s, err := open(ctx, rawURL, o, func(server int64) int64 { return server })
	if err != nil {
		return nil, fmt.Errorf("postgresreplay: open: %w", err)
	}
	return s, nil
}

func open(ctx context.Context, rawURL string, o *Options, clock func(int64) int64) (*Store, error) {
	var options Options
	if o != nil {
		options = *o
	}
	config, err := database.ParseURL(rawURL, func(p *database.Parameters) {
		p.Text("schema", &options.Schema)
		p.Flag("pooled", &options.Pooled)
		p.Duration("timeout", &options.Timeout)
		p.Number("max_conns", &options.MaxConns)
		p.Flag("must_exist", &options.MustExist)
		p.Flag("trust_database_operators", &options.TrustDatabaseOperators)
	})
	if err == nil {
		options, err = options.resolve()
	}
	if err != nil {
		return nil, err
	}
	e := &engine{options: options, limits: options.Bounds.Limits(), clock: clock, swept: make(map[string]sweeping), known: make(map[string]remembered)}
	if e.pool, err = pgxpool.NewWithConfig(context.WithoutCancel(ctx), e.configure(config)); err != nil {
		return nil, database.Classify(ctx, err)
	}
	if err := e.migrate(ctx); err != nil {
		e.pool.Close()
		return nil, err
	}
	return &Store{replay.FromEngine(e), e}, nil
}

// configure sets what this package needs of the pool.
func (e *engine) configure(c *pgxpool.Config) *pgxpool.Config {
	c.MaxConns = int32(e.options.MaxConns) //nolint:gosec // G115: at most MaxInt16
	c.MinConns = 0
	c.ConnConfig.ConnectTimeout = e.options.Timeout
	database.Limit(c)
	if c.ConnConfig.RuntimeParams["application_name"] == "" && !e.options.Pooled {
		c.ConnConfig.RuntimeParams["application_name"] = "queue-runtime"
	}
	if e.options.Pooled {
		c.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeExec
		c.ConnConfig.StatementCacheCapacity, c.ConnConfig.DescriptionCacheCapacity = 0, 0
	}
	return c
}

// connected runs f with a connection, within the time-out. It classifies its error.
func (e *engine) connected(ctx context.Context, f func(context.Context, *conn) error) error {
	e.mu.Lock()
	closed := e.closed
	e.mu.Unlock()
	if closed {
		return &driver.Error{Kind: driver.Closed}
	}
	limited, cancel := context.WithTimeout(ctx, e.options.Timeout)
	defer cancel()
	c, err := e.pool.Acquire(limited)
	if err != nil {
		return database.Classify(ctx, err)
	}
	defer c.Release() // it closes a connection that is in a transaction
	err = f(limited, c)
	for _, own := range []error{ErrForeign, ErrNewer, ErrOlder, ErrAltered, errMemoryLost} {
		if errors.Is(err, own) {
			return err
		}
	}
	return database.Classify(ctx, err)
}

// Schema returns the name of the schema.
func (s *Store) Schema() string { return s.engine.options.Schema }

// Database names the database among all servers. Of a broker that returns the same, the
// operators are those of this store: queue.New refuses it, unless
// TrustsDatabaseOperators returns true.
func (s *Store) Database() string { return s.engine.database }

// TrustsDatabaseOperators returns Options.TrustDatabaseOperators.
func (s *Store) TrustsDatabaseOperators() bool { return s.engine.options.TrustDatabaseOperators }

// Close closes the connections, and waits until ctx ends for calls that are under way.
// Calls afterwards fail; a second Close returns nil.
func (s *Store) Close(ctx context.Context) error {
	e := s.engine
	e.mu.Lock()
	closed := e.closed
	e.closed = true
	e.mu.Unlock()
	if closed {
		return nil
	}
	done := make(chan struct{})
	go func() {
		e.pool.Close()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
