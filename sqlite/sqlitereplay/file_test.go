package sqlitereplay_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/replay"
	"github.com/queue-runtime/queue/sqlite/sqlitequeue"
	"github.com/queue-runtime/queue/sqlite/sqlitereplay"
	"github.com/queue-runtime/queue/testbed/sqliteattack"
)

func request(n int) replay.Request {
	now := time.Now()
	return replay.Request{
		Group: "group", ID: replay.ID(fmt.Sprintf("envelope %d", n)), BrokerID: "broker",
		Lease: time.Minute, Now: now, FreshUntil: now.Add(time.Minute), RetryWindow: time.Hour,
		RetainClaimed: now.Add(time.Hour), RetainConsumed: now.Add(time.Hour),
	}
}

// TestQueueRefused names a queue's file by every way there is.
func TestQueueRefused(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "queue.db")
	b, err := sqlitequeue.Open(t.Context(), path, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := b.Close(context.Background()); err != nil {
			t.Error(err)
		}
	}()
	if err := errors.Join(os.Symlink(path, filepath.Join(dir, "soft")), os.Mkdir(filepath.Join(dir, "sub"), 0o700)); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"queue.db", "soft", "sub/../queue.db"} {
		if _, err := sqlitereplay.Open(t.Context(), filepath.Join(dir, name), nil); !errors.Is(err, sqlitereplay.ErrQueue) {
			t.Errorf("Open(%q): %v, want ErrQueue", name, err)
		} else if name == "soft" {
			t.Log(err)
		}
	}
	if err := os.Link(path, filepath.Join(dir, "hard")); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"hard": "hard links", "queue.db-wal": "belongs to a database", "queue.db-shm": "belongs to a database"} {
		if _, err := sqlitereplay.Open(t.Context(), filepath.Join(dir, name), nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Open(%q): %v, want one that says %q", name, err, want)
		}
	}
	if err := b.Check(t.Context()); err != nil {
		t.Errorf("the queue's file was damaged: %v", err)
	}

	// Nor is a store taken for a queue.
	open(t, filepath.Join(dir, "nonces.db"), nil)
	if _, err := sqlitequeue.Open(t.Context(), filepath.Join(dir, "nonces.db"), nil); !errors.Is(err, sqlitequeue.ErrForeign) {
		t.Errorf("a store opened as a queue: %v, want ErrForeign", err)
	}
}

func TestOpen(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "text"), make([]byte, 5000), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := sqlitereplay.Open(t.Context(), filepath.Join(dir, "text"), nil); driver.KindOf(err) != driver.Corrupt {
		t.Errorf("a file that is no database: %v, want driver.Corrupt", err)
	}
	if _, err := sqlitereplay.Open(t.Context(), filepath.Join(dir, "none"), &sqlitereplay.Options{MustExist: true}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("MustExist: %v, want fs.ErrNotExist", err)
	}
	for _, o := range []sqlitereplay.Options{{MaxEntries: -1}, {Patience: -1}} {
		if _, err := sqlitereplay.Open(t.Context(), filepath.Join(dir, "new"), &o); err == nil {
			t.Errorf("%+v: no error", o)
		}
	}
	path := filepath.Join(dir, "nonces.db")
	s := open(t, path, nil)
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v; want mode 0600", info, err)
	}
	if err := s.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := s.Begin(t.Context(), request(0)); !errors.Is(err, driver.ErrClosed) {
		t.Errorf("Begin after Close: %v", err)
	}
	a, err := sqliteattack.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err = a.Exec(t.Context(), "PRAGMA user_version = 9"); err != nil {
		t.Fatal(err)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := sqlitereplay.Open(t.Context(), path, nil); !errors.Is(err, sqlitereplay.ErrNewer) {
		t.Errorf("a newer schema: %v, want ErrNewer", err)
	}
}

