package memqueue_test

import (
	"fmt"
	"testing"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/memqueue"
)

// fill opens a queue with that many messages, in so many sessions; 0: none.
func fill(b *testing.B, messages, sessions int) driver.Queue {
	b.Helper()
	q := open(b, with(memqueue.QueueOptions{MaxBatch: 1000, MaxDeliveries: -1}), "q")
	batch := make([]*driver.Message, 0, 1000)
	for i := range messages {
		m := &driver.Message{ID: fmt.Sprint("m", i), Body: []byte("body")}
		if sessions > 0 {
			m.SessionID = fmt.Sprint("s", i%sessions)
		}
		if batch = append(batch, m); len(batch) == 1000 || i == messages-1 {
			send(b, q, batch...)
			batch = batch[:0]
		}
	}
	return q
}

// BenchmarkCycle sends a message, receives one and settles it in a queue that
// holds many: the time must not depend on how many.
func BenchmarkCycle(b *testing.B) {
	for _, sessions := range []int{0, 1000} {
		for _, depth := range []int{1000, 1_000_000} {
			for _, kind := range []driver.SettleKind{driver.Complete, driver.Abandon} {
				b.Run(fmt.Sprintf("%s/sessions=%d/depth=%d", kind, sessions, depth), func(b *testing.B) {
					q := fill(b, depth, sessions)
					m := &driver.Message{ID: "m", Body: []byte("body")}
					if sessions > 0 {
						m.SessionID = "s0"
					}
					b.ReportAllocs()
					for b.Loop() {
						if kind == driver.Complete {
							send(b, q, m)
						}
						d, err := q.Receive(b.Context(), 1, 0)
						if err != nil || len(d) != 1 {
							b.Fatal(len(d), err)
						}
						settle(b, q, d[0], kind, 0)
					}
				})
			}
		}
	}
}

// BenchmarkPeek looks at the middle of a queue out of which half was taken.
func BenchmarkPeek(b *testing.B) {
	for _, depth := range []int{1000, 1_000_000} {
		b.Run(fmt.Sprintf("depth=%d", depth), func(b *testing.B) {
			q := fill(b, 2*depth, 0)
			_, middle, err := q.Peek(b.Context(), "", depth/2)
			if err != nil {
				b.Fatal(err)
			}
			for taken := 0; taken < depth; {
				d, err := q.Receive(b.Context(), 1000, 0)
				if err != nil {
					b.Fatal(err)
				}
				taken += len(d)
				for _, d := range d {
					settle(b, q, d, driver.Complete, 0)
				}
			}
			for b.Loop() {
				if d, _, err := q.Peek(b.Context(), middle, 10); err != nil || len(d) != 10 {
					b.Fatal(len(d), err)
				}
			}
		})
	}
}

// BenchmarkSessions accepts the next session, handles a message and closes it.
func BenchmarkSessions(b *testing.B) {
	for _, depth := range []int{1000, 1_000_000} {
		b.Run(fmt.Sprintf("depth=%d", depth), func(b *testing.B) {
			q := fill(b, depth, depth/10)
			for b.Loop() {
				s, err := q.AcceptSession(b.Context(), "", 0)
				if err != nil {
					b.Fatal(err)
				}
				d, err := s.Receive(b.Context(), 1, 0)
				if err != nil || len(d) != 1 {
					b.Fatal(len(d), err)
				}
				settle(b, s, d[0], driver.Abandon, 0)
				if err := s.Close(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkBody shows what a body of 8 KiB costs, sealed or not.
func BenchmarkBody(b *testing.B) {
	for _, sealed := range []bool{false, true} {
		b.Run(fmt.Sprintf("sealed=%t", sealed), func(b *testing.B) {
			q := open(b, with(memqueue.QueueOptions{}), "q")
			m := []*driver.Message{{ID: "m", Body: make([]byte, 8<<10), Sealed: sealed}}
			b.ReportAllocs()
			for b.Loop() {
				q.Send(b.Context(), m)
				d, _ := q.Receive(b.Context(), 1, 0)
				settle(b, q, d[0], driver.Complete, 0)
			}
		})
	}
}
