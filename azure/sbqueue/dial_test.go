package sbqueue_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/queue-runtime/queue/azure/sbqueue"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/testbed/sbemulator"
)

// network is between clients and an emulator.
type network struct {
	ln    net.Listener
	to    string
	taken chan struct{} // a connection came after the network went silent
	all   sync.WaitGroup

	mu     sync.Mutex // guards what follows
	silent bool       // connections are taken, and that is all
	open   []net.Conn
}

func newNetwork(t *testing.T, n *namespace) (*network, string) {
	t.Helper()
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &network{ln: ln, to: n.Addr().String(), taken: make(chan struct{}, 100)}
	w.all.Go(w.serve)
	t.Cleanup(func() {
		_ = ln.Close()
		w.cut()
		w.all.Wait()
	})
	return w, strings.Replace(n.ConnectionString(), w.to, ln.Addr().String(), 1)
}

func (w *network) serve() {
	for {
		c, err := w.ln.Accept()
		if err != nil {
			return
		}
		w.mu.Lock()
		w.open = append(w.open, c)
		silent := w.silent
		w.mu.Unlock()
		if silent {
			w.taken <- struct{}{}
			continue
		}
		s, err := new(net.Dialer).DialContext(context.Background(), "tcp", w.to)
		if err != nil {
			_ = c.Close()
			continue
		}
		for from, to := range map[net.Conn]net.Conn{c: s, s: c} {
			w.all.Go(func() {
				_, _ = io.Copy(to, from) // until either end is closed
				_ = to.Close()
			})
		}
	}
}

// cut ends all connections and is silent from then on.
func (w *network) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.silent = true
	for _, c := range w.open {
		_ = c.Close()
	}
	w.open = nil
}

// Calls end with their context while another one connects to a network that does
// not answer: the SDK would have them wait until the other gives up. A Receive that
// finds out that its link is dead waits with the SDK, but not for long.
func TestCallsEndWhileConnecting(t *testing.T) {
	t.Parallel()
	const patience, late = 300 * time.Millisecond, time.Second + slack
	for _, sessions := range []bool{false, true} {
		t.Run(fmt.Sprintf("sessions=%t", sessions), func(t *testing.T) {
			t.Parallel()
			n := start(t, nil, sbemulator.QueueOptions{RequiresSession: sessions})
			w, connection := newNetwork(t, n)
			b, err := sbqueue.FromConnectionString(connection, &sbqueue.Options{Default: n.settings})
			if err != nil {
				t.Fatal(err)
			}
			q, err := b.Open(t.Context(), "q", nil)
			if err != nil {
				t.Fatal(err)
			}
			send(t, q, &driver.Message{ID: "a", SessionID: "s"})
			calls := map[string]func(context.Context) error{
				"Open": func(ctx context.Context) error { _, err := b.Open(ctx, "q", nil); return err },
				"Send": func(ctx context.Context) error {
					return q.Send(ctx, []*driver.Message{{ID: "b", SessionID: "s"}})[0].Err
				},
				"AcceptSession": func(ctx context.Context) error { _, err := q.AcceptSession(ctx, "", time.Minute); return err },
			}
			if !sessions {
				delete(calls, "AcceptSession")
				d := receive(t, q, 1)[0]
				calls["Peek"] = func(ctx context.Context) error { _, _, err := q.Peek(ctx, "", 1); return err }
				calls["Renew"] = func(ctx context.Context) error { return q.Renew(ctx, []*driver.Delivery{d})[0].Err }
				calls["Settle"] = func(ctx context.Context) error {
					return q.Settle(ctx, []driver.Settlement{{Delivery: d, Kind: driver.Complete}})[0]
				}
			}
			w.cut()
			long, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			var first sync.WaitGroup
			first.Go(func() { _ = q.Send(long, []*driver.Message{{ID: "long", SessionID: "s"}}) })
			if sessions {
				<-w.taken
				first.Go(func() { _, _ = q.AcceptSession(long, "", time.Minute) })
			}
			<-w.taken
			for name, call := range calls {
				short, cancel := context.WithTimeout(t.Context(), patience)
				begin := time.Now()
				err := call(short)
				cancel()
				if took := time.Since(begin); took > late || err == nil {
					t.Errorf("%s, with %s to go: %v after %s", name, patience, err, took)
				}
			}
			if !sessions {
				short, cancel := context.WithTimeout(t.Context(), patience)
				begin := time.Now()
				_, err := q.Receive(short, 1, time.Minute)
				cancel()
				if took := time.Since(begin); took > 10*time.Second+slack || err == nil {
					t.Errorf("Receive: %v after %s", err, took)
				}
			}
			cancel()
			first.Wait()
			begin := time.Now()
			if err := b.Close(t.Context()); time.Since(begin) > 15*time.Second+slack {
				t.Errorf("Close: %v after %s", err, time.Since(begin))
			}
		})
	}
}

