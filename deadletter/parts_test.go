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
	"github.com/queue-runtime/queue/envelope"
	"github.com/queue-runtime/queue/internal/fixturetest"
	"github.com/queue-runtime/queue/keys"
	"github.com/queue-runtime/queue/observe"
	"github.com/queue-runtime/queue/replay"
)

// TestOpenErrors: whatever fails while the dead letters are opened is told as it is, what was
// opened before is closed, and no queue is announced.
func TestOpenErrors(t *testing.T) {
	const op = "open dead letters"
	inBubble(t, nil, func(x *fixture) {
		_, err := deadletter.Open(noContext, x.Client, orders, nil)
		x.failed("without a context", err, queue.ErrInvalidOptions, op)
		_, err = deadletter.Open(x.Context(), nil, orders, nil)
		x.failed("without a client", err, queue.ErrInvalidOptions, op)
		ctx, cancel := context.WithCancel(x.Context())
		cancel()
		p := &broken{}
		_, err = deadletter.Open(ctx, x.behind(p, nil), orders, nil)
		x.failed("a caller that left", err, context.Canceled, op)
		if p.calls["open"] > 0 {
			x.Error("the broker is asked for a caller that left")
		}

		for call, closes := range map[string]int{"open": 0, "dead letters": 1, "options": 1} {
			p, o := &broken{fail: map[string]error{call: errBroken}}, &told{}
			options, want := &deadletter.Options{Keys: newRing(x.T, "k1")}, errBroken
			if call == "options" {
				options.Crypto, want = &queue.CryptoConfig{MaxMessageAge: -1}, queue.ErrInvalidOptions
			}
			_, err = deadletter.Open(x.Context(), x.behind(p, func(c *queue.Options) { c.Observer = o }), orders, options)
			x.failed(call, err, want, op)
			if n := p.calls["main close"]; n != closes {
				x.Errorf("%s: the queue was closed %d times, want %d", call, n, closes)
			}
			if len(o.events) > 0 {
				x.Errorf("%s: told %q of a queue that did not open", call, o.events)
			}
		}
	})
}

// watched is a provider of keys that counts what it is asked.
type watched struct {
	keys.Provider
	asked int
}

func (p *watched) ValidKeyIDs(ctx context.Context) ([]keys.ID, error) {
	p.asked++
	return p.Provider.ValidKeyIDs(ctx)
}

// TestCloseReleasesAll: Close closes both queues and the keys, also if one of them fails, and
// its error is the first.
func TestCloseReleasesAll(t *testing.T) {
	for name, c := range map[string]struct {
		fail map[string]error
		want error
	}{
		"all is well":      {},
		"the dead letters": {fail: map[string]error{"dead close": errBroken}, want: errBroken},
		"the queue":        {fail: map[string]error{"main close": errBroken}, want: errBroken},
		"both":             {fail: map[string]error{"dead close": errBroken, "main close": errors.New("second")}, want: errBroken},
	} {
		inBubble(t, nil, func(x *fixture) {
			x.giveUp("m")
			p, o := &broken{fail: c.fail}, &told{}
			w := &watched{Provider: x.Ring}
			client := x.behind(p, func(c *queue.Options) { c.Observer = o })
			d, err := deadletter.Open(x.Context(), client, orders, &deadletter.Options{Keys: w})
			x.Must(err)
			_, err = d.Redrive(x.Context(), &deadletter.RedriveOptions{Reseal: true, DryRun: true}) // asks for keys
			x.Must(err)
			x.Wait(time.Hour)
			if err := d.Close(noContext); !errors.Is(err, queue.ErrInvalidOptions) {
				x.Errorf("%s: without a context: %v", name, err)
			}
			err = d.Close(x.Context())
			if c.want == nil {
				x.Must(err)
			} else {
				x.failed(name, err, c.want, "close")
			}
			if p.calls["dead close"] != 1 || p.calls["main close"] != 1 {
				x.Errorf("%s: closed %v, want each queue once", name, p.calls)
			}
			before := w.asked
			x.Wait(24 * time.Hour)
			if before == 0 || w.asked != before {
				x.Errorf("%s: the keys were asked %d times, and %d times after Close", name, before, w.asked-before)
			}
			_ = d.Close(x.Context())
			if want := []string{"orders: configured true encrypted true", "orders: closed true"}; !slices.Equal(o.events, want) {
				x.Errorf("%s: told %q, want %q", name, o.events, want)
			}
		})
	}
}