// TestRestart: what was consumed, and when it was first seen, outlives the store.
func TestRestart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "nonces.db")
	s := open(t, path, nil)
	consumed, claimed := request(1), request(2)
	for _, r := range []replay.Request{consumed, claimed} {
		c, err := s.Begin(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		if r.ID == consumed.ID {
			err = s.Consume(t.Context(), r.Group, r.ID, c.Token)
		} else {
			err = s.Release(t.Context(), r.Group, r.ID, c.Token)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	s = open(t, path, nil)
	if c, err := s.Begin(t.Context(), consumed); err != nil || !c.Duplicate {
		t.Errorf("its own message: %+v, %v, want Duplicate", c, err)
	}
	consumed.BrokerID = "copy"
	if _, err := s.Begin(t.Context(), consumed); !errors.Is(err, replay.ErrReused) {
		t.Errorf("a copy: %v, want ErrReused", err)
	}
	again := claimed
	again.Now = claimed.Now.Add(2 * time.Minute) // stale, but seen fresh
	if c, err := s.Begin(t.Context(), again); err != nil || !c.FirstSeen.Equal(claimed.Now) {
		t.Errorf("a retry: %+v, %v, want FirstSeen %v", c, err, claimed.Now)
	}
}

// TestPrune: the file does not grow with what is over.
func TestPrune(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "nonces.db")
		s := open(t, path, &sqlitereplay.Options{Normal: true})
		var size int64
		for round := range 6 {
			for n := range 400 {
				r := request(1000*round + n)
				r.RetainConsumed = r.Now.Add(time.Minute)
				c, err := s.Begin(t.Context(), r)
				if err == nil {
					err = s.Consume(t.Context(), r.Group, r.ID, c.Token)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(2 * time.Minute) // in a bubble
			if n, err := s.Len(t.Context()); err != nil || n > 800 {
				t.Errorf("round %d: %d records, %v", round, n, err)
			}
			if err := s.Close(t.Context()); err != nil { // which moves the log into the file
				t.Fatal(err)
			}
			info, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			if round == 2 {
				size = info.Size()
			}
			if round > 2 && info.Size() > size {
				t.Errorf("round %d: the file has %d bytes, it had %d", round, info.Size(), size)
			}
			s = open(t, path, &sqlitereplay.Options{Normal: true})
		}
	})
}

// TestShared has two stores on one file, as two processes have: one claims and is
// never heard of again until it is too late, and their receivers' clocks differ.
func TestShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "nonces.db")
		crashed, other := open(t, path, nil), open(t, path, nil)
		ctx, r := t.Context(), request(1)
		first, err := crashed.Begin(ctx, r)
		if err != nil {
			t.Fatal(err)
		}
		// The other receiver's clock is fast: for it the envelope is stale.
		fast := func() replay.Request {
			again := r
			again.Now = time.Now().Add(10 * time.Minute)
			again.RetainConsumed = again.Now.Add(time.Hour)
			return again
		}
		if _, err := other.Begin(ctx, fast()); !errors.Is(err, replay.ErrBusy) {
			t.Errorf("while the lease runs: %v, want ErrBusy", err)
		}
		time.Sleep(r.Lease) // in a bubble
		second, err := other.Begin(ctx, fast())
		if err != nil || !second.FirstSeen.Equal(r.Now) || second.Token == first.Token {
			t.Fatalf("when the lease is over: %+v, %v; want a claim first seen at %v", second, err, r.Now)
		}
		for what, err := range map[string]error{
			"Renew":   crashed.Renew(ctx, r.Group, r.ID, first.Token, time.Minute),
			"Consume": crashed.Consume(ctx, r.Group, r.ID, first.Token),
			"Release": crashed.Release(ctx, r.Group, r.ID, first.Token),
		} {
			if !errors.Is(err, replay.ErrClaimLost) {
				t.Errorf("%s by the one that was thought dead: %v, want ErrClaimLost", what, err)
			}
		}
		if err := other.Consume(ctx, r.Group, r.ID, second.Token); err != nil {
			t.Fatal(err)
		}
		replayed := fast()
		replayed.BrokerID = "copy"
		time.Sleep(time.Hour - time.Minute - time.Second)
		if _, err := crashed.Begin(ctx, replayed); !errors.Is(err, replay.ErrReused) {
			t.Errorf("just before the end of its retention: %v, want ErrReused", err)
		}
		// Past it what was first seen has gone, too: only freshness tells.
		time.Sleep(2 * time.Minute)
		if _, err := crashed.Begin(ctx, replayed); !errors.Is(err, replay.ErrNotFresh) {
			t.Errorf("past its retention: %v, want ErrNotFresh", err)
		}
	})
}
