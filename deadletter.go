package queue

import (
	"context"
	"errors"
	"iter"
	"slices"
	"time"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/envelope"
	"github.com/queue-runtime/queue/keys"
	"github.com/queue-runtime/queue/observe"
	"github.com/queue-runtime/queue/replay"
)

// How a dead-letter queue is read: so many messages a call, and so long a wait
// before it counts as empty.
const (
	deadLetterBatch = 10
	deadLetterWait  = 2 * time.Second
)

// Filter selects dead letters. All that is set must match; the zero Filter
// matches everything. Reasons, times and key IDs are the broker's word.
type Filter struct {
	Reasons    []string  // codes, such as "authentication_failed"
	Since      time.Time // dead-lettered at or after; zero: no bound
	Until      time.Time // dead-lettered before; zero: no bound
	SessionIDs []string
	MessageIDs []string
	KeyIDs     []keys.ID
	// Limit is how many matches are taken at most; 0 means all, and below zero
	// is ErrInvalidOptions.
	Limit int
}

var errNegativeLimit = invalidOption("Filter.Limit is negative")

// match judges what can be told without opening.
func (f *Filter) match(raw *driver.Delivery) bool {
	if f == nil {
		return true
	}
	var why driver.DeadLetter
	if raw.DeadLetter != nil {
		why = *raw.DeadLetter
	}
	switch {
	case len(f.Reasons) > 0 && !slices.Contains(f.Reasons, why.Reason),
		!f.Since.IsZero() && why.At.Before(f.Since),
		!f.Until.IsZero() && !why.At.Before(f.Until),
		len(f.SessionIDs) > 0 && !slices.Contains(f.SessionIDs, raw.SessionID),
		len(f.MessageIDs) > 0 && !slices.Contains(f.MessageIDs, raw.ID):
		return false
	}
	if len(f.KeyIDs) > 0 {
		m, err := envelope.Parse(raw.Body)
		return err == nil && slices.Contains(f.KeyIDs, keys.ID(m.KeyID))
	}
	return true
}

func (f *Filter) limit() int {
	if f == nil {
		return 0
	}
	return f.Limit
}

// DeadLetters reads, redrives and purges the dead-letter queue of a queue. It is
// safe for concurrent use.
type DeadLetters struct {
	*endpoint
	dead   driver.Queue
	caps   driver.Capabilities // of dead
	group  string
	nonces replay.NonceStore // nil unless nonces are tracked
	wait   time.Duration
}

// DeadLetters opens the dead-letter queue of queue. o may be nil; its Keys,
// Crypto, Group and Wait (0 means 2 s here) are used, and must be those of the
// queue's receivers for a redrive to tell replays. A broker without a dead-letter
// queue answers errors.ErrUnsupported or ErrQueueNotFound.
func (c *Client) DeadLetters(ctx context.Context, queue string, o *ReceiverOptions) (*DeadLetters, error) {
	const op = "open dead letters"
	var options ReceiverOptions
	if o != nil {
		options = *o
	}
	if options.Wait == 0 {
		options.Wait = deadLetterWait
	}
	e, err := c.open(ctx, endpointRequest{queue: queue, role: observe.DeadLetter, keys: options.Keys, crypto: options.CryptoProvider, config: options.Crypto})
	if err != nil {
		return nil, wrap(op, queue, err)
	}
	d := &DeadLetters{endpoint: e, wait: options.Wait}
	err = options.resolve(e.caps, queue)
	if err == nil {
		err = e.cfg.checkStore(c.options.ReplayStore)
	}
	if err == nil {
		d.dead, err = e.q.DeadLetters(ctx)
	}
	if err != nil {
		_ = e.q.Close(ctx) // the first error is the one that tells
		return nil, wrap(op, queue, err)
	}
	d.caps = d.dead.Capabilities()
	d.group = options.Group
	if e.cfg.TrackReplays {
		d.nonces = c.options.ReplayStore
	}
	return d, nil
}

