package deadletter_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/deadletter"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/internal/fixturetest"
	"github.com/queue-runtime/queue/keys"
	"github.com/queue-runtime/queue/memqueue"
	"github.com/queue-runtime/queue/replay"
)

func (x *fixture) deadLetters() *deadletter.Queue {
	x.Helper()
	d, err := deadletter.Open(x.Context(), x.Client, orders, &deadletter.Options{Wait: time.Second})
	x.Must(err)
	return d
}

// giveUp sends a message and lets the application give it up.
func (x *fixture) giveUp(id string) {
	x.Helper()
	x.Send(&queue.Message{ID: id, SessionID: "s-" + id, Attributes: map[string]string{"a": "1"}, Body: []byte("body of " + id)})
	x.Must(x.One(x.Receiver(orders, nil)).DeadLetter(x.Context(), queue.Reason{Code: "gave_up", Description: "on purpose"}))
}

func TestDeadLettersRead(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		for i := range 25 {
			x.giveUp(fmt.Sprint("m", i))
			x.Wait(time.Second)
		}
		x.Inject(orders, driver.Message{ID: "plain", Body: []byte("plain")})
		x.None(x.Receiver(orders, nil), queue.ErrUnencryptedMessage)
		d := x.deadLetters()
		collect := func(f *deadletter.Filter) (ids []string) {
			for p, err := range d.All(x.Context(), f) {
				x.Must(err)
				ids = append(ids, p.ID)
				if p.ID != "plain" && (p.Err != nil || string(p.Body) != "body of "+p.ID || !p.Encrypted || p.DeadLetter.Reason != "gave_up" || p.DeadLetter.Queue != orders) {
					x.Errorf("letter %+v, want it open, with its reason and queue", p)
				}
			}
			return ids
		}
		if n := len(collect(nil)); n != 26 {
			x.Errorf("%d dead letters, want 26", n)
		}
		if got := collect(&deadletter.Filter{Reasons: []string{"plaintext_rejected"}}); !slices.Equal(got, []string{"plain"}) {
			x.Errorf("by reason: %v", got)
		}
		if got := collect(&deadletter.Filter{SessionIDs: []string{"s-m3", "s-m4"}}); !slices.Equal(got, []string{"m3", "m4"}) {
			x.Errorf("by session: %v", got)
		}
		if got := collect(&deadletter.Filter{KeyIDs: []keys.ID{"k1"}, Limit: 2}); !slices.Equal(got, []string{"m0", "m1"}) {
			x.Errorf("by key, two: %v", got)
		}
		if got := collect(&deadletter.Filter{Since: time.Now().Add(-2500 * time.Millisecond), Reasons: []string{"gave_up"}}); !slices.Equal(got, []string{"m23", "m24"}) {
			x.Errorf("by time: %v", got)
		}
		s, err := d.Stats(x.Context(), nil)
		x.Must(err)
		if s.Count != 26 || s.ByReason["gave_up"] != 25 || s.ByKey["k1"] != 25 || s.Plain != 1 || s.Newest.Sub(s.Oldest) < 24*time.Second {
			x.Errorf("summary %+v, want 25 letters given up under k1, and a plain one", s)
		}
		if _, err := d.Purge(x.Context(), nil); !errors.Is(err, queue.ErrInvalidOptions) {
			x.Errorf("Purge without a filter: %v", err)
		}
		n, err := d.Purge(x.Context(), &deadletter.Filter{Reasons: []string{"plaintext_rejected"}})
		x.Must(err)
		if left := len(collect(nil)); n != 1 || left != 25 {
			x.Errorf("purged %d, left %d", n, left)
		}
	})
}

