package redisreplay

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/queue-runtime/queue/internal/dialing"
)

// target says where the server is.
type target struct {
	addresses        []string
	sentinel         string // name of the primary; empty if the addresses are the server's
	cluster          bool
	base             redis.UniversalOptions // user, database, TLS
	hooks            []redis.Hook           // for tests
	sentinelUsername string
	sentinelPassword string
}

// server is the connections to it.
type server struct {
	single  *redis.Client // nil for a cluster
	cluster *redis.ClusterClient
	key     string // names the slot of the store
}

// connections bounds the pool: calls of a group take turns, so that each group in use
// needs one, and looks at it need another.
const connections = 16

func (t *target) connect(o Options) *server {
	u := t.base
	u.Addrs, u.MasterName = t.addresses, t.sentinel
	u.SentinelUsername, u.SentinelPassword = t.sentinelUsername, t.sentinelPassword
	u.DialTimeout, u.WriteTimeout = o.Timeout, o.Timeout
	// WAIT answers after ReplicaTimeout, and Timeout is longer.
	u.ReadTimeout, u.PoolTimeout = o.Timeout, o.Timeout
	u.PoolSize = connections
	u.Dialer = t.dialer(o.Timeout)
	u.DialerRetries = 1 // an outage is the receiver's to wait for
	u.MaxRetries = -1   // a caller that repeats a call knows that it may have happened
	u.Protocol, u.DisableIdentity, u.ContextTimeoutEnabled = 2, true, true
	u.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	s := &server{key: "{" + o.Prefix + "}:store"}
	switch {
	case t.cluster:
		s.cluster = redis.NewClusterClient(u.Cluster())
	case t.sentinel != "":
		s.single = redis.NewFailoverClient(u.Failover())
	default:
		s.single = redis.NewClient(u.Simple())
	}
	for _, h := range t.hooks {
		s.single.AddHook(h)
	}
	return s
}

// dialer connects no more often than the process may to a server.
func (t *target) dialer(limit time.Duration) func(ctx context.Context, network, address string) (net.Conn, error) {
	dial := dialing.Limited((&net.Dialer{Timeout: limit}).DialContext)
	if t.base.TLSConfig == nil {
		return dial
	}
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(ctx, limit)
		defer cancel()
		c, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		config := t.base.TLSConfig.Clone()
		if config.ServerName == "" {
			config.ServerName, _, _ = net.SplitHostPort(address) // the client made the address
		}
		sealed := tls.Client(c, config)
		if err := sealed.HandshakeContext(ctx); err != nil {
			_ = c.Close() // the handshake's error tells
			return nil, err
		}
		return sealed, nil
	}
}

// node returns the primary that has the store.
func (s *server) node(ctx context.Context) (*redis.Client, error) {
	if s.cluster == nil {
		return s.single, nil
	}
	return s.cluster.MasterForKey(ctx, s.key)
}

// moved has a cluster's map read again if the error says that the slot is elsewhere. It
// reports whether the request is worth another try.
func (s *server) moved(ctx context.Context, err error) bool {
	if s.cluster == nil || err == nil {
		return false
	}
	s.cluster.ReloadState(ctx)
	for _, kind := range []string{"MOVED ", "ASK ", "TRYAGAIN", "CLUSTERDOWN"} {
		if redis.HasErrorPrefix(err, kind) {
			return true
		}
	}
	return false
}

func (s *server) close() error {
	if s.cluster != nil {
		return s.cluster.Close()
	}
	return s.single.Close()
}

// info takes a section of INFO apart.
func info(ctx context.Context, c redis.Pipeliner, sections ...string) []*redis.StringCmd {
	out := make([]*redis.StringCmd, len(sections))
	for i, s := range sections {
		out[i] = c.Info(ctx, s)
	}
	return out
}

// fields returns the fields of an answer of INFO.
func fields(cmd *redis.StringCmd) map[string]string {
	all := make(map[string]string)
	for line := range strings.Lines(cmd.Val()) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			all[name] = value
		}
	}
	return all
}

// check says whether the server can be trusted with the store, and returns its
// replication ID.
func (s *server) check(ctx context.Context, fsync Fsync) (history string, err error) {
	c, err := s.node(ctx)
	if err != nil {
		return "", err
	}
	p := c.Pipeline()
	got := info(ctx, p, "replication", "memory", "persistence")
	var policy *redis.MapStringStringCmd
	if fsync == FsyncAlways {
		policy = p.ConfigGet(ctx, "appendfsync")
	}
	if _, err := p.Exec(ctx); err != nil {
		if policy != nil && got[2].Err() == nil && redis.HasErrorPrefix(policy.Err(), "NOPERM") {
			return "", fmt.Errorf("%w: its appendfsync cannot be read: allow the user +config|get, or set fsync to everysec or never", ErrNotDurable)
		}
		return "", fmt.Errorf("look at the server: %w", err)
	}
	replication, memory, persistence := fields(got[0]), fields(got[1]), fields(got[2])
	switch {
	case persistence["loading"] == "1":
		// Meanwhile it has its append-only file switched off, which INFO says as well.
		return "", errors.New("the server loads its data: it is ready when that is done")
	case replication["role"] != "master":
		return "", ErrReplica
	case replication["master_replid"] == "":
		return "", errors.New("the server's INFO names no replication ID")
	case memory["maxmemory_policy"] != "noeviction":
		return "", fmt.Errorf("%w (it is %.40q)", ErrEviction, memory["maxmemory_policy"])
	case fsync != FsyncNever && persistence["aof_enabled"] != "1":
		return "", fmt.Errorf("%w: set appendonly yes, or fsync to never", ErrNotDurable)
	case fsync == FsyncAlways && policy.Val()["appendfsync"] != "always":
		return "", fmt.Errorf("%w: set appendfsync always (it is %.40q), or fsync to everysec or never", ErrNotDurable, policy.Val()["appendfsync"])
	}
	return replication["master_replid"], nil
}

// replicasNeeded returns how many replicas have to confirm, of so many that the server
// has or had.
func replicasNeeded(option int, had int64) int64 {
	switch option {
	case 0:
		return had
	case NoReplicas:
		return 0
	}
	return int64(option)
}

func replicasError(got, want int64) error {
	return fmt.Errorf("%w: %s of %s in time: see that replication works; if a replica was removed for good, set replicas to the number that is left",
		ErrReplicas, strconv.FormatInt(got, 10), strconv.FormatInt(want, 10))
}
