package redisreplay_test

import (
	"errors"
	"maps"
	"strings"
	"testing"

	"github.com/queue-runtime/queue/redis/redisreplay"
	"github.com/queue-runtime/queue/replay"
	"github.com/queue-runtime/queue/testbed/faultproxy"
	"github.com/queue-runtime/queue/testbed/redispeer"
)

// durable are the settings of a server that loses nothing at a crash.
var durable = map[string]string{"appendonly": "yes", "appendfsync": "always"}

// TestRefused: a server that can lose what was consumed is refused.
func TestRefused(t *testing.T) {
	cases := []struct {
		name     string
		settings map[string]string
		fsync    redisreplay.Fsync
		want     error
	}{
		{"durable", durable, redisreplay.FsyncAlways, nil},
		{"in memory", nil, redisreplay.FsyncAlways, redisreplay.ErrNotDurable},
		{"in memory, every second wanted", nil, redisreplay.FsyncEverySecond, redisreplay.ErrNotDurable},
		{"in memory, on purpose", nil, redisreplay.FsyncNever, nil},
		{"synced every second", map[string]string{"appendonly": "yes"}, redisreplay.FsyncAlways, redisreplay.ErrNotDurable},
		{"synced every second, on purpose", map[string]string{"appendonly": "yes"}, redisreplay.FsyncEverySecond, nil},
		{"evicting", map[string]string{"maxmemory-policy": "allkeys-lru"}, redisreplay.FsyncNever, redisreplay.ErrEviction},
		{"evicting what has a TTL", map[string]string{"maxmemory-policy": "volatile-ttl"}, redisreplay.FsyncNever, redisreplay.ErrEviction},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			server := redispeer.New(t, c.settings)
			s, err := redisreplay.Open(t.Context(), server.URL(), &redisreplay.Options{Fsync: c.fsync})
			if !errors.Is(err, c.want) {
				t.Fatalf("Open: %v, want %v", err, c.want)
			}
			if err != nil {
				return
			}
			closing(t, s)
			stats, err := s.Stats(t.Context())
			if err != nil || stats.Durable != (c.fsync == redisreplay.FsyncAlways) || !stats.Shared {
				t.Errorf("Stats: %+v, %v", stats, err)
			}
		})
	}
	primary := redispeer.New(t, nil)
	replica := redispeer.Replica(t, primary, nil)
	if _, err := redisreplay.Open(t.Context(), replica.URL(), &redisreplay.Options{Fsync: redisreplay.FsyncNever}); !errors.Is(err, redisreplay.ErrReplica) {
		t.Errorf("a replica: %v, want ErrReplica", err)
	}
}

// TestCheckedAgain: a server that comes back with another configuration is refused before
// anything is written to it.
func TestCheckedAgain(t *testing.T) {
	settings := map[string]string{"appendonly": "yes", "appendfsync": "always"}
	server := redispeer.New(t, settings)
	s := open(t, server.URL(), redisreplay.Options{})
	handle(t, s, message(1, 1))
	for _, c := range []struct {
		name, value string
		want        error
	}{{"maxmemory-policy", "allkeys-random", redisreplay.ErrEviction}, {"appendfsync", "everysec", redisreplay.ErrNotDurable}} {
		old, had := settings[c.name]
		settings[c.name] = c.value
		restart(t, server)
		before := calls(t, server, "hset")
		for range 3 { // the first may find a dead connection
			if _, err := begin(s, message(1, 2)); err == nil {
				t.Fatalf("%s %s: a claim was granted", c.name, c.value)
			}
		}
		if _, err := begin(s, message(1, 2)); !errors.Is(err, c.want) {
			t.Errorf("%s %s: %v, want %v", c.name, c.value, err, c.want)
		}
		if n := calls(t, server, "hset") - before; n != 0 {
			t.Errorf("%s %s: %d writes before the check", c.name, c.value, n)
		}
		if settings[c.name] = old; !had {
			delete(settings, c.name)
		}
	}
	restart(t, server)
	eventually(t, func() error { return s.Probe(t.Context(), group) })
	known(t, s, message(1, 1))
}

