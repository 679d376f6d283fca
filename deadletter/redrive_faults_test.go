package deadletter_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/deadletter"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/keys"
)

// halfKeys is a provider of keys of which single questions fail.
type halfKeys struct {
	keys.Provider
	key, current error
}

func (p *halfKeys) GetKey(ctx context.Context, id keys.ID) (*keys.Key, error) {
	if p.key != nil {
		return nil, p.key
	}
	return p.Provider.GetKey(ctx, id)
}

func (p *halfKeys) CurrentKeyID(ctx context.Context) (keys.ID, error) {
	if p.current != nil {
		return "", p.current
	}
	return p.Provider.CurrentKeyID(ctx)
}

// TestResealWithPartsAway: what cannot be told of a letter is a failure, what is known against it
// a refusal; either way nothing is sent and the letter is given back.
func TestResealWithPartsAway(t *testing.T) {
	for name, c := range map[string]struct {
		keys   halfKeys
		lacks  bool // the key is not in the list
		store  groups
		failed error  // the letter fails with it
		reason string // the letter is refused for it
		dry    bool   // a dry run finds out
	}{
		"the key is away":          {keys: halfKeys{key: errBroken}, failed: queue.ErrKeyProvider, dry: true},
		"the current key is away":  {keys: halfKeys{current: errBroken}, failed: errBroken},
		"the key is not known":     {lacks: true, reason: driver.ReasonKeyNotFound, dry: true},
		"the store is away":        {store: groups{err: errBroken}, failed: errBroken, dry: true},
		"the store fails for one":  {store: groups{item: errBroken}, failed: errBroken, dry: true},
		"the store answers little": {store: groups{short: true}, failed: queue.ErrReplayStore, dry: true},
		"all answer":               {},
	} {
		inBubble(t, nil, func(x *fixture) {
			x.giveUp("m")
			p, ring := &broken{}, x.Ring
			if c.lacks {
				ring = newRing(x.T, "k9")
			}
			c.keys.Provider, c.store.Store = ring, x.Store
			client := x.behind(p, func(o *queue.Options) { o.Keys, o.ReplayStore = &c.keys, &c.store })
			d, err := deadletter.Open(x.Context(), client, orders, nil)
			x.Must(err)
			for _, dry := range []bool{true, false} {
				report, err := d.Redrive(x.Context(), &deadletter.RedriveOptions{Reseal: true, DryRun: dry})
				x.Must(err)
				fine := c.failed == nil && c.reason == "" || dry && !c.dry
				switch {
				case fine && (report.Redriven != 1 || report.Failed != 0 || report.Refused != 0):
					x.Errorf("%s, dry %v: %+v", name, dry, report)
				case !fine && c.failed != nil && (report.Failed != 1 || !errors.Is(report.FirstError, c.failed) || report.Refused != 0 || report.Redriven != 0):
					x.Errorf("%s, dry %v: %+v, want that it fails with %v", name, dry, report, c.failed)
				case !fine && c.reason != "" && (report.Refused != 1 || report.Refusals[c.reason] != 1 || report.Failed != 0 || report.Redriven != 0):
					x.Errorf("%s, dry %v: %+v, want that it is refused for %s", name, dry, report, c.reason)
				}
				if fine && !dry {
					continue
				}
				if len(p.sent) != 0 || x.free() != 1 {
					x.Errorf("%s, dry %v: %d sent, %d are free", name, dry, len(p.sent), x.free())
				}
			}
		})
	}
}

