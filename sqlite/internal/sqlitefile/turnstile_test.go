package sqlitefile

import (
	"context"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/queue-runtime/queue/driver"
)

// TestTurns: the lock goes to the process that has waited for it, also if the one that
// releases it wants it again at once.
func TestTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "f.db")
		holder, other := open(t, config(path)), open(t, config(path))
		if holder.turns.file == nil {
			t.Skip("this system has no flock(2)")
		}
		probe := openTurnstile(path)
		defer probe.close()
		closed := func() bool {
			if !tryLock(probe.file) {
				return true
			}
			unlock(probe.file)
			return false
		}
		for round := range 20 {
			release := hold(t, holder)
			order := make(chan string, 2)
			write := func(f *File, name string) {
				if err := f.Write(context.Background(), func(*Conn) error { order <- name; return nil }); err != nil {
					t.Error(err)
				}
			}
			done := make(chan struct{}, 2)
			go func() { write(other, "other"); done <- struct{}{} }()
			time.Sleep(2 * courtesy) // of the bubble: until it waits for the lock, also if it steps back before
			if !closed() {
				release()
				t.Fatal("a process that waits for the lock is not in the turnstile")
			}
			go func() { write(holder, "holder"); done <- struct{}{} }()
			synctest.Wait()
			time.Sleep(groupTime) // of the bubble: so that it does not join the transaction that is open
			release()
			first := <-order
			<-order
			<-done
			<-done
			if first != "other" {
				t.Fatalf("round %d: the process that had the lock got it again before the one that waited", round)
			}
		}
	})
}

// TestTurnstileStuck: a process that stands still in the turnstile delays the others
// for no longer than LockTimeout, and does not keep them from the lock.
func TestTurnstileStuck(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f.db")
	c := config(path)
	c.LockTimeout = 200 * time.Millisecond
	f := open(t, c)
	if f.turns.file == nil {
		t.Skip("this system has no flock(2)")
	}
	stuck := openTurnstile(path)
	defer stuck.close()
	if !tryLock(stuck.file) {
		t.Fatal("the turnstile is closed while no call waits")
	}
	if err := f.Write(t.Context(), increment); err != nil {
		t.Errorf("Write beside a process that stands still: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := f.Write(ctx, increment); driver.KindOf(err) != driver.Other || err == nil {
		t.Errorf("Write with a context that has ended: %v", err)
	}
}