// groups is a store that keeps for which groups it is asked, and what is noted.
type groups struct {
	replay.Store
	asked []string
	notes []replay.Note
	err   error
	item  error // of each look
	short bool
}

func (s *groups) Look(ctx context.Context, group string, q []replay.Query) ([]replay.Look, error) {
	s.asked = append(s.asked, group)
	looks, err := s.Store.Look(ctx, group, q)
	if s.err != nil {
		return nil, s.err
	}
	if s.short {
		looks = looks[:0]
	}
	for i := range looks {
		looks[i].Err = errors.Join(looks[i].Err, s.item)
	}
	return looks, err
}

func (s *groups) Note(ctx context.Context, group string, n []replay.Note) ([]replay.Noted, error) {
	s.asked, s.notes = append(s.asked, group), append(s.notes, n...)
	if s.err != nil {
		return nil, s.err
	}
	return s.Store.Note(ctx, group, n)
}

// sole is a CryptoProvider with keys of its own.
type sole struct {
	queue.CryptoProvider
	used int
}

func (c *sole) Decrypt(ctx context.Context, m envelope.EncryptedMessage, data []byte) ([]byte, error) {
	c.used++
	return c.CryptoProvider.Decrypt(ctx, m, data)
}

// TestOptionsReplaceTheClients: what is set in Options takes the place of the Client's, and
// what is not is the Client's.
func TestOptionsReplaceTheClients(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		x.giveUp("m")
		other := newRing(x.T, "k1")
		aes, err := queue.NewAESGCM(x.Ring)
		x.Must(err)
		mine := &sole{CryptoProvider: aes}
		without := x.behind(&broken{}, func(o *queue.Options) { o.Keys, o.ReplayStore, o.Crypto = nil, nil, queue.CryptoConfig{} })
		wrong := x.behind(&broken{}, func(o *queue.Options) { o.Keys = newRing(x.T, "k9") })
		foreign := x.behind(&broken{}, func(o *queue.Options) { o.Keys, o.CryptoProvider = nil, mine })
		for _, c := range []struct {
			name   string
			client *queue.Client
			o      *deadletter.Options
			opens  bool
			mine   bool
		}{
			{"the client's", x.Client, nil, true, false},
			{"none", without, nil, false, false},
			{"its own", without, &deadletter.Options{Keys: other}, true, false},
			{"the client's that lack the key", wrong, nil, false, false},
			{"its own beside the client's", wrong, &deadletter.Options{Keys: other}, true, false},
			{"the client's CryptoProvider", foreign, nil, true, true},
			{"its own keys beside the client's CryptoProvider", foreign, &deadletter.Options{Keys: other}, true, false},
			{"its own CryptoProvider", without, &deadletter.Options{CryptoProvider: mine}, true, true},
			{"its own CryptoProvider over the client's keys", x.Client, &deadletter.Options{CryptoProvider: mine}, true, true},
			{"its own CryptoProvider over keys that lack the key", wrong, &deadletter.Options{CryptoProvider: mine}, false, false},
		} {
			d, err := deadletter.Open(x.Context(), c.client, orders, c.o)
			x.Must(err)
			before := mine.used
			for l, err := range d.All(x.Context(), nil) {
				x.Must(err)
				if (l.Err == nil) != c.opens || l.KeyID != "k1" || (l.Body != nil) != c.opens || l.Encrypted != c.opens || (l.Origin == orders) != c.opens {
					x.Errorf("%s: %+v, %v; want that it opens: %v", c.name, l.Received, l.Err, c.opens)
				}
			}
			if (mine.used > before) != c.mine {
				x.Errorf("%s: the CryptoProvider was used: %v", c.name, mine.used > before)
			}
			x.Must(d.Close(x.Context()))
		}
	})
}