// TestOptionsThatContradict: each is refused with what to do, before a letter is touched.
func TestOptionsThatContradict(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		x.giveUp("m")
		plain := x.behind(&broken{}, func(o *queue.Options) { o.Keys, o.ReplayStore, o.Crypto = nil, nil, queue.CryptoConfig{} })
		for _, c := range []struct {
			client *queue.Client
			open   *deadletter.Options
			o      deadletter.RedriveOptions
			want   string
		}{
			{x.Client, nil, deadletter.RedriveOptions{TTL: time.Hour}, "TTL needs Reseal"},
			{x.Client, nil, deadletter.RedriveOptions{TTL: -1, Reseal: true}, "must not be negative"},
			{plain, nil, deadletter.RedriveOptions{Reseal: true, AcceptReplayRisk: true}, "needs the queue's keys"},
			{x.Client, &deadletter.Options{Crypto: &queue.CryptoConfig{Enabled: true}}, deadletter.RedriveOptions{Reseal: true}, "AcceptReplayRisk"},
		} {
			d, err := deadletter.Open(x.Context(), c.client, orders, c.open)
			x.Must(err)
			report, err := d.Redrive(x.Context(), &c.o)
			x.failed(c.want, err, queue.ErrInvalidOptions, "redrive")
			if err == nil || !strings.Contains(err.Error(), c.want) || report.Matched != 0 {
				x.Errorf("%+v: %+v, %v; want %q", c.o, report, err, c.want)
			}
		}
	})
}

// TestRiskIsLoggedOnce for each letter that is resealed although no store tells of it.
func TestRiskIsLoggedOnce(t *testing.T) {
	untracked := func(_ *fixture, o *queue.Options) { o.Crypto.TrackReplays = false }
	inBubble(t, untracked, func(x *fixture) {
		x.giveUp("m0")
		x.giveUp("m1")
		report, err := x.deadLetters().Redrive(x.Context(), &deadletter.RedriveOptions{Reseal: true, AcceptReplayRisk: true})
		x.Must(err)
		if n := strings.Count(x.Log.String(), "replay risk accepted"); n != 2 || report.Resealed != 2 {
			x.Errorf("%d lines for %+v", n, report)
		}
	})
}

// TestNoRiskIsLogged of a letter that the store knows.
func TestNoRiskIsLogged(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		x.giveUp("m")
		_, err := x.deadLetters().Redrive(x.Context(), &deadletter.RedriveOptions{Reseal: true, AcceptReplayRisk: true})
		x.Must(err)
		if strings.Contains(x.Log.String(), "replay risk accepted") {
			x.Error("the store knows the message, and a risk was logged")
		}
	})
}

// TestLettersOfOtherOrigins open if the queue accepts them.
func TestLettersOfOtherOrigins(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		_, err := x.Sender("old").Send(x.Context(), &queue.Message{ID: "m", Body: []byte("a")})
		x.Must(err)
		moved := x.Stored("old")[0]
		x.Sender(orders)
		x.giveUp("first")
		_, err = x.deadLetters().Purge(x.Context(), &deadletter.Filter{})
		x.Must(err)
		x.Inject(orders, moved)
		x.None(x.Receiver(orders, nil), queue.ErrAuthenticationFailed)
		for _, origins := range [][]string{nil, {"old"}} {
			d, err := deadletter.Open(x.Context(), x.Client, orders, &deadletter.Options{Crypto: &queue.CryptoConfig{Enabled: true, AcceptedOrigins: origins}})
			x.Must(err)
			for l, err := range d.All(x.Context(), nil) {
				if x.Must(err); (l.Err == nil) != (origins != nil) {
					x.Errorf("with origins %q: %v", origins, l.Err)
				}
			}
		}
	})
}

