package dynamoreplay_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/queue-runtime/queue/aws/dynamoreplay"
	"github.com/queue-runtime/queue/replay"
	"github.com/queue-runtime/queue/testbed/dynalite"
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

// gate is an HTTP client that can hold requests until so many are made at once.
type gate struct {
	http.Client

	mu      sync.Mutex // guards what follows
	n       int        // 0: requests pass
	waiting int
	open    chan struct{}
	alone   int // requests that were given up before the others came
}

// together holds requests until n are made at once. 0 holds none.
func (g *gate) together(n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.n, g.waiting, g.open = n, 0, make(chan struct{})
}

func (g *gate) Do(r *http.Request) (*http.Response, error) {
	g.mu.Lock()
	n, open := g.n, g.open
	if g.waiting++; n > 0 && g.waiting == n {
		close(open)
		g.waiting, g.open = 0, make(chan struct{})
	}
	g.mu.Unlock()
	if n > 0 {
		select {
		case <-open:
		case <-r.Context().Done():
			g.mu.Lock()
			defer g.mu.Unlock()
			g.alone++
			return nil, r.Context().Err()
		}
	}
	return g.Client.Do(r)
}

// handle claims and consumes messages, and returns the requests of both calls.
func handle(t *testing.T, server *dynalite.Server, s replay.Store, batch []replay.Request) (begin, finish map[string]int) {
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

// TestRequests: Begin and Finish of 32 messages are one request for each page, all at
// once, and a page that another receiver changed costs one more. Then the item of the store
// is read, once for the call.
func TestRequests(t *testing.T) {
	server := serve(t, nil)
	g := &gate{Client: http.Client{Transport: &http.Transport{DisableKeepAlives: true}}}
	s, err := dynamoreplay.New(t.Context(), over(g), table, &dynamoreplay.Options{Endpoint: server.URL(), ChangeInterval: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(context.Background()); err != nil {
			t.Errorf("Close: %v", err)
		}
	}()
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
		begin, finish := handle(t, server, s, batch())
		if !maps.Equal(begin, want) || !maps.Equal(finish, want) {
			t.Errorf("32 messages of %d senders: Begin %v, Finish %v, want %v each", senders, begin, finish, want)
		}
		g.together(senders)
		handle(t, server, s, batch())
		g.together(0)
		if g.alone > 0 {
			t.Errorf("%d requests for 32 messages of %d senders waited for the others: want one step", g.alone, senders)
		}
		handle(t, server, other, batch())
		changed := map[string]int{"UpdateItem": 2 * senders, "UpdateItem 400": senders, "GetItem": 1}
		if begin, finish = handle(t, server, s, batch()); !maps.Equal(begin, changed) || !maps.Equal(finish, want) {
			t.Errorf("pages of %d senders that were changed: Begin %v, want %v; Finish %v, want %v", senders, begin, changed, finish, want)
		}
	}
}