// TestLetterSaysWhatItIs: a letter that opens has all that the sender gave it.
func TestLetterSaysWhatItIs(t *testing.T) {
	inBubble(t, patient, func(x *fixture) {
		due := time.Now().Add(time.Minute)
		x.Send(&queue.Message{ID: "m", SessionID: "s", CorrelationID: "c", ContentType: "text/plain", Attributes: map[string]string{"a": "1"}, Body: []byte("body"), NotBefore: due, TTL: time.Hour})
		sealed := time.Now()
		x.Wait(time.Minute)
		x.Rewrite(orders, func(m []driver.Message) []driver.Message {
			m[0].Attributes = map[string]string{"a": "1", "hop": "2"}
			return m
		})
		x.Must(x.One(x.Receiver(orders, nil)).DeadLetter(x.Context(), queue.Reason{Code: "gave_up"}))
		l := x.letter()
		switch {
		case l.Err != nil || l.ID != "m" || l.SessionID != "s" || l.CorrelationID != "c" || l.ContentType != "text/plain" || l.Queue != orders || l.BrokerID == "":
			x.Errorf("letter %+v, %v; want m as it was sent", l.Received, l.Err)
		case string(l.Body) != "body" || len(l.Attributes) != 1 || l.Attributes["a"] != "1" || len(l.Unauthenticated) != 1 || l.Unauthenticated["hop"] != "2":
			x.Errorf("body %q, attributes %v, added %v", l.Body, l.Attributes, l.Unauthenticated)
		case !l.Encrypted || l.KeyID != "k1" || l.Origin != orders || !l.EncryptedAt.Equal(sealed.Truncate(time.Millisecond)) || !l.NotBefore.Equal(due) || l.TTL != time.Hour:
			x.Errorf("key %q, origin %q, at %s, due %s, for %s", l.KeyID, l.Origin, l.EncryptedAt, l.NotBefore, l.TTL)
		}
	})
}

// TestGroupOfTheReceivers: the replay store is asked for the group that the receivers have,
// which is the queue's name unless it is set.
func TestGroupOfTheReceivers(t *testing.T) {
	for group, want := range map[string]string{"": orders, "blue": "blue"} {
		inBubble(t, nil, func(x *fixture) {
			x.giveUp("m")
			s := &groups{Store: x.Store}
			c := x.behind(&broken{}, func(o *queue.Options) { o.ReplayStore = s })
			d, err := deadletter.Open(x.Context(), c, orders, &deadletter.Options{Group: group})
			x.Must(err)
			_, err = d.Redrive(x.Context(), &deadletter.RedriveOptions{Reseal: true, DryRun: true})
			x.Must(err)
			_, err = d.Purge(x.Context(), &deadletter.Filter{})
			x.Must(err)
			if !slices.Equal(s.asked, []string{want, want}) {
				x.Errorf("asked for %q, want %q twice", s.asked, want)
			}
		})
	}
}

// TestWaitOfARead: a read by receiving takes the queue for empty after Wait, and after
// DefaultWait if none is set.
func TestWaitOfARead(t *testing.T) {
	for wait, want := range map[time.Duration]time.Duration{0: deadletter.DefaultWait, -1: deadletter.DefaultWait, time.Minute: time.Minute} {
		inBubble(t, nil, func(x *fixture) {
			p := &broken{caps: receiving, fail: map[string]error{"stats": errBroken}} // how many there are is unknown
			d, err := deadletter.Open(x.Context(), x.behind(p, nil), orders, &deadletter.Options{Wait: wait})
			x.Must(err)
			begin := time.Now()
			s, err := d.Stats(x.Context(), nil)
			if took := time.Since(begin); err != nil || s.Count != 0 || took != want {
				x.Errorf("with Wait %s: %d letters, %v, after %s; want none after %s", wait, s.Count, err, took, want)
			}
		})
	}
}