// TestRedriveFillsItsCalls: as many letters go in a call as the queue takes, by count and by
// bytes, and a letter that is too large goes alone.
func TestRedriveFillsItsCalls(t *testing.T) {
	for name, c := range map[string]struct {
		caps func(c *driver.Capabilities, size int)
		want []int
	}{
		"by count":          {func(c *driver.Capabilities, _ int) { c.MaxBatch, c.MaxBatchBytes = 4, 0 }, []int{4, 2}},
		"one by one":        {func(c *driver.Capabilities, _ int) { c.MaxBatch = 0 }, []int{1, 1, 1, 1, 1, 1}},
		"by bytes":          {func(c *driver.Capabilities, size int) { c.MaxBatchBytes = 3 * size }, []int{3, 3}},
		"by bytes, not all": {func(c *driver.Capabilities, size int) { c.MaxBatchBytes = 3*size - 1 }, []int{2, 2, 2}},
		"all too large":     {func(c *driver.Capabilities, _ int) { c.MaxBatchBytes = 1 }, []int{1, 1, 1, 1, 1, 1}},
		"no limit in bytes": {func(c *driver.Capabilities, _ int) { c.MaxBatch, c.MaxBatchBytes = 100, 0 }, []int{6}},
	} {
		inBubble(t, nil, func(x *fixture) {
			x.buryMany(6)
			main, err := x.Broker.Connect().Open(x.Context(), orders, nil)
			x.Must(err)
			p := &broken{}
			d := x.opened(p, nil)
			_, err = d.Redrive(x.Context(), &deadletter.RedriveOptions{Filter: &deadletter.Filter{Limit: 1}})
			x.Must(err)
			size := main.Size(p.sent[0])
			x.Must(x.One(x.Receiver(orders, nil)).DeadLetter(x.Context(), queue.Reason{Code: "gave_up"}))
			p.sends, p.main = nil, func(k *driver.Capabilities) { c.caps(k, size) }
			report, err := d.Redrive(x.Context(), nil)
			if err != nil || report.Redriven != 6 || !slices.Equal(p.sends, c.want) {
				x.Errorf("%s: %+v, %v, in calls of %v; want %v", name, report, err, p.sends, c.want)
			}
		})
	}
}

// TestCallerThatLeavesARedrive: it ends at once, what was not sent is given back, and no letter
// counts as failed.
func TestCallerThatLeavesARedrive(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		x.buryMany(5)
		ctx, cancel := context.WithTimeout(x.Context(), 30*time.Minute)
		defer cancel()
		begin := time.Now()
		report, err := x.opened(&broken{}, nil).Redrive(ctx, &deadletter.RedriveOptions{Rate: 1.0 / 3600})
		if !errors.Is(err, context.DeadlineExceeded) || report.Redriven != 1 || report.Failed != 0 || time.Since(begin) != 30*time.Minute || x.free() != 4 {
			x.Errorf("%+v, %v after %s; %d are free", report, err, time.Since(begin), x.free())
		}
	})
	for _, dry := range []bool{true, false} {
		store := &cancellingStore{cancel: func() {}}
		inBubble(t, func(_ *fixture, o *queue.Options) {
			store.Store = o.ReplayStore
			o.ReplayStore = store
		}, func(x *fixture) {
			x.buryMany(6)
			ctx, cancel := context.WithCancel(x.Context())
			defer cancel()
			store.cancel, store.looks = cancel, 0
			report, err := x.deadLetters().Redrive(ctx, &deadletter.RedriveOptions{Reseal: true, DryRun: dry})
			if !errors.Is(err, context.Canceled) || store.looks != 3 || report.Failed != 0 || report.Refused != 0 || len(x.Stored(orders)) != 0 || x.free() != 6 {
				x.Errorf("dry %v: %+v, %v after %d looks; %d are free", dry, report, err, store.looks, x.free())
			}
		})
	}
}

// TestProgressOfARedrive is told after each batch, and may keep what it is told.
func TestProgressOfARedrive(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		x.buryMany(25)
		for _, dry := range []bool{true, false} {
			var told []int
			o := &deadletter.RedriveOptions{Reseal: true, DryRun: dry, Progress: func(r deadletter.RedriveReport) {
				told = append(told, r.Matched)
				r.Refusals["of the callback"] = 1
			}}
			report, err := x.opened(&broken{caps: receiving}, nil).Redrive(x.Context(), o)
			if err != nil || !slices.Equal(told, []int{10, 20, 25}) || len(report.Refusals) != 0 {
				x.Errorf("dry %v: told of %v, %+v, %v", dry, told, report, err)
			}
		}
	})
}

