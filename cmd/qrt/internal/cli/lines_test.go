package cli

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	queue "github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/cmd/qrt/internal/display"
	"github.com/queue-runtime/queue/driver"
)

// TestSendReportIsBounded: a report of a million messages takes no more than one of a few
// thousand, and still shows what failed.
func TestSendReportIsBounded(t *testing.T) {
	for _, all := range []bool{false, true} {
		r := sendReport{all: all}
		var before, after runtime.MemStats
		runtime.GC() // measures what is in use, not what is yet to be collected
		runtime.ReadMemStats(&before)
		const sent = 1 << 20
		for i := range sent {
			r.Sent++
			m := sentReport{MessageID: strings.Repeat("x", 100)}
			if i%1000 == 999 {
				r.Sent--
				r.Failed++
				m.Error = fmt.Sprint("error ", i)
			}
			r.note(m)
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		if n := len(r.Messages); n > 2*maxSent || n+r.LeftOut != sent || r.failures != maxSent {
			t.Errorf("all %t: %d messages, %d left out, %d failures", all, n, r.LeftOut, r.failures)
		}
		if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 16<<20 {
			t.Errorf("all %t: the report of %d messages takes %d bytes", all, sent, grown)
		}
		var b strings.Builder
		r.show(display.New(&b, display.Never))
		if !strings.Contains(b.String(), "error 999\n") || !strings.Contains(b.String(), fmt.Sprintf("and %d more", r.Failed-maxSent)) {
			t.Errorf("all %t: %s", all, b.String())
		}
	}
}

// interrupted is a source that fails a few times, gives one message, and is then empty.
type interrupted struct {
	fails int
	err   error
	asked int
	then  func()
}

func (s *interrupted) Receive(ctx context.Context, _ int) ([]*queue.Delivery, error) {
	s.asked++
	if s.asked <= s.fails {
		return nil, queue.NewError("receive", "q", s.err)
	}
	s.then()
	return nil, ctx.Err()
}

// TestFollowOutlastsAnOutage: --follow goes on after errors that pass, with growing pauses,
// and ends at one that does not; without --follow each ends it.
func TestFollowOutlastsAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		locked := driver.Errorf(driver.Unavailable, "the file is locked")
		run := func(o receiveOptions, src *interrupted) (time.Duration, error) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			src.then = cancel
			out := &output{w: io.Discard, stop: func() {}}
			a := &app{Streams: Streams{Out: out, Err: io.Discard}, out: out}
			a.draw(display.Never)
			r := &receiving{a: a, o: o}
			begin := time.Now()
			err := r.run(ctx, src, !o.follow)
			return time.Since(begin), err
		}
		src := &interrupted{fails: 6, err: locked}
		if took, err := run(receiveOptions{follow: true}, src); err != context.Canceled || src.asked != 7 || took != (1+2+4+8+15+15)*time.Second {
			t.Errorf("--follow: %v after %d calls and %s", err, src.asked, took)
		}
		src = &interrupted{fails: 1, err: driver.Errorf(driver.Permission, "not allowed")}
		if _, err := run(receiveOptions{follow: true}, src); err == nil || src.asked != 1 {
			t.Errorf("--follow and an error that does not pass: %v after %d calls", err, src.asked)
		}
		src = &interrupted{fails: 1, err: locked}
		if _, err := run(receiveOptions{max: 1}, src); err == nil || src.asked != 1 {
			t.Errorf("without --follow: %v after %d calls", err, src.asked)
		}
	})
}

func TestNearest(t *testing.T) {
	existing := []string{"orders", "refunds", "task-tactician"}
	for name, want := range map[string]string{
		"order": "orders", "Orders": "orders", "ordres": "orders", "task_tactican": "task-tactician", "payments": "", "x": "", "": "",
	} {
		if got := nearest(name, existing); got != want {
			t.Errorf("%q: %q, want %q", name, got, want)
		}
	}
}