// As they are: the stored bytes go back, and are judged by their age.
func TestRedriveAsTheyAre(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		for i := range 12 {
			x.giveUp(fmt.Sprint("m", i))
		}
		d := x.deadLetters()
		report, err := d.Redrive(x.Context(), &deadletter.RedriveOptions{DryRun: true})
		x.Must(err)
		if report.Matched != 12 || report.Redriven != 12 || len(x.Stored(orders)) != 0 {
			x.Errorf("dry run: %+v, %d sent", report, len(x.Stored(orders)))
		}
		begin := time.Now()
		progress := 0
		report, err = d.Redrive(x.Context(), &deadletter.RedriveOptions{Rate: 2, Progress: func(deadletter.RedriveReport) { progress++ }})
		x.Must(err)
		if report.Redriven != 12 || report.Resealed != 0 || report.Failed != 0 || progress == 0 {
			x.Errorf("%+v, progress %d times", report, progress)
		}
		if took := time.Since(begin); took < 5*time.Second {
			x.Errorf("12 messages at 2 a second took %s", took)
		}
		r := x.Receiver(orders, nil)
		for range 12 {
			x.Must(x.One(r).Complete(x.Context()))
		}
		x.None(r, queue.ErrNoMessage)
		// A handled message that comes back is a replay.
		if n := len(x.DeadReasons(orders)); n != 0 {
			x.Errorf("%d dead letters are left", n)
		}
	})
}

func TestRedriveResealed(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		x.giveUp("m")
		x.Must(x.Ring.Add(newKey(x.T, "k2", 2)))
		x.Must(x.Ring.SetCurrent("k2"))
		x.Wait(time.Hour) // long past MaxMessageAge, within the retry window
		d := x.deadLetters()
		report, err := d.Redrive(x.Context(), &deadletter.RedriveOptions{Reseal: true})
		x.Must(err)
		if report.Redriven != 1 || report.Resealed != 1 {
			x.Fatalf("report %+v, want one redriven and resealed", report)
		}
		got := x.One(x.Receiver(orders, nil))
		if got.ID != "m" || got.KeyID != "k2" || string(got.Body) != "body of m" || got.SessionID != "s-m" || got.Attributes["a"] != "1" ||
			time.Since(got.EncryptedAt) < time.Hour {
			x.Errorf("%+v, want the message of an hour ago under the new key", got.Received)
		}
		x.Must(got.Complete(x.Context()))
	})
}

// A broker that puts messages among the dead letters gains nothing by it.
func TestRedriveLaundersNothing(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		x.Send(&queue.Message{ID: "handled", Body: []byte("a")})
		stolen := x.Steal()
		r := x.Receiver(orders, nil)
		x.Must(x.One(r).Complete(x.Context()))
		deadLetter := func(m driver.Message, want error) {
			x.Inject(orders, m)
			x.None(r, want)
		}
		reseal := func(accept bool) map[string]int {
			report, err := x.deadLetters().Redrive(x.Context(), &deadletter.RedriveOptions{Reseal: true, AcceptReplayRisk: accept})
			x.Must(err)
			if report.Redriven > 0 {
				report.Refusals["redriven"] = report.Redriven
			}
			if report.Failed > 0 {
				x.Error(report.FirstError)
			}
			return report.Refusals
		}
		// Handled before, the store remembers.
		x.Wait(10 * time.Minute)
		deadLetter(stolen, queue.ErrNonceReused)
		if got := reseal(false); got["nonce_reused"] != 1 || len(got) != 1 {
			x.Errorf("a handled message: %v", got)
		}
		if got := reseal(true); got["nonce_reused"] != 1 {
			x.Errorf("a handled message, risk accepted: %v", got)
		}
		_, err := x.deadLetters().Purge(x.Context(), &deadletter.Filter{Reasons: []string{"nonce_reused"}})
		x.Must(err)
		// Of a sender that the store does not know: it may have been handled and forgotten.
		x.Send(&queue.Message{ID: "unknown", Body: []byte("a")})
		unknown := x.Steal()
		x.Rewrite(orders, func([]driver.Message) []driver.Message { return nil })
		x.Wait(2 * time.Hour)
		deadLetter(unknown, queue.ErrMessageExpired)
		if got := reseal(false); got["unknown_to_replay_store"] != 1 || len(got) != 1 {
			x.Errorf("an unknown message: %v", got)
		}
		// A dry run that accepts the risk must not make it known.
		_, err = x.deadLetters().Redrive(x.Context(), &deadletter.RedriveOptions{Reseal: true, AcceptReplayRisk: true, DryRun: true})
		x.Must(err)
		if got := reseal(false); got["unknown_to_replay_store"] != 1 {
			x.Errorf("an unknown message after a dry run: %v", got)
		}
		if strings.Contains(x.Log.String(), "replay risk accepted") {
			x.Error("a risk was logged as accepted that was not")
		}
		// The operator vouches for it.
		if got := reseal(true); got["redriven"] != 1 {
			x.Errorf("vouched for: %v", got)
		}
		if !strings.Contains(x.Log.String(), "replay risk accepted") {
			x.Error("the acceptance is not in the log")
		}
		x.Must(x.One(r).Complete(x.Context()))
		// Plaintext is never made authentic.
		deadLetter(driver.Message{ID: "forged", Body: []byte("forged")}, queue.ErrUnencryptedMessage)
		if got := reseal(true); got["plaintext"] != 1 {
			x.Errorf("plaintext: %v", got)
		}
		x.None(r, queue.ErrNoMessage)
	})
}

