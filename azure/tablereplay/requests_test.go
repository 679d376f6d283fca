package tablereplay_test

import (
	"encoding/binary"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/queue-runtime/queue/azure/tablereplay"
	"github.com/queue-runtime/queue/replay"
	"github.com/queue-runtime/queue/testbed/azurite"
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

// handle claims and consumes messages, and returns the requests of both calls.
func handle(t *testing.T, server *azurite.Server, s replay.Store, batch []replay.Request) (begin, finish map[string]int) {
	t.Helper()
	server.Counts()
	c, err := s.Begin(t.Context(), "group", batch)
	if err != nil {
		t.Fatal(err)
	}
	begin = server.Counts()
	f := make([]replay.Finish, len(batch))
	for i := range c {
		if c[i].Err != nil {
			t.Fatalf("%+v: %v", batch[i].ID, c[i].Err)
		}
		f[i] = replay.Finish{ID: batch[i].ID, Token: batch[i].Token, Kind: replay.Consumed}
	}
	got, err := s.Finish(t.Context(), "group", f)
	if err != nil {
		t.Fatal(err)
	}
	for i := range got {
		if got[i].Err != nil {
			t.Fatalf("%+v: %v", batch[i].ID, got[i].Err)
		}
	}
	return begin, server.Counts()
}

// TestRequests: Begin and Finish of 32 messages are one request each, of one sender or of
// many, and a page that another receiver changed costs a read and a write more for each.
// Then the entity of the store is read, once for the call.
func TestRequests(t *testing.T) {
	server := serve(t)
	s := open(t, server, &tablereplay.Options{ChangeInterval: time.Hour})
	other := open(t, server, &tablereplay.Options{ChangeInterval: time.Hour})
	for _, senders := range []int{1, 8, 32} {
		next := uint64(1)
		batch := func() (r []replay.Request) {
			for i := range 32 {
				r = append(r, request(senders*100+i%senders, next+uint64(i/senders))) //nolint:gosec // G115: small
			}
			next += uint64(32 / senders) //nolint:gosec // G115: small
			return r
		}
		handle(t, server, s, batch()) // makes the pages
		one := map[string]int{"batch": 1}
		if senders == 1 {
			one = map[string]int{"PUT": 1}
		}
		for range 3 {
			begin, finish := handle(t, server, s, batch())
			if !maps.Equal(begin, one) || !maps.Equal(finish, one) {
				t.Errorf("32 messages of %d senders: Begin %v, Finish %v, want %v each", senders, begin, finish, one)
			}
		}
		handle(t, server, other, batch())
		begin, finish := handle(t, server, s, batch())
		want := map[string]int{"PUT": 2 * senders, "PUT 412": senders, "GET": senders + 1}
		if senders > 1 {
			want["batch"] = 1
		}
		if !maps.Equal(begin, want) || !maps.Equal(finish, one) {
			t.Errorf("pages of %d senders that were changed: Begin %v, want %v; Finish %v, want %v", senders, begin, want, finish, one)
		}
	}
}

// TestLargeItem: a value of several properties comes back as it was.
func TestLargeItem(t *testing.T) {
	server := serve(t)
	b := tablereplay.NewBackend(t, server.Endpoint(), credential(), table, &tablereplay.Options{Client: client()})
	value := []byte(strings.Repeat("0123456789abcde", 350<<10/15)) // what package cas writes at most
	item, made, err := b.Create(t.Context(), "x.p.g.large.", value[:1])
	if err != nil || !made {
		t.Fatal(made, err)
	}
	for _, n := range []int{64 << 10, 64<<10 + 1, len(value), 100, 0} {
		next, done, err := b.Swap(t.Context(), item.Key, item.Version, append([]byte{}, value[:n]...))
		if err != nil || !done || next.Version == item.Version {
			t.Fatalf("%d bytes: %v, %v", n, done, err)
		}
		got, err := b.Get(t.Context(), item.Key)
		if err != nil || string(got.Value) != string(value[:n]) || got.Version != next.Version {
			t.Errorf("%d bytes: %d came back, version %s, want %s; %v", n, len(got.Value), got.Version, next.Version, err)
		}
		item = next
		for scanned, err := range b.Scan(t.Context(), "x.p.g.") {
			if err != nil || string(scanned.Value) != string(value[:n]) || scanned.Version != item.Version {
				t.Errorf("listed: %d bytes, version %s, want %d and %s; %v", len(scanned.Value), scanned.Version, n, item.Version, err)
			}
		}
	}
	if _, _, err := b.Swap(t.Context(), item.Key, item.Version, make([]byte, 1<<20)); err == nil {
		t.Error("1 MiB is taken")
	}
}