// each calls every method that reads, and checks its error. held says whether the letters that
// it received are given back.
func (x *fixture) each(what string, d *deadletter.Queue, ctx context.Context, cause error, free int) {
	x.Helper()
	letters := 0
	var last error
	for l, err := range d.All(ctx, nil) {
		if (l == nil) == (err == nil) {
			x.Errorf("%s: All yields %v and %v", what, l, err)
		}
		if letters++; err != nil {
			last = err
		}
	}
	x.failed(what+": All", last, cause, "read dead letters")
	_, err := d.Stats(ctx, nil)
	x.failed(what+": Stats", err, cause, "read dead letters")
	_, err = d.Redrive(ctx, &deadletter.RedriveOptions{DryRun: true})
	x.failed(what+": a dry run", err, cause, "redrive")
	if n := x.free(); n != free {
		x.Errorf("%s: %d letters are free, want %d", what, n, free)
	}
}

// TestReadErrors: whatever fails while letters are read ends the read with an error, and what
// it received is given back.
func TestReadErrors(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		x.buryMany(15)
		gone, cancel := context.WithCancel(x.Context())
		cancel()
		for _, c := range []struct {
			name  string
			p     *broken
			ctx   context.Context
			cause error
		}{
			{"no context", &broken{}, nil, queue.ErrInvalidOptions},
			{"a caller that left", &broken{}, gone, context.Canceled},
			{"peek", &broken{fail: map[string]error{"peek": errBroken}}, x.Context(), errBroken},
			{"receive", &broken{caps: receiving, fail: map[string]error{"receive": errBroken}}, x.Context(), errBroken},
		} {
			x.each(c.name, x.opened(c.p, nil), c.ctx, c.cause, 15)
		}
		for _, c := range []struct {
			name  string
			p     *broken
			ctx   context.Context
			cause error
		}{
			{"no context", &broken{}, nil, queue.ErrInvalidOptions},
			{"a caller that left", &broken{}, gone, context.Canceled},
			{"receive", &broken{fail: map[string]error{"receive": errBroken}}, x.Context(), errBroken},
		} {
			d := x.opened(c.p, nil)
			n, err := d.Purge(c.ctx, &deadletter.Filter{})
			x.failed(c.name+": Purge", err, c.cause, "purge dead letters")
			report, err := d.Redrive(c.ctx, nil)
			x.failed(c.name+": Redrive", err, c.cause, "redrive")
			if n != 0 || report.Redriven != 0 || x.free() != 15 {
				x.Errorf("%s: purged %d, %+v", c.name, n, report)
			}
		}
		// The second call fails: what the first brought is not lost, and is given back.
		for _, p := range []*broken{
			{after: 1, caps: receiving, fail: map[string]error{"receive": errBroken}},
		} {
			d := x.opened(p, nil)
			n := 0
			var last error
			for l, err := range d.All(x.Context(), nil) {
				if last = err; l != nil {
					n++
				}
			}
			if !errors.Is(last, errBroken) || n != 10 || x.free() != 15 {
				x.Errorf("%d letters, then %v; want 10 and %v", n, last, errBroken)
			}
		}
		d := x.opened(&broken{after: 1, fail: map[string]error{"receive": errBroken}}, nil)
		report, err := d.Redrive(x.Context(), &deadletter.RedriveOptions{Filter: &deadletter.Filter{MessageIDs: []string{"m0", "m1"}}})
		if !errors.Is(err, errBroken) || report.Redriven != 2 || x.free() != 13 {
			x.Errorf("Redrive: %+v, %v", report, err)
		}
		n, err := x.opened(&broken{after: 1, fail: map[string]error{"receive": errBroken}}, nil).Purge(x.Context(), &deadletter.Filter{MessageIDs: []string{"m2"}})
		if !errors.Is(err, errBroken) || n != 1 || x.free() != 12 {
			x.Errorf("Purge = %d, %v", n, err)
		}
	})
}

