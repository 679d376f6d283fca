package sbqueue

import (
	"context"
	"errors"

	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"

	"github.com/queue-runtime/queue/driver"
)

// This file sends. Service Bus takes or refuses a transfer whole and names no message,
// so what it refuses is tried in halves until the messages that cannot go fail alone.
// Messages of one session go in the order of the call.

// maxBatchBytes bounds a batch whatever the queue takes of one message: large messages
// of the premium tier go one by one (Service Bus quotas, "Maximum batch size").
const maxBatchBytes = probeBytes

// outbound is a message on its way out.
type outbound struct {
	index int // in the call
	m     *azservicebus.AMQPAnnotatedMessage
	size  int
}

// session is the message's; empty if it has none.
func (o *outbound) session() string {
	if id := o.m.Properties.GroupID; id != nil {
		return *id
	}
	return ""
}

// sendOutcome is what became of the messages of one Send.
type sendOutcome struct {
	results []driver.SendResult
	failed  map[string]bool // sessions with a message that failed
}

// set notes the result of one message.
func (r *sendOutcome) set(o *outbound, err error) {
	r.results[o.index].Err = err
	if id := o.session(); err != nil && id != "" {
		r.failed[id] = true
	}
}

// sendable leaves out those whose session has failed meanwhile.
func (r *sendOutcome) sendable(all []outbound) []outbound {
	if len(r.failed) == 0 {
		return all
	}
	var left []outbound
	for _, o := range all {
		if r.failed[o.session()] {
			r.results[o.index].Err = &driver.Error{Kind: driver.NotSent}
			continue
		}
		left = append(left, o)
	}
	return left
}

// Send sends in as few transfers as size and partitions allow.
func (q *queue) Send(ctx context.Context, all []*driver.Message) []driver.SendResult {
	r := &sendOutcome{results: make([]driver.SendResult, len(all)), failed: make(map[string]bool)}
	var good []outbound
	for i, m := range all {
		out, err := q.check(m)
		switch {
		case err != nil:
			r.results[i].Err = err
			if m.SessionID != "" {
				r.failed[m.SessionID] = true
			}
		case r.failed[m.SessionID]:
			r.results[i].Err = &driver.Error{Kind: driver.NotSent}
		default:
			good = append(good, outbound{index: i, m: out, size: size(m)})
		}
	}
	r.failed = make(map[string]bool) // those that are good come before the ones that failed
	for _, transfer := range q.byPartition(good) {
		q.send(ctx, transfer, r)
	}
	return r.results
}

// byPartition splits what is sent, in order, into what may share a transfer: on a
// partitioned queue that is what has the same key, by which the broker chooses the
// partition (Service Bus, "Partitioned queues", use of a partition key).
func (q *queue) byPartition(all []outbound) [][]outbound {
	if !q.settings.Partitioned {
		return [][]outbound{all}
	}
	var out [][]outbound
	at := make(map[string]int)
	for _, o := range all {
		key := q.partitionKey(o.m)
		i, there := at[key]
		if !there {
			i = len(out)
			at[key], out = i, append(out, nil)
		}
		out[i] = append(out[i], o)
	}
	return out
}

// partitionKey is the session, else the sender's own key, else on a queue that detects
// duplicates the message ID. Messages with none of them may share a transfer.
func (q *queue) partitionKey(m *azservicebus.AMQPAnnotatedMessage) string {
	if id := m.Properties.GroupID; id != nil {
		return "session " + *id
	}
	if key, ok := m.MessageAnnotations[annotationPartition].(string); ok {
		return "key " + key
	}
	if q.settings.Dedup {
		return "message " + asText(m.Properties.MessageID)
	}
	return ""
}

// annotationPartition is the partition key that a sender gave.
const annotationPartition = "x-opt-partition-key"

// send sends messages that may share a transfer, in as many as their sizes need.
func (q *queue) send(ctx context.Context, all []outbound, r *sendOutcome) {
	for {
		if all = r.sendable(all); len(all) == 0 {
			return
		}
		if len(all) == 1 {
			r.set(&all[0], q.sendOne(ctx, all[0]))
			return
		}
		batch, n, err := q.fill(ctx, all)
		switch {
		case err != nil:
			for i := range all {
				r.set(&all[i], err)
			}
			return
		case n < 2:
			r.set(&all[0], q.sendOne(ctx, all[0])) // it fills a batch, or is larger than one
			n = 1
		default:
			q.sendBatch(ctx, batch, all[:n], r)
		}
		all = all[n:]
	}
}

// fill returns a batch of the first n messages, as many as it takes.
func (q *queue) fill(ctx context.Context, all []outbound) (batch *azservicebus.MessageBatch, n int, err error) {
	if batch, err = q.newBatch(ctx); err != nil {
		return nil, 0, err
	}
	for n < len(all) {
		err := batch.AddAMQPAnnotatedMessage(all[n].m, nil)
		if err != nil {
			break // this one is too large for the rest of it, or fails on its own
		}
		n++
	}
	return batch, n, nil
}

// sendBatch sends a batch, and both halves of it if the broker refuses it.
func (q *queue) sendBatch(ctx context.Context, batch *azservicebus.MessageBatch, all []outbound, r *sendOutcome) {
	err := q.transmit(ctx, int(batch.NumBytes()), func(ctx context.Context, s *azservicebus.Sender) error { //nolint:gosec // G115: at most 1 MiB
		return s.SendMessageBatch(ctx, batch, nil)
	})
	if isRefusal(err) {
		half := len(all) / 2
		q.send(ctx, all[:half], r)
		q.send(ctx, all[half:], r)
		return
	}
	for i := range all {
		r.set(&all[i], err)
	}
}

// isRefusal reports whether the broker refused what it was sent, because of what that
// is, and took none of it.
func isRefusal(err error) bool {
	if err == nil || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return false
	}
	switch driver.KindOf(err) {
	case driver.Invalid, driver.TooLarge, driver.Other:
		return true
	}
	return false
}

// sendOne spares a single message the batch around it.
func (q *queue) sendOne(ctx context.Context, o outbound) error {
	err := q.transmit(ctx, o.size, func(ctx context.Context, s *azservicebus.Sender) error {
		return s.SendAMQPAnnotatedMessage(ctx, o.m, nil)
	})
	if driver.KindOf(err) == driver.TooLarge {
		return driver.NewTooLarge("message", o.size, q.caps.MaxBatchBytes)
	}
	return err
}

func (q *queue) newBatch(ctx context.Context) (*azservicebus.MessageBatch, error) {
	var o *azservicebus.MessageBatchOptions
	if q.settings.MaxBytes > maxBatchBytes {
		o = &azservicebus.MessageBatchOptions{MaxBytes: maxBatchBytes}
	}
	var made *azservicebus.MessageBatch // by a call that has ended, if there is no error
	err := q.transmit(ctx, 0, func(ctx context.Context, s *azservicebus.Sender) (err error) {
		made, err = s.NewMessageBatch(ctx, o)
		return err
	})
	if err != nil {
		return nil, err
	}
	return made, nil
}
