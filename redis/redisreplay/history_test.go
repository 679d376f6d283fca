package redisreplay_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/queue-runtime/queue/replay"
	"github.com/queue-runtime/queue/testbed/redispeer"
)

// TestKeysOfCallersThatLeave: a call whose caller has left goes on behind it, and touches
// nothing that the caller has got.
func TestKeysOfCallersThatLeave(t *testing.T) {
	s := open(t, redispeer.Shared(t).URL(), patient)
	k := replay.KnownKey{Queue: "q", ID: "k", Value: [16]byte{1}}
	for n := range 300 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(n)*time.Microsecond)
		known, err := s.NoteKey(ctx, "group", k)
		if err != nil && known != (replay.KnownKey{}) || err == nil && known != k {
			t.Errorf("NoteKey: %v, %v", known, err)
		}
		if all, err := s.KnownKeys(ctx, "group"); err != nil && len(all) > 0 {
			t.Errorf("KnownKeys: %v, %v", all, err)
		}
		if found, err := s.ForgetKey(ctx, "group", k); err != nil && found {
			t.Errorf("ForgetKey: %v, %v", found, err)
		} else if err != nil && !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		cancel()
	}
}
