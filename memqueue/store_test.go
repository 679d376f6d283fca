package memqueue

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/queue-runtime/queue/driver"
)

// audit recomputes what the store keeps up to date, and compares.
func (s *store) audit() error {
	bytes := 0
	sessions := make(map[string]*session) // as they should be
	inReady := make(map[*session]int)
	inDelayed := make(map[*session]int)
	for _, l := range []*subqueue{&s.active, &s.dead} {
		var counts [locked + 1]int
		ready := 0
		var last uint64
		for _, m := range l.sequence.all() {
			if m.seq <= last {
				return fmt.Errorf("message %d stands behind %d", m.seq, last)
			}
			last = m.seq
			bytes += m.size
			counts[m.state]++
			if m.subqueue != l || (m.session != nil) != (m.SessionID != "" && l == &s.active) {
				return fmt.Errorf("message %d: wrong subqueue or session", m.seq)
			}
			if ss := m.session; ss != nil {
				c := sessions[ss.id]
				if c == nil {
					c = &session{}
					sessions[ss.id] = c
				}
				c.messages++
				if m.state == locked {
					c.locked++
				}
				if s.sessions[ss.id] != ss {
					return fmt.Errorf("message %d: its session is not the store's", m.seq)
				}
			}
			alarm := m.state == scheduled || m.state == delayed || m.state == locked && m.holder.session == nil
			if (m.alarm.rank != 0) != alarm {
				return fmt.Errorf("message %d in state %d: alarm %t", m.seq, m.state, !alarm)
			}
			if (m.expiry.rank != 0) && m.end.IsZero() {
				return fmt.Errorf("message %d expires without an end", m.seq)
			}
			if (m.holder != nil) != (m.state == locked) || (m.token != 0) != (m.state == locked) {
				return fmt.Errorf("message %d in state %d: holder or token", m.seq, m.state)
			}
			in := func(h []*message) bool { return m.rank > 0 && m.rank <= len(h) && h[m.rank-1] == m }
			switch {
			case m.state == locked:
				if !in(m.holder.locked) || m.slot != 0 {
					return fmt.Errorf("message %d is unknown to its holder, or waits", m.seq)
				}
			case m.state == waiting && m.session != nil:
				inReady[m.session]++
				if !in(m.session.ready) {
					return fmt.Errorf("message %d is not ready in its session", m.seq)
				}
			case m.state == waiting:
				ready++
				if !l.ready.has(m) {
					return fmt.Errorf("message %d is not ready in its subqueue", m.seq)
				}
			case m.state == delayed && m.session != nil:
				inDelayed[m.session]++
				if !in(m.session.delayed) {
					return fmt.Errorf("message %d is not delayed in its session", m.seq)
				}
			case m.rank != 0 || m.slot != 0:
				return fmt.Errorf("message %d in state %d waits somewhere", m.seq, m.state)
			}
		}
		if counts != l.counts || ready != l.ready.len() {
			return fmt.Errorf("counts are %v and %d ready, want %v and %d", l.counts, l.ready.len(), counts, ready)
		}
	}
	if bytes != s.bytes {
		return fmt.Errorf("%d bytes, want %d", s.bytes, bytes)
	}
	turns := 0
	for id, ss := range s.sessions {
		want := sessions[id]
		if want == nil {
			want = &session{}
		}
		if ss.messages != want.messages || ss.locked != want.locked || len(ss.ready) != inReady[ss] || len(ss.delayed) != inDelayed[ss] {
			return fmt.Errorf("session %q: %d messages, %d held", id, ss.messages, ss.locked)
		}
		if ss.messages == 0 && ss.holder == nil && ss.state == nil && ss.receiving.empty() && ss.accepting.empty() {
			return fmt.Errorf("session %q is kept for nothing", id)
		}
		open := ss.free() && ss.next() != nil
		if (ss.turn != nil) != open || (ss.rank != 0) != open || open && ss.head != ss.next().seq {
			return fmt.Errorf("session %q: turn %t, rank %d, want %t", id, ss.turn != nil, ss.rank, open)
		}
		if (ss.alarm.rank != 0) != (ss.holder != nil) {
			return fmt.Errorf("session %q: alarm without holder, or the reverse", id)
		}
		if open {
			turns++
		}
	}
	for t := s.turns.first(); t != nil && t != &s.turns.root; t = t.next {
		turns--
	}
	if turns != 0 || len(sessions) > len(s.sessions) {
		return fmt.Errorf("the turns are off by %d", turns)
	}
	return nil
}

