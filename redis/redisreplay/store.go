package redisreplay

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"time"

	"github.com/queue-runtime/queue/replay"
)

// Defaults of [Options].
const (
	DefaultPrefix         = "queue-runtime"
	DefaultTimeout        = 5 * time.Second
	DefaultReplicaTimeout = time.Second
)

// NoReplicas for Options.Replicas waits for no replica.
const NoReplicas = -1

// Fsync is how the server has to sync its append-only file.
type Fsync uint8

const (
	// FsyncAlways requires appendonly yes and appendfsync always: what was confirmed
	// is on the disk.
	FsyncAlways Fsync = iota
	// FsyncEverySecond requires appendonly yes and takes any appendfsync. A crash of
	// the machine can lose the last second or two: what was consumed then can be
	// replayed while it is fresh, unless a replica has it.
	FsyncEverySecond
	// FsyncNever requires nothing. A crash of the server can lose all that it wrote.
	FsyncNever
)

// Options configure a [Store]. Nil and the zero value are the defaults. Open fails for
// a negative number other than NoReplicas.
type Options struct {
	// Bounds says how much the store holds, and for how long. Each process has bounds
	// of its own, and counts what all have written.
	Bounds replay.Bounds
	// Prefix stands in braces before every key. At most 64 letters, digits, '.', '-'
	// and '_'. Empty means DefaultPrefix.
	Prefix string
	// Replicas is how many replicas have to confirm each call. 0 means all that the
	// server ever had while its replication ID was the same. A smaller number, or
	// NoReplicas, is unsafe at a failover.
	Replicas int
	// ReplicaTimeout is how long a call waits for the replicas before it fails: 1 ms
	// or more. 0 means one second.
	ReplicaTimeout time.Duration
	// Timeout is how long a call may take in all. Longer than ReplicaTimeout. 0 means
	// 5 s, or twice ReplicaTimeout if that is more.
	Timeout time.Duration
	// Fsync is what the server has to do for durability. The zero value is FsyncAlways.
	Fsync Fsync
	// MustExist makes Open fail with fs.ErrNotExist if there is no store.
	MustExist bool
}

// Errors of [Open] and of calls, for errors.Is.
var (
	// ErrEviction: maxmemory-policy is not noeviction, so that the server may drop
	// what was consumed.
	ErrEviction = errors.New("the server evicts keys: set maxmemory-policy noeviction")
	// ErrNotDurable: the server does not sync as Options.Fsync wants.
	ErrNotDurable = errors.New("a crash of the server can lose confirmed writes")
	// ErrReplicas: fewer replicas than required confirmed a write. It may have happened.
	ErrReplicas = errors.New("too few replicas confirmed the write")
	// ErrReplica: the server is a replica itself.
	ErrReplica = errors.New("the server is a replica: connect to the primary")
	// ErrContention: other receivers were always faster. The call can be repeated.
	ErrContention = errors.New("other receivers changed the same streams each time")
	// ErrClosed: the store is closed.
	ErrClosed = errors.New("the store is closed")
)

// Store is an open replay store. It is safe for concurrent use. It owns one goroutine
// for each group while a call of it is under way, and the connections; both end with
// Close.
type Store struct {
	replay.Store
	engine *engine
}

var prefixPattern = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

// resolve fills in the defaults and refuses what makes no sense.
func (o Options) resolve() (Options, error) {
	if o.Prefix == "" {
		o.Prefix = DefaultPrefix
	}
	if o.ReplicaTimeout == 0 {
		o.ReplicaTimeout = DefaultReplicaTimeout
	}
	if o.Timeout == 0 {
		o.Timeout = max(DefaultTimeout, 2*o.ReplicaTimeout)
	}
	switch {
	case !prefixPattern.MatchString(o.Prefix):
		return o, errors.New("redisreplay: Options.Prefix: use 1 to 64 letters, digits, '.', '-' and '_'")
	case o.Replicas < NoReplicas:
		return o, errors.New("redisreplay: Options.Replicas is below zero: use NoReplicas, or 0 for all replicas")
	case o.ReplicaTimeout < time.Millisecond || o.Timeout <= o.ReplicaTimeout:
		return o, fmt.Errorf("redisreplay: Options.ReplicaTimeout %v and Timeout %v: use a millisecond or more, and a longer Timeout", o.ReplicaTimeout, o.Timeout)
	case o.Fsync > FsyncNever:
		return o, fmt.Errorf("redisreplay: Options.Fsync %d: use FsyncAlways, FsyncEverySecond or FsyncNever", o.Fsync)
	}
	var err error
	if o.Bounds, err = o.Bounds.Resolved(); err != nil {
		return o, fmt.Errorf("redisreplay: %w", err)
	}
	return o, nil
}

// Open connects to the server at rawURL, checks it, and makes the store if there is none.
// o may be nil; what the URL says goes before what o says. Errors quote nothing of the
// URL but names of parameters.
//
//	rediss://user@host:6379/0?password_env=REDIS_PASSWORD
//	rediss://user@sentinel1,sentinel2:26379/0?sentinel=mymaster&password_env=REDIS_PASSWORD
//	rediss://user@node1,node2:6379/?cluster=true&password_env=REDIS_PASSWORD
//
// The path is the number of the database. Parameters are prefix, replicas (a number,
// all or none), replica_timeout, timeout, fsync (always, everysec or never) and
// must_exist (true or false) as in [Options], and
//
//	password_env                     the environment variable that holds the password
//	sentinel                         the hosts are Sentinels, and this is the primary's name
//	sentinel_user, sentinel_password_env   for the Sentinels, if they want a login
//	cluster=true                     the hosts are nodes of a cluster
//	ca, cert, key                    PEM files: the authority, and a client certificate
//	server_name                      the name in the server's certificate
//	tls=off                          redis:// to another machine, in clear
//
// redis:// is in clear, and without tls=off it is refused for hosts that are not this
// machine.
//
// It fails with ErrEviction, ErrNotDurable, ErrReplica or ErrReplicas if the server is not
// safe; with fs.ErrNotExist if MustExist is set and there is no store; with
// driver.Permission if the server refuses the user, and driver.Unavailable if it does not
// answer.
func Open(ctx context.Context, rawURL string, o *Options) (*Store, error) {
	var options Options
	if o != nil {
		options = *o
	}
	t, err := parseURL(rawURL, &options)
	if err != nil {
		return nil, err
	}
	return open(ctx, t, options, scripts{transactionScript, foundScript, renewScript})
}

func open(ctx context.Context, t *target, options Options, with scripts) (*Store, error) {
	options, err := options.resolve()
	if err != nil {
		return nil, err
	}
	e := newEngine(t.connect(options), options, with)
	ctx, cancel := context.WithTimeout(ctx, options.Timeout)
	defer cancel()
	if err := e.start(ctx); err != nil {
		return nil, fmt.Errorf("redisreplay: open: %w", errors.Join(err, e.server.close()))
	}
	return &Store{replay.FromEngine(e), e}, nil
}

// Prefix returns the prefix of the keys, without its braces.
func (s *Store) Prefix() string { return s.engine.o.Prefix }

// Close ends the calls that are under way, waits for their end until ctx ends, and closes
// the connections. Calls afterwards fail with ErrClosed; a second Close returns nil.
func (s *Store) Close(ctx context.Context) error { return s.engine.close(ctx) }