// Close releases what this value holds.
func (d *DeadLetters) Close(ctx context.Context) error {
	if ctx == nil {
		return wrap("close", d.queue, errNilContext)
	}
	err := d.dead.Close(ctx)
	if e := d.q.Close(ctx); err == nil {
		err = e
	}
	return wrap("close", d.queue, err)
}

// All returns the dead letters that f selects, opened where a key is at hand;
// f may be nil. They stay where they are. A broker that cannot peek has them
// received and given back at the end, which counts as a delivery of each.
func (d *DeadLetters) All(ctx context.Context, f *Filter) iter.Seq2[*Peeked, error] {
	return func(yield func(*Peeked, error) bool) {
		for raw, err := range d.scan(ctx, f) {
			if err != nil {
				yield(nil, wrap("read dead letters", d.queue, err))
				return
			}
			if !yield(d.look(ctx, raw), nil) {
				return
			}
		}
	}
}

// DeadLetterStats are counts over a dead-letter queue.
type DeadLetterStats struct {
	Count    int
	ByReason map[string]int  // by code; "" where the broker keeps none
	ByKey    map[keys.ID]int // of sealed messages, by the key they name
	Plain    int             // messages that are not sealed
	Oldest   time.Time       // the earliest dead-lettering; zero where unknown
	Newest   time.Time
}

// Stats counts the dead letters that f selects, by reading them; f may be nil.
func (d *DeadLetters) Stats(ctx context.Context, f *Filter) (DeadLetterStats, error) {
	s := DeadLetterStats{ByReason: map[string]int{}, ByKey: map[keys.ID]int{}}
	for raw, err := range d.scan(ctx, f) {
		if err != nil {
			return s, wrap("read dead letters", d.queue, err)
		}
		s.Count++
		var why driver.DeadLetter
		if raw.DeadLetter != nil {
			why = *raw.DeadLetter
		}
		s.ByReason[why.Reason]++
		if m, err := envelope.Parse(raw.Body); err == nil {
			s.ByKey[keys.ID(m.KeyID)]++
		} else if !envelope.IsSealed(raw.Body) {
			s.Plain++
		}
		if !why.At.IsZero() {
			if s.Oldest.IsZero() || why.At.Before(s.Oldest) {
				s.Oldest = why.At
			}
			if why.At.After(s.Newest) {
				s.Newest = why.At
			}
		}
	}
	return s, nil
}

// scan reads the dead letters that f selects without taking them away.
func (d *DeadLetters) scan(ctx context.Context, f *Filter) iter.Seq2[*driver.Delivery, error] {
	return func(yield func(*driver.Delivery, error) bool) {
		if err := checkContext(ctx); err != nil {
			yield(nil, err)
			return
		}
		left := f.limit()
		if left < 0 {
			yield(nil, errNegativeLimit)
			return
		}
		some := func(batch []*driver.Delivery) (more bool) {
			for _, raw := range batch {
				if !f.match(raw) {
					continue
				}
				if !yield(raw, nil) {
					return false
				}
				if left--; left == 0 {
					return false
				}
			}
			return true
		}
		if d.caps.Peek != driver.None {
			for cursor := ""; ; {
				batch, next, err := d.dead.Peek(ctx, cursor, 10*deadLetterBatch)
				if err != nil {
					yield(nil, err)
					return
				}
				if !some(batch) || next == "" {
					return
				}
				cursor = next
			}
		}
		h := d.hold()
		defer h.release(ctx)
		for {
			batch, err := h.next(ctx)
			if err != nil {
				yield(nil, err)
				return
			}
			if len(batch) == 0 {
				return
			}
			more := some(batch)
			h.keep(batch)
			if !more {
				return
			}
		}
	}
}