// Nothing that is printed of a Broker or a queue has the key in it, nor reads what
// others write meanwhile.
func TestKeyIsNotPrinted(t *testing.T) {
	t.Parallel()
	const key = "bm8gbmFtZXNwYWNlIGhhcyB0aGlz"
	n := start(t, &sbemulator.Options{Key: key}, sbemulator.QueueOptions{})
	b := n.broker(t)
	q, err := b.Open(t.Context(), "q", nil)
	if err != nil {
		t.Fatal(err)
	}
	send(t, q, &driver.Message{ID: "a"})
	d := receive(t, q, 1)[0]
	_, missing := b.Open(t.Context(), "missing", nil)
	wrong, err := sbqueue.FromConnectionString(strings.Replace(n.ConnectionString(), key, key+"wrong", 1), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = wrong.Close(t.Context()) }()
	_, refused := wrong.Open(t.Context(), "q", nil)
	_, malformed := sbqueue.FromConnectionString("Endpoint=sb://127.0.0.1;SharedAccessKey="+key, nil)
	if missing == nil || refused == nil || malformed == nil {
		t.Fatal(missing, refused, malformed)
	}
	dead, err := q.DeadLetters(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range []any{b, struct{ B *sbqueue.Broker }{b}, q, dead, d, *d, missing, refused, malformed} {
		var out bytes.Buffer
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			fmt.Fprintf(&out, verb, v)
		}
		slog.New(slog.NewTextHandler(&out, nil)).Info("x", "v", v)
		slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "v", v)
		j, _ := json.Marshal(v)
		out.Write(j)
		for _, secret := range []string{key, fmt.Sprintf("%x", key), "SharedAccessSignature", "sig="} {
			if strings.Contains(out.String(), secret) {
				t.Errorf("%T prints %q", v, secret)
			}
		}
	}
}

// TestDialsWhileAway: while the broker cannot be reached, queues that accept sessions
// dial ever more rarely, all of them together, and find it soon when it is back.
func TestDialsWhileAway(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := start(t, inMemory(), sbemulator.QueueOptions{RequiresSession: true})
		r := n.relayed(t, nil)
		b := r.broker(t, n, nil)
		var queues []driver.Queue
		for i := range 5 {
			name := fmt.Sprint("q", i)
			if err := n.CreateQueue(name, &sbemulator.QueueOptions{RequiresSession: true}); err != nil {
				t.Fatal(err)
			}
			q, err := b.Open(t.Context(), name, nil)
			if err != nil {
				t.Fatal(err)
			}
			send(t, q, &driver.Message{ID: "a", SessionID: "s"})
			queues = append(queues, q)
		}
		r.takeDials()
		r.setRefuse(true)
		r.cut()
		var all sync.WaitGroup
		for _, q := range queues {
			all.Go(func() {
				if _, err := q.AcceptSession(t.Context(), "", 3*time.Second); driver.KindOf(err) != driver.Unavailable {
					t.Errorf("AcceptSession while the broker is away: %v, want Unavailable", err)
				}
			})
		}
		all.Wait()
		if dials := r.takeDials(); dials > 20 || dials == 0 {
			t.Errorf("%d connections were tried in 3 s by 5 queues, want a few", dials)
		}
		r.setRefuse(false)
		for _, q := range queues {
			s, err := q.AcceptSession(t.Context(), "", 20*time.Second)
			if err != nil {
				t.Fatalf("AcceptSession when it is back: %v", err)
			}
			if err := s.Close(t.Context()); err != nil {
				t.Error(err)
			}
		}
	})
}

// A queue whose caller asks again at once connects about once a second while the broker
// cannot be reached, and receives soon after it is back.
func TestReceiveWhileAway(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := start(t, inMemory(), sbemulator.QueueOptions{})
		r := n.relayed(t, nil)
		q, err := r.broker(t, n, nil).Open(t.Context(), "q", nil)
		if err != nil {
			t.Fatal(err)
		}
		send(t, q, &driver.Message{ID: "first", Body: []byte("x")})
		if got, err := q.Receive(t.Context(), 1, 10*time.Second); err != nil || len(got) != 1 {
			t.Fatalf("Receive: %d messages, %v", len(got), err)
		}
		r.setRefuse(true)
		r.cut()
		if _, err = q.Receive(t.Context(), 1, 10*time.Second); driver.KindOf(err) != driver.Unavailable {
			t.Fatalf("Receive with the broker away: %v, want Unavailable", err)
		}
		r.takeDials()
		began := time.Now()
		for range 4 {
			if _, err := q.Receive(t.Context(), 1, 10*time.Second); driver.KindOf(err) != driver.Unavailable {
				t.Fatalf("Receive with the broker away: %v, want Unavailable", err)
			}
		}
		if dials, most := r.takeDials(), 2*int(time.Since(began)/time.Second+1); dials > most {
			t.Errorf("%d dials in %s, want at most %d", dials, time.Since(began), most)
		}
		r.setRefuse(false)
		send(t, q, &driver.Message{ID: "a", Body: []byte("x")})
		if got, err := q.Receive(t.Context(), 1, 10*time.Second); err != nil || len(got) != 1 {
			t.Errorf("Receive with the broker back: %d messages, %v", len(got), err)
		}
	})
}
