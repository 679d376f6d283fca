package queue

import (
	"context"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/internal/sealing"
)

// Peeked is a message that was read without a lock or a claim. Its freshness is not
// checked, and it may be a replay.
type Peeked struct {
	Received

	// Err says why the message does not open; its Body is then nil and nothing
	// else of it is authentic. Nil on plain messages, whatever the policy.
	Err error
}

// Peek returns up to max messages from cursor on ("" is the start), held and scheduled
// ones included, and the cursor that follows them, "" at the end. It fails with
// errors.ErrUnsupported on a broker without it.
func (r *Receiver) Peek(ctx context.Context, cursor string, max int) ([]*Peeked, string, error) {
	p, next, err := r.peek(ctx, cursor, max)
	return p, next, wrap("peek", r.queue, err)
}

func (e *endpoint) peek(ctx context.Context, cursor string, max int) ([]*Peeked, string, error) {
	if err := checkContext(ctx); err != nil {
		return nil, "", err
	}
	if max < 1 {
		return nil, "", invalidOption("max is %d, it must be at least 1", max)
	}
	if e.client.closed.Load() {
		return nil, "", driver.ErrClosed
	}
	raw, next, err := e.q.Peek(ctx, cursor, max)
	if err != nil {
		return nil, "", err
	}
	out := make([]*Peeked, len(raw))
	bytes := 0
	for _, d := range raw {
		bytes += len(d.Body)
	}
	parallel(len(raw), bytes, func(i int) { out[i] = e.look(ctx, raw[i]) })
	return out, next, ctx.Err()
}

// look opens one message that is not under a lock.
func (e *endpoint) look(ctx context.Context, raw *driver.Delivery) *Peeked {
	p := &Peeked{}
	p.fill(e.queue, raw)
	var opened sealing.Opened
	p.Err = publicError(e.unseal(ctx, &p.Received, raw, &opened))
	return p
}