// TestDryRunLooksNoFurther than its limit.
func TestDryRunLooksNoFurther(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		x.buryMany(150)
		p := &broken{}
		report, err := x.opened(p, nil).Redrive(x.Context(), &deadletter.RedriveOptions{DryRun: true, Filter: &deadletter.Filter{Limit: 100}})
		if err != nil || report.Matched != 100 || p.calls["peek"] != 1 {
			x.Errorf("%+v, %v in %d calls, want 1", report, err, p.calls["peek"])
		}
	})
}

// TestLetterThatComesMeanwhile: what is dead-lettered after a read began is no part of it, and is
// given back at its end.
func TestLetterThatComesMeanwhile(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		x.giveUp("m0")
		x.giveUp("m1")
		late := 0
		p := &broken{before: func(call string) {
			if call == "receive" && late == 0 {
				late++
				x.Wait(time.Second)
				x.giveUp("late")
			}
		}}
		report, err := x.opened(p, nil).Redrive(x.Context(), nil)
		if err != nil || report.Redriven != 2 || x.free() != 1 {
			x.Errorf("%+v, %v; %d are free, want the one that came", report, err, x.free())
		}
	})
}

// TestFailuresOfRemoval: a letter that was sent and is not removed fails; what is told of the
// call is that it was sent, and the context of the removal ends with it.
func TestFailuresOfRemoval(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		x.giveUp("m0")
		x.giveUp("m1")
		n := 0
		p := &broken{refuse: func(*driver.Delivery) error { n++; return fmt.Errorf("failure %d", n) }}
		o := &told{}
		d := x.opened(p, func(c *queue.Options) { c.Observer = o })
		report, err := d.Redrive(x.Context(), nil)
		if err != nil || report.Failed != 2 || report.Redriven != 0 || !strings.Contains(report.FirstError.Error(), "failure 1") {
			x.Errorf("report %+v, %v; want two failures, and the first one's error", report, err)
		}
		if p.ctx.Err() == nil {
			x.Error("the context of the removal goes on after it")
		}
		if last := o.events[len(o.events)-1]; last != "orders: sent 2 of 2, 0 links, failed false" {
			x.Errorf("told %q", o.events)
		}
		x.giveUp("m2")
		x.giveUp("m3")
		n = 0
		if _, err := d.Purge(x.Context(), &deadletter.Filter{}); err == nil || !strings.Contains(err.Error(), "failure 1") {
			x.Errorf("Purge: %v, want the first failure", err)
		}
	})
}

// TestShortAnswerIsAFailure: a letter for which the driver has no result was not sent.
func TestShortAnswerIsAFailure(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		x.giveUp("m0")
		o := &told{}
		d := x.opened(&broken{short: "send"}, func(c *queue.Options) { c.Observer = o })
		_, err := d.Redrive(x.Context(), nil)
		x.Must(err)
		if last := o.events[len(o.events)-1]; last != "orders: sent 0 of 1, 0 links, failed true" {
			x.Errorf("told %q", o.events)
		}
	})
}

// TestPurgeBelievesNoForgery: a letter that does not open is deleted, and says nothing about its
// sender's numbers.
func TestPurgeBelievesNoForgery(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		x.giveUp("other") // a key that works
		x.Send(&queue.Message{ID: "m", Body: []byte("a")})
		x.Rewrite(orders, func(m []driver.Message) []driver.Message {
			m[0].Body[len(m[0].Body)-1] ^= 1
			return m
		})
		x.None(x.Receiver(orders, nil), queue.ErrAuthenticationFailed)
		s := &groups{Store: x.Store}
		d := x.opened(&broken{}, func(o *queue.Options) { o.ReplayStore = s })
		n, err := d.Purge(x.Context(), &deadletter.Filter{Reasons: []string{"authentication_failed"}})
		if err != nil || n != 1 || len(s.notes) != 0 {
			x.Errorf("Purge = %d, %v, noted %+v", n, err, s.notes)
		}
	})
}
