package sqlitereplay_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/queue-runtime/queue/replay"
	"github.com/queue-runtime/queue/sqlite/sqlitereplay"
)

// workersVariable makes a claimer run several receivers until it is killed.
const workersVariable = "SQLITEREPLAY_TEST_WORKERS"

// receiversEach is the number of receivers in a process.
const receiversEach = 4

// workers runs receivers that claim and consume the messages of a stream in
// batches, as a broker delivers them that repeats itself. Each completed message
// is reported.
func workers(path string, _ io.Reader, out io.Writer) error {
	// Not synced: a killed process loses nothing for that.
	s, err := sqlitereplay.Open(context.Background(), path, &sqlitereplay.Options{Normal: true, Bounds: replay.Bounds{Recent: 1000}})
	if err != nil {
		return err
	}
	fmt.Fprintln(out, "ready")
	lines := make(chan string)
	errs := make(chan error)
	for range receiversEach {
		go func() {
			for {
				if err := work(s, lines); err != nil {
					errs <- err
					return
				}
			}
		}()
	}
	for {
		select {
		case line := <-lines:
			fmt.Fprint(out, line)
		case err := <-errs:
			return err
		}
	}
}

// work handles one batch. Which messages the broker delivers moves on with time,
// so that all processes meet on the same ones.
func work(s *sqlitereplay.Store, lines chan<- string) error {
	ctx := context.Background()
	first := int(time.Now().UnixMilli())
	var batch []replay.Request
	for range 8 {
		batch = append(batch, request(first-rand.IntN(400))) //nolint:gosec // G404: traffic, not a secret
	}
	c, err := s.Begin(ctx, "group", batch)
	if err != nil {
		return err
	}
	var f []replay.Finish
	for i := range c {
		switch {
		case c[i].Err == nil:
			kind := replay.Consumed
			if rand.IntN(10) == 0 { //nolint:gosec // G404
				kind = replay.Released
			}
			f = append(f, replay.Finish{ID: batch[i].ID, Token: batch[i].Token, Kind: kind})
		case errors.Is(c[i].Err, replay.ErrBusy), errors.Is(c[i].Err, replay.ErrDuplicate), errors.Is(c[i].Err, replay.ErrReused):
		default:
			return c[i].Err
		}
	}
	got, err := s.Finish(ctx, "group", f)
	if err != nil {
		return err
	}
	var report strings.Builder
	for i := range got {
		if got[i].Err != nil {
			return fmt.Errorf("finish: %w", got[i].Err)
		}
		if f[i].Kind == replay.Consumed {
			fmt.Fprintf(&report, "%d.\n", f[i].ID.Sequence) // the dot tells a whole line
		}
	}
	lines <- report.String()
	return nil
}

// TestWorkersKilled: 16 receivers in 4 processes on one file, killed at random:
// no message is completed twice. For 10 minutes with QRT_SOAK=1, 2 seconds else.
func TestWorkersKilled(t *testing.T) {
	span := 2 * time.Second
	if os.Getenv("QRT_SOAK") == "1" {
		span = 10 * time.Minute
	}
	path := filepath.Join(t.TempDir(), "replay.db")
	completed := make(chan string, 1024)
	done := make(chan struct{})
	seen := make(map[string]bool)
	var some atomic.Bool // something was completed
	go func() {
		defer close(done)
		for line := range completed {
			if seen[line] {
				t.Errorf("message %s was completed twice", line)
			}
			seen[line] = true
			some.Store(true)
		}
	}()
	ended := make(chan struct{})
	for range 4 {
		go func() {
			defer func() { ended <- struct{}{} }()
			for end := time.Now().Add(span); time.Now().Before(end) || !some.Load(); {
				c := startClaimer(t, path, workersVariable+"=1")
				kill := time.AfterFunc(time.Duration(100+rand.IntN(500))*time.Millisecond, func() { _ = c.cmd.Process.Kill() }) //nolint:gosec // G404
				for c.lines.Scan() {
					if line := c.lines.Text(); strings.HasSuffix(line, ".") {
						completed <- line
					}
				}
				kill.Stop()
				if err := c.cmd.Wait(); err != nil && !strings.Contains(err.Error(), "killed") {
					t.Errorf("a process ended: %v", err)
					return
				}
			}
		}()
	}
	for range 4 {
		<-ended
	}
	close(completed)
	<-done
	if len(seen) == 0 {
		t.Error("nothing was completed")
	}
	s := open(t, path, nil)
	n, err := s.Stats(t.Context())
	t.Logf("%d messages were completed; %+v, %v", len(seen), n, err)
}