// TestCallerThatLeavesTheCount: a caller that leaves while the letters are counted gets the
// error of its context; a broker that does not count them is read all the same.
func TestCallerThatLeavesTheCount(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		x.buryMany(3)
		for _, caps := range []func(*driver.Capabilities){nil, receiving} {
			d := x.opened(&broken{caps: caps, fail: map[string]error{"stats": errBroken}}, nil)
			if s, err := d.Stats(x.Context(), nil); err != nil || s.Count != 3 {
				x.Errorf("Stats of what is not counted: %d, %v", s.Count, err)
			}
			ctx, cancel := context.WithCancel(x.Context())
			p := &broken{caps: caps, stats: func(*driver.Stats) { cancel() }}
			d = x.opened(p, nil)
			_, err := d.Stats(ctx, nil)
			x.failed("Stats", err, context.Canceled, "read dead letters")
			ctx, cancel = context.WithCancel(x.Context())
			n, err := d.Purge(ctx, &deadletter.Filter{})
			x.failed("Purge", err, context.Canceled, "purge dead letters")
			ctx, cancel = context.WithCancel(x.Context())
			report, err := d.Redrive(ctx, nil)
			x.failed("Redrive", err, context.Canceled, "redrive")
			if n != 0 || report.Matched != 0 || x.free() != 3 || p.calls["peek"]+p.calls["receive"] != 0 {
				x.Errorf("purged %d, %+v, %d are free after calls %v", n, report, x.free(), p.calls)
			}
			cancel()
		}
		// The end of a read counts, too, if there are more letters than at its beginning.
		ctx, cancel := context.WithCancel(x.Context())
		p := &broken{}
		p.stats = func(s *driver.Stats) {
			if s.Ready--; p.calls["stats"] > 1 {
				cancel()
			}
		}
		x.each("at its end", x.opened(p, nil), ctx, context.Canceled, 3)
	})
}

// TestReadOfManyPages: peeking goes from page to page, to the end and not beyond what there
// was at the beginning, and stops when the caller has enough.
func TestReadOfManyPages(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		x.buryMany(250)
		p := &broken{}
		d := x.opened(p, nil)
		seen := map[string]bool{}
		for l, err := range d.All(x.Context(), nil) {
			x.Must(err)
			seen[l.ID] = true
		}
		if len(seen) != 250 || p.calls["peek"] != 3 {
			x.Errorf("%d letters in %d calls, want 250 in 3", len(seen), p.calls["peek"])
		}
		n := 0
		for _, err := range d.All(x.Context(), nil) {
			x.Must(err)
			if n++; n == 120 {
				break
			}
		}
		if p.calls["peek"] != 5 {
			x.Errorf("%d calls for 120 letters, want 2", p.calls["peek"]-3)
		}
		p.endless = true
		if s, err := d.Stats(x.Context(), nil); err != nil || s.Count != 250 {
			x.Errorf("a broker without end: %d letters, %v; want the 250 of the beginning", s.Count, err)
		}
		p.stats = func(s *driver.Stats) { s.Approximate = true }
		if s, err := d.Stats(x.Context(), nil); !errors.Is(err, deadletter.ErrIncomplete) || s.Count != 1500 {
			x.Errorf("a broker without end that estimates: %d letters, %v; want ErrIncomplete after 1500", s.Count, err)
		}
	})
}

