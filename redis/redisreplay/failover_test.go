package redisreplay_test

import (
	"errors"
	"strconv"
	"testing"
	"time"

	"github.com/queue-runtime/queue/redis/redisreplay"
	"github.com/queue-runtime/queue/replay"
	"github.com/queue-runtime/queue/testbed/faultproxy"
	"github.com/queue-runtime/queue/testbed/redispeer"
)

// TestKilled: a server that is killed and started again has everything that was confirmed.
func TestKilled(t *testing.T) {
	server := redispeer.New(t, durable)
	s := open(t, server.URL(), redisreplay.Options{})
	var all []replay.Request
	var last replay.Stamp
	for round := range uint64(5) {
		for i := range uint64(10) {
			r := messages(1, 1+round*100+i*10, 10)
			stamp := handle(t, s, r...)
			if stamp.ID != last.ID && last.ID != [16]byte{} || stamp.Change <= last.Change {
				t.Fatalf("round %d: another memory: %+v after %+v", round, stamp, last)
			}
			all, last = append(all, r...), stamp
		}
		restart(t, server)
		eventually(t, func() error { return s.Probe(t.Context(), group) })
	}
	for _, r := range all {
		if stamp := known(t, s, r); stamp.ID != last.ID || stamp.Change < last.Change {
			t.Fatalf("another memory: %+v after %+v", stamp, last)
		}
	}
	for stream, err := range s.Streams(t.Context(), group) {
		if err != nil || len(stream.Missing) > 0 || stream.Consumed != 500 {
			t.Errorf("stream %+v, %v; want 500 consumed and none missing", stream, err)
		}
	}
}

// TestFlushed: a flushed server answers as another memory, which is empty.
func TestFlushed(t *testing.T) {
	server := redispeer.New(t, nil)
	s := open(t, server.URL(), redisreplay.Options{Fsync: redisreplay.FsyncNever})
	before := handle(t, s, message(1, 1))
	if _, err := server.Do(t.Context(), "FLUSHALL"); err != nil {
		t.Fatal(err)
	}
	c, err := begin(s, message(1, 2))
	if err != nil || c.Stamp.ID == before.ID || c.Stamp.Birth.Before(before.Birth) {
		t.Errorf("%+v, %v after a flush, %+v before", c, err, before)
	}
	if _, err := consume(s, message(1, 1)); !errors.Is(err, replay.ErrClaimLost) {
		t.Errorf("Finish of what was flushed: %v, want ErrClaimLost", err)
	}
}

// TestRestoredSnapshot: a server that comes back with an old snapshot is another memory for
// all processes, and what this one remembers of the lost writes is not believed.
func TestRestoredSnapshot(t *testing.T) {
	server := redispeer.New(t, nil)
	s := open(t, server.URL(), redisreplay.Options{Fsync: redisreplay.FsyncNever})
	handle(t, s, messages(1, 1, 5)...)
	if got, err := server.Do(t.Context(), "SAVE"); err != nil || got != "+OK" {
		t.Fatal(got, err)
	}
	var high replay.Stamp
	for n := range uint64(20) {
		high = handle(t, s, message(1, 6+n))
	}
	restart(t, server)
	eventually(t, func() error { return s.Probe(t.Context(), group) })
	other := open(t, server.URL(), redisreplay.Options{Fsync: redisreplay.FsyncNever}) // has seen nothing of what was lost
	stamp := known(t, s, message(1, 5))
	if stamp.ID == high.ID || stamp.Birth.Before(high.Birth) || stamp.Change <= high.Change {
		t.Errorf("%+v after an old snapshot came back, %+v before: want another memory", stamp, high)
	}
	if next := known(t, other, message(1, 5)); next.ID != stamp.ID {
		t.Errorf("another process sees the memory %x, want %x", next.ID, stamp.ID)
	}
	handle(t, s, message(1, 25)) // forgotten, and said so
}

