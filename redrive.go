package queue

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"strings"
	"time"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/envelope"
	"github.com/queue-runtime/queue/keys"
	"github.com/queue-runtime/queue/replay"
)

// RedriveOptions say which dead letters go back to their queue, and how.
type RedriveOptions struct {
	// Filter selects them. Nil: all.
	Filter *Filter

	// Reseal opens each message and seals it anew, under the current key and
	// with the time of now, so that receivers take it as fresh. Otherwise the
	// stored bytes go back as they are, and receivers judge them by their age.
	//
	// A message is resealed only when it opens, has not been handled, and the
	// nonce store knows it or it is still fresh: else a broker could have an old
	// message made new by putting it among the dead letters. Nor is one that is
	// not due yet: made new it would be handled now, and once more when it is.
	// Plaintext is never resealed.
	Reseal bool

	// AcceptReplayRisk reseals also what the nonce store no longer remembers, or
	// where nonces are not tracked. Whoever sets it vouches that the messages
	// were not handled before; each is logged.
	AcceptReplayRisk bool

	// TTL replaces a message's own expiry when it is resealed. 0 keeps it, and
	// refuses a message that is past it.
	TTL time.Duration

	// Rate is how many messages a second are sent at most. 0 means no limit.
	Rate float64

	// DryRun finds out what would be done and changes nothing but the dead
	// letters' delivery counts.
	DryRun bool

	// Progress is called after each batch, from the goroutine of Redrive. Nil:
	// not.
	Progress func(RedriveReport)
}

// RedriveReport counts what a Redrive did so far.
type RedriveReport struct {
	Matched  int
	Redriven int // sent and removed; with DryRun, those that would be
	Resealed int // of Redriven
	Refused  int // left among the dead letters, see Refusals
	Failed   int // could not be sent, or not be removed after sending
	// Refusals counts by reason: an error type of the pipeline, or "plaintext",
	// "unknown_to_nonce_store", "expired".
	Refusals map[string]int
	// FirstError is of the first that Failed.
	FirstError error
}

// Redrive sends dead letters back to their queue. Each is removed only after the
// queue has confirmed the copy: a crash in between may leave both, never none.
// The error is of the redrive as a whole; it stops at the first failure of the
// dead-letter queue itself, and goes on past messages that cannot be sent.
func (d *DeadLetters) Redrive(ctx context.Context, o *RedriveOptions) (RedriveReport, error) {
	const op = "redrive"
	report := RedriveReport{Refusals: map[string]int{}}
	if o == nil {
		o = &RedriveOptions{}
	}
	err := checkContext(ctx)
	switch {
	case err != nil:
	case !(o.Rate >= 0) || o.TTL < 0: // NaN included
		err = invalidOption("RedriveOptions: Rate and TTL are not negative")
	case o.Filter.limit() < 0:
		err = errNegativeLimit
	case o.Reseal && (d.keys == nil || d.crypto == nil):
		err = invalidOption("a redrive with Reseal needs the queue's keys")
	case o.Reseal && d.nonces == nil && !o.AcceptReplayRisk:
		err = invalidOption("a redrive with Reseal needs a nonce store, which tells what was handled before; set Crypto.TrackNonces, or AcceptReplayRisk if you know that nothing was")
	case o.TTL > 0 && !o.Reseal:
		err = invalidOption("RedriveOptions.TTL needs Reseal")
	}
	if err != nil {
		return report, wrap(op, d.queue, err)
	}
	h := d.hold()
	defer h.release(ctx)
	if o.Rate > 0 {
		// No more than go within a second: their locks must not run out first.
		h.batch = int(min(max(o.Rate, 1), deadLetterBatch))
	}
	pace := time.Now()
	for {
		if !sleepUntil(ctx, pace) {
			return report, ctx.Err()
		}
		batch, err := h.next(ctx)
		if err != nil || len(batch) == 0 {
			return report, wrap(op, d.queue, err)
		}
		var out []outbound
		for _, raw := range batch {
			limit := o.Filter.limit()
			if !o.Filter.match(raw) || limit > 0 && report.Matched >= limit {
				h.keep([]*driver.Delivery{raw})
				continue
			}
			report.Matched++
			m, why, err := d.outbound(ctx, raw, o)
			switch {
			case ctx.Err() != nil:
				h.keep(batch) // what is ready to be sent, and what was not looked at, too
				return report, ctx.Err()
			case err != nil:
				report.fail(err)
				h.keep([]*driver.Delivery{raw})
			case why != "":
				report.Refused++
				report.Refusals[why]++
				h.keep([]*driver.Delivery{raw})
			case o.DryRun:
				report.Redriven++
				h.keep([]*driver.Delivery{raw})
			default:
				out = append(out, outbound{raw, m})
			}
		}
		for len(out) > 0 {
			n := d.fitting(out)
			if o.Rate > 0 {
				n = 1
				if !sleepUntil(ctx, pace) {
					for _, x := range out {
						h.keep([]*driver.Delivery{x.raw})
					}
					return report, ctx.Err()
				}
				pace = time.Now().Add(interval(o.Rate))
			}
			d.send(ctx, h, out[:n], o.Reseal, &report)
			out = out[n:]
		}
		if o.Progress != nil {
			told := report
			told.Refusals = maps.Clone(report.Refusals) // Progress may keep it
			o.Progress(told)
		}
		if limit := o.Filter.limit(); limit > 0 && report.Matched >= limit {
			return report, nil
		}
	}
}

