package replay_test

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/queue-runtime/queue/replay"
)

// TestBacklogInAnyOrder: a backlog of several times as many messages as the store keeps tags of,
// delivered in any order, is handled to the last of it, and none of it is missing.
func TestBacklogInAnyOrder(t *testing.T) {
	const recent, messages = 1024, 10_240
	m, err := replay.NewMemory(&replay.MemoryOptions{Bounds: replay.Bounds{Recent: recent}})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	id := replay.Identity{Sender: "sender"}
	binary.BigEndian.PutUint64(id.Stream[:], uint64(now.Add(time.Second).UnixMilli())<<16) //nolint:gosec // G115: after 1970
	for i, n := range rand.New(rand.NewPCG(1, 2)).Perm(messages) {                         //nolint:gosec // G404: a schedule, not a secret
		id.Sequence = uint64(n) + 1 //nolint:gosec // G115: small
		r := replay.Request{
			ID: id, Token: replay.NewToken(), SealedAt: now.Add(time.Duration(n) * time.Millisecond), FreshUntil: now.Add(time.Hour), Now: now,
			RetryWindow: time.Hour, Lease: time.Minute, MaxMessageAge: time.Hour, Settled: uint64(n), //nolint:gosec // G115: small
		}
		c, err := m.Begin(t.Context(), "group", []replay.Request{r})
		if err != nil || c[0].Err != nil {
			t.Fatalf("Begin of the %dth message, sequence %d: %+v, %v; want a claim", i+1, id.Sequence, c, err)
		}
		if _, err := m.Finish(t.Context(), "group", []replay.Finish{{ID: id, Token: r.Token, Kind: replay.Consumed}}); err != nil {
			t.Fatal(err)
		}
	}
	s, err := m.Stats(t.Context())
	if err != nil || s.Recent > 2*recent || s.Records != 0 {
		t.Errorf("Stats: %+v, %v; want at most %d recent and no records", s, err, 2*recent)
	}
	for s, err := range m.Streams(t.Context(), "group") {
		if err != nil || len(s.Missing) > 0 || s.MissingForgotten > 0 || s.Consumed != messages {
			t.Errorf("Streams: %+v, %v; want all %d consumed and none missing", s, err, messages)
		}
	}
}
