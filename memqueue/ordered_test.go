package memqueue_test

import (
	"errors"
	"testing"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/memqueue"
)

// After a message that is refused, the later ones of its session are not stored.
func TestOrderedBatch(t *testing.T) {
	b := memqueue.New(&memqueue.Options{Default: memqueue.QueueOptions{MaxBody: 10}})
	defer func() { _ = b.Close(t.Context()) }()
	q, err := b.Open(t.Context(), "q", nil)
	if err != nil {
		t.Fatal(err)
	}
	var all []*driver.Message
	for i, size := range []int{1, 11, 1, 1} {
		all = append(all, &driver.Message{ID: string(rune('0' + i)), SessionID: "s", Body: make([]byte, size)})
	}
	all = append(all, &driver.Message{ID: "other", SessionID: "other"})
	r := q.Send(t.Context(), all)
	for i, want := range []error{nil, driver.ErrTooLarge, driver.ErrNotSent, driver.ErrNotSent, nil} {
		if !errors.Is(r[i].Err, want) {
			t.Errorf("message %d: %v, want %v", i, r[i].Err, want)
		}
	}
	if s, err := q.Stats(t.Context()); err != nil || s.Ready != 2 {
		t.Errorf("%d messages are stored (%v), want 2", s.Ready, err)
	}
}