// TestStopsWhenTheCallerHasEnough: a read by receiving that is broken off gives everything
// back at once.
func TestStopsWhenTheCallerHasEnough(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		x.buryMany(25)
		p := &broken{caps: receiving}
		d := x.opened(p, nil)
		n := 0
		for _, err := range d.All(x.Context(), nil) {
			x.Must(err)
			if n++; n == 12 {
				break
			}
		}
		if n != 12 || p.calls["receive"] != 2 || x.free() != 25 {
			x.Errorf("%d letters in %d calls, %d are free; want 12, 2, 25", n, p.calls["receive"], x.free())
		}
		if s, err := d.Stats(x.Context(), &deadletter.Filter{Limit: 3}); err != nil || s.Count != 3 || x.free() != 25 {
			x.Errorf("Stats with a limit of 3: %d, %v; %d are free", s.Count, err, x.free())
		}
		dry, err := d.Redrive(x.Context(), &deadletter.RedriveOptions{DryRun: true})
		if err != nil || dry.Redriven != 25 || x.free() != 25 || len(x.Stored(orders)) != 0 {
			x.Errorf("a dry run that cannot peek: %+v, %v; %d are free", dry, err, x.free())
		}
	})
}

// TestPurgeStopsAtItsLimit: exactly so many letters are deleted, and the rest is given back.
func TestPurgeStopsAtItsLimit(t *testing.T) {
	for _, limit := range []int{1, 7, 10, 13, 20, 24} {
		inBubble(t, nil, func(x *fixture) {
			x.buryMany(25)
			p := &broken{}
			n, err := x.opened(p, nil).Purge(x.Context(), &deadletter.Filter{Limit: limit})
			if err != nil || n != limit || x.free() != 25-limit {
				x.Errorf("Purge of %d: %d, %v; %d are free", limit, n, err, x.free())
			}
			if calls := (limit + 9) / 10; p.calls["receive"] != calls {
				x.Errorf("Purge of %d: %d calls, want %d", limit, p.calls["receive"], calls)
			}
		})
	}
}

// TestPurgeTellsTheStore: letters that open are noted as accepted before they are deleted, and
// those that do not open say nothing. Without an answer nothing is deleted.
func TestPurgeTellsTheStore(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		x.giveUp("m0")
		x.giveUp("m1")
		x.Inject(orders, driver.Message{ID: "plain", Body: []byte("plain")})
		x.None(x.Receiver(orders, nil), queue.ErrUnencryptedMessage)
		s := &groups{Store: x.Store, err: errBroken}
		d := x.opened(&broken{}, func(o *queue.Options) { o.ReplayStore = s })
		n, err := d.Purge(x.Context(), &deadletter.Filter{})
		x.failed("Purge", err, queue.ErrReplayStore, "purge dead letters")
		if n != 0 || !errors.Is(err, errBroken) || x.free() != 3 {
			x.Errorf("Purge = %d, %v; %d are free, want all", n, err, x.free())
		}
		s.err, s.notes = nil, nil
		if n, err = d.Purge(x.Context(), &deadletter.Filter{}); err != nil || n != 3 {
			x.Errorf("Purge = %d, %v", n, err)
		}
		if len(s.notes) != 2 {
			x.Fatalf("noted %+v, want the two that open", s.notes)
		}
		for i, note := range s.notes {
			if note.Kind != replay.NoteAccepted || note.Range.First != note.Range.Last || note.Range.First == 0 || note.Stream == [16]byte{} {
				x.Errorf("note %d: %+v", i, note)
			}
		}
		// Only plaintext: the store is not asked at all.
		x.Inject(orders, driver.Message{ID: "plain", Body: []byte("plain")})
		x.None(x.Receiver(orders, nil), queue.ErrUnencryptedMessage)
		s.err, s.asked = errBroken, nil
		if n, err = d.Purge(x.Context(), &deadletter.Filter{}); err != nil || n != 1 || len(s.asked) != 0 {
			x.Errorf("Purge of plaintext = %d, %v; the store was asked %d times", n, err, len(s.asked))
		}
		// Replays are not tracked: neither.
		x.giveUp("m2")
		d = x.opened(&broken{}, func(o *queue.Options) { o.ReplayStore, o.Crypto.TrackReplays = nil, false })
		if n, err = d.Purge(x.Context(), &deadletter.Filter{}); err != nil || n != 1 {
			x.Errorf("Purge without a store = %d, %v", n, err)
		}
	})
}

