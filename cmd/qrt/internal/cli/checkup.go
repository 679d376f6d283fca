package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	queue "github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/aws/sqsqueue"
	"github.com/queue-runtime/queue/cmd/qrt/internal/display"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/envelope"
	"github.com/queue-runtime/queue/keys"
	"github.com/queue-runtime/queue/sqlite/sqlitequeue"
)

// broker looks at the broker and its queues.
func (x *doctorRun) broker(ctx context.Context, c *connection, given []string) error {
	if b, ok := c.broker.(*sqlitequeue.Broker); ok {
		x.file(ctx, b)
		if free, reserve, ok := b.Disk(); ok {
			x.disk(free, reserve)
		}
	}
	names, err := c.names(ctx, given)
	if err != nil {
		x.find(levelNote, "broker", "qrt doctor QUEUE...", "no queue is named, and this broker does not list them")
		names = nil
	}
	if err := x.roundTrip(ctx, c); err != nil {
		return err
	}
	for _, name := range names {
		x.queue = name
		if err := x.one(ctx, c, name); err != nil {
			return err
		}
	}
	x.queue = ""
	return ctx.Err()
}

// file looks at a SQLite file.
func (x *doctorRun) file(ctx context.Context, b *sqlitequeue.Broker) {
	info, err := os.Stat(b.Path())
	if err != nil {
		x.find(levelError, "broker", "", "%v", err)
		return
	}
	const maxChecked = 1 << 30
	if info.Size() > maxChecked {
		x.ok("broker", "%s opens (%s; too large to read it through here)", b.Path(), display.Bytes(info.Size()))
		return
	}
	if err := b.Check(ctx); err != nil {
		x.find(levelError, "broker", x.brokerAdvice(err), "%v", err)
		return
	}
	x.ok("broker", "%s opens and is sound (%s)", b.Path(), display.Bytes(info.Size()))
}

// disk judges the room on the disk of a SQLite file. That there is enough is not worth a line.
func (x *doctorRun) disk(free, reserve int64) {
	const advice = "make room, or set max_bytes in the URL below the size of the disk"
	const near = 4 // reserves that a backlog fills within minutes
	switch {
	case free < reserve:
		x.find(levelError, "disk", advice, "%s are free on the disk of the file: sends fail, and the rest is left to receiving and settling", display.Bytes(free))
	case free < near*reserve:
		x.find(levelWarning, "disk", advice, "%s are free on the disk of the file: sends fail below %s", display.Bytes(free), display.Bytes(reserve))
	}
}

// one looks at one queue.
func (x *doctorRun) one(ctx context.Context, c *connection, name string) error {
	if own := x.app.settings.queues[name].Keys; own != "" {
		x.keys(ctx, setting{own, x.app.settings.file}, "keys")
	}
	onSQS, _ := c.broker.(*sqsqueue.Broker)
	if onSQS != nil {
		x.permissions(ctx, onSQS, name)
	}
	if l, ok := c.broker.(queueLister); ok {
		// Opening it would make it.
		existing, err := l.Queues(ctx)
		if err == nil && !slices.Contains(existing, name) {
			x.find(levelError, "queue", missingAdvice(name, c.existing(ctx)), "there is no queue of this name")
			return ctx.Err()
		}
	}
	q, err := c.broker.Open(ctx, name, nil)
	if err != nil {
		x.find(levelError, "queue", "make the queue, or check its name and the permissions", "%s", shownError(err))
		return ctx.Err()
	}
	defer func() { _ = q.Close(ctx) }() // nothing is held
	stats, err := q.Stats(ctx)
	switch {
	case unsupported(err):
		x.find(levelNote, "counts", "", "this broker does not count")
	case errors.Is(err, driver.ErrPermission) && isServiceBus(c.broker):
		x.find(levelNote, "counts", "", "this identity may not manage the queue, so it cannot see its counts; services do not need that right")
	case err != nil:
		x.find(levelError, "counts", "allow this user or role to read the queue's attributes", "%s", shownError(err))
	default:
		x.ok("counts", "%s ready, %s in flight, %s scheduled", known(stats.Ready), known(stats.InFlight), known(stats.Scheduled))
	}
	caps := q.Capabilities()
	x.age(&caps, stats.Oldest)
	kept := x.dead(ctx, q, name, stats.DeadLetters)
	switch {
	case onSQS != nil:
		x.deadRetention(&caps, kept)
		x.queueKind(&caps)
	case isServiceBus(c.broker):
		if !x.serviceBus(ctx, c.broker, q, name) {
			return ctx.Err() // what it would say of messages would be wrong
		}
	}
	x.keyLife(ctx, c.provider(name), caps.Retention, kept)
	x.waiting(ctx, c, q, name)
	x.deliveries(&caps, onSQS != nil)
	x.lock(&caps, onSQS != nil)
	return ctx.Err()
}