// walker does random things to a store through several open queues and checks,
// after each, the store and the promises of the order of delivery.
type walker struct {
	*testing.T
	ctx    context.Context
	random *rand.Rand
	broker *Broker
	store  *store
	queues []driver.Queue
	sess   []driver.Session

	locked map[*driver.Delivery]driver.Source // delivered and not settled, as far as the walker knows
	ended  map[string]string                  // how a message ended
	sent   int
}

func (w *walker) send() {
	m := &driver.Message{ID: fmt.Sprintf("m-%05d", w.sent), Body: make([]byte, w.random.IntN(50))}
	w.sent++
	if w.random.IntN(3) > 0 {
		m.SessionID = fmt.Sprint("s", w.random.IntN(4))
	}
	if w.random.IntN(5) == 0 {
		m.NotBefore = time.Now().Add(time.Duration(w.random.IntN(3000)) * time.Millisecond)
	}
	if w.random.IntN(8) == 0 {
		m.TTL = time.Duration(1+w.random.IntN(3000)) * time.Millisecond
	}
	if r := w.queues[0].Send(w.ctx, []*driver.Message{m})[0]; r.Err != nil {
		w.Fatal(r.Err)
	}
}

// seqOf is the place in the order of storage of what was delivered.
func seqOf(d *driver.Delivery) uint64 {
	r, ok := d.Receipt.(*receipt)
	if !ok {
		return 0 // which stands before everything
	}
	return r.message.seq
}

// overtakes says what, at this moment, stands in the way of message seq of the
// session.
func (w *walker) overtakes(session string, seq uint64, plain bool) error {
	w.store.mu.Lock()
	defer w.store.mu.Unlock()
	for _, m := range w.store.active.sequence.all() {
		if m.SessionID != session || m.seq == seq {
			continue
		}
		switch {
		case plain && m.state == locked:
			return fmt.Errorf("message %d was delivered while %d is held", seq, m.seq)
		case m.seq < seq && m.state == delayed:
			return fmt.Errorf("message %d was delivered while %d waits for redelivery", seq, m.seq)
		case m.seq < seq && m.state == waiting && !m.expired(time.Now()):
			return fmt.Errorf("message %d was delivered before %d", seq, m.seq)
		}
	}
	return nil
}

func (w *walker) receive(src driver.Source, plain bool) {
	got, err := src.Receive(w.ctx, 1, 0) // one at a time, so that the store is as it was
	switch {
	case errors.Is(err, driver.ErrSessionLost), errors.Is(err, driver.ErrClosed):
		return
	case err != nil:
		w.Fatal(err)
	}
	for _, d := range got {
		if how, ok := w.ended[d.ID]; ok {
			w.Fatalf("message %s was delivered after it was %s", d.ID, how)
		}
		if d.SessionID != "" {
			if err := w.overtakes(d.SessionID, seqOf(d), plain); err != nil {
				w.Fatal(err)
			}
		}
		w.locked[d] = src
	}
}

func (w *walker) settle() {
	for d, src := range w.locked {
		s := driver.Settlement{Delivery: d}
		switch w.random.IntN(7) {
		case 0, 1, 2:
			s.Kind = driver.Complete
		case 3:
			s.Kind = driver.Abandon
		case 4:
			s.Kind, s.Delay = driver.Abandon, time.Duration(w.random.IntN(3000))*time.Millisecond
		case 5:
			s.Kind, s.Delay = driver.Release, time.Duration(w.random.IntN(2)*w.random.IntN(3000))*time.Millisecond
		case 6:
			s.Kind, s.Reason = driver.MoveToDeadLetter, "test"
		}
		err := src.Settle(w.ctx, []driver.Settlement{s})[0]
		lost := errors.Is(err, driver.ErrLockLost) || errors.Is(err, driver.ErrClosed)
		switch {
		case err == nil && s.Kind == driver.Complete:
			w.ended[d.ID] = "completed"
		case err == nil && s.Kind == driver.MoveToDeadLetter:
			w.ended[d.ID] = "dead-lettered"
		case err != nil && !lost:
			w.Fatal(err)
		}
		delete(w.locked, d)
		return
	}
}

