package connect_test

import (
	"errors"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/queue-runtime/queue/connect"
	"github.com/queue-runtime/queue/replay"
	"github.com/queue-runtime/queue/testbed/postgres"
)

// Every bound of a replay store has a parameter, which arrives there.
func TestReplayStoreBounds(t *testing.T) {
	t.Parallel()
	const query = "?records=1001&streams=1002&intervals=3003&group_records=901&group_streams=902&group_intervals=2903" +
		"&sender_records=801&sender_streams=802&sender_intervals=2803&recent=77&keep_stream=400h&parked_ttl=300h"
	want := replay.Bounds{
		Store:  replay.Quota{Records: 1001, Streams: 1002, Intervals: 3003},
		Group:  replay.Quota{Records: 901, Streams: 902, Intervals: 2903},
		Sender: replay.Quota{Records: 801, Streams: 802, Intervals: 2803},
		Recent: 77, KeepStream: 400 * time.Hour, ParkedTTL: 300 * time.Hour,
	}
	file := "sqlite://" + filepath.ToSlash(filepath.Join(t.TempDir(), "replay.db"))
	database := postgres.Shared(t).URL("postgres", "postgres")
	for _, base := range []string{"mem://", file, database} {
		s, err := connect.OpenReplayStore(t.Context(), base+query)
		if err != nil {
			t.Fatal(err)
		}
		stats, err := s.Stats(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if stats.Capacity != want {
			t.Errorf("%s: capacity %+v, want %+v", base[:4], stats.Capacity, want)
		}
		if err := s.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
	none := "sqlite://" + filepath.ToSlash(filepath.Join(t.TempDir(), "none.db")) + "?must_exist=true"
	if _, err := connect.OpenReplayStore(t.Context(), none); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("must_exist: %v, want fs.ErrNotExist", err)
	}
	for _, c := range []struct{ query, want string }{
		{"?records=-1", "records is below zero"},
		{"?group_streams=0", "group_streams is 0"},
		{"?sender_intervals=many", "sender_intervals is not a number"},
		{"?keep_stream=15d", "keep_stream is not a duration"},
		{"?parked_ttl=-1h", "parked_ttl is not a duration"},
		{"?recent=1&recent=2", "recent is given 2 times"},
		{"?record=5", `unknown parameter "record"`},
	} {
		for _, base := range []string{"mem://", file, database} {
			if base == database && c.want == `unknown parameter "record"` {
				continue // its package names those that it knows
			}
			s, err := connect.OpenReplayStore(t.Context(), base+c.query)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s%s: %v, want %q", base[:4], c.query, err, c.want)
			}
			if err == nil {
				_ = s.Close(t.Context())
			}
		}
	}
}

// A replay store in the broker's database is refused by whatever name, unless its URL
// says that the operators are trusted.
func TestReplayStoreInDatabaseOfBroker(t *testing.T) {
	t.Parallel()
	base := postgres.Shared(t).URL("postgres", "postgres")
	other := strings.Replace(base, "127.0.0.1", "localhost", 1)
	elsewhere := postgres.Shared(t).URL("postgres", "template1")
	const trusting = "&trust_database_operators=true"
	for _, c := range []struct {
		store         string
		early, within bool
	}{
		{base + "?schema=reach", true, true},
		{strings.Replace(base, "postgres:", "postgresql:", 1) + "?schema=reach&sslmode=disable", true, true},
		{other + "?schema=reach", false, true},
		{base + "?schema=reach" + trusting, false, false},
		{other + "?schema=reach" + trusting, false, false},
		{elsewhere + "?schema=reach", false, false},
		{"mem://", false, false},
	} {
		if err := connect.CheckReach(base, c.store); errors.Is(err, connect.ErrWithinReach) != c.early {
			t.Errorf("CheckReach of %s: %v, want one: %v", c.store, err, c.early)
		}
		s, err := connect.Open(t.Context(), connect.Config{Broker: base + "?schema=reach_queue", ReplayStore: c.store})
		if within := errors.Is(err, connect.ErrWithinReach); within != c.within || err != nil && !within {
			t.Errorf("Open with %s: %v, want one within reach: %v", c.store, err, c.within)
		}
		if s == nil {
			continue
		}
		if trusts := s.ReplayStore.TrustsDatabaseOperators(); trusts != strings.Contains(c.store, trusting) {
			t.Errorf("%s: trusts %v", c.store, trusts)
		}
		if err := s.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if _, err := connect.OpenReplayStore(t.Context(), "postgres://u:s3cret@127.0.0.1/db"); err == nil || !strings.Contains(err.Error(), "PGPASSWORD") || strings.Contains(err.Error(), "s3cret") {
		t.Errorf("a password in the URL: %v", err)
	}
}