func known(n int64) string {
	if n < 0 {
		return "unknown"
	}
	return display.Count(n)
}

// age holds the maximum age against how long the broker keeps messages, and
// against what waits.
func (x *doctorRun) age(caps *driver.Capabilities, oldest time.Time) {
	const check = "age"
	age, err := parseMaxAge(x.app.settings.maxAge)
	if err != nil {
		return // resolve has refused it
	}
	switch {
	case age == queue.QueueRetention && caps.Retention == 0:
		age = fallbackAge
		x.find(levelWarning, check, "set --max-age to more than the longest backlog that you want to survive", "the broker does not tell how long it keeps messages: the maximum age is %s", display.Duration(age))
	case age == queue.QueueRetention:
		age = caps.Retention
		x.ok(check, "messages are accepted for as long as the broker keeps them: %s", display.Duration(age))
	case caps.Retention > 0 && age < caps.Retention:
		x.find(levelWarning, check, "use --max-age retention; otherwise a backlog of this age is dead-lettered", "messages older than %s are dead-lettered, and the broker keeps them for %s", display.Duration(age), display.Duration(caps.Retention))
	default:
		x.ok(check, "messages are accepted up to %s old", display.Duration(age))
	}
	if waits := time.Since(oldest); !oldest.IsZero() && waits > age {
		x.find(levelError, check, "raise --max-age before a receiver dead-letters them", "the oldest message waits for %s, which is more than the maximum age", old(waits))
	} else if !oldest.IsZero() && waits > age/2 {
		x.find(levelWarning, check, "is a receiver running?", "the oldest message waits for %s, more than half of the maximum age", old(waits))
	}
}

// dead looks at the dead-letter queue, and returns how long it keeps messages, 0
// if that is not known.
func (x *doctorRun) dead(ctx context.Context, q driver.Queue, name string, count int64) time.Duration {
	const check = "dead letters"
	d, err := q.DeadLetters(ctx)
	switch {
	case errors.Is(err, driver.ErrNotFound), unsupported(err):
		x.find(levelError, check, "make one (on SQS: give the queue a redrive policy, or name it with ?dead_letter_suffix=): without one, rejected messages cannot be moved out of the queue", "there is no dead-letter queue")
		return 0
	case err != nil:
		x.find(levelError, check, "allow this user or role to read the dead-letter queue", "%s", shownError(err))
		return 0
	}
	defer func() { _ = d.Close(ctx) }() // nothing is held
	kept := d.Capabilities().Retention
	if count > 0 {
		x.find(levelWarning, check, "qrt dlq list "+name, "%s lie there", number(int(count), "", "message"))
		return kept
	}
	x.ok(check, "the dead-letter queue is there")
	return kept
}

// sample is how many waiting messages doctor looks at.
const sample = 200

// waiting looks at some of the messages that wait: are they sealed, and under
// keys that are at hand?
func (x *doctorRun) waiting(ctx context.Context, c *connection, q driver.Queue, name string) {
	const check = "messages"
	valid := make(map[keys.ID]bool)
	p := c.provider(name)
	if p != nil {
		ids, err := p.ValidKeyIDs(ctx)
		if err != nil {
			return // said where the keys were looked at
		}
		for _, id := range ids {
			valid[id] = true
		}
	}
	plain, unknown, broken, ahead, seen := 0, 0, 0, 0, 0
	for d, err := range peekAll(ctx, q) {
		if unsupported(err) {
			x.find(levelNote, check, "", "this broker does not show waiting messages")
			return
		}
		if err != nil {
			x.find(levelError, check, "allow this user or role to look at messages", "%s", shownError(err))
			return
		}
		m, err := envelope.Parse(d.Body)
		switch {
		case err == nil && !valid[keys.ID(m.KeyID)]:
			unknown++
		case err == nil && time.UnixMilli(m.EncryptedAt).After(time.Now().Add(clockSkew())):
			ahead++
		case err != nil && envelope.IsSealed(d.Body):
			broken++
		case err != nil:
			plain++
		}
		if seen++; seen == sample {
			break
		}
	}
	if plain > 0 {
		l, advice := levelNote, "they are delivered, marked as not encrypted"
		switch {
		case x.app.settings.plaintextPolicy() == queue.Reject:
			l, advice = levelError, "a receiver with policy reject dead-letters them: find the sender that does not seal"
		case p != nil:
			l = levelWarning
		}
		x.find(l, check, advice, "%d of %d that were looked at are in plaintext", plain, seen)
	}
	if unknown > 0 {
		x.find(levelError, check, "see which with: qrt keys audit "+name, "%d of %d are sealed under a key that is not at hand", unknown, seen)
	}
	if broken > 0 {
		x.find(levelError, check, "they were altered or damaged; receivers dead-letter them", "%d of %d have a broken envelope", broken, seen)
	}
	if ahead > 0 {
		x.find(levelError, "clock", "set the clocks by NTP, here and at the sender", "%d of %d were sealed in the future by this machine's clock", ahead, seen)
	}
	if seen > 0 && plain+unknown+broken+ahead == 0 {
		x.ok(check, "%s looked at: all sealed, under keys that are at hand", number(seen, "", "message"))
	}
}

