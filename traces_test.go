package queue_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/observe"
	"github.com/queue-runtime/queue/sessionkey"
)

type callerKey struct{}

// callers is an Observer whose traces are those of the callers' contexts, and "span" within a
// call that sends.
type callers struct {
	observe.Nop
	mu    sync.Mutex
	links [][]string
}

func (*callers) Traces() bool { return true }

func (*callers) Inject(ctx context.Context, set func(name, value string)) {
	if name, ok := ctx.Value(callerKey{}).(string); ok {
		set("traceparent", name)
	}
}

func (o *callers) Begin(ctx context.Context, _ observe.Source, op observe.Operation) (context.Context, func(observe.Result)) {
	if op.Kind == observe.Send && op.Links != nil {
		var names []string
		for _, l := range op.Links {
			names = append(names, l["traceparent"])
		}
		o.mu.Lock()
		o.links = append(o.links, names)
		o.mu.Unlock()
	}
	if op.Kind == observe.Send {
		ctx = context.WithValue(ctx, callerKey{}, "span")
	}
	return ctx, func(observe.Result) {}
}

// TestBatchKeepsTheTracesOfItsSenders: each message carries the trace of the call that sent it,
// and the call to the broker has them as links. One without a trace carries that of the call.
func TestBatchKeepsTheTracesOfItsSenders(t *testing.T) {
	o := &callers{}
	inBubble(t, func(_ *fixture, c *queue.Options) { c.Observer = o }, func(x *fixture) {
		open := make(chan struct{})
		p := &failingBroker{hook: func(call string) {
			if call == "send" {
				<-open
			}
		}}
		s, err := x.behind(p, func(c *queue.Options) { c.Observer = o }).Sender(x.Context(), orders, nil)
		x.Must(err)
		b, err := queue.NewBatcher(s, &queue.BatcherOptions{InFlight: 1})
		x.Must(err)
		for i := range 4 {
			ctx := context.WithValue(x.Context(), callerKey{}, fmt.Sprint("trace-", i))
			if i == 2 {
				ctx = x.Context() // of a caller without one
			}
			x.Must(b.SendAsync(ctx, &queue.Message{ID: fmt.Sprint(i), Body: []byte("a")}, nil))
			synctest.Wait() // the first goes alone
		}
		close(open)
		x.Must(b.Close(x.Context()))
		want := [][]string{{"trace-0"}, {"trace-1", "", "trace-3"}}
		if !slices.EqualFunc(o.links, want, slices.Equal) {
			x.Errorf("links %q, want %q", o.links, want)
		}
		for _, m := range x.Stored(orders) {
			if want := map[bool]string{true: "span", false: "trace-" + m.ID}[m.ID == "2"]; m.Trace["traceparent"] != want {
				x.Errorf("message %s carries %q, want %q", m.ID, m.Trace["traceparent"], want)
			}
		}
	})
}

// TestPreparedMessageCarriesItsTrace: that of the call that prepared it, because a driver alone
// may send it.
func TestPreparedMessageCarriesItsTrace(t *testing.T) {
	inBubble(t, func(_ *fixture, c *queue.Options) { c.Observer = &callers{} }, func(x *fixture) {
		p, err := x.Sender(orders).Prepare(context.WithValue(x.Context(), callerKey{}, "trace"), &queue.Message{Body: []byte("a")})
		x.Must(err)
		if got := p.Message.Trace["traceparent"]; got != "trace" {
			x.Errorf("it carries %q, want that of the caller", got)
		}
	})
}

// strategy is a session key that answers as it is set.
type strategy struct {
	id  string
	err error
}

func (s strategy) SessionID(*sessionkey.Message) (string, error) { return s.id, s.err }

// TestSessionKeyOfAMessage: what the strategy names is the session of a message that has none;
// its error, and a name that cannot be one, is the message's.
func TestSessionKeyOfAMessage(t *testing.T) {
	for name, c := range map[string]struct {
		s    strategy
		own  string
		want string
		err  string
	}{
		"a name":               {strategy{id: "s"}, "", "s", ""},
		"a session of its own": {strategy{id: "s"}, "own", "own", ""},
		"the longest name":     {strategy{id: strings.Repeat("s", queue.MaxIDBytes)}, "", strings.Repeat("s", queue.MaxIDBytes), ""},
		"a longer name":        {strategy{id: strings.Repeat("s", queue.MaxIDBytes+1)}, "", "", "session key"},
		"an error":             {strategy{id: "s", err: errFailing}, "", "", "session key: " + errFailing.Error()},
	} {
		inBubble(t, nil, func(x *fixture) {
			s, err := x.Client.Sender(x.Context(), orders, &queue.SenderOptions{SessionKey: c.s})
			x.Must(err)
			_, err = s.Send(x.Context(), &queue.Message{SessionID: c.own, Body: []byte("a")})
			b, batcherErr := queue.NewBatcher(s, nil)
			x.Must(batcherErr)
			_, again := b.Send(x.Context(), &queue.Message{SessionID: c.own, Body: []byte("a")})
			x.Must(b.Close(x.Context()))
			if c.err != "" {
				for _, err := range []error{err, again} {
					if !errors.Is(err, driver.ErrInvalid) || !strings.Contains(err.Error(), c.err) {
						x.Errorf("%s: %v, want %q", name, err, c.err)
					}
				}
				return
			}
			x.Must(errors.Join(err, again))
			for _, m := range x.Stored(orders) {
				if m.SessionID != c.want {
					x.Errorf("%s: session %q, want %q", name, m.SessionID, c.want)
				}
			}
			if n := len(x.Stored(orders)); n != 2 {
				x.Errorf("%s: %d messages", name, n)
			}
		})
	}
}

// Settling a message without a trace has no links, not one to nothing.
func TestSettlingLinksToTraces(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		o := &diary{traces: true}
		r := x.receives(x.behind(&failingBroker{}, func(c *queue.Options) { c.Observer = o }), nil)
		for links, trace := range []map[string]string{nil, {"traceparent": "t"}} {
			x.Send(&queue.Message{ID: fmt.Sprint(links), Body: []byte("a")})
			x.Rewrite(orders, func(all []driver.Message) []driver.Message {
				for i := range all {
					all[i].Trace = trace
				}
				return all
			})
			x.Must(x.One(r).Complete(x.Context()))
			if got := o.of("settle"); len(got) != links+1 || !strings.Contains(got[links], fmt.Sprintf("%d links", links)) {
				x.Errorf("told %q, want %d links in the last", got, links)
			}
		}
	})
}