// TestShortAnswers: a driver that answers for fewer messages than it was asked for makes
// failures of the others.
func TestShortAnswers(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		x.buryMany(4)
		short := func(what string, err error) {
			x.Helper()
			if err == nil || !strings.Contains(err.Error(), "too few results") {
				x.Errorf("%s: %v, want that there are too few results", what, err)
			}
		}
		report, err := x.opened(&broken{short: "send"}, nil).Redrive(x.Context(), nil)
		short("Redrive, sending", report.FirstError)
		if err != nil || report.Redriven != 3 || report.Failed != 1 || x.free() != 1 {
			x.Errorf("%+v, %v; %d are free", report, err, x.free())
		}
		report, err = x.opened(&broken{short: "settle"}, nil).Redrive(x.Context(), nil)
		short("Redrive, settling", report.FirstError)
		if err != nil || report.Redriven != 0 || report.Failed != 1 {
			x.Errorf("report %+v, %v; want one failure and nothing redriven", report, err)
		}
		x.buryMany(2)
		n, err := x.opened(&broken{short: "settle"}, nil).Purge(x.Context(), &deadletter.Filter{})
		short("Purge", err)
		if n == 0 {
			x.Errorf("Purge = %d, want those that it was answered for", n)
		}
		s := &groups{Store: x.Store, short: true}
		x.giveUp("m9")
		report, err = x.opened(&broken{}, func(o *queue.Options) { o.ReplayStore = s }).Redrive(x.Context(), &deadletter.RedriveOptions{Reseal: true})
		short("Redrive, the store", report.FirstError)
		if err != nil || !errors.Is(report.FirstError, queue.ErrReplayStore) || report.Failed != 1 || report.Redriven != 0 {
			x.Errorf("report %+v, %v; want one failure, of the replay store", report, err)
		}
	})
}

// TestRedriveIsTold: each call and each letter is told to the Observer, with the traces that
// the letters carry.
func TestRedriveIsTold(t *testing.T) {
	for _, traces := range []bool{false, true} {
		inBubble(t, nil, func(x *fixture) {
			x.giveUp("m0")
			x.giveUp("m1")
			o := &told{links: traces}
			d := x.opened(&broken{}, func(c *queue.Options) { c.Observer = o })
			report, err := d.Redrive(x.Context(), &deadletter.RedriveOptions{Filter: &deadletter.Filter{MessageIDs: []string{"m0"}}})
			x.Must(err)
			resealed, err := d.Redrive(x.Context(), &deadletter.RedriveOptions{Reseal: true})
			x.Must(err)
			if report.Resealed != 0 || resealed.Resealed != 1 {
				x.Errorf("reports %+v and %+v, want one letter resealed by the second", report, resealed)
			}
			links := 0
			if traces {
				links = 1
			}
			sent := fmt.Sprintf("orders: sent 1 of 1, %d links, failed false", links)
			want := []string{"orders: configured true encrypted true", "orders: redriven, resealed false", sent, "orders: redriven, resealed true", sent}
			if !slices.Equal(o.events, want) {
				x.Errorf("told %q, want %q", o.events, want)
			}
		})
	}
}