// interval is the time between two messages at that rate, above zero.
func interval(rate float64) time.Duration {
	if d := float64(time.Second) / rate; d < float64(most) {
		return time.Duration(d)
	}
	return most // a float beyond an int64 has no value as one
}

func (r *RedriveReport) fail(err error) {
	r.Failed++
	if r.FirstError == nil {
		r.FirstError = err
	}
}

// fitting is how many of out one call to the broker takes, at least one.
func (d *DeadLetters) fitting(out []outbound) int {
	caps := &d.endpoint.caps
	n, size := 0, 0
	for _, x := range out[:min(len(out), max(1, caps.MaxBatch))] {
		if size += d.q.Size(x.m); n > 0 && caps.MaxBatchBytes > 0 && size > caps.MaxBatchBytes {
			break
		}
		n++
	}
	return n
}

// outbound is a dead letter and what goes back for it.
type outbound struct {
	raw *driver.Delivery
	m   *driver.Message
}

// send sends, and removes what the queue has confirmed.
func (d *DeadLetters) send(ctx context.Context, h *holding, out []outbound, resealed bool, report *RedriveReport) {
	messages := make([]*driver.Message, len(out))
	for i, x := range out {
		messages[i] = x.m
	}
	op := Operation{Kind: OpRedrive, Count: len(out)}
	if d.traces {
		op.Links = make([]map[string]string, len(out))
		for i, m := range messages {
			op.Links[i] = m.Trace
		}
	}
	sctx, end := d.begin(ctx, op)
	results := d.q.Send(sctx, messages)
	var settle []driver.Settlement
	var first error
	for i, x := range out {
		err := errors.New("the driver returned too few results")
		if i < len(results) {
			err = results[i].Err
		}
		if err != nil {
			if first == nil {
				first = err
			}
			report.fail(wrap("redrive", d.queue, err))
			h.keep([]*driver.Delivery{x.raw})
			continue
		}
		settle = append(settle, driver.Settlement{Delivery: x.raw, Kind: driver.Complete})
	}
	cctx, cancel := context.WithTimeout(context.WithoutCancel(sctx), settleTimeout)
	errs := d.dead.Settle(cctx, settle)
	cancel()
	for i := range settle {
		err := errors.New("the driver returned too few results")
		if i < len(errs) {
			err = errs[i]
		}
		if err != nil {
			report.fail(wrap("redrive", d.queue, fmt.Errorf("sent, and not removed from the dead letters: %w", err)))
			continue
		}
		report.Redriven++
		if resealed {
			report.Resealed++
		}
		d.event(sctx, Event{Kind: EventRedriven, Reason: "redriven"})
	}
	end(Result{Err: first, Count: len(settle)})
}

