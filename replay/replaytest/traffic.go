package replaytest

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/queue-runtime/queue/replay"
)

// Traffic is steady traffic: Senders that send 1,000 messages a second together,
// and receivers that take them in batches of 32. Each message arrives up to 1,000
// messages of its sender late; 1 % are abandoned once, 1 % of the sends fail, and
// 0.1 % are dead-lettered. Run it in a bubble of testing/synctest.
type Traffic struct {
	Store replay.Store
	// Senders is 20 if it is 0.
	Senders int
	// Redrive has dead letters come back and be handled after that time. 0
	// leaves them where they are.
	Redrive time.Duration

	random  *rand.Rand
	senders []*trafficSender
	due     map[int64][]replay.Request // by the second of their arrival
	second  int64
	// Handled counts the messages that were consumed.
	Handled int
}

type trafficSender struct {
	id   replay.Identity
	void []replay.Range // of the last messages
}

// tickRate is the number of messages a second.
const tickRate = 1000

// Run sends and receives for so many seconds. It fails the test if a message is
// not handled as it should be.
func (x *Traffic) Run(t testing.TB, seconds int) {
	t.Helper()
	if x.random == nil {
		x.random = rand.New(rand.NewPCG(1, 1)) //nolint:gosec // G404: traffic, not a secret
		x.due = make(map[int64][]replay.Request)
		if x.Senders == 0 {
			x.Senders = 20
		}
		time.Sleep(2 * skew) // in a bubble: streams are younger than the store
		for n := range x.Senders {
			s := &trafficSender{id: replay.Identity{Sender: fmt.Sprint("sender-", n)}}
			binary.BigEndian.PutUint64(s.id.Stream[:], uint64(time.Now().UnixMilli())<<16) //nolint:gosec // G115: after 1970
			s.id.Stream[15] = byte(n)
			x.senders = append(x.senders, s)
		}
	}
	for range seconds {
		for range tickRate {
			x.send(x.senders[x.random.IntN(len(x.senders))])
		}
		time.Sleep(time.Second) // in a bubble
		x.second++
		arrived := x.due[x.second]
		delete(x.due, x.second)
		for len(arrived) > 0 {
			n := min(32, len(arrived))
			x.receive(t, arrived[:n])
			arrived = arrived[n:]
		}
	}
}

// send seals a message, which may fail.
func (x *Traffic) send(s *trafficSender) {
	s.id.Sequence++
	n := s.id.Sequence
	if len(s.void) > 0 && s.void[0].Last+64 < n {
		s.void = s.void[1:]
	}
	if len(s.void) < replay.MaxVoid && x.random.IntN(100) == 0 {
		s.void = append(s.void, replay.Range{First: n, Last: n})
		return
	}
	r := at(s.id, n)
	r.Settled, r.Void = n-1, append([]replay.Range(nil), s.void...)
	// 1,000 messages of one sender take so many seconds.
	late := x.random.IntN(1000*len(x.senders)/tickRate + 1)
	x.arrive(r, late)
}

func (x *Traffic) arrive(r replay.Request, late int) {
	x.due[x.second+1+int64(late)] = append(x.due[x.second+1+int64(late)], r)
}

// receive claims a batch and finishes it.
func (x *Traffic) receive(t testing.TB, batch []replay.Request) {
	t.Helper()
	for i := range batch {
		batch[i] = again(batch[i])
	}
	c, err := x.Store.Begin(t.Context(), group, batch)
	if err != nil {
		t.Fatal(err)
	}
	f := make([]replay.Finish, len(batch))
	for i := range batch {
		if c[i].Err != nil {
			t.Fatalf("sequence %d: %v", batch[i].ID.Sequence, c[i].Err)
		}
		f[i] = replay.Finish{ID: batch[i].ID, Token: batch[i].Token, Kind: x.fate(&batch[i], !c[i].FirstSeen.Equal(batch[i].Now.Truncate(time.Millisecond)))}
	}
	got, err := x.Store.Finish(t.Context(), group, f)
	if err != nil {
		t.Fatal(err)
	}
	for i := range got {
		if got[i].Err != nil {
			t.Fatalf("sequence %d: %v", f[i].ID.Sequence, got[i].Err)
		}
	}
}

// fate decides what becomes of a message.
func (x *Traffic) fate(r *replay.Request, known bool) replay.FinishKind {
	n := x.random.IntN(1000)
	switch {
	case n < 10 && !known:
		x.arrive(*r, 1+x.random.IntN(5))
		return replay.Released
	case n == 10 && !known:
		if x.Redrive > 0 {
			x.arrive(*r, int(x.Redrive/time.Second))
		}
		return replay.Parked
	}
	x.Handled++
	return replay.Consumed
}

// CheckAccounts fails the test if anything is missing that was sent more than a
// minute ago.
func (x *Traffic) CheckAccounts(t testing.TB) {
	t.Helper()
	streams := 0
	for s, err := range x.Store.Streams(t.Context(), group) {
		if err != nil {
			t.Fatal(err)
		}
		streams++
		for _, m := range s.Missing {
			if time.Since(m.Since) > time.Minute {
				t.Errorf("sender %s: %+v is missing, settled %d", s.Sender, m, s.Settled)
			}
		}
		if s.Implausible || s.Start != 1 || s.MissingForgotten > 0 {
			t.Errorf("sender %s: start %d, forgotten %d, implausible %v", s.Sender, s.Start, s.MissingForgotten, s.Implausible)
		}
	}
	if streams != len(x.senders) {
		t.Errorf("%d streams, want %d", streams, len(x.senders))
	}
}
