package deadletter

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/envelope"
	"github.com/queue-runtime/queue/internal/sealing"
	"github.com/queue-runtime/queue/keys"
	"github.com/queue-runtime/queue/memqueue"
)

// TestCloseClosesItsKeys: a cache that was made for the Queue is closed with it, and that of the
// Client is not.
func TestCloseClosesItsKeys(t *testing.T) {
	ring, err := keys.NewRing()
	if err != nil {
		t.Fatal(err)
	}
	c, err := queue.New(memqueue.New(nil), &queue.Options{Keys: ring})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close(context.Background()) }()
	for _, o := range []*Options{nil, {Keys: ring}} {
		q, err := Open(t.Context(), c, "orders", o)
		if err != nil {
			t.Fatal(err)
		}
		if (q.own != nil) != (o != nil) {
			t.Errorf("%+v: a cache of its own: %v", o, q.own)
		}
		if err := q.Close(t.Context()); err != nil {
			t.Error(err)
		}
		_, err = q.opener.Valid.CurrentKeyID(t.Context())
		if closed := err != nil && strings.Contains(err.Error(), "closed"); closed != (o != nil) {
			t.Errorf("%+v: after Close: %v", o, err)
		}
	}
}

// TestEarly: a letter is not due before its NotBefore, nor before it was sealed, unless freshness
// is skipped; all clocks may differ.
func TestEarly(t *testing.T) {
	now := time.UnixMilli(1_800_000_000_000)
	const skew = time.Minute
	at := func(d time.Duration) int64 { return now.Add(d).UnixMilli() }
	for name, c := range map[string]struct {
		h    envelope.Header
		skip bool
		want bool
	}{
		"now":                       {envelope.Header{EncryptedAt: at(0)}, false, false},
		"sealed within the skew":    {envelope.Header{EncryptedAt: at(skew)}, false, false},
		"sealed in the future":      {envelope.Header{EncryptedAt: at(skew + time.Millisecond)}, false, true},
		"the same, and age skipped": {envelope.Header{EncryptedAt: at(skew + time.Millisecond)}, true, false},
		"due within the skew":       {envelope.Header{EncryptedAt: at(0), NotBefore: at(skew)}, false, false},
		"due later":                 {envelope.Header{EncryptedAt: at(0), NotBefore: at(skew + time.Millisecond)}, true, true},
		"due before its sealing":    {envelope.Header{EncryptedAt: at(skew + time.Millisecond), NotBefore: at(0)}, false, true},
	} {
		x := &redrive{q: &Queue{cfg: queue.CryptoConfig{MaxClockSkew: skew, InsecureSkipFreshness: c.skip}}}
		if got := x.early(&sealing.Opened{Envelope: envelope.EncryptedMessage{Header: c.h}}, now); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

// TestIncompleteErrorSays how many are left and what to do.
func TestIncompleteErrorSays(t *testing.T) {
	for _, c := range []struct {
		e    IncompleteError
		want []string
	}{
		{IncompleteError{Reached: 3, Left: 0, end: drained}, []string{"3 were looked at and 0 are left", "other receivers hold them"}},
		{IncompleteError{Reached: 3, Left: 5, end: repeated}, []string{"5 are left", "lengthen the lock"}},
		{IncompleteError{Reached: 3, Left: 5, end: behind}, []string{"5 are left", "select a whole session, or all"}},
		{IncompleteError{Reached: 3, Left: -1, end: bounded}, []string{"an unknown number is left", "repeat this for the rest"}},
	} {
		for _, want := range c.want {
			if got := c.e.Error(); !strings.Contains(got, want) {
				t.Errorf("%q does not say %q", got, want)
			}
		}
	}
	for name, c := range map[string]struct {
		r    remainder
		want int64
	}{
		"none at the beginning":             {remainder{end: repeated, begun: letterCount{n: 0}, now: letterCount{n: 4}}, 0},
		"all reached, came round again":     {remainder{end: repeated, begun: letterCount{n: 4}, now: letterCount{n: 4}, reached: 4}, 0},
		"no count at the end":               {remainder{end: drained, begun: letterCount{n: 4}, now: letterCount{n: -1}, reached: 3}, -1},
		"no count at the beginning":         {remainder{end: bounded, begun: letterCount{n: -1}, now: letterCount{n: 4}, reached: 3}, -1},
		"all reached of an estimate":        {remainder{end: drained, begun: letterCount{n: 4, approximate: true}, now: letterCount{n: 9}, reached: 4}, 0},
		"all reached of an estimate, bound": {remainder{end: bounded, begun: letterCount{n: 4, approximate: true}, now: letterCount{n: 9}, reached: 4, kept: 4}, 5},
	} {
		if got := c.r.left(); got != c.want {
			t.Errorf("%s: %d left, want %d", name, got, c.want)
		}
	}
}