// outbound prepares what goes back for a dead letter. why is the reason to
// refuse it.
func (d *DeadLetters) outbound(ctx context.Context, raw *driver.Delivery, o *RedriveOptions) (m *driver.Message, why string, err error) {
	c := raw.Message
	m = &c
	m.NotBefore = time.Time{}
	m.TTL = 0
	sum := sha256.Sum256([]byte(raw.BrokerID))
	// The same when a crash makes the redrive send again; not the message's own,
	// by which the broker would drop it as a repeat.
	m.DedupID = redriveMark + hex.EncodeToString(sum[:])
	if !o.Reseal {
		return m, "", nil
	}
	var got Received
	got.fill(d.queue, raw)
	env, err := d.unseal(ctx, &got, raw)
	switch {
	case ctx.Err() != nil:
		return nil, "", ctx.Err()
	case errors.Is(err, ErrKeyProvider):
		return nil, "", wrap("redrive", d.queue, err)
	case err != nil:
		return nil, ErrorType(err), nil
	case !got.Encrypted:
		return nil, "plaintext", nil
	}
	now := time.Now()
	due := env.NotBefore
	if !d.cfg.InsecureSkipFreshness {
		due = max(due, env.EncryptedAt)
	}
	if now.Before(time.UnixMilli(due).Add(-d.cfg.MaxClockSkew)) {
		return nil, codeFuture, nil
	}
	ttl := o.TTL
	if ttl == 0 && env.ExpiresAt > 0 {
		if ttl = time.UnixMilli(env.ExpiresAt).Sub(now); ttl <= 0 {
			return nil, "expired", nil
		}
	}
	if why, err := d.mark(ctx, raw, env, now, o); why != "" || err != nil {
		return nil, why, err
	}
	if o.DryRun {
		return m, "", nil
	}
	m.Attributes = got.Attributes // without what was added on the way
	m.Body = got.Body
	m.TTL = ttl
	id, err := d.keys.CurrentKeyID(ctx)
	if err != nil {
		return nil, "", wrap("redrive", d.queue, fmt.Errorf("%w: no current key: %w", ErrEncryptionFailed, providerError(ctx, err)))
	}
	s := &Sender{endpoint: d.endpoint}
	if _, err = s.seal(ctx, id, m); err != nil {
		return nil, "", wrap("redrive", d.queue, err) // m holds the plaintext
	}
	return m, "", nil
}

// redriveLease bounds how long a redrive that died between its claim and its
// mark blocks the next one.
const redriveLease = time.Minute

// redriveMark begins the BrokerID of a redrive's own records in the nonce store.
// The rest of it is the broker's to choose.
const redriveMark = "redrive:"

// recordedID is the BrokerID under which a receiver's claim is recorded, never
// one of a redrive: a broker that names a message so would have the next redrive
// take what a handler completed for its own mark, and seal it anew.
func recordedID(brokerID string) string {
	if strings.HasPrefix(brokerID, redriveMark) {
		return "delivery:" + brokerID
	}
	return brokerID
}

// mark consumes the old envelope before the new one is sent, so that the old can
// never be handled beside it. It refuses what was handled before, and what
// nobody can tell of.
func (d *DeadLetters) mark(ctx context.Context, raw *driver.Delivery, env *envelope.EncryptedMessage, now time.Time, o *RedriveOptions) (why string, err error) {
	if d.nonces == nil {
		if !o.DryRun {
			d.vouched(ctx, raw, keys.ID(env.KeyID))
		}
		return "", nil
	}
	from := time.UnixMilli(max(env.EncryptedAt, env.NotBefore))
	request := replay.Request{
		Group:          d.group,
		ID:             replayID(env),
		BrokerID:       redriveMark + raw.BrokerID,
		Lease:          redriveLease,
		FreshUntil:     from.Add(d.cfg.MaxMessageAge + d.cfg.MaxClockSkew),
		Now:            now,
		RetryWindow:    d.cfg.RetryWindow,
		RetainClaimed:  now.Add(max(d.cfg.RetryWindow, d.cfg.NonceTTL)),
		RetainConsumed: now.Add(d.cfg.NonceTTL),
	}
	c, err := d.nonces.Begin(ctx, request)
	if errors.Is(err, replay.ErrNotFresh) {
		if !o.AcceptReplayRisk {
			return "unknown_to_nonce_store", nil
		}
		if o.DryRun {
			return "", nil // a claim would make the old envelope known
		}
		d.vouched(ctx, raw, keys.ID(env.KeyID))
		request.FreshUntil = now
		request.RetryWindow = most
		// Where the mark fails now, the old envelope must not stay known.
		request.RetainClaimed = now.Add(2 * redriveLease)
		c, err = d.nonces.Begin(ctx, request)
	}
	switch {
	case errors.Is(err, replay.ErrReused), errors.Is(err, replay.ErrBusy):
		return ErrorType(err), nil
	case err != nil:
		return "", wrap("redrive", d.queue, fmt.Errorf("%w: %w", ErrNonceStore, err))
	case c.Duplicate:
		return "", nil // an earlier redrive marked it, and may not have sent it
	case o.DryRun:
		err = d.nonces.Release(ctx, d.group, request.ID, c.Token)
	default:
		err = d.nonces.Consume(ctx, d.group, request.ID, c.Token)
	}
	if err != nil {
		return "", wrap("redrive", d.queue, fmt.Errorf("%w: %w", ErrNonceStore, err))
	}
	return "", nil
}

func (d *DeadLetters) vouched(ctx context.Context, raw *driver.Delivery, key keys.ID) {
	d.log.LogAttrs(ctx, slog.LevelWarn, "Dead letter resealed although nobody can tell whether it was handled before: replay risk accepted",
		slog.String("queue", d.queue), slog.String("message_id", clip(raw.ID)), slog.String("key_id", string(key)))
}