// A redrive that dies after its mark and before its send must not lose the
// message, and one that dies after the send may repeat it.
func TestRedriveCrash(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		x.giveUp("m")
		p := &fixturetest.FaultyBroker{Broker: x.Broker}
		p.OnSend = func(m []*driver.Message) []driver.SendResult {
			return []driver.SendResult{{Err: driver.Errorf(driver.Unavailable, "connection reset")}}
		}
		c, err := queue.New(p, &queue.Options{Keys: x.Ring, ReplayStore: x.Store, Logger: quiet(), Crypto: queue.CryptoConfig{Enabled: true, TrackReplays: true}})
		x.Must(err)
		d, err := deadletter.Open(x.Context(), c, orders, &deadletter.Options{Wait: time.Second})
		x.Must(err)
		report, err := d.Redrive(x.Context(), &deadletter.RedriveOptions{Reseal: true})
		x.Must(err)
		if report.Failed != 1 || !errors.Is(report.FirstError, queue.ErrUnavailable) || report.Redriven != 0 {
			x.Fatalf("report %+v, want one failure, since the broker is not available", report)
		}
		report, err = x.deadLetters().Redrive(x.Context(), &deadletter.RedriveOptions{Reseal: true})
		x.Must(err)
		if report.Redriven != 1 {
			x.Fatalf("after the crash: %+v", report)
		}
		x.Must(x.One(x.Receiver(orders, nil)).Complete(x.Context()))
	})
}

func TestRedriveNeedsStore(t *testing.T) {
	untracked := func(_ *fixture, o *queue.Options) { o.Crypto.TrackReplays = false }
	inBubble(t, untracked, func(x *fixture) {
		x.giveUp("m")
		_, err := x.deadLetters().Redrive(x.Context(), &deadletter.RedriveOptions{Reseal: true})
		if !errors.Is(err, queue.ErrInvalidOptions) || !strings.Contains(err.Error(), "AcceptReplayRisk") {
			x.Errorf("Redrive = %v", err)
		}
	})
}

// What goes back goes in calls within the broker's limits, by bytes too.
func TestRedriveSplitsBySize(t *testing.T) {
	small := func(x *fixture, _ *queue.Options) {
		x.Broker = memqueue.New(&memqueue.Options{Default: memqueue.QueueOptions{Lock: 30 * time.Second, MaxDeliveries: -1, MaxBatchBytes: 5000}})
	}
	inBubble(t, small, func(x *fixture) {
		for i := range 7 {
			x.Send(&queue.Message{ID: fmt.Sprint("m", i), Body: make([]byte, 2000)})
			x.Must(x.One(x.Receiver(orders, nil)).DeadLetter(x.Context(), queue.Reason{Code: "gave_up"}))
		}
		report, err := x.deadLetters().Redrive(x.Context(), &deadletter.RedriveOptions{Reseal: true})
		x.Must(err)
		if report.Redriven != 7 || report.Failed != 0 {
			x.Errorf("report %+v, want 7 redriven", report)
		}
	})
}

// A rate that is slow beside the lock neither redrives a message twice nor loses
// sight of those that it has not come to.
func TestRedriveSlowly(t *testing.T) {
	inBubble(t, patient, func(x *fixture) {
		for i := range 10 {
			x.giveUp(fmt.Sprint("m", i))
		}
		d := x.deadLetters()
		begin := time.Now()
		report, err := d.Redrive(x.Context(), &deadletter.RedriveOptions{
			Rate: 0.02, Filter: &deadletter.Filter{MessageIDs: []string{"m1", "m3", "m5", "m7", "m9"}},
		})
		x.Must(err)
		if report.Matched != 5 || report.Redriven != 5 || report.Failed != 0 {
			x.Errorf("report %+v, want 5 matched and redriven", report)
		}
		if took := time.Since(begin); took < 4*50*time.Second {
			x.Errorf("5 messages at one in 50 s took %s", took)
		}
		if sent, left := len(x.Stored(orders)), len(x.DeadReasons(orders)); sent != 5 || left != 5 {
			x.Errorf("%d sent, %d left; want 5, 5", sent, left)
		}
		dead, err := x.Broker.StoredDeadLetters(orders)
		x.Must(err)
		for _, m := range dead { // the lock of none ran out meanwhile
			if m.Count > 0 {
				x.Errorf("%s, which was passed over, has spent %d deliveries", m.ID, m.Count)
			}
		}
	})
}