// TestPromoted: a promoted replica has everything that was confirmed, and is checked.
func TestPromoted(t *testing.T) {
	primary := redispeer.New(t, nil)
	replica := redispeer.Replica(t, primary, nil)
	front, err := faultproxy.NewTCP(primary.Address(), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = front.Close() }()
	s := open(t, "redis://"+front.Addr()+"/", patient)
	var all []replay.Request
	var last replay.Stamp
	for n := range uint64(20) {
		r := messages(1, 1+10*n, 10)
		last, all = handle(t, s, r...), append(all, r...)
	}
	lost := [16]byte{7}
	accepted, err := s.AcceptLoss(t.Context(), replay.Stamp{ID: lost})
	if err != nil || accepted.From.ID != last.ID {
		t.Fatalf("%+v, %v, want a loss accepted by %v", accepted, err, last)
	}
	last.ID = accepted.To
	if err := primary.Kill(); err != nil {
		t.Fatal(err)
	}
	if got, err := replica.Do(t.Context(), "REPLICAOF", "NO", "ONE"); err != nil || got != "+OK" {
		t.Fatal(got, err)
	}
	front.Redirect(replica.Address())
	eventually(t, func() error { return s.Probe(t.Context(), group) })
	if h, err := s.History(t.Context()); err != nil || len(h.Losses) != 1 || h.Losses[0] != accepted {
		t.Errorf("the promoted replica knows %+v, %v, want %+v", h, err, accepted)
	}
	for _, r := range all {
		if stamp := known(t, s, r); stamp.ID != last.ID || stamp.Change < last.Change {
			t.Fatalf("another memory: %+v after %+v", stamp, last)
		}
	}
	handle(t, s, messages(1, 201, 10)...)
}

// TestPromotedWithoutWait: with NoReplicas a failover can lose what was consumed, and the
// memory is another one then.
func TestPromotedWithoutWait(t *testing.T) {
	primary := redispeer.New(t, nil)
	link, err := faultproxy.NewTCP(primary.Address(), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = link.Close() }()
	replica := redispeer.New(t, map[string]string{"replicaof": "127.0.0.1 " + strconv.Itoa(link.Port())})
	if err := errors.Join(replica.Await("replication", "master_link_status:up"), primary.Await("replication", "state=online")); err != nil {
		t.Fatal(err)
	}
	front, err := faultproxy.NewTCP(primary.Address(), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = front.Close() }()
	s := open(t, "redis://"+front.Addr()+"/", redisreplay.Options{Fsync: redisreplay.FsyncNever, Replicas: redisreplay.NoReplicas})
	handle(t, s, message(1, 1))
	eventually(t, func() error { return caughtUp(t, primary, replica) })
	link.Stall()
	var last replay.Stamp
	for n := range uint64(10) {
		last = handle(t, s, message(1, 2+n))
	}
	if err := primary.Kill(); err != nil {
		t.Fatal(err)
	}
	if _, err := replica.Do(t.Context(), "REPLICAOF", "NO", "ONE"); err != nil {
		t.Fatal(err)
	}
	front.Redirect(replica.Address())
	eventually(t, func() error { return s.Probe(t.Context(), group) })
	if stamp := known(t, s, message(1, 1)); stamp.ID == last.ID || stamp.Change <= last.Change {
		t.Errorf("%+v after a failover that lost writes, %+v before: want another memory", stamp, last)
	}
}

// TestFewReplicas: without the answers of all replicas no claim is granted and no message
// counts as consumed, also after the primary has given the replica up.
func TestFewReplicas(t *testing.T) {
	primary := redispeer.New(t, map[string]string{"repl-timeout": "2"})
	link, err := faultproxy.NewTCP(primary.Address(), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = link.Close() }()
	replica := redispeer.New(t, map[string]string{"replicaof": "127.0.0.1 " + strconv.Itoa(link.Port()), "repl-timeout": "2"})
	if err := errors.Join(replica.Await("replication", "master_link_status:up"), primary.Await("replication", "state=online")); err != nil {
		t.Fatal(err)
	}
	o := redisreplay.Options{Fsync: redisreplay.FsyncNever, ReplicaTimeout: 100 * time.Millisecond}
	sure := open(t, primary.URL(), patient)
	handle(t, sure, message(1, 1))
	claimed := message(1, 2)
	if _, err := begin(sure, claimed); err != nil {
		t.Fatal(err)
	}
	s := open(t, primary.URL(), o)
	link.Stall()
	refused := func(when string) {
		t.Helper()
		if _, err := begin(s, message(1, 3)); !errors.Is(err, redisreplay.ErrReplicas) {
			t.Errorf("%s: Begin: %v, want ErrReplicas", when, err)
		}
		if _, err := consume(s, claimed); !errors.Is(err, redisreplay.ErrReplicas) {
			t.Errorf("%s: Finish: %v, want ErrReplicas", when, err)
		}
		if _, err := begin(s, again(message(1, 1))); !errors.Is(err, redisreplay.ErrReplicas) {
			t.Errorf("%s: a copy: %v, want ErrReplicas: what it is based on may be lost", when, err)
		}
		if err := s.Probe(t.Context(), group); !errors.Is(err, redisreplay.ErrReplicas) {
			t.Errorf("%s: Probe: %v, want ErrReplicas", when, err)
		}
		if _, err := s.AcceptLoss(t.Context(), replay.Stamp{ID: [16]byte{7}}); !errors.Is(err, redisreplay.ErrReplicas) {
			t.Errorf("%s: AcceptLoss: %v, want ErrReplicas", when, err)
		}
	}
	refused("cut off")
	if err := primary.Await("replication", "connected_slaves:0"); err != nil {
		t.Fatal(err)
	}
	refused("given up")
	// A process that starts now does not know the replica, but the store does.
	fresh, err := redisreplay.Open(t.Context(), primary.URL(), &o)
	if err == nil {
		closing(t, fresh)
		_, err = begin(fresh, message(1, 3))
	}
	if !errors.Is(err, redisreplay.ErrReplicas) {
		t.Errorf("a new process: %v, want ErrReplicas", err)
	}
	o.Replicas = redisreplay.NoReplicas
	if _, err := begin(open(t, primary.URL(), o), message(1, 4)); err != nil {
		t.Errorf("NoReplicas: %v", err)
	}
	link.Resume()
	if err := replica.Await("replication", "master_link_status:up"); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error { return s.Probe(t.Context(), group) })
	// The same call again is answered as the first should have been.
	if _, err := consume(sure, claimed); err != nil {
		t.Errorf("Finish again: %v", err)
	}
}

