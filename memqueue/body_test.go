package memqueue

import (
	"bytes"
	"context"
	"testing"

	"github.com/queue-runtime/queue/driver"
)

// TestBodyIsHeld: a delivery copies a body that another receiver has completed meanwhile.
// Its memory is not used for another message before that.
func TestBodyIsHeld(t *testing.T) {
	s := newStore("q", QueueOptions{})
	for range 100 {
		m := newMessage(&driver.Message{ID: "m", Body: []byte("first body")})
		now := s.lock()
		s.put(m, now)
		d := m.delivery()
		s.remove(m)
		s.unlock()
		other := newMessage(&driver.Message{ID: "n", Body: []byte("other body")})
		if got := d.own(); string(got.Body) != "first body" {
			t.Fatalf("the body is %q", got.Body)
		}
		if string(other.Body) != "other body" {
			t.Fatalf("the other body is %q", other.Body)
		}
	}
}

// TestBodiesStay: a delivered body is the receiver's, whatever is sent after its message
// was completed.
func TestBodiesStay(t *testing.T) {
	ctx := context.Background()
	q, err := New(nil).Open(ctx, "q", nil)
	if err != nil {
		t.Fatal(err)
	}
	var got []*driver.Delivery
	for i := range 500 {
		body := bytes.Repeat([]byte{byte(i)}, 100+i*7%900)
		if r := q.Send(ctx, []*driver.Message{{ID: "m", Body: body}}); r[0].Err != nil {
			t.Fatal(r[0].Err)
		}
		clear(body) // it is the sender's again
		d, err := q.Receive(ctx, 1, 0)
		if err != nil || len(d) != 1 {
			t.Fatal(d, err)
		}
		if errs := q.Settle(ctx, []driver.Settlement{{Delivery: d[0], Kind: driver.Complete}}); errs[0] != nil {
			t.Fatal(errs[0])
		}
		got = append(got, d[0])
	}
	for i, d := range got {
		if want := bytes.Repeat([]byte{byte(i)}, 100+i*7%900); !bytes.Equal(d.Body, want) {
			t.Fatalf("body %d has changed: %d bytes, the first is %d", i, len(d.Body), d.Body[0])
		}
	}
}

// TestBodySlack: a message does not keep memory of a much larger one.
func TestBodySlack(t *testing.T) {
	for range 100 {
		copyBody(make([]byte, 10_000)).release()
		if c := copyBody(make([]byte, 100)); cap(c.bytes) > maxSlack*100 {
			t.Fatalf("100 bytes in %d", cap(c.bytes))
		}
	}
}

// TestEmptyBody: what a receiver appends to an empty body is not written into the memory of
// its sender.
func TestEmptyBody(t *testing.T) {
	buffer := []byte("sender's")
	for _, sealed := range []bool{false, true} {
		m := newMessage(&driver.Message{ID: "m", Body: buffer[:0], Sealed: sealed})
		_ = append(m.delivery().own().Body, "receiver"...)
		if string(buffer) != "sender's" {
			t.Errorf("sealed %t: the sender's memory holds %q", sealed, buffer)
		}
	}
}
