package sqlitequeue

import (
	"context"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/queue-runtime/queue/driver"
)

// TestDurable: what is confirmed has waited for the disk, unless Normal was
// chosen; locks never wait for it. Package sqlitefile shows that a commit that
// counts as synced is made with synchronous FULL.
func TestDurable(t *testing.T) {
	for _, mode := range []Synchronous{Full, Normal} {
		ctx := t.Context()
		b, err := Open(ctx, filepath.Join(t.TempDir(), "q.db"), &Options{Synchronous: mode})
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := b.Close(context.Background()); err != nil {
				t.Error(err)
			}
		}()
		q, err := b.Open(ctx, "q", nil)
		if err != nil {
			t.Fatal(err)
		}
		// waits does something and wants it to have waited for the disk, or not.
		waits := func(what string, want bool, do func() error) {
			t.Helper()
			all, synced := b.file.Commits()
			if err := do(); err != nil {
				t.Fatalf("%s: %v", what, err)
			}
			allAfter, syncedAfter := b.file.Commits()
			if got := syncedAfter > synced; allAfter == all || got != (want && mode == Full) {
				t.Errorf("mode %d, %s: %d commits, %d of them synced", mode, what, allAfter-all, syncedAfter-synced)
			}
		}
		waits("send", true, func() error {
			return q.Send(ctx, []*driver.Message{{ID: "1"}, {ID: "2"}, {ID: "3"}, {ID: "4", SessionID: "s"}})[0].Err
		})
		var got []*driver.Delivery
		waits("receive", false, func() error { got, err = q.Receive(ctx, 3, 0); return err })
		waits("renew", false, func() error { return q.Renew(ctx, got)[0].Err })
		for i, kind := range []driver.SettleKind{driver.Complete, driver.Abandon, driver.MoveToDeadLetter} {
			waits(kind.String(), true, func() error {
				return q.Settle(ctx, []driver.Settlement{{Delivery: got[i], Kind: kind, Delay: time.Hour}})[0]
			})
		}
		var s driver.Session
		waits("accept", false, func() error { s, err = q.AcceptSession(ctx, "s", 0); return err })
		waits("state", true, func() error { return s.(driver.StatefulSession).SetState(ctx, []byte{1}) })
		waits("receive in a session", false, func() error { got, err = s.Receive(ctx, 1, 0); return err })
		waits("complete in a session", true, func() error {
			return s.Settle(ctx, []driver.Settlement{{Delivery: got[0], Kind: driver.Complete}})[0]
		})
	}
}

// TestWaitingDoesNotWrite: calls that wait do not take the lock on the file for
// what is not for them.
func TestWaitingDoesNotWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		b, q, closed := fresh(ctx, t)
		defer closed()
		held, err := q.AcceptSession(ctx, "held", 0)
		if err != nil {
			t.Fatal(err)
		}
		dead, err := q.DeadLetters(ctx)
		if err != nil {
			t.Fatal(err)
		}
		other, err := b.Open(ctx, "other", nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := other.AcceptSession(ctx, "held", 0); err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() { _, _ = other.AcceptSession(ctx, "", time.Hour) })
			wg.Go(func() { _, _ = q.AcceptSession(ctx, "held", time.Hour) })
			wg.Go(func() { _, _ = held.Receive(ctx, 1, time.Hour) })
			wg.Go(func() { _, _ = dead.Receive(ctx, 1, time.Hour) })
		}
		synctest.Wait()
		before, _ := b.file.Commits()
		const n = 20
		for range n {
			if err := q.Send(ctx, []*driver.Message{{ID: "m"}})[0].Err; err != nil {
				t.Fatal(err)
			}
			if err := other.Send(ctx, []*driver.Message{{ID: "m", SessionID: "held"}})[0].Err; err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		if after, _ := b.file.Commits(); after-before != 2*n {
			t.Errorf("%d commits for %d sends without a waiting receiver", after-before, 2*n)
		}
		cancel()
		wg.Wait()
	})
}