func TestRedriveRefusesOptions(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		for range 3 {
			x.giveUp(rand.Text())
		}
		d := x.deadLetters()
		for _, o := range []*deadletter.RedriveOptions{
			{Rate: math.NaN()}, {Rate: -1}, {TTL: -1}, {Filter: &deadletter.Filter{Limit: -1}},
		} {
			if _, err := d.Redrive(x.Context(), o); !errors.Is(err, queue.ErrInvalidOptions) {
				x.Errorf("Redrive %+v = %v, want ErrInvalidOptions", o, err)
			}
		}
		if _, err := d.Purge(x.Context(), &deadletter.Filter{Limit: -1}); !errors.Is(err, queue.ErrInvalidOptions) {
			x.Errorf("Purge = %v, want ErrInvalidOptions", err)
		}
		for _, err := range d.All(x.Context(), &deadletter.Filter{Limit: -1}) {
			if !errors.Is(err, queue.ErrInvalidOptions) {
				x.Errorf("All = %v, want ErrInvalidOptions", err)
			}
		}
		// One message in 300 years, not as fast as it goes.
		ctx, cancel := context.WithTimeout(x.Context(), time.Hour)
		defer cancel()
		report, err := d.Redrive(ctx, &deadletter.RedriveOptions{Rate: 1e-10})
		if !errors.Is(err, context.DeadlineExceeded) || report.Redriven != 1 {
			x.Errorf("Redrive = %+v, %v; want one message, then the deadline", report, err)
		}
	})
}

// A dry run accepts nothing, and says so.
func TestDryRunVouchesForNothing(t *testing.T) {
	untracked := func(_ *fixture, o *queue.Options) { o.Crypto.TrackReplays = false }
	inBubble(t, untracked, func(x *fixture) {
		x.giveUp("m")
		_, err := x.deadLetters().Redrive(x.Context(), &deadletter.RedriveOptions{Reseal: true, AcceptReplayRisk: true, DryRun: true})
		x.Must(err)
		if strings.Contains(x.Log.String(), "replay risk accepted") {
			x.Error("a risk was logged as accepted that was not")
		}
	})
}

// What could not be purged is given back at once.
func TestPurgeGivesBackWhatFailed(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		for i := range 3 {
			x.giveUp(fmt.Sprint("m", i))
		}
		p := &faultyDead{Broker: x.Broker}
		c, err := queue.New(p, &queue.Options{Keys: x.Ring, Logger: quiet()})
		x.Must(err)
		d, err := deadletter.Open(x.Context(), c, orders, &deadletter.Options{Wait: time.Second})
		x.Must(err)
		n, err := d.Purge(x.Context(), &deadletter.Filter{})
		if n != 2 || !errors.Is(err, queue.ErrUnavailable) {
			x.Errorf("Purge = %d, %v; want 2, ErrUnavailable", n, err)
		}
		n, err = d.Purge(x.Context(), &deadletter.Filter{})
		x.Must(err)
		if n != 1 {
			x.Errorf("Purge = %d once it works, want 1", n)
		}
	})
}

// faultyDead has dead-letter queues whose first completion fails, once, or that do
// not answer to one for two hours.
type faultyDead struct {
	driver.Broker
	failed bool
	hangs  bool
}

func (p *faultyDead) Open(ctx context.Context, name string, o *driver.QueueOptions) (driver.Queue, error) {
	q, err := p.Broker.Open(ctx, name, o)
	return &faultyDeadMain{q, p}, err
}

type faultyDeadMain struct {
	driver.Queue
	p *faultyDead
}

