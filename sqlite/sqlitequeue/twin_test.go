package sqlitequeue_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/memqueue"
	"github.com/queue-runtime/queue/sqlite/sqlitequeue"
)

// TestTwin does the same random things to a queue here and to one of memqueue,
// over two connections each, and wants the same answers. Durations have halves of
// a second and time passes in whole ones, so that nothing falls due at the very
// moment of a call.
func TestTwin(t *testing.T) {
	t.Parallel()
	for seed := range uint64(soak(2, 200)) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { newTwin(t, seed).run(250) })
		})
	}
}

const twins = 2 // here, and of memqueue

type twin struct {
	*testing.T
	path     string
	r        *rand.Rand
	trace    []string
	sent     int
	broker   [twins][2]driver.Broker
	queue    [twins][2]driver.Queue
	dead     [twins][2]driver.Queue
	held     []heldTwin
	sessions []sessionTwin
}

// heldTwin is one delivery, as both have it, and where it came from.
type heldTwin struct {
	source   [twins]driver.Source
	delivery [twins]*driver.Delivery
	dead     bool
}

type sessionTwin [twins]driver.Session

func newTwin(t *testing.T, seed uint64) *twin {
	w := &twin{T: t, r: rand.New(rand.NewPCG(seed, 7))} //nolint:gosec // G404: a test that repeats
	ctx := t.Context()
	path := filepath.Join(t.TempDir(), "q.db")
	w.path = path
	mem := memqueue.New(nil)
	err := mem.Declare("q", memqueue.QueueOptions{
		Lock: 10500 * time.Millisecond, MaxDeliveries: 4, DeadLetterExpired: true, Retention: time.Hour,
	})
	for c := range 2 {
		b, e := sqlitequeue.Open(ctx, path, &sqlitequeue.Options{Synchronous: sqlitequeue.Normal})
		if err = errors.Join(err, e); err != nil {
			t.Fatal(err)
		}
		err = b.Declare(ctx, "q", &sqlitequeue.QueueOptions{Lock: 10500 * time.Millisecond, MaxDeliveries: 4, Retention: time.Hour})
		w.broker[0][c], w.broker[1][c] = b, mem.Connect()
	}
	if err != nil {
		t.Fatal(err)
	}
	for c := range 2 {
		w.open(c)
	}
	t.Cleanup(func() {
		for _, p := range append(w.broker[0][:], mem) {
			if err := p.Close(context.Background()); err != nil {
				t.Error(err)
			}
		}
	})
	return w
}

func (w *twin) open(c int) {
	for i := range twins {
		var err, err2 error
		w.queue[i][c], err = w.broker[i][c].Open(w.Context(), "q", nil)
		if err == nil {
			w.dead[i][c], err2 = w.queue[i][c].DeadLetters(w.Context())
		}
		if err = errors.Join(err, err2); err != nil {
			w.Fatal(err)
		}
	}
}

// same wants both answers to be one.
func (w *twin) same(what string, answers [twins]string) {
	w.Helper()
	w.trace = append(w.trace, fmt.Sprintf("%s: %s", what, answers[1]))
	if answers[0] != answers[1] {
		w.Fatalf("%s\nsqlitequeue: %s\nmemqueue:    %s\nafter:\n%s", what, answers[0], answers[1], strings.Join(w.trace[max(0, len(w.trace)-60):], "\n"))
	}
}

func kindText(err error) string {
	switch {
	case err == nil:
		return "ok"
	case errors.Is(err, errors.ErrUnsupported):
		return "unsupported"
	}
	return fmt.Sprintf("kind %d", driver.KindOf(err))
}

func describe(list []*driver.Delivery) string {
	var b strings.Builder
	for _, d := range list {
		fmt.Fprintf(&b, " %s/%s#%d", d.ID, d.SessionID, d.Count)
		if d.DeadLetter != nil {
			fmt.Fprintf(&b, "(%s %s)", strings.TrimPrefix(d.DeadLetter.Reason, "ttl_"), d.DeadLetter.Queue)
		}
	}
	return b.String()
}

func (w *twin) half(atMost int) time.Duration {
	return time.Duration(w.r.IntN(atMost))*time.Second + 500*time.Millisecond
}

