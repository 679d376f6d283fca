package sqlitequeue_test

import (
	"fmt"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/sqlite/sqlitequeue"
)

// many is more than one transaction sweeps.
const many = 700

func openNormal(t *testing.T) (path string, f *fixture) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "q.db")
	return path, open(t, path, &sqlitequeue.Options{Synchronous: sqlitequeue.Normal})
}

func (f *fixture) sendAll(list ...*driver.Message) {
	f.Helper()
	for len(list) > 0 {
		n := min(len(list), sqlitequeue.MaxBatch)
		for _, r := range f.queue.Send(f.Context(), list[:n]) {
			if r.Err != nil {
				f.Fatal(r.Err)
			}
		}
		list = list[n:]
	}
}

// TestManyExpire: expired messages are not delivered, however many there are, and do
// not delay the others.
func TestManyExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path, f := openNormal(t)
		var list []*driver.Message
		for n := range many {
			list = append(list, &driver.Message{ID: fmt.Sprint(n), TTL: time.Second})
		}
		f.sendAll(append(list, &driver.Message{ID: "alive"})...)
		time.Sleep(2 * time.Second) // in a bubble
		got, err := f.queue.Receive(t.Context(), 10, 0)
		if err != nil || len(got) != 1 || got[0].ID != "alive" {
			t.Errorf("received%s, %v; want alive", describe(got), err)
		}
		if st, err := f.queue.Stats(t.Context()); err != nil || st.DeadLetters != many || st.Approximate {
			t.Errorf("%+v, %v; want %d dead letters", st, err, many)
		}
		holds(t, path)
	})
}

// TestManySessionsEnd: a session whose lock is over can be taken, however many
// others ended before it.
func TestManySessionsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path, f := openNormal(t)
		for n := range many {
			if _, err := f.queue.AcceptSession(t.Context(), fmt.Sprint(n), 0); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Millisecond) // in a bubble: they end in this order
		}
		time.Sleep(sqlitequeue.DefaultLock)
		if _, err := f.queue.AcceptSession(t.Context(), fmt.Sprint(many-1), 0); err != nil {
			t.Errorf("the last one: %v", err)
		}
		holds(t, path)
	})
}

// TestDeadLetterWakes: a call that waits for dead letters gets one that its own
// broker sends, and that dies, while it waits.
func TestDeadLetterWakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, f := openNormal(t)
		dead, err := f.queue.DeadLetters(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		came := make(chan time.Time)
		go func() {
			got, err := dead.Receive(t.Context(), 1, time.Minute)
			if err != nil || len(got) != 1 {
				t.Errorf("received%s, %v", describe(got), err)
			}
			came <- time.Now()
		}()
		time.Sleep(500 * time.Millisecond) // in a bubble: it waits by now
		died := time.Now().Add(2 * time.Second)
		f.sendAll(&driver.Message{ID: "m", TTL: 2 * time.Second})
		if late := (<-came).Sub(died); late < 0 || late > time.Second {
			t.Errorf("it came %v after it had died", late)
		}
	})
}

// TestLockEndWakes: of several calls that wait for one message, each gets it
// when the lock of the one before is over, even if its arrival had woken them all
// and they had lost it to another.
func TestLockEndWakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, f := openNormal(t)
		const n = 8 // not as many as it takes for max_deliveries
		came := make(chan time.Time)
		for range n {
			go func() {
				got, err := f.queue.Receive(t.Context(), 1, time.Hour)
				if err != nil || len(got) != 1 {
					t.Errorf("received%s, %v", describe(got), err)
				}
				came <- time.Now()
			}()
		}
		synctest.Wait()
		sent := time.Now()
		f.sendAll(&driver.Message{ID: "m"})
		for i := range n {
			over := sent.Add(time.Duration(i) * sqlitequeue.DefaultLock)
			if late := (<-came).Sub(over); late < 0 || late > time.Second {
				t.Errorf("delivery %d came %v after the lock before it was over", i+1, late)
			}
		}
	})
}

// TestManyStates: states of sessions whose time is over are removed, however
// many there are, and those of sessions with messages are kept.
func TestManyStates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "q.db")
		f := open(t, path, &sqlitequeue.Options{Synchronous: sqlitequeue.Normal, Default: sqlitequeue.QueueOptions{Retention: 5 * time.Minute}})
		a := attack(t, path)
		execute(t, a, fmt.Sprintf(`WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %d)
			INSERT INTO sessions SELECT queues.id, 'pr-' || i, NULL, NULL, x'01', %d FROM n, queues`, many, time.Now().UnixNano()))
		time.Sleep(4 * time.Minute) // in a bubble
		f.sendAll(&driver.Message{ID: "m", SessionID: "pr-7"})
		time.Sleep(2 * time.Minute)
		if got := rows(t, path, "SELECT session FROM sessions"); len(got) != 1 || got[0] != "pr-7" {
			t.Errorf("%d states are left: %.100q; want that of pr-7", len(got), got)
		}
	})
}