func (q *faultyDeadMain) DeadLetters(ctx context.Context) (driver.Queue, error) {
	d, err := q.Queue.DeadLetters(ctx)
	return &faultyDeadQueue{d, q.p}, err
}

type faultyDeadQueue struct {
	driver.Queue
	p *faultyDead
}

func (q *faultyDeadQueue) Settle(ctx context.Context, s []driver.Settlement) []error {
	if q.p.failed || len(s) == 0 || s[0].Kind != driver.Complete {
		return q.Queue.Settle(ctx, s)
	}
	if q.p.hangs {
		answer := time.NewTimer(2 * time.Hour)
		defer answer.Stop()
		select {
		case <-ctx.Done():
			return []error{ctx.Err()}
		case <-answer.C:
			return q.Queue.Settle(ctx, s)
		}
	}
	q.p.failed = true
	return append([]error{driver.Errorf(driver.Unavailable, "connection reset")}, q.Queue.Settle(ctx, s[1:])...)
}

// A resealed message stays the same message: of its new envelope and a copy of the old
// one, one is handled, whichever comes first.
func TestRedriveIsHandledOnce(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		x.Send(&queue.Message{ID: "m", Body: []byte("a")})
		stolen := x.Steal()
		r := x.Receiver(orders, nil)
		x.Must(x.One(r).DeadLetter(x.Context(), queue.Reason{Code: "gave_up"}))
		report, err := x.deadLetters().Redrive(x.Context(), &deadletter.RedriveOptions{Reseal: true})
		x.Must(err)
		if report.Resealed != 1 {
			x.Fatalf("report %+v, want one resealed", report)
		}
		x.Rewrite(orders, func(m []driver.Message) []driver.Message { return append([]driver.Message{stolen}, m...) })
		x.Must(x.One(r).Complete(x.Context()))
		x.None(r, queue.ErrNonceReused) // the other copy
		if waiting, dead := len(x.Stored(orders)), x.DeadReasons(orders); waiting > 0 || len(dead) != 1 || dead[0] != "nonce_reused" {
			x.Errorf("%d waiting, dead letters %v; want the other copy", waiting, dead)
		}
	})
}

// Two operators that redrive the same letters, one of them interrupted, make one message. The
// second copy is not deleted: by its tag it could be another message of a stolen sender key.
func TestRedriveTwiceIsHandledOnce(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		x.giveUp("m")
		c, err := queue.New(&faultyDead{Broker: x.Broker}, &queue.Options{Keys: x.Ring, ReplayStore: x.Store, Logger: quiet(), Crypto: queue.CryptoConfig{Enabled: true, TrackReplays: true}})
		x.Must(err)
		interrupted, err := deadletter.Open(x.Context(), c, orders, &deadletter.Options{Wait: time.Second})
		x.Must(err)
		report, err := interrupted.Redrive(x.Context(), &deadletter.RedriveOptions{Reseal: true})
		x.Must(err)
		if report.Redriven != 0 || report.Failed != 1 {
			x.Fatalf("%+v, want one that was sent and not removed", report)
		}
		x.Wait(time.Minute)
		if report, err = x.deadLetters().Redrive(x.Context(), &deadletter.RedriveOptions{Reseal: true}); err != nil || report.Redriven != 1 {
			x.Fatalf("report %+v, %v; want one redriven", report, err)
		}
		if n := len(x.Stored(orders)); n != 2 {
			x.Fatalf("%d copies are waiting, want 2", n)
		}
		r := x.Receiver(orders, nil)
		x.Must(x.One(r).Complete(x.Context()))
		x.None(r, queue.ErrNonceReused)
		if waiting, dead := len(x.Stored(orders)), x.DeadReasons(orders); waiting > 0 || len(dead) != 1 || dead[0] != "nonce_reused" {
			x.Errorf("%d waiting, dead letters %v; want the second copy", waiting, dead)
		}
	})
}