func (w *twin) run(steps int) {
	do := []struct {
		weight int
		f      func()
	}{
		{20, w.send}, {20, w.receive}, {20, w.settle}, {8, w.accept}, {16, w.inSession}, {4, w.renew},
		{12, w.pass}, {5, w.stats}, {4, w.peek}, {5, w.receiveDead}, {1, w.reopen},
	}
	total := 0
	for _, d := range do {
		total += d.weight
	}
	for i := range steps {
		if i%25 == 0 {
			holds(w, w.path)
		}
		n := w.r.IntN(total)
		for _, d := range do {
			if n -= d.weight; n < 0 {
				d.f()
				break
			}
		}
	}
	w.stats()
	w.peek()
	holds(w, w.path)
}

func (w *twin) send() {
	var list []*driver.Message
	what := "send"
	for range 1 + w.r.IntN(3) {
		w.sent++
		m := &driver.Message{ID: fmt.Sprintf("m%d", w.sent), Body: []byte{1}}
		if w.r.IntN(3) > 0 {
			m.SessionID = string(rune('a' + w.r.IntN(4)))
		}
		if w.r.IntN(4) == 0 {
			m.NotBefore = time.Now().Add(w.half(8))
		}
		if w.r.IntN(4) == 0 {
			m.TTL = w.half(12)
		}
		what += fmt.Sprintf(" %s/%s not before %s ttl %s", m.ID, m.SessionID, m.NotBefore, m.TTL)
		list = append(list, m)
	}
	c := w.r.IntN(2)
	var out [twins]string
	for i := range twins {
		for _, r := range w.queue[i][c].Send(w.Context(), list) {
			out[i] += kindText(r.Err) + " "
		}
	}
	w.same(what, out)
}

// take receives from two sources that are the same.
func (w *twin) take(what string, src [twins]driver.Source) {
	n := 1 + w.r.IntN(3)
	var out [twins]string
	var got [twins][]*driver.Delivery
	for i := range twins {
		var err error
		got[i], err = src[i].Receive(w.Context(), n, 0)
		out[i] = kindText(err) + describe(got[i])
	}
	w.same(fmt.Sprintf("%s, at most %d", what, n), out)
	for k := range got[0] {
		w.held = append(w.held, heldTwin{src, [twins]*driver.Delivery{got[0][k], got[1][k]}, false})
	}
}

func (w *twin) receive() {
	c := w.r.IntN(2)
	w.take(fmt.Sprint("receive ", c), [twins]driver.Source{w.queue[0][c], w.queue[1][c]})
}

// receiveDead takes all dead letters: what fell due at the same time has no
// promised order.
func (w *twin) receiveDead() {
	c := w.r.IntN(2)
	src := [twins]driver.Source{w.dead[0][c], w.dead[1][c]}
	var out [twins]string
	var got [twins][]*driver.Delivery
	for i := range twins {
		var err error
		got[i], err = src[i].Receive(w.Context(), 100, 0)
		slices.SortFunc(got[i], byID)
		out[i] = kindText(err) + describe(got[i])
	}
	w.same(fmt.Sprint("receive dead ", c), out)
	for k := range got[0] {
		w.held = append(w.held, heldTwin{src, [twins]*driver.Delivery{got[0][k], got[1][k]}, true})
	}
}

func byID(a, b *driver.Delivery) int { return strings.Compare(a.ID, b.ID) }

func (w *twin) settle() {
	if len(w.held) == 0 {
		return
	}
	k := w.r.IntN(len(w.held))
	h := w.held[k]
	s := driver.Settlement{Kind: driver.Complete, Reason: "r"}
	switch n := w.r.IntN(10); {
	case n < 4:
		s.Kind = driver.Abandon
		if n < 2 {
			s.Delay = w.half(5)
		}
		if n%2 == 1 {
			s.Kind = driver.Release
		}
	case n < 6 && !h.dead:
		s.Kind = driver.MoveToDeadLetter
	}
	var out [twins]string
	for i := range twins {
		s.Delivery = h.delivery[i]
		out[i] = kindText(h.source[i].Settle(w.Context(), []driver.Settlement{s})[0])
	}
	w.same(fmt.Sprintf("%s %s delay %s", s.Kind, h.delivery[1].ID, s.Delay), out)
	if w.r.IntN(5) > 0 { // settle some again
		w.held = append(w.held[:k], w.held[k+1:]...)
	}
}

