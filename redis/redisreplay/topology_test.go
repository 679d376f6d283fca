package redisreplay_test

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/queue-runtime/queue/redis/redisreplay"
	"github.com/queue-runtime/queue/replay"
	"github.com/queue-runtime/queue/testbed/redispeer"
)

// clustered starts a node of a cluster.
func clustered(t *testing.T) *redispeer.Server {
	t.Helper()
	return redispeer.New(t, map[string]string{"cluster-enabled": "yes", "cluster-require-full-coverage": "no"})
}

// ask sends a command and fails the test unless it is answered with that.
func ask(t *testing.T, s *redispeer.Server, want string, arguments ...string) {
	t.Helper()
	got, err := send(t, s, arguments...)
	if err != nil || got != want {
		t.Fatalf("%v: %s, %v, want %s", arguments, got, err, want)
	}
}

// TestCluster: a store lies on one slot of a cluster, and is found when it moves to another
// node.
func TestCluster(t *testing.T) {
	a, b := clustered(t), clustered(t)
	ask(t, a, "+OK", "CLUSTER", "ADDSLOTSRANGE", "0", "8191")
	ask(t, b, "+OK", "CLUSTER", "ADDSLOTSRANGE", "8192", "16383")
	ask(t, a, "+OK", "CLUSTER", "MEET", "127.0.0.1", strconv.Itoa(b.Port()))
	for _, s := range []*redispeer.Server{a, b} {
		eventually(t, func() error {
			if got, err := s.Do(t.Context(), "CLUSTER", "INFO"); err != nil || !strings.Contains(got, "cluster_slots_ok:16384") || !strings.Contains(got, "cluster_state:ok") {
				return fmt.Errorf("%s, %w", got, err)
			}
			return nil
		})
	}
	u := "redis://" + a.Address() + "/?cluster=true&fsync=never"
	held := make(map[string]int)
	var first *redisreplay.Store
	for i := range 6 {
		s := open(t, u+fmt.Sprint("&prefix=store-", i), redisreplay.Options{})
		if first == nil {
			first = s
		}
		handle(t, s, messages(1, 1, 100)...)
		known(t, s, message(1, 50))
		if err := everything(t.Context(), open(t, u+fmt.Sprint("&prefix=other-", i), redisreplay.Options{})); err != nil {
			t.Error(err)
		}
	}
	for name, s := range map[string]*redispeer.Server{"a": a, "b": b} {
		got, err := s.Do(t.Context(), "DBSIZE")
		if err != nil {
			t.Fatal(err)
		}
		held[name], _ = strconv.Atoi(strings.TrimPrefix(got, ":"))
	}
	if held["a"] == 0 || held["b"] == 0 {
		t.Errorf("keys by node: %v; stores should lie on both", held)
	}
	// The slot of the first store moves to the other node, with its keys.
	slot, err := send(t, a, "CLUSTER", "KEYSLOT", "{store-0}:store")
	if err != nil {
		t.Fatal(err)
	}
	slot = strings.TrimPrefix(slot, ":")
	from, to := a, b
	if n, _ := strconv.Atoi(slot); n >= 8192 {
		from, to = b, a
	}
	moveSlot(t, from, to, slot)
	eventually(t, func() error { return first.Probe(t.Context(), group) })
	known(t, first, message(1, 50))
	handle(t, first, message(1, 101))
	if _, err := redisreplay.Open(t.Context(), strings.Replace(u, "cluster=true", "prefix=store-0", 1), nil); err == nil && from == a {
		t.Error("a store was opened on a node that has not its slot")
	}
}

// moveSlot moves a slot with its keys.
func moveSlot(t *testing.T, from, to *redispeer.Server, slot string) {
	t.Helper()
	fromID, err := from.Do(t.Context(), "CLUSTER", "MYID")
	if err != nil {
		t.Fatal(err)
	}
	toID, err := to.Do(t.Context(), "CLUSTER", "MYID")
	if err != nil {
		t.Fatal(err)
	}
	ask(t, to, "+OK", "CLUSTER", "SETSLOT", slot, "IMPORTING", fromID)
	ask(t, from, "+OK", "CLUSTER", "SETSLOT", slot, "MIGRATING", toID)
	keys := slotKeys(t, from, slot)
	if len(keys) == 0 {
		t.Fatal("the slot has no keys")
	}
	ask(t, from, "+OK", append([]string{"MIGRATE", "127.0.0.1", strconv.Itoa(to.Port()), "", "0", "5000", "KEYS"}, keys...)...)
	for _, s := range []*redispeer.Server{to, from} {
		ask(t, s, "+OK", "CLUSTER", "SETSLOT", slot, "NODE", toID)
	}
}

// TestSentinel: the primary is found through Sentinels, and its successor after a failover.
func TestSentinel(t *testing.T) {
	primary := redispeer.New(t, nil)
	replica := redispeer.Replica(t, primary, nil)
	var hosts []string
	for range 3 {
		s, err := redispeer.Start(&redispeer.Options{Sentinel: []string{
			"sentinel monitor mymaster 127.0.0.1 " + strconv.Itoa(primary.Port()) + " 2",
			"sentinel down-after-milliseconds mymaster 2000",
			"sentinel failover-timeout mymaster 3000",
		}})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = s.Close() }()
		hosts = append(hosts, s.Address())
		eventually(t, func() error {
			got, err := send(t, s, "SENTINEL", "REPLICAS", "mymaster")
			if err != nil || got != "*1" {
				return fmt.Errorf("%s, %w", got, err)
			}
			return nil
		})
	}
	s := open(t, "redis://"+strings.Join(hosts, ",")+"/?sentinel=mymaster&fsync=never", patient)
	var all []replay.Request
	var last replay.Stamp
	for n := range uint64(10) {
		r := messages(1, 1+10*n, 10)
		last, all = handle(t, s, r...), append(all, r...)
	}
	if err := primary.Kill(); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error { return s.Probe(t.Context(), group) })
	if err := replica.Await("replication", "role:master"); err != nil {
		t.Fatal(err)
	}
	for _, r := range all {
		if stamp := known(t, s, r); stamp.ID != last.ID || stamp.Change < last.Change {
			t.Fatalf("another memory: %+v after %+v", stamp, last)
		}
	}
	if _, err := redisreplay.Open(t.Context(), "redis://"+hosts[0]+"/?sentinel=other&fsync=never&timeout=2s", nil); err == nil || errors.Is(err, redisreplay.ErrReplica) {
		t.Errorf("a name that the Sentinels do not know: %v", err)
	}
}