// What was added to a message on its way is not made authentic by resealing it.
func TestRedriveDropsWhatWasAdded(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		x.Send(&queue.Message{ID: "m", Attributes: map[string]string{"event": "push"}, Body: []byte("a")})
		x.Rewrite(orders, func(m []driver.Message) []driver.Message {
			m[0].Attributes = map[string]string{"event": "push", "admin": "true"}
			return m
		})
		r := x.Receiver(orders, nil)
		x.Must(x.One(r).DeadLetter(x.Context(), queue.Reason{Code: "gave_up"}))
		_, err := x.deadLetters().Redrive(x.Context(), &deadletter.RedriveOptions{Reseal: true})
		x.Must(err)
		d := x.One(r)
		if len(d.Attributes) != 1 || d.Attributes["event"] != "push" || len(d.Unauthenticated) != 0 {
			x.Errorf("attributes %v, unauthenticated %v", d.Attributes, d.Unauthenticated)
		}
	})
}

// A message's own expiry outlives resealing, unless it is replaced.
func TestRedriveKeepsExpiry(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		r := x.Receiver(orders, nil)
		for range 2 {
			x.Send(&queue.Message{Body: []byte("a"), TTL: 10 * time.Minute})
			x.Must(x.One(r).DeadLetter(x.Context(), queue.Reason{Code: "gave_up"}))
		}
		x.Wait(4 * time.Minute)
		redrive := func(o *deadletter.RedriveOptions) deadletter.RedriveReport {
			o.Reseal = true
			report, err := x.deadLetters().Redrive(x.Context(), o)
			x.Must(err)
			return report
		}
		if report := redrive(&deadletter.RedriveOptions{Filter: &deadletter.Filter{Limit: 1}}); report.Resealed != 1 {
			x.Fatalf("report %+v, want one resealed", report)
		}
		d := x.One(r)
		if left := time.Until(d.EncryptedAt.Add(d.TTL)); left != 6*time.Minute {
			x.Errorf("it lives %s after 4 of 10 minutes, want 6m", left)
		}
		x.Must(d.Complete(x.Context()))
		x.Wait(7 * time.Minute)
		if report := redrive(&deadletter.RedriveOptions{}); report.Refusals["expired"] != 1 || report.Redriven != 0 {
			x.Errorf("past its expiry: %+v", report)
		}
		if report := redrive(&deadletter.RedriveOptions{TTL: time.Hour}); report.Resealed != 1 {
			x.Errorf("with another expiry: %+v", report)
		}
		d = x.One(r)
		if left := time.Until(d.EncryptedAt.Add(d.TTL)); left > time.Hour || left < time.Hour-time.Second {
			x.Errorf("it lives %s, want 1h from the redrive", left)
		}
	})
}

// cancellingStore ends a context at the third look.
type cancellingStore struct {
	replay.Store
	cancel context.CancelFunc
	looks  int
}

func (s *cancellingStore) Look(ctx context.Context, group string, q []replay.Query) ([]replay.Look, error) {
	if s.looks++; s.looks == 3 {
		s.cancel()
	}
	return s.Store.Look(ctx, group, q)
}

// A redrive whose context ends gives everything it had in hand back at once, also
// what it was about to send and what it had not looked at: the next one need not
// wait for locks to run out.
func TestRedriveCancelledGivesBackAll(t *testing.T) {
	store := &cancellingStore{cancel: func() {}}
	inBubble(t, func(x *fixture, o *queue.Options) {
		store.Store = o.ReplayStore
		o.ReplayStore = store
	}, func(x *fixture) {
		for i := range 6 {
			x.giveUp(fmt.Sprint("m", i))
		}
		ctx, cancel := context.WithCancel(x.Context())
		defer cancel()
		store.cancel, store.looks = cancel, 0
		if _, err := x.deadLetters().Redrive(ctx, &deadletter.RedriveOptions{Reseal: true}); !errors.Is(err, context.Canceled) {
			x.Fatalf("Redrive: %v", err)
		}
		report, err := x.deadLetters().Redrive(x.Context(), &deadletter.RedriveOptions{Reseal: true})
		x.Must(err)
		if report.Matched != 6 || report.Redriven != 6 {
			x.Errorf("at once afterwards: %+v, want 6 of 6", report)
		}
	})
}

// A dead-letter queue that does not answer when what was sent is to be removed does
// not hold Redrive for ever, although that removal outlives the caller's context.
func TestRedriveEndsWhereRemovalHangs(t *testing.T) {
	var dead faultyDead
	inBubble(t, func(x *fixture, _ *queue.Options) { dead.Broker = x.Broker }, func(x *fixture) {
		x.giveUp("m0")
		client, err := queue.New(&dead, &queue.Options{Logger: quiet()})
		x.Must(err)
		d, err := deadletter.Open(x.Context(), client, orders, &deadletter.Options{Wait: time.Second})
		x.Must(err)
		dead.hangs = true
		ctx, cancel := context.WithTimeout(x.Context(), time.Hour)
		defer cancel()
		report, err := d.Redrive(ctx, nil)
		if ctx.Err() != nil || report.Failed != 1 {
			x.Errorf("%+v, %v; context: %v", report, err, ctx.Err())
		}
	})
}