// TestLoading: a server that loads what it kept, which can take minutes after a crash, is
// not taken for one that keeps nothing.
func TestLoading(t *testing.T) {
	settings := maps.Clone(durable)
	server := redispeer.New(t, settings)
	s := open(t, server.URL(), redisreplay.Options{})
	handle(t, s, message(1, 1))
	// It answers after each 1,024 commands of those that it loads. On a busy machine half a
	// minute is enough for a call to meet it then.
	if _, err := evalText(t, server, "for i = 1, 30000 do redis.call('SET', i, 1) end"); err != nil {
		t.Fatal(err)
	}
	if err := server.Kill(); err != nil {
		t.Fatal(err)
	}
	settings["key-load-delay"] = "1000" // in microseconds
	restarted := make(chan error, 1)
	go func() { restarted <- server.Restart() }()
	loading := 0
	for ready := false; !ready; {
		select {
		case err := <-restarted:
			if err != nil {
				t.Fatal(err)
			}
			ready = true
		default: // no return before that
		}
		other, err := redisreplay.Open(t.Context(), server.URL(), nil)
		if err == nil {
			closing(t, other)
			continue
		}
		if _, err2 := begin(s, message(1, 2)); errors.Is(err, redisreplay.ErrNotDurable) || errors.Is(err2, redisreplay.ErrNotDurable) {
			t.Errorf("while it loads: %v; %v", err, err2)
		}
		if strings.Contains(err.Error(), "loads its data") {
			loading++
			if _, err := server.Do(t.Context(), "CONFIG", "SET", "key-load-delay", "0"); err != nil { // the rest at once
				t.Errorf("CONFIG: %v", err)
			}
		}
	}
	if loading == 0 {
		t.Error("no call met the server while it loaded")
	}
	eventually(t, func() error { return s.Probe(t.Context(), group) })
	known(t, s, message(1, 1))
}

// TestPromotedIsChecked: a promoted replica is checked before anything is written to it,
// also one that has the script.
func TestPromotedIsChecked(t *testing.T) {
	primary := redispeer.New(t, nil)
	replica := redispeer.Replica(t, primary, map[string]string{"maxmemory-policy": "allkeys-lru"})
	if _, err := send(t, replica, "SCRIPT", "LOAD", redisreplay.Script()); err != nil {
		t.Fatal(err)
	}
	front, err := faultproxy.NewTCP(primary.Address(), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = front.Close() }()
	s := open(t, "redis://"+front.Addr()+"/", patient)
	handle(t, s, message(1, 1))
	front.Redirect(replica.Address())
	eventually(t, func() error {
		_, err := s.Look(t.Context(), group, []replay.Query{{ID: message(1, 1).ID}})
		if err == nil {
			t.Fatal("a replica was asked")
		}
		if !errors.Is(err, redisreplay.ErrReplica) {
			return err
		}
		return nil
	})
	if err := primary.Kill(); err != nil {
		t.Fatal(err)
	}
	ask(t, replica, "+OK", "REPLICAOF", "NO", "ONE")
	front.Redirect(replica.Address())
	before := calls(t, replica, "hset")
	eventually(t, func() error {
		_, err := begin(s, message(1, 2))
		if err == nil {
			t.Fatal("a claim was granted")
		}
		if !errors.Is(err, redisreplay.ErrEviction) {
			return err
		}
		return nil
	})
	if n := calls(t, replica, "hset") - before; n != 0 {
		t.Errorf("%d writes before the check", n)
	}
}

// TestFullServer: a server at its memory bound writes nothing, so no claim is granted.
func TestFullServer(t *testing.T) {
	server := redispeer.New(t, map[string]string{"maxmemory": "100mb"})
	s := open(t, server.URL(), redisreplay.Options{Fsync: redisreplay.FsyncNever})
	handle(t, s, message(1, 1))
	if _, err := server.Do(t.Context(), "CONFIG", "SET", "maxmemory", "1"); err != nil {
		t.Fatal(err)
	}
	if _, err := begin(s, message(1, 2)); err == nil || !strings.Contains(err.Error(), "OOM") {
		t.Errorf("Begin: %v, want an error that says OOM", err)
	}
	if err := s.Probe(t.Context(), group); err == nil {
		t.Error("Probe: nil, although the server takes no writes")
	}
	if _, err := server.Do(t.Context(), "CONFIG", "SET", "maxmemory", "0"); err != nil {
		t.Fatal(err)
	}
	known(t, s, message(1, 1))
	handle(t, s, message(1, 2))
}

// TestDamage: values that are not what was written are an error, for their stream alone.
func TestDamage(t *testing.T) {
	server := redispeer.New(t, nil)
	s := open(t, server.URL(), redisreplay.Options{Fsync: redisreplay.FsyncNever})
	handle(t, s, message(1, 1))
	handle(t, s, message(2, 1))
	const damage = "local k = redis.call('KEYS','*:pages:*') for _, n in ipairs(k) do if string.byte(n, -1) == 1 then redis.call('HSET', n, '0', 'versionsdamage') end end return #k"
	if got, err := evalText(t, server, damage); err != nil || got != ":2" {
		t.Fatalf("%s, %v", got, err)
	}
	if _, err := begin(s, again(message(1, 1))); err == nil || errors.Is(err, replay.ErrDuplicate) || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("a damaged page: %v", err)
	}
	known(t, s, message(2, 1))
}