func (w *walker) session() {
	switch {
	case len(w.sess) > 0 && w.random.IntN(3) == 0:
		i := w.random.IntN(len(w.sess))
		if err := w.sess[i].Close(w.ctx); err != nil {
			w.Fatal(err)
		}
		w.sess = slices.Delete(w.sess, i, i+1)
	case len(w.sess) > 0 && w.random.IntN(3) == 0:
		if _, err := w.sess[0].RenewSession(w.ctx); err != nil && !errors.Is(err, driver.ErrSessionLost) && !errors.Is(err, driver.ErrClosed) {
			w.Fatal(err)
		}
	default:
		id := ""
		if w.random.IntN(2) == 0 {
			id = fmt.Sprint("s", w.random.IntN(5))
		}
		s, err := w.queues[w.random.IntN(len(w.queues))].AcceptSession(w.ctx, id, 0)
		switch {
		case err == nil:
			_, unnamed := s.(driver.UnnamedSession) // of one message, which may have been given back
			for _, o := range w.sess {
				if o.ID() == s.ID() && !unnamed {
					if _, err := o.RenewSession(w.ctx); err == nil {
						w.Fatalf("session %s has two holders", s.ID())
					}
				}
			}
			w.sess = append(w.sess, s)
		case !errors.Is(err, driver.ErrSessionHeld) && !errors.Is(err, driver.ErrNoSession):
			w.Fatal(err)
		}
	}
}

func (w *walker) step() {
	switch n := w.random.IntN(100); {
	case n < 30:
		w.send()
	case n < 50:
		w.receive(w.queues[w.random.IntN(len(w.queues))], true)
	case n < 60:
		if len(w.sess) > 0 {
			w.receive(w.sess[w.random.IntN(len(w.sess))], false)
		}
	case n < 80:
		w.settle()
	case n < 90:
		w.session()
	case n < 92:
		i := 1 + w.random.IntN(len(w.queues)-1)
		if err := w.queues[i].Close(w.ctx); err != nil {
			w.Fatal(err)
		}
		q, err := w.broker.Open(w.ctx, "q", nil)
		if err != nil {
			w.Fatal(err)
		}
		w.queues[i] = q
	case n < 93:
		// The attacker reverses the order of what is not locked.
		if err := w.broker.Rewrite("q", func(all []Stored) []Stored {
			slices.Reverse(all)
			return all
		}); err != nil {
			w.Fatal(err)
		}
	default:
		time.Sleep(time.Duration(w.random.IntN(800)) * time.Millisecond)
	}
	s := w.store
	s.lock()
	err := s.audit()
	s.unlock()
	if err != nil {
		w.Fatal(err)
	}
}

// TestRandomWalk: whatever is done in whatever order, the store is consistent,
// nothing is overtaken, and every message ends in one place.
func TestRandomWalk(t *testing.T) {
	for seed := range uint64(12) {
		synctest.Test(t, func(t *testing.T) {
			w := &walker{
				T: t, ctx: t.Context(), random: rand.New(rand.NewPCG(seed, 3)),
				broker: New(&Options{Default: QueueOptions{Lock: time.Second, MaxDeliveries: 4, DeadLetterExpired: seed%2 == 0}}),
				locked: make(map[*driver.Delivery]driver.Source), ended: make(map[string]string),
			}
			for range 3 {
				q, err := w.broker.Open(w.ctx, "q", nil)
				if err != nil {
					t.Fatal(err)
				}
				w.queues = append(w.queues, q)
			}
			w.store = w.broker.stores["q"]
			for range 400 {
				w.step()
			}
			// Everything comes to an end.
			for _, s := range w.sess {
				if err := s.Close(w.ctx); err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(10 * time.Second)
			for {
				got, err := w.queues[0].Receive(w.ctx, 10, 10*time.Second)
				if err != nil {
					t.Fatal(err)
				}
				if len(got) == 0 {
					break
				}
				for _, d := range got {
					if err := w.queues[0].Settle(w.ctx, []driver.Settlement{{Delivery: d, Kind: driver.Complete}})[0]; err != nil {
						t.Fatal(err)
					}
				}
			}
			w.store.lock()
			if n := w.store.active.sequence.live; n != 0 {
				t.Errorf("seed %d: %d messages are left", seed, n)
			}
			if len(w.store.sessions) != 0 {
				t.Errorf("seed %d: %d sessions are left", seed, len(w.store.sessions))
			}
			for _, m := range w.store.dead.sequence.all() {
				if w.ended[m.ID] == "completed" {
					t.Errorf("seed %d: message %s was completed and is a dead letter", seed, m.ID)
				}
				delete(w.ended, m.ID)
			}
			for id, how := range w.ended {
				if how == "dead-lettered" {
					t.Errorf("seed %d: message %s was dead-lettered and is no dead letter", seed, id)
				}
			}
			w.store.unlock()
			if err := w.broker.Close(w.ctx); err != nil {
				t.Fatal(err)
			}
		})
	}
}