// roundTrip sends a message and receives it, on a queue that has no other users.
func (x *doctorRun) roundTrip(ctx context.Context, c *connection) error {
	const check = "round trip"
	name := x.probe
	if name == "" {
		switch c.broker.(type) {
		case queueLister, interface{ Connect() driver.Broker }: // these make queues on demand
			name = probeQueue
		default:
			x.find(levelNote, check, "name a queue that has no other users: --probe QUEUE", "not tried")
			return nil
		}
	}
	err := x.trip(ctx, c, name)
	if err != nil && ctx.Err() == nil {
		x.find(levelError, check, "senders or receivers will fail in the same way", "%s", shownError(err))
	}
	return ctx.Err()
}

func (x *doctorRun) trip(ctx context.Context, c *connection, name string) error {
	const check = "round trip"
	s, err := c.sender(ctx, name, nil)
	if err != nil {
		return err
	}
	defer func() { _ = s.Close(ctx) }() // nothing is held
	rx, err := c.receiver(ctx, name, queue.ReceiverOptions{Wait: 10 * time.Second})
	if err != nil {
		return err
	}
	defer func() { _ = rx.Close(ctx) }() // what is held goes back
	begin := time.Now()
	m := &queue.Message{TTL: 10 * time.Minute, Body: []byte(`{"from":"qrt doctor"}`)}
	if s.Capabilities().SessionOnly {
		m.SessionID = probeQueue
	}
	sent, err := s.Send(ctx, m)
	if err != nil {
		return fmt.Errorf("send: %w", err)
	}
	for time.Since(begin) < 20*time.Second {
		d, err := receiveOne(ctx, rx)
		if err != nil {
			return fmt.Errorf("receive: %w", err)
		}
		left := time.Until(d.HeldUntil())
		if err := d.Complete(ctx); err != nil {
			return fmt.Errorf("complete: %w", err)
		}
		if d.ID != sent.MessageID {
			continue // of an earlier doctor that was interrupted
		}
		took := time.Since(begin)
		how := "in plaintext"
		if d.Encrypted {
			how = "sealed"
		}
		x.ok(check, "a message was sent, received and completed, %s, in %s", how, display.Duration(took))
		x.clock(d.EnqueuedAt, begin, took)
		x.lockAsSet(left, rx.Capabilities().Lock)
		return nil
	}
	return errors.New("the message did not come back within 20 s")
}

// lockAsSet holds the lock of a message that has just come against what the lock
// was said to be: if the broker cannot be asked that may be wrong.
func (x *doctorRun) lockAsSet(left, set time.Duration) {
	if set <= 0 || left > set*3/4 && left < set*5/4 {
		return
	}
	x.find(levelError, "lock", "put the queue's own lock time into the URL (?lock=): renewals depend on it", "a message was held for %s, and the URL, or the default, says %s", old(left), display.Duration(set))
}

// receiveOne receives one message, by a session if the queue wants one.
func receiveOne(ctx context.Context, rx *queue.Receiver) (*queue.Delivery, error) {
	if !rx.Capabilities().SessionOnly {
		return rx.ReceiveOne(ctx)
	}
	s, err := rx.NextSession(ctx)
	if err != nil {
		return nil, err
	}
	return s.ReceiveOne(ctx)
}

// clock compares the broker's clock with this machine's.
func (x *doctorRun) clock(enqueued, begin time.Time, took time.Duration) {
	if enqueued.IsZero() {
		return
	}
	const check, slack = "clock", 2 * time.Second
	switch off := enqueued.Sub(begin); {
	case off < -slack:
		x.clockOff(-off, "behind")
	case off > took+slack:
		x.clockOff(off, "ahead of")
	default:
		x.ok(check, "the broker's clock and this machine's agree")
	}
}

// clockSkew is how far clocks may differ by default: CryptoConfig.MaxClockSkew.
func clockSkew() time.Duration {
	defaults, err := queue.CryptoConfig{}.Resolve(0)
	if err != nil {
		panic(err) // the zero value is valid
	}
	return defaults.MaxClockSkew
}

func (x *doctorRun) clockOff(off time.Duration, how string) {
	l := levelWarning
	if off > clockSkew() {
		l = levelError
	}
	x.find(l, "clock", "set the clocks by NTP: receivers allow "+display.Duration(clockSkew()), "the broker's clock is %s %s this machine's", display.Duration(off), how)
}
