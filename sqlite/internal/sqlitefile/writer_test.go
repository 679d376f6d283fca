package sqlitefile

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/queue-runtime/queue/driver"
)

// hold keeps a transaction open until release is called; it returns when the
// transaction has begun.
func hold(t *testing.T, f *File) (release func()) {
	t.Helper()
	begun, end := make(chan struct{}), make(chan struct{})
	done := make(chan error)
	var once sync.Once
	go func() {
		done <- f.Write(context.Background(), func(*Conn) error {
			once.Do(func() { close(begun) })
			<-end
			return nil
		})
	}()
	<-begun
	return func() {
		close(end)
		// Its transaction may be shared with a request that fails. It then runs again
		// alone, and may find the file locked.
		if err := <-done; err != nil && driver.KindOf(err) != driver.Unavailable {
			t.Error(err)
		}
	}
}

// queued waits until n requests are pending.
func queued(f *File, n int) {
	for {
		f.mu.Lock()
		got := len(f.pending)
		f.mu.Unlock()
		if got == n {
			return
		}
		time.Sleep(time.Millisecond) // real time: the writer waits for a disk, and nothing tells of a pending request
	}
}

// TestGroup: what is asked for while a transaction is under way is committed
// together.
func TestGroup(t *testing.T) {
	f := open(t, config(filepath.Join(t.TempDir(), "f.db")))
	release := hold(t, f)
	const n = 20
	errs := make(chan error, n)
	for range n {
		go func() {
			errs <- f.Write(context.Background(), func(c *Conn) error {
				if err := increment(c); err != nil {
					return err
				}
				// Other connections see nothing of it yet.
				if seen := f.text(t, "SELECT n FROM t"); seen != "0" {
					return fmt.Errorf("others see %s before the commit", seen)
				}
				return nil
			})
		}()
	}
	queued(f, n)
	release()
	for range n {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if got := f.text(t, "SELECT n FROM t"); got != "20" {
		t.Errorf("n is %s", got)
	}
}

// TestFailure: one that fails takes no other with it, and leaves nothing. One
// that answers with a driver.Error is committed.
func TestFailure(t *testing.T) {
	f := open(t, config(filepath.Join(t.TempDir(), "f.db")))
	release := hold(t, f)
	failure := errors.New("failure")
	results := make([]error, 10)
	var wg sync.WaitGroup
	for i := range results {
		wg.Go(func() {
			results[i] = f.Write(context.Background(), func(c *Conn) error {
				if err := increment(c); err != nil {
					return err
				}
				switch i {
				case 3:
					return failure
				case 5:
					_, err := c.Exec("INSERT INTO t VALUES ('text')")
					return err
				case 7:
					return &driver.Error{Kind: driver.LockLost}
				}
				return nil
			})
		})
	}
	queued(f, len(results))
	release()
	wg.Wait()
	for i, err := range results {
		switch i {
		case 3:
			if !errors.Is(err, failure) {
				t.Errorf("the one that fails: %v", err)
			}
		case 5:
			if driver.KindOf(err) != driver.Corrupt {
				t.Errorf("the one that breaks a constraint: %v", err)
			}
		case 7:
			if !errors.Is(err, driver.ErrLockLost) {
				t.Errorf("the one that answers: %v", err)
			}
		default:
			if err != nil {
				t.Errorf("request %d: %v", i, err)
			}
		}
	}
	if got := f.text(t, "SELECT n FROM t"); got != "8" {
		t.Errorf("n is %s, want 8: all but two", got)
	}
}

// TestLockedAlone: requests whose common transaction failed wait for another's
// lock together, not one after the other.
func TestLockedAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "f.db")
		holder := open(t, config(path))
		c := config(path)
		c.LockTimeout = 300 * time.Millisecond
		f := open(t, c)
		release := hold(t, f)
		begun := make(chan func())
		results := make([]error, 10)
		var wg sync.WaitGroup
		first := true
		wg.Go(func() {
			results[0] = f.Write(context.Background(), func(*Conn) error {
				if first { // the lock is in other hands before anything is tried again
					first = false
					go func() { begun <- hold(t, holder) }()
					synctest.Wait() // until it is the next for the lock
				}
				return errors.New("failure")
			})
		})
		synctest.Wait()
		for i := range results[1:] {
			wg.Go(func() { results[1+i] = f.Write(context.Background(), increment) })
		}
		synctest.Wait()
		release()
		releaseHolder := <-begun
		since := time.Now()
		wg.Wait()
		took := time.Since(since)
		releaseHolder()
		locked := 0
		for _, err := range results {
			if driver.KindOf(err) == driver.Unavailable {
				locked++
			}
		}
		t.Logf("%d of %d found the file locked, after %v", locked, len(results), took)
		if locked != len(results) {
			t.Errorf("%d of %d requests found the file locked", locked, len(results))
		}
		if took > 4*c.LockTimeout {
			t.Errorf("%d requests took %v to find the file locked, with a LockTimeout of %v", locked, took, c.LockTimeout)
		}
	})
}

// TestWithdraw: a request whose context ends before its turn never runs.
func TestWithdraw(t *testing.T) {
	f := open(t, config(filepath.Join(t.TempDir(), "f.db")))
	release := hold(t, f)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- f.Write(ctx, increment) }()
	queued(f, 1)
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("Write: %v", err)
	}
	if err := f.Write(ctx, increment); !errors.Is(err, context.Canceled) {
		t.Errorf("Write with a context that is over: %v", err)
	}
	release()
	if got := f.text(t, "SELECT n FROM t"); got != "0" {
		t.Errorf("n is %s, want 0", got)
	}
}