// TestReplicaJoins: a replica that joined since the last call has to confirm the next one.
func TestReplicaJoins(t *testing.T) {
	primary := redispeer.New(t, nil)
	s := open(t, primary.URL(), patient)
	handle(t, s, message(1, 1))
	redispeer.Replica(t, primary, nil)
	if n := calls(t, primary, "wait"); n != 0 {
		t.Fatalf("%d waits without a replica", n)
	}
	if _, err := begin(s, message(1, 2)); err != nil {
		t.Fatal(err)
	}
	if n := calls(t, primary, "wait"); n != 1 {
		t.Errorf("%d waits, want 1 for the replica that joined", n)
	}
}

// caughtUp returns nil when a replica has what its primary has.
func caughtUp(t testing.TB, primary, replica *redispeer.Server) error {
	p, r := offset(t, primary, "master_repl_offset:"), offset(t, replica, "slave_repl_offset:")
	if p == "" || p != r {
		return errors.New("the replica is behind")
	}
	return nil
}

// TestPartition: a receiver that is cut off from the store gets no answer, and another one
// takes over when the lease is over. What the first did late counts for nothing.
func TestPartition(t *testing.T) {
	server := redispeer.New(t, nil)
	front, err := faultproxy.NewTCP(server.Address(), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = front.Close() }()
	o := redisreplay.Options{Fsync: redisreplay.FsyncNever, ReplicaTimeout: 100 * time.Millisecond, Timeout: time.Second}
	far, near := open(t, "redis://"+front.Addr()+"/", o), open(t, server.URL(), patient)
	r := message(1, 1)
	r.Lease = 10 * time.Second // more than the calls through the cut connection take
	if _, err := begin(far, r); err != nil {
		t.Fatal(err)
	}
	front.Stall()
	if _, err := consume(far, r); err == nil {
		t.Error("Finish succeeded through a cut connection")
	}
	if _, err := begin(far, message(1, 2)); err == nil {
		t.Error("Begin succeeded through a cut connection")
	}
	c, err := begin(near, again(r))
	if !errors.Is(err, replay.ErrBusy) || time.Until(c.BusyUntil) > r.Lease || time.Until(c.BusyUntil) < 0 {
		t.Errorf("before the end of the lease: %v until %v", err, c.BusyUntil)
	}
	taken := again(r)
	eventually(t, func() error {
		taken.Now = time.Now()
		_, err := begin(near, taken)
		return err
	})
	if _, err := consume(near, taken); err != nil {
		t.Fatal(err)
	}
	front.Resume()
	if _, err := consume(far, r); !errors.Is(err, replay.ErrHandled) {
		eventually(t, func() error {
			if _, err := consume(far, r); !errors.Is(err, replay.ErrHandled) {
				return errors.Join(errors.New("want ErrHandled"), err)
			}
			return nil
		})
	}
	known(t, far, r)
}
