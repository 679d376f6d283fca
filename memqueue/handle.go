package memqueue

import (
	"context"
	"strconv"
	"time"

	"github.com/queue-runtime/queue/driver"
)

func newSource(s *store, l *subqueue) *source {
	return &source{store: s, subqueue: l, lock: s.cfg.Lock, closing: make(chan struct{})}
}

// handle is an open queue.
type handle struct {
	driver.Unimplemented
	conn     *conn
	caps     driver.Capabilities
	source   *source
	sessions map[*sessionHandle]struct{} // that came from it; guarded by the store's mu
}

var _ driver.Queue = (*handle)(nil)

func (h *handle) Capabilities() driver.Capabilities { return h.caps }

func (h *handle) Size(m *driver.Message) int { return m.Bytes() }

func (h *handle) Receive(ctx context.Context, max int, wait time.Duration) ([]*driver.Delivery, error) {
	if h.caps.SessionOnly {
		return nil, driver.Unsupported("receiving outside of a session on this queue")
	}
	return h.source.receive(ctx, max, wait)
}

func (h *handle) Settle(ctx context.Context, list []driver.Settlement) []error {
	return h.source.settle(ctx, list)
}

func (h *handle) Renew(ctx context.Context, list []*driver.Delivery) []driver.RenewResult {
	return h.source.renew(ctx, list)
}

func (h *handle) Send(ctx context.Context, list []*driver.Message) []driver.SendResult {
	out := make([]driver.SendResult, len(list))
	whole := h.checkBatch(list)
	copies := make([]*message, len(list)) // made before the store is locked
	for i, m := range list {
		if m != nil && whole == nil {
			copies[i] = newMessage(m)
		}
	}
	s := h.source.store
	now := s.lock()
	defer s.unlock()
	if err := ctx.Err(); err != nil {
		whole = err
	} else if err := h.source.check(); err != nil {
		whole = err
	}
	var failed map[string]bool // sessions with a message that was not stored
	for i, m := range list {
		switch {
		case whole != nil:
			out[i].Err = whole
		case m != nil && failed[m.SessionID]:
			out[i].Err = &driver.Error{Kind: driver.NotSent}
		default:
			out[i].BrokerID, out[i].Err = s.send(copies[i], now)
		}
		if out[i].Err != nil && m != nil && m.SessionID != "" {
			if failed == nil {
				failed = make(map[string]bool)
			}
			failed[m.SessionID] = true
		}
	}
	return out
}

// checkBatch checks what a Send has in common.
func (h *handle) checkBatch(list []*driver.Message) error {
	if n := len(list); n > h.caps.MaxBatch {
		return &driver.Error{Kind: driver.TooLarge, Err: &driver.TooLargeError{What: "batch", Size: n, Limit: h.caps.MaxBatch, Unit: "messages"}}
	}
	if h.caps.MaxBatchBytes == 0 || len(list) < 2 {
		return nil // one message is measured on its own
	}
	sum := 0
	for _, m := range list {
		if m != nil {
			sum += m.Bytes()
		}
	}
	if sum > h.caps.MaxBatchBytes {
		return driver.NewTooLarge("batch", sum, h.caps.MaxBatchBytes)
	}
	return nil
}

// check refuses what the queue cannot carry. size is the size of m.
func (o *QueueOptions) check(m *driver.Message, size int) error {
	if err := m.Check(); err != nil {
		return err
	}
	switch {
	case o.SessionOnly && m.SessionID == "":
		return driver.Errorf(driver.Invalid, "this queue needs a SessionID on every message")
	case o.MaxBody > 0 && len(m.Body) > o.MaxBody:
		return driver.NewTooLarge("body", len(m.Body), o.MaxBody)
	case o.MaxAttributes > 0 && len(m.Attributes) > o.MaxAttributes:
		return &driver.Error{Kind: driver.TooLarge, Err: &driver.TooLargeError{What: "attributes", Size: len(m.Attributes), Limit: o.MaxAttributes, Unit: "entries"}}
	}
	if o.MaxBatchBytes > 0 && size > o.MaxBatchBytes {
		return driver.NewTooLarge("message", size, o.MaxBatchBytes)
	}
	return nil
}

// send stores m, a copy of what is sent, unless it repeats a message, and returns its
// broker ID.
func (s *store) send(m *message, now time.Time) (string, error) {
	if m == nil {
		return "", driver.Errorf(driver.Invalid, "nil message")
	}
	if err := s.cfg.check(&m.Message, m.size); err != nil {
		return "", err
	}
	dedup := m.DedupID
	if dedup == "" {
		dedup = m.ID
	}
	if s.cfg.DedupWindow > 0 {
		s.forget(now)
		if v, ok := s.seen[dedup]; ok {
			return v.brokerID, nil
		}
	}
	if n := s.active.sequence.live + s.dead.sequence.live; s.cfg.MaxMessages > 0 && n >= s.cfg.MaxMessages {
		return "", driver.Errorf(driver.Full, "it holds %d messages, the limit is %d", n, s.cfg.MaxMessages)
	}
	if n := s.bytes + m.size; s.cfg.MaxBytes > 0 && n > s.cfg.MaxBytes {
		return "", driver.Errorf(driver.Full, "it would hold %d bytes, the limit is %d", n, s.cfg.MaxBytes)
	}
	s.put(m, now)
	if s.cfg.DedupWindow > 0 {
		s.seen[dedup] = sighting{m.brokerID, now.Add(s.cfg.DedupWindow)}
		s.seenAll.push(dedup)
	}
	return m.brokerID, nil
}

