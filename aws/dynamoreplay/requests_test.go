package dynamoreplay_test

import (
	"encoding/binary"
	"fmt"
	"maps"
	"testing"
	"time"

	"github.com/queue-runtime/queue/aws/dynamoreplay"
	"github.com/queue-runtime/queue/replay"
	"github.com/queue-runtime/queue/testbed/dynalite"
	"github.com/queue-runtime/queue/testbed/httpproxy"
)

// request asks for a message of a sender's stream.
func request(sender int, sequence uint64) replay.Request {
	now := time.Now()
	r := replay.Request{
		ID: replay.Identity{Sender: fmt.Sprint("sender-", sender), Sequence: sequence}, Token: replay.NewToken(),
		SealedAt: now, FreshUntil: now.Add(time.Hour), Now: now, RetryWindow: time.Hour, Lease: time.Minute, MaxMessageAge: time.Hour,
	}
	binary.BigEndian.PutUint64(r.ID.Stream[:], 1_800_000_000_000<<16)
	return r
}

// handle claims and consumes messages, and returns the requests of both calls and the
// time that the longer one took.
func handle(t *testing.T, server *dynalite.Server, s replay.Store, batch []replay.Request) (begin, finish map[string]int, longest time.Duration) {
	t.Helper()
	server.Counts()
	start := time.Now()
	c, err := s.Begin(t.Context(), "group", batch)
	if err != nil {
		t.Fatal(err)
	}
	longest = time.Since(start)
	begin = server.Counts()
	f := make([]replay.Finish, len(batch))
	for i := range c {
		if c[i].Err != nil {
			t.Fatalf("%+v: %v", batch[i].ID, c[i].Err)
		}
		f[i] = replay.Finish{ID: batch[i].ID, Token: batch[i].Token, Kind: replay.Consumed}
	}
	start = time.Now()
	got, err := s.Finish(t.Context(), "group", f)
	if err != nil {
		t.Fatal(err)
	}
	for i := range got {
		if got[i].Err != nil {
			t.Fatalf("%+v: %v", batch[i].ID, got[i].Err)
		}
	}
	return begin, server.Counts(), max(longest, time.Since(start))
}

// TestRequests: Begin and Finish of 32 messages are one request for each page, all at
// once, and a page that another receiver changed costs one more. Then the item of the store
// is read, once for the call.
func TestRequests(t *testing.T) {
	server := serve(t, nil)
	s := open(t, &dynamoreplay.Options{Endpoint: server.URL(), ChangeInterval: time.Hour})
	other := open(t, &dynamoreplay.Options{Endpoint: server.URL(), ChangeInterval: time.Hour})
	for _, senders := range []int{1, 8, 16} {
		next := uint64(1)
		batch := func() (r []replay.Request) {
			for i := range 32 {
				r = append(r, request(senders*100+i%senders, next+uint64(i/senders))) //nolint:gosec // G115: small
			}
			next += uint64(32 / senders) //nolint:gosec // G115: small
			return r
		}
		handle(t, server, s, batch()) // makes the pages
		want := map[string]int{"UpdateItem": senders}
		begin, finish, _ := handle(t, server, s, batch())
		if !maps.Equal(begin, want) || !maps.Equal(finish, want) {
			t.Errorf("32 messages of %d senders: Begin %v, Finish %v, want %v each", senders, begin, finish, want)
		}
		const away = 500 * time.Millisecond // long, so that a busy machine does not matter
		server.Fail(httpproxy.Faults{Delay: away})
		if _, _, longest := handle(t, server, s, batch()); longest >= 2*away {
			t.Errorf("32 messages of %d senders took %v with a store %v away: want one step", senders, longest, away)
		}
		server.Fail(httpproxy.Faults{})
		handle(t, server, other, batch())
		changed := map[string]int{"UpdateItem": 2 * senders, "UpdateItem 400": senders, "GetItem": 1}
		if begin, finish, _ = handle(t, server, s, batch()); !maps.Equal(begin, changed) || !maps.Equal(finish, want) {
			t.Errorf("pages of %d senders that were changed: Begin %v, want %v; Finish %v, want %v", senders, begin, changed, finish, want)
		}
	}
}
