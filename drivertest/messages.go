package drivertest

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/queue-runtime/queue/driver"
)

var messageCases = []conformanceCase{
	{"message_whole", messageWhole},
	{"message_bodies_byte_exact", messageBodies},
	{"message_unicode", messageUnicode},
	{"message_awkward_attributes", messageAwkwardAttributes},
	{"message_attribute_names", messageAttributeNames},
	{"message_caller_owns", messageCallerOwns},
	{"message_same_content", messageSameContent},
	{"message_queues_apart", messageQueuesApart},
}

// messageWhole checks that everything the sender sets arrives, and the broker's own
// fields make sense.
func messageWhole(e *env) {
	q := e.queue()
	m := &driver.Message{
		ID:            "whole-1",
		CorrelationID: "correlation-1",
		ContentType:   "application/json; charset=utf-8",
		Attributes:    map[string]string{"event": "pull_request", "Action": "opened", "number": "1347"},
		Trace:         map[string]string{"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "tracestate": "a=b"},
		Body:          []byte(`{"number":1347}`),
		DedupID:       "dedup-1",
	}
	before := time.Now()
	r := e.try(q, m)[0]
	if r.Err != nil {
		e.Fatalf("Send: %v", r.Err)
	}
	after := time.Now()
	d := e.one(q)
	if r.BrokerID != "" && d.BrokerID != r.BrokerID {
		e.Errorf("the BrokerID at Send is %q and at Receive %q", r.BrokerID, d.BrokerID)
	}
	if d.Count != 1 {
		e.Errorf("Count is %d at the first delivery, want 1", d.Count)
	}
	if s := e.slack(); !d.EnqueuedAt.IsZero() && (d.EnqueuedAt.Before(before.Add(-s)) || d.EnqueuedAt.After(after.Add(s))) {
		e.Errorf("EnqueuedAt is %s, the message was sent between %s and %s", d.EnqueuedAt, before, after)
	}
	if lock := q.Capabilities().Lock; d.LockedUntil.IsZero() != (lock == 0) {
		e.Errorf("LockedUntil is %s where Capabilities.Lock is %s", d.LockedUntil, lock)
	} else if lock > 0 && (d.LockedUntil.Before(before) || d.LockedUntil.After(time.Now().Add(lock+time.Second))) {
		e.Errorf("LockedUntil is %s from now, Capabilities.Lock is %s", time.Until(d.LockedUntil), lock)
	}
	if d.DeadLetter != nil {
		e.Errorf("DeadLetter is set on a message of the queue itself")
	}
	e.must(q, driver.Complete, d)
}

// everyByte has each of the 256 values.
func everyByte() []byte {
	b := make([]byte, 256)
	for i := range b {
		b[i] = byte(i)
	}
	return b
}

// messageBodies checks that a body arrives byte for byte, sealed or not. A text
// transport may refuse one that is not sealed, but not change it.
func messageBodies(e *env) {
	q := e.queue()
	sealed := func(b []byte) []byte { return append([]byte("QRE1\x01\x00"), b...) }
	bodies := []struct {
		name   string
		body   []byte
		sealed bool
	}{
		{"nil", nil, false},
		{"empty", []byte{}, false},
		{"json", []byte(`{"a": "b"}`), false},
		{"text-unicode", []byte("grün 漢字 🦀 \u200f"), false},
		{"text-breaks", []byte("a\r\nb\nc\rd\t \n"), false},
		{"text-markup", []byte("<a>&amp;]]></a> &#0; \\u0000 %00 ' \" \\"), false},
		{"text-base64", []byte("aGVsbG8="), false},
		{"every-byte", everyByte(), false},
		{"zero", []byte{0}, false},
		{"not-utf8", []byte{0xff, 0xfe, 0x00, 0xd8, 0xc0, 0x80}, false},
		{"sealed-every-byte", sealed(everyByte()), true},
		{"sealed-short", sealed([]byte{0}), true},
		{"sealed-long", sealed(bytes.Repeat(everyByte(), 128)), true},
	}
	byID := make(map[string]bool)
	for _, b := range bodies {
		if limit := q.Capabilities().MaxBody; limit > 0 && len(b.body) > limit {
			continue
		}
		m := &driver.Message{ID: "body-" + b.name, Body: b.body, Sealed: b.sealed}
		err := e.try(q, m)[0].Err
		if err != nil && errors.Is(err, driver.ErrInvalid) && !b.sealed && !q.Capabilities().BinaryBody {
			continue
		}
		if err != nil {
			e.Errorf("Send of the body %s: %v", b.name, err)
			continue
		}
		byID[m.ID] = b.sealed
	}
	for _, d := range e.gather(q, len(byID)) {
		if d.Sealed && !byID[d.ID] {
			e.Errorf("message %q is marked as sealed and is not", d.ID)
		}
		e.must(q, driver.Complete, d)
	}
}

// messageUnicode checks that all strings keep any UTF-8, up to the 128 bytes that
// package queue allows.
func messageUnicode(e *env) {
	q := e.queue()
	long := strings.Repeat("é", 64)
	texts := []string{"grüße", "漢字かな", "🦀🧵", "e\u0301", "עברית", "a b\tc", `"quoted" 'and' \ / & < > % {}`, "ID.with:all-of_it/in=it+1", long}
	var all []*driver.Message
	for i, s := range texts {
		all = append(all, &driver.Message{
			ID:            s,
			CorrelationID: s,
			ContentType:   s,
			Body:          fmt.Appendf(nil, "body %d", i),
		})
	}
	e.send(q, all...)
	e.must(q, driver.Complete, e.gather(q, len(all))...)
}

// messageAwkwardAttributes checks that a driver that cannot keep an attribute refuses
// the message; it never drops, renames or changes one.
func messageAwkwardAttributes(e *env) {
	q := e.queue()
	attributes := []map[string]string{
		{"empty": ""},
		{"case": "1", "Case": "2", "CASE": "3"},
		{"with.dot": "1", "with-dash": "2", "with_underscore": "3"},
		{"with space": "1"},
		{"größe": "漢字"},
		{"value-breaks": "a\r\nb\nc"},
		{"value-zero": "a\x00b"},
		{"value-blank": "  a  "},
		{"value-quotes": `"'\<>&;=,`},
		{"value-number": "007"},
		{"value-long": strings.Repeat("x", 4096)},
		{strings.Repeat("n", 255): "long name"},
		{"AWS.name": "1"},
		{"ID": "not the ID", "SessionId": "not the session", "content-type": "not the content type", "CorrelationId": "x", "MessageId": "x"},
	}
	sent := 0
	for i, a := range attributes {
		m := &driver.Message{ID: fmt.Sprintf("awkward-%d", i), Attributes: a, Body: []byte("b")}
		err := e.try(q, m)[0].Err
		switch {
		case err == nil:
			sent++
		case !errors.Is(err, driver.ErrInvalid) && !errors.Is(err, driver.ErrTooLarge):
			e.Errorf("Send of attributes that the driver refuses: the error is %v, want %v", err, driver.ErrInvalid)
		}
	}
	e.must(q, driver.Complete, e.gather(q, sent)...)
}

// messageAttributeNames checks that a name has 1 to 255 bytes.
func messageAttributeNames(e *env) {
	q := e.queue()
	for _, name := range []string{"", strings.Repeat("n", 256)} {
		m := message(fmt.Sprintf("name-%d", len(name)))
		m.Attributes = map[string]string{name: "v"}
		e.want(e.try(q, m)[0].Err, driver.ErrInvalid, fmt.Sprintf("Send of an attribute whose name has %d bytes", len(name)))
	}
	e.none(q, "a message that Send refused was stored all the same")
}

// messageCallerOwns checks that the driver neither changes nor retains the messages that
// it is given, and that receivers own the messages that it returns.
func messageCallerOwns(e *env) {
	q := e.queue()
	m := &driver.Message{ID: "own-1", Attributes: map[string]string{"a": "1"}, Body: []byte("original")}
	before := copyOf(m)
	e.send(q, m)
	if s := Difference(before, m); s != "" || len(m.Attributes) != 1 || m.Trace != nil || m.DedupID != "" {
		e.Errorf("Send changed the message that it was given: %s", s)
	}
	copy(m.Body, "clobbered")
	m.Attributes["a"], m.Attributes["b"] = "2", "3"
	settlements := []driver.Settlement{{Kind: driver.Abandon}, {Kind: driver.Abandon, Delay: time.Second}}
	if q.Capabilities().AbandonDelay == driver.None {
		settlements = settlements[:1]
	}
	for _, s := range settlements {
		d := e.one(q) // compared with what was sent
		copy(d.Body, "clobbered")
		if d.Attributes != nil {
			d.Attributes["a"], d.Attributes["b"] = "2", "3"
		}
		s.Delivery = d
		if err := e.settle(q, s); err != nil {
			e.Fatalf("Abandon after %s: %v", s.Delay, err)
		}
	}
	e.must(q, driver.Complete, e.gatherWithin(q, 1, time.Second+e.slack())[0])
}

// messageSameContent checks that messages are told apart by their IDs, never by
// content.
func messageSameContent(e *env) {
	q := e.queue()
	const n = 5
	var all []*driver.Message
	for i := range n {
		all = append(all, &driver.Message{ID: fmt.Sprintf("same-%d", i), Body: []byte("the very same")})
	}
	e.send(q, all...)
	seen := make(map[string]bool)
	for _, d := range e.gather(q, n) {
		seen[d.ID] = true
		e.must(q, driver.Complete, d)
	}
	if len(seen) != n {
		e.Errorf("of %d messages with the same body %d arrived: they were de-duplicated by content", n, len(seen))
	}
}

// messageQueuesApart checks that a message that is sent to one queue is in no other.
func messageQueuesApart(e *env) {
	a, b := e.queue(), e.queue()
	e.send(a, message("a-1"))
	e.none(b, "it was sent to another queue")
	e.must(a, driver.Complete, e.expect(a, "a-1", "it was sent here"))
}