func (w *twin) renew() {
	if len(w.held) == 0 {
		return
	}
	h := w.held[w.r.IntN(len(w.held))]
	var out [twins]string
	for i := range twins {
		out[i] = kindText(h.source[i].Renew(w.Context(), []*driver.Delivery{h.delivery[i]})[0].Err)
	}
	w.same("renew "+h.delivery[1].ID, out)
}

func (w *twin) accept() {
	id := ""
	if w.r.IntN(2) == 0 {
		id = string(rune('a' + w.r.IntN(5)))
	}
	c := w.r.IntN(2)
	what := fmt.Sprintf("accept %q %d", id, c)
	var out [twins]string
	var s sessionTwin
	for i := range twins {
		if i == 1 && s[0] != nil && !unnamed(s[0]) {
			// Of several that came free at the same moment it may be any.
			id = s[0].ID()
		}
		got, err := w.queue[i][c].AcceptSession(w.Context(), id, 0)
		out[i] = kindText(err)
		switch {
		case err != nil:
			continue
		case unnamed(got):
			out[i] += " unnamed"
		default:
			out[i] += " " + got.ID()
		}
		s[i] = got
	}
	w.same(what, out)
	if s[0] != nil {
		w.sessions = append(w.sessions, s)
	}
}

// unnamed reports whether s is the session of a message without a SessionID.
func unnamed(s driver.Session) bool {
	_, ok := s.(driver.UnnamedSession)
	return ok
}

func (w *twin) inSession() {
	if len(w.sessions) == 0 {
		return
	}
	k := w.r.IntN(len(w.sessions))
	s := w.sessions[k]
	var out [twins]string
	what := "session " + s[1].ID()
	switch n := w.r.IntN(10); {
	case n < 6:
		w.take(what, [twins]driver.Source{s[0], s[1]})
		return
	case n < 7:
		what += " renew"
		for i := range twins {
			_, err := s[i].RenewSession(w.Context())
			out[i] = kindText(err)
		}
	case n < 8 && !unnamed(s[0]):
		state := []byte(fmt.Sprint(w.r.IntN(100)))
		what += " state"
		for i := range twins {
			st := s[i].(driver.StatefulSession)
			old, err := st.State(w.Context())
			out[i] = fmt.Sprintf("%s %q %s", kindText(err), old, kindText(st.SetState(w.Context(), state)))
		}
	default:
		what += " close"
		for i := range twins {
			out[i] = kindText(s[i].Close(w.Context()))
		}
		w.sessions = append(w.sessions[:k], w.sessions[k+1:]...)
	}
	w.same(what, out)
}

func (w *twin) pass() {
	d := time.Duration(1+w.r.IntN(6)) * time.Second
	time.Sleep(d) // in a bubble
	w.trace = append(w.trace, "pass "+d.String())
}

func (w *twin) stats() {
	c := w.r.IntN(2)
	var out [twins]string
	for i := range twins {
		for _, q := range []driver.Queue{w.queue[i][c], w.dead[i][c]} {
			st, err := q.Stats(w.Context())
			out[i] += fmt.Sprintf("%s ready %d in flight %d scheduled %d dead %d approximate %v; ",
				kindText(err), st.Ready, st.InFlight, st.Scheduled, st.DeadLetters, st.Approximate)
		}
	}
	w.same("stats", out)
}

func (w *twin) peek() {
	c := w.r.IntN(2)
	for dead, all := range [][twins][2]driver.Queue{w.queue, w.dead} {
		var out [twins]string
		for i := range twins {
			var list []*driver.Delivery
			for cursor := ""; ; {
				page, next, err := all[i][c].Peek(w.Context(), cursor, 3)
				out[i] += kindText(err) + fmt.Sprint(len(page))
				list = append(list, page...)
				if cursor = next; cursor == "" {
					break
				}
			}
			if dead == 1 {
				slices.SortFunc(list, byID)
			}
			out[i] += describe(list)
		}
		w.same("peek", out)
	}
}

// reopen closes a queue, which gives up all that it holds.
func (w *twin) reopen() {
	c := w.r.IntN(2)
	var out [twins]string
	for i := range twins {
		out[i] = kindText(w.queue[i][c].Close(w.Context()))
	}
	w.same(fmt.Sprint("close ", c), out)
	w.open(c)
}