// A broker that calls a waiting message as a redrive records a dead letter does
// not have what a handler completed taken for a redrive that was cut short.
func TestRedriveTakesNoHandledMessageForItsOwn(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		x.Send(&queue.Message{ID: "m", Body: []byte("a")})
		stolen := x.Steal()
		called := func(id string) {
			x.Must(x.Broker.Rewrite(orders, func([]memqueue.Stored) []memqueue.Stored {
				return []memqueue.Stored{{Message: stolen, BrokerID: id}}
			}))
		}
		called("redrive:7")
		r := x.Receiver(orders, nil)
		x.Must(x.One(r).Complete(x.Context()))
		called("7")
		x.Wait(10 * time.Minute)
		x.None(r, queue.ErrNonceReused) // it is a dead letter now
		report, err := x.deadLetters().Redrive(x.Context(), &deadletter.RedriveOptions{Reseal: true})
		x.Must(err)
		if report.Redriven != 0 || report.Refusals["nonce_reused"] != 1 {
			x.Errorf("report %+v, want one refused as nonce_reused", report)
		}
		x.None(r, queue.ErrNoMessage)
	})
}

// A broker that puts a scheduled message among the dead letters does not have it
// handled before its time, nor a second time when it comes: its nonce would be
// forgotten by then.
func TestRedriveResealsNothingBeforeItIsDue(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		x.Send(&queue.Message{ID: "m", NotBefore: time.Now().Add(2 * time.Hour), Body: []byte("a")})
		stolen := x.Steal()
		x.Rewrite(orders, func(m []driver.Message) []driver.Message { return m }) // due at once
		q, err := x.Broker.Connect().Open(x.Context(), orders, nil)
		x.Must(err)
		d, err := q.Receive(x.Context(), 1, 0)
		x.Must(err)
		x.Must(q.Settle(x.Context(), []driver.Settlement{{Delivery: d[0], Kind: driver.MoveToDeadLetter, Reason: "gave_up"}})[0])
		r := x.Receiver(orders, nil)
		reseal := func() deadletter.RedriveReport {
			report, err := x.deadLetters().Redrive(x.Context(), &deadletter.RedriveOptions{Reseal: true, AcceptReplayRisk: true})
			x.Must(err)
			return report
		}
		if report := reseal(); report.Redriven != 0 || report.Refusals["message_from_future"] != 1 {
			x.Errorf("before it is due: %+v", report)
		}
		x.None(r, queue.ErrNoMessage)
		x.Wait(2 * time.Hour)
		if report := reseal(); report.Redriven != 1 {
			x.Errorf("once it is due: %+v", report)
		}
		x.Must(x.One(r).Complete(x.Context()))
		x.Inject(orders, stolen)
		x.None(r, queue.ErrNonceReused)
		x.Wait(10 * time.Minute)
		x.Inject(orders, stolen)
		x.None(r, queue.ErrNonceReused)
	})
}

// ownContext ends with an error of its own.
type ownContext struct{ context.Context }

var errOwn = errors.New("own")

func (c ownContext) Err() error {
	if c.Context.Err() != nil {
		return errOwn
	}
	return nil
}

// TestRedriveErrors: an error of a redrive names the operation and the queue, whatever
// ended it.
func TestRedriveErrors(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		for i := range 3 {
			x.giveUp(fmt.Sprint(i))
		}
		ctx, cancel := context.WithCancel(x.Context())
		_, err := x.deadLetters().Redrive(ownContext{ctx}, &deadletter.RedriveOptions{Rate: 1, Progress: func(deadletter.RedriveReport) { cancel() }})
		var e *queue.Error
		if !errors.Is(err, errOwn) || !errors.As(err, &e) || e.Op != "redrive" || e.Queue != orders {
			t.Errorf("%v: want %v with the operation and the queue", err, errOwn)
		}
	})
}