// forget drops the DedupIDs whose window is over.
func (s *store) forget(now time.Time) {
	for t := s.seenAll.first(); t != nil && !s.seen[t.value].until.After(now); t = s.seenAll.first() {
		delete(s.seen, t.value)
		s.seenAll.remove(t)
	}
}

func (h *handle) Peek(ctx context.Context, cursor string, max int) ([]*driver.Delivery, string, error) {
	return h.source.peek(ctx, cursor, max)
}

func (src *source) peek(ctx context.Context, cursor string, max int) ([]*driver.Delivery, string, error) {
	if max < 1 {
		return nil, "", driver.Errorf(driver.Invalid, "max is %d, it must be at least 1", max)
	}
	var seq uint64
	if cursor != "" {
		var err error
		if seq, err = strconv.ParseUint(cursor, 10, 64); err != nil {
			return nil, "", driver.Errorf(driver.Invalid, "the cursor did not come from Peek")
		}
	}
	list, next, err := src.look(ctx, seq, max)
	return own(list), next, err
}

// look returns up to max messages from seq on, and the cursor of the one that follows them;
// empty if there is none.
func (src *source) look(ctx context.Context, seq uint64, max int) (list []*delivery, next string, err error) {
	s := src.store
	s.lock()
	defer s.unlock()
	if err := ctx.Err(); err != nil {
		return nil, "", err
	}
	if err := src.check(); err != nil {
		return nil, "", err
	}
	m, i := src.subqueue.sequence.from(src.subqueue.sequence.search(seq))
	for ; m != nil && len(list) < max; m, i = src.subqueue.sequence.from(i + 1) {
		list = append(list, m.delivery())
	}
	if m != nil {
		next = strconv.FormatUint(m.seq, 10) // which a dead-lettering changes
	}
	return list, next, nil
}

func (h *handle) Stats(ctx context.Context) (driver.Stats, error) { return h.source.stats(ctx) }

func (src *source) stats(ctx context.Context) (driver.Stats, error) {
	s := src.store
	s.lock()
	defer s.unlock()
	if err := ctx.Err(); err != nil {
		return driver.Stats{}, err
	}
	if err := src.check(); err != nil {
		return driver.Stats{}, err
	}
	return s.stats(src.subqueue), nil
}

func (h *handle) DeadLetters(ctx context.Context) (driver.Queue, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s := h.source.store
	d := &deadHandle{conn: h.conn, source: newSource(s, &s.dead), caps: driver.Capabilities{
		AbandonDelay:     driver.Native,
		Peek:             driver.Native,
		BinaryBody:       true,
		Fenced:           true,
		ReleaseUncounted: true,
		MaxBatch:         1,
		Lock:             h.caps.Lock,
		MinLock:          MinLock,
		MaxLock:          MaxLock,
	}}
	d.source.lock = h.caps.Lock
	s.lock()
	err := h.source.check()
	s.unlock()
	if err != nil {
		return nil, err
	}
	if err := h.conn.keep(d); err != nil {
		return nil, err
	}
	return d, nil
}

func (h *handle) Close(context.Context) error {
	h.shut()
	h.conn.forget(h)
	return nil
}

func (h *handle) shut() {
	s := h.source.store
	now := s.lock()
	defer s.unlock()
	for ss := range h.sessions {
		ss.source.close(now)
	}
	h.source.close(now)
}

// deadHandle is an open dead-letter queue.
type deadHandle struct {
	driver.Unimplemented
	conn   *conn
	caps   driver.Capabilities
	source *source
}

var _ driver.Queue = (*deadHandle)(nil)

func (d *deadHandle) Capabilities() driver.Capabilities { return d.caps }

func (d *deadHandle) Size(m *driver.Message) int { return m.Bytes() }

func (d *deadHandle) Send(_ context.Context, list []*driver.Message) []driver.SendResult {
	out := make([]driver.SendResult, len(list))
	for i := range out {
		out[i].Err = driver.Unsupported("sending to a dead-letter queue")
	}
	return out
}

func (d *deadHandle) Receive(ctx context.Context, max int, wait time.Duration) ([]*driver.Delivery, error) {
	return d.source.receive(ctx, max, wait)
}

func (d *deadHandle) Settle(ctx context.Context, list []driver.Settlement) []error {
	return d.source.settle(ctx, list)
}

func (d *deadHandle) Renew(ctx context.Context, list []*driver.Delivery) []driver.RenewResult {
	return d.source.renew(ctx, list)
}

func (d *deadHandle) Peek(ctx context.Context, cursor string, max int) ([]*driver.Delivery, string, error) {
	return d.source.peek(ctx, cursor, max)
}

func (d *deadHandle) Stats(ctx context.Context) (driver.Stats, error) { return d.source.stats(ctx) }

func (d *deadHandle) Close(context.Context) error {
	d.shut()
	d.conn.forget(d)
	return nil
}

func (d *deadHandle) shut() {
	s := d.source.store
	now := s.lock()
	defer s.unlock()
	d.source.close(now)
}
