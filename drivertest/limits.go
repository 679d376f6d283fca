package drivertest

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"github.com/queue-runtime/queue/driver"
)

var limitCases = []conformanceCase{
	{"limits_sane", limitsSane},
	{"limits_body", limitsBody},
	{"limits_attributes", limitsAttributes},
	{"limits_batch_bytes", limitsBatchBytes},
	{"limits_batch_full", limitsBatchFull},
	{"limits_batch_over", limitsBatchOver},
	{"limits_batch_per_entry", limitsBatchPerEntry},
	{"limits_nothing", limitsNothing},
}

// largest is how large a body the suite makes to try a limit. Brokers with a
// higher one are tried at this size.
const largest = 16 << 20

// limitsSane checks that the Capabilities do not contradict themselves.
func limitsSane(e *env) {
	c := e.queue().Capabilities()
	for name, s := range map[string]driver.Support{
		"Sessions": c.Sessions, "SessionState": c.SessionState, "DeadLetter": c.DeadLetter,
		"AbandonDelay": c.AbandonDelay, "Schedule": c.Schedule, "Peek": c.Peek, "TTL": c.TTL, "Dedup": c.Dedup,
	} {
		if s > driver.Copy {
			e.Errorf("Capabilities.%s is %d, which is no Support", name, s)
		}
	}
	if c.MaxBatch < 1 {
		e.Errorf("Capabilities.MaxBatch is %d, it must be at least 1", c.MaxBatch)
	}
	for name, v := range map[string]int64{
		"MaxBody": int64(c.MaxBody), "MaxBatchBytes": int64(c.MaxBatchBytes), "MaxAttributes": int64(c.MaxAttributes),
		"MaxDeliveries": int64(c.MaxDeliveries), "MaxDelay": int64(c.MaxDelay), "Lock": int64(c.Lock),
		"MinLock": int64(c.MinLock), "MaxLock": int64(c.MaxLock), "Retention": int64(c.Retention),
	} {
		if v < 0 {
			e.Errorf("Capabilities.%s is negative", name)
		}
	}
	if c.Lock > 0 && (c.Lock < c.MinLock || c.MaxLock > 0 && c.Lock > c.MaxLock) {
		e.Errorf("Capabilities.Lock is %s, outside of MinLock %s to MaxLock %s", c.Lock, c.MinLock, c.MaxLock)
	}
	if c.Lock > 0 && c.Lock < 30*time.Second {
		e.Errorf("the lock of an ordinary queue is %s: the harness must make it at least 30 s", c.Lock)
	}
	if c.MaxDeliveries > 0 && c.MaxDeliveries < 20 {
		e.Errorf("MaxDeliveries of an ordinary queue is %d: the harness must make it at least 20", c.MaxDeliveries)
	}
	if c.Sessions == driver.None && (c.AcceptByID || c.SessionOnly || c.SessionState != driver.None) {
		e.Errorf("Capabilities claim AcceptByID, SessionOnly or SessionState without Sessions")
	}
}

// tooLarge wants err to say how large something is and may be. A size of 0 may be
// any.
func (e *env) tooLarge(err error, size, limit int, what string) {
	e.Helper()
	e.want(err, driver.ErrTooLarge, what)
	var t *driver.TooLargeError
	if !errors.As(err, &t) {
		e.Errorf("%s: the error does not wrap a *driver.TooLargeError: %v", what, show(err))
		return
	}
	if size > 0 && t.Size != size || t.Limit != limit {
		e.Errorf("%s: the error says %d of at most %d, want %d of at most %d", what, t.Size, t.Limit, size, limit)
	}
}

// limitsBody checks that a body of MaxBody bytes arrives, and that a body with one byte
// more is refused with size and limit.
func limitsBody(e *env) {
	q := e.queue()
	c := q.Capabilities()
	n := c.MaxBody
	if n == 0 || n > largest {
		n = 1 << 20
	}
	body := bytes.Repeat(everyByte(), n/256+1)
	copy(body, "QRE1")
	at := &driver.Message{ID: "at-limit", Body: body[:n:n], Sealed: true}
	if size := q.Size(at); c.MaxBatchBytes > 0 && size > c.MaxBatchBytes {
		e.Errorf("a message with a body of MaxBody = %d bytes has a Size of %d, over MaxBatchBytes = %d: such a body can never be sent", n, size, c.MaxBatchBytes)
	}
	e.send(q, at)
	e.must(q, driver.Complete, e.one(q))
	if c.MaxBody == 0 || c.MaxBody > largest {
		return
	}
	over := &driver.Message{ID: "over-limit", Body: bytes.Repeat([]byte("x"), n+1), Sealed: false}
	e.tooLarge(e.try(q, over)[0].Err, n+1, n, "Send of a body one byte over MaxBody")
	e.none(q, "a message that Send refused was stored all the same")
}

// limitsAttributes checks that MaxAttributes attributes arrive, and that one more is
// refused. Without a limit the 64 that package queue allows must arrive.
func limitsAttributes(e *env) {
	q := e.queue()
	limit := q.Capabilities().MaxAttributes
	n := limit
	if n == 0 || n > 64 {
		n = 64
	}
	with := func(id string, n int) *driver.Message {
		m := message(id)
		m.Attributes = make(map[string]string)
		for i := range n {
			m.Attributes[fmt.Sprintf("attribute-%02d", i)] = fmt.Sprintf("value %d", i)
		}
		return m
	}
	e.send(q, with("attributes-at-limit", n))
	e.must(q, driver.Complete, e.one(q))
	if limit == 0 {
		return
	}
	e.tooLarge(e.try(q, with("attributes-over-limit", limit+1))[0].Err, limit+1, limit, "Send of one attribute more than MaxAttributes")
	e.none(q, "a message that Send refused was stored all the same")
}

