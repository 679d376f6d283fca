package redisreplay_test

import (
	"context"
	"encoding/binary"
	"errors"
	"testing"
	"time"

	"github.com/queue-runtime/queue/replay"
)

// group is the group of all tests that need only one.
const group = "group"

// streamOpened is when the streams of these tests were opened.
var streamOpened = time.Now().UnixMilli()

// message returns a request for a message that was sealed now.
func message(stream byte, sequence uint64) replay.Request {
	now := time.Now()
	id := replay.Identity{Sender: "sender", Sequence: sequence}
	binary.BigEndian.PutUint64(id.Stream[:], uint64(streamOpened)<<16) //nolint:gosec // G115: after 1970
	id.Stream[15] = stream
	return replay.Request{
		ID: id, Token: replay.NewToken(), Tag: [8]byte{stream, byte(sequence)}, SealedAt: now, FreshUntil: now.Add(time.Hour), Now: now,
		RetryWindow: time.Hour, Lease: time.Minute, MaxMessageAge: time.Hour, MaxClockSkew: time.Second, Settled: sequence - 1, Previous: sequence - 1,
	}
}

// messages returns requests for n messages from a sequence on.
func messages(stream byte, from uint64, n int) (r []replay.Request) {
	for i := range uint64(n) { //nolint:gosec // G115: small
		r = append(r, message(stream, from+i))
	}
	return r
}

// begin claims messages and returns the answer to the first.
func begin(s replay.Store, r ...replay.Request) (replay.Claim, error) {
	c, err := s.Begin(context.Background(), group, r)
	if err != nil {
		return replay.Claim{}, err
	}
	for i := range c {
		if c[i].Err != nil {
			return c[i], c[i].Err
		}
	}
	return c[0], nil
}

// consume ends claims and returns the answer to the first.
func consume(s replay.Store, r ...replay.Request) (replay.Finished, error) {
	f := make([]replay.Finish, len(r))
	for i := range r {
		f[i] = replay.Finish{ID: r[i].ID, Token: r[i].Token, Kind: replay.Consumed}
	}
	got, err := s.Finish(context.Background(), group, f)
	if err != nil {
		return replay.Finished{}, err
	}
	for i := range got {
		if got[i].Err != nil {
			return got[i], got[i].Err
		}
	}
	return got[0], nil
}

// again returns the request of another delivery.
func again(r replay.Request) replay.Request {
	r.Token, r.Now = replay.NewToken(), time.Now()
	return r
}

// handle claims and consumes messages.
func handle(t testing.TB, s replay.Store, r ...replay.Request) replay.Stamp {
	t.Helper()
	if _, err := begin(s, r...); err != nil {
		t.Fatalf("Begin: %v", err)
	}
	f, err := consume(s, r...)
	if err != nil {
		t.Fatalf("Finish: %v", err)
	}
	return f.Stamp
}

// known fails the test unless the message is known to be consumed.
func known(t testing.TB, s replay.Store, r replay.Request) replay.Stamp {
	t.Helper()
	c, err := begin(s, again(r))
	if !errors.Is(err, replay.ErrDuplicate) {
		t.Errorf("a copy of sequence %d: %v, want ErrDuplicate", r.ID.Sequence, err)
	}
	return c.Stamp
}
