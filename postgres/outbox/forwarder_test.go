package outbox_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/backoff"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/envelope"
	"github.com/queue-runtime/queue/observe"
	"github.com/queue-runtime/queue/postgres/outbox"
	"github.com/queue-runtime/queue/postgres/postgresqueue"
	"github.com/queue-runtime/queue/queuetest"
)

// picky is a broker that refuses messages by their ID.
type picky struct{ driver.Broker }

type pickyQueue struct{ driver.Queue }

func (p picky) Open(ctx context.Context, name string, o *driver.QueueOptions) (driver.Queue, error) {
	q, err := p.Broker.Open(ctx, name, o)
	return pickyQueue{q}, err
}

func (q pickyQueue) Send(ctx context.Context, m []*driver.Message) []driver.SendResult {
	results := make([]driver.SendResult, len(m))
	var passed []*driver.Message
	var places []int
	for i, x := range m {
		switch kind, _, _ := strings.Cut(x.ID, "-"); kind {
		case "invalid":
			results[i].Err = driver.Errorf(driver.Invalid, "a name that it does not carry")
		case "large":
			results[i].Err = driver.NewTooLarge("body", 2, 1)
		case "unsupported":
			results[i].Err = driver.Unsupported("a schedule")
		case "odd":
			results[i].Err = errors.New("an error without a kind")
		default:
			passed, places = append(passed, x), append(places, i)
		}
	}
	for k, r := range q.Queue.Send(ctx, passed) {
		results[places[k]] = r
	}
	return results
}

// TestPoison: a message that its broker refuses is kept as a dead letter of the outbox,
// and holds up neither other sessions nor, in the end, its own.
func TestPoison(t *testing.T) {
	t.Parallel()
	x := newFixture(t, &postgresqueue.Options{Default: postgresqueue.QueueOptions{MaxDeliveries: 3}})
	var list []*queue.Message
	for _, kind := range []string{"invalid", "large", "unsupported", "odd"} {
		for n, id := range []string{"before", kind, "after"} {
			list = append(list, &queue.Message{ID: fmt.Sprintf("%s-%s-%d", id, kind, n), SessionID: kind})
		}
		list = append(list, &queue.Message{ID: kind + "-alone"})
	}
	list = append(list, &queue.Message{ID: "good"})
	x.put(nil, list...)
	// Rows that no sender of ours wrote.
	x.put(nil, &queue.Message{ID: "clear"}, &queue.Message{ID: "cut"})
	_, err := x.db.Exec(t.Context(), `UPDATE `+x.schema+`.content SET body = 'hello' WHERE message_id = 'clear'`)
	x.must(err)
	_, err = x.db.Exec(t.Context(), `UPDATE `+x.schema+`.content SET body = substr(body, 1, 60) WHERE message_id = 'cut'`)
	x.must(err)
	_, err = x.db.Exec(t.Context(), `UPDATE `+x.schema+`.message m SET size = octet_length(c.body) FROM `+x.schema+`.content c WHERE c.id = m.content`)
	x.must(err)
	stop := x.forward(x.box, picky{x.Broker}, &outbox.ForwarderOptions{Retry: backoff.Fixed(time.Millisecond)})
	x.until("empty", drained)
	stop()
	want := map[string]string{"clear": driver.ReasonPlaintext, "cut": driver.ReasonInvalidEnvelope}
	sent := []string{"good"}
	for _, kind := range []string{"invalid", "large", "unsupported", "odd"} {
		reason := outbox.ReasonRefused
		if kind == "odd" {
			reason = driver.ReasonMaxDeliveries
		}
		want[kind+"-alone"], want[kind+"-"+kind+"-1"] = reason, reason
		sent = append(sent, "before-"+kind+"-0", "after-"+kind+"-2")
	}
	if got := x.reasons(); !maps.Equal(got, want) {
		t.Errorf("dead letters %v, want %v", got, want)
	}
	got := x.ids()
	for _, kind := range []string{"invalid", "odd"} {
		if slices.Index(got, "before-"+kind+"-0") > slices.Index(got, "after-"+kind+"-2") {
			t.Errorf("a session was reordered: %v", got)
		}
	}
	slices.Sort(got)
	slices.Sort(sent)
	if !slices.Equal(got, sent) {
		t.Errorf("sent %v, want %v", got, sent)
	}
}