// limitsBatchBytes checks that Size counts at least what the message is made of, and
// what exceeds MaxBatchBytes is refused.
func limitsBatchBytes(e *env) {
	q := e.queue()
	c := q.Capabilities()
	m := message("size-1")
	plain := q.Size(m)
	if plain < len(m.ID)+len(m.Body) {
		e.Errorf("Size is %d, the ID and body alone have %d bytes", plain, len(m.ID)+len(m.Body))
	}
	m.Body = append(m.Body, make([]byte, 1000)...)
	if n := q.Size(m); n < plain+1000 {
		e.Errorf("Size grew from %d to %d for a body of 1000 bytes more", plain, n)
	}
	plain = q.Size(m)
	m.Attributes = map[string]string{"some-attribute": "some value"}
	if n := q.Size(m); n < plain+len("some-attribute")+len("some value") {
		e.Errorf("Size grew from %d to %d for an attribute of %d bytes", plain, n, len("some-attribute")+len("some value"))
	}
	if c.MaxBatchBytes == 0 || c.MaxBatchBytes > largest {
		return
	}
	over := &driver.Message{ID: "over-batch", Body: make([]byte, c.MaxBatchBytes+1), Sealed: true}
	copy(over.Body, "QRE1")
	e.want(e.try(q, over)[0].Err, driver.ErrTooLarge, "Send of a message larger than MaxBatchBytes")
	e.none(q, "a message that Send refused was stored all the same")
}

// limitsBatchFull checks that one Send takes MaxBatch messages.
func limitsBatchFull(e *env) {
	q := e.queue()
	n := min(q.Capabilities().MaxBatch, 1000)
	var all []*driver.Message
	for i := range n {
		all = append(all, message(fmt.Sprintf("batch-%d", i)))
	}
	brokerIDs := make(map[string]bool)
	for i, r := range e.try(q, all...) {
		if r.Err != nil {
			e.Errorf("message %d of a batch of MaxBatch = %d: %v", i, n, r.Err)
		}
		if r.BrokerID != "" && brokerIDs[r.BrokerID] {
			e.Errorf("two messages have the BrokerID %q", r.BrokerID)
		}
		brokerIDs[r.BrokerID] = true
	}
	e.must(q, driver.Complete, e.gather(q, n)...)
	e.none(q, "all messages of the batch were completed")
}

// limitsBatchOver checks that a Send of more than MaxBatch messages is split, or that the
// surplus fails; in both cases each result is true.
func limitsBatchOver(e *env) {
	q := e.queue()
	n := q.Capabilities().MaxBatch + 1
	if n > 1001 {
		e.Logf("MaxBatch is %d: a larger batch was not tried", n-1)
		return
	}
	var all []*driver.Message
	for i := range n {
		all = append(all, message(fmt.Sprintf("over-%d", i)))
	}
	confirmed := make(map[string]bool)
	for i, r := range e.try(q, all...) {
		if r.Err == nil {
			confirmed[all[i].ID] = true
			continue
		}
		e.tooLarge(r.Err, 0, n-1, "Send of more than MaxBatch messages")
	}
	for _, d := range e.gather(q, len(confirmed)) {
		if !confirmed[d.ID] {
			e.Errorf("message %q was stored although its result was an error", d.ID)
		}
		delete(confirmed, d.ID)
		e.must(q, driver.Complete, d)
	}
	e.none(q, "all messages that were confirmed were completed")
}

// limitsBatchPerEntry checks that one message that fails never fails the others, and is
// never reported as sent.
func limitsBatchPerEntry(e *env) {
	q := e.queue()
	c := q.Capabilities()
	if c.MaxBatch < 3 {
		e.Logf("MaxBatch is %d: there is no batch to fail in the middle", c.MaxBatch)
		return
	}
	bad := message("bad")
	bad.Attributes = map[string]string{"": "an attribute without a name"}
	batch := []*driver.Message{message("good-1"), bad, message("good-2")}
	for i, r := range e.try(q, batch...) {
		switch {
		case batch[i] == bad:
			if r.Err == nil {
				e.Errorf("the failure of one message of a batch was swallowed: its result has no error")
				continue
			}
			e.want(r.Err, driver.ErrInvalid, "Send of a batch with an invalid message in the middle")
		case r.Err != nil:
			e.Errorf("message %q failed along with another of its batch: %v", batch[i].ID, r.Err)
		}
	}
	got := e.gather(q, 2)
	e.none(q, "only two messages of the batch were valid")

	// Settling, too, is one by one.
	e.must(q, driver.Complete, got[0])
	errs := q.Settle(e.ctx, []driver.Settlement{
		{Delivery: got[0], Kind: driver.Complete},
		{Delivery: got[1], Kind: driver.Complete},
	})
	if len(errs) != 2 {
		e.Fatalf("Settle of 2 deliveries returned %d errors", len(errs))
	}
	e.want(errs[0], driver.ErrSettled, "Settle of a delivery that is settled, in one call with another")
	if errs[1] != nil {
		e.Errorf("Settle of a delivery failed along with another: %v", errs[1])
	}
}

// limitsNothing checks that calls with an empty list change nothing.
func limitsNothing(e *env) {
	q := e.queue()
	if r := q.Send(e.ctx, nil); len(r) != 0 {
		e.Errorf("Send of nothing returned %d results", len(r))
	}
	if r := q.Settle(e.ctx, nil); len(r) != 0 {
		e.Errorf("Settle of nothing returned %d errors", len(r))
	}
	if r := q.Renew(e.ctx, nil); len(r) != 0 {
		e.Errorf("Renew of nothing returned %d results", len(r))
	}
}