// TestRedriveStopsAtItsLimit: exactly so many letters go back, the rest is given back at once,
// and a dry run says the same.
func TestRedriveStopsAtItsLimit(t *testing.T) {
	for _, limit := range []int{1, 9, 10, 11, 20} {
		for _, caps := range []func(*driver.Capabilities){nil, receiving} {
			inBubble(t, nil, func(x *fixture) {
				x.buryMany(21)
				p := &broken{caps: caps}
				d := x.opened(p, nil)
				o := &deadletter.RedriveOptions{DryRun: true, Filter: &deadletter.Filter{Limit: limit}}
				if r, err := d.Redrive(x.Context(), o); err != nil || r.Matched != limit || r.Redriven != limit || x.free() != 21 {
					x.Errorf("a dry run of %d: %+v, %v; %d are free", limit, r, err, x.free())
				}
				o.DryRun = false
				calls := p.calls["receive"]
				if r, err := d.Redrive(x.Context(), o); err != nil || r.Matched != limit || r.Redriven != limit || x.free() != 21-limit || len(x.Stored(orders)) != limit || p.calls["receive"]-calls != (limit+9)/10 {
					x.Errorf("a redrive of %d: %+v, %v; %d are free", limit, r, err, x.free())
				}
			})
		}
	}
}

// TestRedriveSendsTheLetterAlone: what goes back has neither the delay nor the lifetime that
// the broker kept, and a name for repeats that is the letter's, not the message's.
func TestRedriveSendsTheLetterAlone(t *testing.T) {
	inBubble(t, patient, func(x *fixture) {
		x.Send(&queue.Message{ID: "m", Body: []byte("a"), NotBefore: time.Now().Add(time.Minute), TTL: time.Hour})
		x.Wait(time.Minute)
		x.Must(x.One(x.Receiver(orders, nil)).DeadLetter(x.Context(), queue.Reason{Code: "gave_up"}))
		var names []string
		for range 2 { // a crash between the two steps makes it be sent twice
			p := &broken{short: "settle"}
			_, err := x.opened(p, nil).Redrive(x.Context(), nil)
			x.Must(err)
			for _, m := range p.sent {
				if !m.NotBefore.IsZero() || m.TTL != 0 || m.ID != "m" {
					x.Errorf("%+v goes back", m)
				}
				names = append(names, m.DedupID)
			}
			x.giveUp("other")
		}
		if len(names) < 2 || names[0] == names[1] || !strings.HasPrefix(names[0], "redrive:") {
			x.Errorf("names for repeats: %q", names)
		}
	})
}

// ends keeps the error of each operation.
type ends struct {
	observe.Nop
	errs []error
}

func (e *ends) Begin(ctx context.Context, _ observe.Source, _ observe.Operation) (context.Context, func(observe.Result)) {
	return ctx, func(r observe.Result) { e.errs = append(e.errs, r.Err) }
}

// TestRedriveKeepsTheFirstError: of several failures the report has the first, and so has what an
// Observer is told of a call.
func TestRedriveKeepsTheFirstError(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		x.buryMany(3)
		n := 0
		p := &fixturetest.FaultyBroker{Broker: x.Broker.Connect(), OnSend: func(m []*driver.Message) []driver.SendResult {
			r := make([]driver.SendResult, len(m))
			for i := range r {
				n++
				r[i].Err = fmt.Errorf("failure %d", n)
			}
			return r
		}}
		o := &ends{}
		c, err := queue.New(p, &queue.Options{Keys: x.Ring, Logger: quiet(), Observer: o})
		x.Must(err)
		d, err := deadletter.Open(x.Context(), c, orders, &deadletter.Options{Wait: time.Second})
		x.Must(err)
		report, err := d.Redrive(x.Context(), nil)
		if len(o.errs) != 1 || o.errs[0] == nil || o.errs[0].Error() != "failure 1" {
			x.Errorf("the Observer was told %v, want the first failure", o.errs)
		}
		if err != nil || report.Failed != 3 || report.FirstError == nil || !strings.Contains(report.FirstError.Error(), "failure 1") || x.free() != 3 {
			x.Errorf("%+v, %v; %d are free", report, err, x.free())
		}
	})
}