// TestStale: what its receivers would find too old is not sent. The age counts from
// Prepare.
func TestStale(t *testing.T) {
	t.Parallel()
	x := newFixture(t, nil)
	x.put(nil, &queue.Message{ID: "old"}, &queue.Message{ID: "short", TTL: time.Millisecond})
	x.until("past the short one's expiry", func(st driver.Stats) bool { return st.DeadLetters == 1 })
	stop := x.forward(x.box, x.Broker, &outbox.ForwarderOptions{MaxAge: time.Millisecond})
	x.until("empty", drained)
	stop()
	want := map[string]string{"old": driver.ReasonMessageExpired, "short": driver.ReasonExpired}
	if got := x.reasons(); !maps.Equal(got, want) || len(x.ids()) != 0 {
		t.Errorf("dead letters %v, sent %v; want the dead letters %v", got, x.ids(), want)
	}
}

// TestTTL: a message gets what is left of its time to live.
func TestTTL(t *testing.T) {
	t.Parallel()
	x := newFixture(t, nil)
	x.put(nil, &queue.Message{ID: "a", TTL: time.Hour}, &queue.Message{ID: "b", NotBefore: time.Now().Add(time.Millisecond)})
	stop := x.forward(x.box, x.Broker, nil)
	x.until("empty", drained)
	stop()
	for _, m := range x.Broker.Captured(orders) {
		switch m.ID {
		case "a":
			if m.TTL <= 50*time.Minute || m.TTL >= time.Hour {
				t.Errorf("a TTL of %s, want less than an hour", m.TTL)
			}
		case "b":
			if !m.NotBefore.IsZero() {
				t.Errorf("due at %s, want no time: it is over", m.NotBefore)
			}
		}
	}
	if n := len(x.ids()); n != 2 {
		t.Errorf("%d messages came, want 2", n)
	}
}

// recorder counts events.
type recorder struct {
	mu     sync.Mutex // guards what follows
	counts map[string]int
	asked  chan struct{} // closed at the tenth test of the breaker; nil for none
}

func (r *recorder) observe(_ context.Context, s observe.Source, event any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.counts == nil {
		r.counts = make(map[string]int)
	}
	switch e := event.(type) {
	case observe.Breaker:
		r.counts["breaker "+e.State]++
		if e.State == string(backoff.HalfOpen) && r.counts["breaker half_open"] == 10 && r.asked != nil {
			close(r.asked)
		}
	case observe.Sent:
		if e.Encrypted && e.KeyID == "test" && e.Bytes > 0 && s.Queue == orders {
			r.counts["sent"]++
		}
	default:
		r.counts[fmt.Sprintf("%T", event)]++
	}
}

func (r *recorder) count(what string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.counts[what]
}

// TestOutage: while the broker is away everything stays where it is and spends no
// delivery; the Forwarder asks with one message at a time, and goes on by itself.
func TestOutage(t *testing.T) {
	t.Parallel()
	const messages = 30
	x := newFixture(t, &postgresqueue.Options{Default: postgresqueue.QueueOptions{MaxDeliveries: 2}})
	x.Broker.Inject(queuetest.Fault{On: queuetest.Send, Err: queuetest.Unavailable()})
	var list []*queue.Message
	for i := range messages {
		list = append(list, &queue.Message{ID: fmt.Sprint(i), SessionID: fmt.Sprint(i % 3)})
	}
	x.put(nil, list...)
	told := recorder{asked: make(chan struct{})}
	stop := x.forward(x.box, x.Broker, &outbox.ForwarderOptions{
		Observer: observe.Func(told.observe),
		Outage:   &backoff.BreakerOptions{Failures: 1, Open: 5 * time.Millisecond, Successes: 1},
	})
	select {
	case <-told.asked:
	case <-time.After(testTimeout):
		t.Fatal("the broker was not asked again")
	}
	if n := told.count("sent"); n != 0 {
		t.Errorf("%d messages were reported as sent", n)
	}
	x.Broker.Heal()
	st := x.until("empty", drained)
	stop()
	if st.DeadLetters != 0 {
		t.Errorf("%d dead letters of an outage", st.DeadLetters)
	}
	if n := told.count("sent"); n != messages || told.count("breaker closed") == 0 || told.count("observe.Closed") != 1 {
		t.Errorf("events %v, want %d sent", told.counts, messages)
	}
	if n := len(x.ids()); n != messages {
		t.Errorf("%d messages came, want %d", n, messages)
	}
}

// firsts are the first copies of each message.
func firsts(ids []string) (list []string) {
	seen := make(map[string]bool)
	for _, id := range ids {
		if !seen[id] {
			list = append(list, id)
		}
		seen[id] = true
	}
	return list
}