// TestRivals: two connections, as of two processes, that both write all the time.
func TestRivals(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f.db")
	files := []*File{open(t, config(path)), open(t, config(path)), open(t, config(path))}
	var wg sync.WaitGroup
	for _, f := range files {
		for range 4 {
			wg.Go(func() {
				for range 25 {
					if err := f.WriteUnsynced(context.Background(), increment); err != nil {
						t.Error(err)
					}
				}
			})
		}
	}
	wg.Wait()
	if got := files[0].text(t, "SELECT n FROM t"); got != "300" {
		t.Errorf("n is %s, want 300", got)
	}
}

// TestLockTimeout: the lock of another is waited for, and not for ever.
func TestLockTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "f.db")
		c := config(path)
		holder := open(t, c)
		c.LockTimeout = 50 * time.Millisecond
		short := open(t, c)
		c.LockTimeout = time.Hour
		long := open(t, c)

		release := hold(t, holder)
		err := short.Write(t.Context(), increment)
		if driver.KindOf(err) != driver.Unavailable {
			t.Errorf("Write while another holds the lock: %v, want driver.Unavailable", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		if err := long.Write(ctx, increment); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Write whose context ends: %v", err)
		}
		done := make(chan error)
		go func() { done <- long.Write(context.Background(), increment) }()
		synctest.Wait()
		release()
		if err := <-done; err != nil {
			t.Errorf("Write when the lock has come free: %v", err)
		}
		if got := holder.text(t, "SELECT n FROM t"); got != "1" {
			t.Errorf("n is %s, want 1", got)
		}

		// Close does not wait for another's lock.
		release = hold(t, holder)
		go func() { done <- long.Write(context.Background(), increment) }()
		synctest.Wait()
		if err := long.Close(t.Context()); err != nil {
			t.Errorf("Close: %v", err)
		}
		if err := <-done; !errors.Is(err, driver.ErrClosed) {
			t.Errorf("Write while the file closes: %v, want driver.ErrClosed", err)
		}
		release()
	})
}

// TestWatch: commits of others are noticed, one's own are not.
func TestWatch(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f.db")
	changed := make(chan struct{}, 100)
	c := config(path)
	c.Changed = func() { changed <- struct{}{} }
	f, other := open(t, c), open(t, config(path))
	write := func(f *File) {
		t.Helper()
		if err := f.Write(t.Context(), increment); err != nil {
			t.Fatal(err)
		}
	}
	f.Watch()
	defer f.Unwatch()
	write(other)
	<-changed // hangs where it is not noticed
	// The first look of all counts as a change, so this one may have been that;
	// a write looks, too, before it returns.
	write(f)
	for len(changed) > 0 {
		<-changed
	}
	write(f)
	write(f)
	if len(changed) > 0 {
		t.Error("own commits were taken for those of others")
	}
	write(other)
	<-changed
}

// TestLead: what has nothing to wait for runs on the goroutine of its caller. What has to wait
// does not: its caller may leave.
func TestLead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := open(t, config(filepath.Join(t.TempDir(), "f.db")))
		leads := func() (led bool) {
			err := f.Write(context.Background(), func(c *Conn) error {
				led = !strings.Contains(string(debug.Stack()), "(*File).run(")
				return increment(c)
			})
			if err != nil {
				t.Error(err)
			}
			return led
		}
		synctest.Wait() // until the file is idle
		if !leads() {
			t.Error("an idle file was written by another goroutine")
		}
		f.owner <- struct{}{}
		led := make(chan bool)
		go func() { led <- leads() }()
		synctest.Wait() // until the caller waits
		f.release()
		if <-led {
			t.Error("a caller waited")
		}
	})
}

// TestLeaderLeaves: a caller that wrote for others has its answer while they are tried again.
func TestLeaderLeaves(t *testing.T) {
	f := open(t, config(filepath.Join(t.TempDir(), "f.db")))
	for range 100 {
		if leaderLeaves(t, f) {
			return
		}
	}
	t.Error("no caller led")
}

// leaderLeaves reports whether the test led. The writing goroutine may have been faster.
func leaderLeaves(t *testing.T, f *File) (led bool) {
	left, answers := make(chan struct{}), make(chan error)
	write := func(do func(*Conn) error) { go func() { answers <- f.Write(context.Background(), do) }() }
	f.owner <- struct{}{} // no caller leads yet
	write(increment)
	queued(f, 1)
	runs := 0
	write(func(*Conn) error {
		if runs++; runs == 1 {
			led = strings.Contains(string(debug.Stack()), ".leaderLeaves(")
			return errors.New("the first time") // undoes the transaction of both
		}
		if !led {
			return nil
		}
		select {
		case <-left:
			return nil
		case <-time.After(10 * time.Second):
			return driver.Errorf(driver.Other, "the leader is still there")
		}
	})
	queued(f, 2)
	<-f.owner
	f.lead()
	close(left)
	for range 2 {
		if err := <-answers; err != nil {
			t.Error(err)
		}
	}
	return led
}

// TestWatchInBubble: in a bubble of testing/synctest time goes on while a caller watches, and
// commits of others are found by looking.
func TestWatchInBubble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "f.db")
		changed := make(chan struct{}, 100)
		c := config(path)
		c.Changed = func() { changed <- struct{}{} }
		f, other := open(t, c), open(t, config(path))
		f.Watch()
		defer f.Unwatch()
		time.Sleep(time.Second) // of the bubble
		for len(changed) > 0 {
			<-changed
		}
		if err := other.Write(t.Context(), increment); err != nil {
			t.Fatal(err)
		}
		<-changed
	})
}