// Purge deletes the dead letters that f selects, for good, and returns how many
// it deleted. f must be given: &Filter{} is everything.
func (d *DeadLetters) Purge(ctx context.Context, f *Filter) (int, error) {
	const op = "purge dead letters"
	if err := checkContext(ctx); err != nil {
		return 0, wrap(op, d.queue, err)
	}
	if f == nil {
		return 0, wrap(op, d.queue, invalidOption("Purge needs a filter; &Filter{} deletes everything"))
	}
	if f.Limit < 0 {
		return 0, wrap(op, d.queue, errNegativeLimit)
	}
	h := d.hold()
	defer h.release(ctx)
	purged := 0
	for {
		batch, err := h.next(ctx)
		if err != nil || len(batch) == 0 {
			return purged, wrap(op, d.queue, err)
		}
		var settle []driver.Settlement
		for _, raw := range batch {
			if f.match(raw) && (f.Limit == 0 || purged+len(settle) < f.Limit) {
				settle = append(settle, driver.Settlement{Delivery: raw, Kind: driver.Complete})
			} else {
				h.keep([]*driver.Delivery{raw})
			}
		}
		errs := d.dead.Settle(ctx, settle)
		for i := range settle {
			e := errors.New("the driver returned too few results")
			if i < len(errs) {
				e = errs[i]
			}
			if e == nil {
				purged++
				continue
			}
			h.keep([]*driver.Delivery{settle[i].Delivery})
			if err == nil {
				err = e
			}
		}
		if err != nil || f.Limit > 0 && purged >= f.Limit {
			return purged, wrap(op, d.queue, err)
		}
	}
}

// holding reads a dead-letter queue from end to end once, by receiving: what is
// not to be taken is held until the end, so that it does not come again.
type holding struct {
	d     *DeadLetters
	begun time.Time
	batch int                         // how many a call asks for
	seen  map[string]struct{}         // by BrokerID
	held  map[string]*driver.Delivery // by BrokerID, without bodies
	again int                         // how many came again since the last that did not
}

func (d *DeadLetters) hold() *holding {
	return &holding{d: d, begun: time.Now(), batch: deadLetterBatch, seen: make(map[string]struct{}), held: make(map[string]*driver.Delivery)}
}

// next returns messages not seen before; none at the end of the queue. What was
// dead-lettered since the reading began is not of this reading: a message that
// is redriven and rejected again must not go round for ever.
func (h *holding) next(ctx context.Context) ([]*driver.Delivery, error) {
	for {
		batch, err := h.d.dead.Receive(ctx, h.batch, h.d.wait)
		if err != nil || len(batch) == 0 {
			return nil, err
		}
		fresh := batch[:0:0]
		for _, raw := range batch {
			_, known := h.seen[raw.BrokerID]
			h.seen[raw.BrokerID] = struct{}{}
			late := raw.DeadLetter != nil && raw.DeadLetter.At.After(h.begun)
			if known {
				h.again++ // its lock ran out
			} else {
				h.again = 0
			}
			if known || late {
				h.keep([]*driver.Delivery{raw})
				continue
			}
			fresh = append(fresh, raw)
		}
		if len(fresh) > 0 {
			return fresh, nil
		}
		if h.again > len(h.seen) {
			return nil, nil // all of them did, and there are no others
		}
	}
}

// keep remembers messages to give back at the end.
func (h *holding) keep(batch []*driver.Delivery) {
	for _, raw := range batch {
		slim := *raw
		slim.Body, slim.Attributes = nil, nil
		h.held[raw.BrokerID] = &slim // the newest receipt is the one that counts
	}
}

// release gives everything back that was held.
func (h *holding) release(ctx context.Context) {
	if len(h.held) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTimeout)
	defer cancel()
	settle := make([]driver.Settlement, 0, len(h.held))
	for _, raw := range h.held {
		settle = append(settle, driver.Settlement{Delivery: raw, Kind: driver.Abandon})
	}
	_ = h.d.dead.Settle(ctx, settle) // where it fails the lock runs out
}