// TestOrder: several Forwarders over a broker that fails, is slow and loses answers keep
// each session in the order of its commits.
func TestOrder(t *testing.T) {
	t.Parallel()
	const sessions = 6
	each := soak(15, 300)
	x := newFixture(t, nil)
	x.Broker.Inject(
		queuetest.Fault{On: queuetest.Send, Rate: 0.2, Err: queuetest.Unavailable()},
		queuetest.Fault{On: queuetest.Send, Rate: 0.1, LostAnswer: queuetest.Unavailable()},
		queuetest.Fault{On: queuetest.Send, Rate: 0.1, Err: errors.New("an error without a kind")},
		queuetest.Fault{On: queuetest.Send, Rate: 0.3, Delay: 5 * time.Millisecond},
	)
	o := &outbox.ForwarderOptions{
		Retry:  backoff.Fixed(2 * time.Millisecond),
		Outage: &backoff.BreakerOptions{Failures: 1, Open: 2 * time.Millisecond, Successes: 1},
	}
	for range 3 {
		x.forward(x.open(nil), x.Broker, o)
	}
	var writers sync.WaitGroup
	for s := range sessions {
		writers.Go(func() { x.write(fmt.Sprint("s", s), each) })
	}
	writers.Wait()
	x.until("empty", drained)
	if dead := x.reasons(); len(dead) != 0 {
		t.Errorf("dead letters %v: raise MaxDeliveries", dead)
	}
	got := firsts(x.ids())
	for s := range sessions {
		x.inOrder(got, s, each)
	}
}

// write puts n messages of one session, each in a transaction of its own.
func (x *fixture) write(session string, n int) {
	stop := make(chan struct{})
	written := 0
	x.writeWhile(session, func() bool {
		written++
		return written <= n
	}, stop)
}

// writeUntil puts messages of one session until stop is closed, and returns how many.
func (x *fixture) writeUntil(session string, stop <-chan struct{}) int {
	return x.writeWhile(session, func() bool { return true }, stop)
}

func (x *fixture) writeWhile(session string, more func() bool, stop <-chan struct{}) (n int) {
	c, err := pgx.Connect(context.Background(), x.server())
	if err != nil {
		x.t.Error(err)
		return 0
	}
	defer func() { _ = c.Close(context.Background()) }()
	for ; more(); n++ {
		select {
		case <-stop:
			return n
		default:
		}
		p, err := x.sender.Prepare(context.Background(), &queue.Message{ID: fmt.Sprintf("%s %d", session, n), SessionID: session})
		if err == nil {
			err = pgx.BeginFunc(context.Background(), c, func(tx pgx.Tx) error { return x.box.Put(context.Background(), tx, p) })
		}
		if err != nil {
			x.t.Error(err)
			return n
		}
	}
	return n
}

// TestRepeat: a message whose confirmation was lost is sent again under the same
// identity, and handled once.
func TestRepeat(t *testing.T) {
	t.Parallel()
	x := newFixture(t, nil)
	x.Broker.Inject(queuetest.Fault{On: queuetest.Send, Times: 2, LostAnswer: queuetest.Unavailable()})
	x.put(nil, &queue.Message{ID: "a", Body: []byte("once")})
	stop := x.forward(x.box, x.Broker, &outbox.ForwarderOptions{Outage: &backoff.BreakerOptions{Failures: 1, Open: time.Millisecond, Successes: 1}})
	x.until("empty", drained)
	stop()
	q, err := x.Memory.Open(t.Context(), orders, nil)
	x.must(err)
	stored, _, err := q.Peek(t.Context(), "", 10)
	x.must(err)
	if len(stored) != 3 {
		t.Fatalf("the broker has %d copies, want 3", len(stored))
	}
	for _, d := range stored {
		if string(d.Body) != string(stored[0].Body) {
			t.Error("a copy has other bytes")
		}
	}
	r, err := x.Receiver(t.Context(), orders, &queue.ReceiverOptions{Wait: 100 * time.Millisecond})
	x.must(err)
	if got := handled(t, r); !slices.Equal(got, []string{"a"}) {
		t.Errorf("handled %v, want a once", got)
	}
}

// identity names a message for ever.
func identity(t *testing.T, body []byte) string {
	t.Helper()
	e, err := envelope.Parse(body)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%s %x %d", e.Sender, e.Stream, e.Sequence)
}
