package connect

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/azure/sbqueue"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/keys"
	"github.com/queue-runtime/queue/memqueue"
	"github.com/queue-runtime/queue/postgres/postgresqueue"
	"github.com/queue-runtime/queue/replay"
	"github.com/queue-runtime/queue/testbed/faultproxy"
	"github.com/queue-runtime/queue/testbed/fauxqs"
	"github.com/queue-runtime/queue/testbed/postgres"
	"github.com/queue-runtime/queue/testbed/redispeer"
	"github.com/queue-runtime/queue/testbed/sbemulator"
	"github.com/queue-runtime/queue/worker"
)

const (
	awayQueues = 5
	awayTime   = 6 * time.Second
	// maxDials is for the whole of awayTime: a few for each second, and those of the
	// connections that were cut.
	maxDials = 4*int(awayTime/time.Second) + 8
)

// distant is a broker or a replay store behind a proxy, opened as often as that is asked for.
type distant struct {
	proxy *faultproxy.TCP
	open  func() driver.Broker
	store func() replay.Store // nil: no replay store
}

// options are those of a client.
func (d *distant) options(ring *keys.Ring) *queue.Options {
	o := &queue.Options{}
	if d.store != nil {
		o = queue.Strict(ring, d.store())
		o.Crypto.MaxMessageAge = time.Hour
	}
	o.Logger = slog.New(slog.DiscardHandler)
	return o
}

// TestDialsWhileAway: a process with five queues at work, whose broker is away, connects a
// few times a second at most, whatever it is asked to do meanwhile. When the broker is
// back, the queues are at work again.
func TestDialsWhileAway(t *testing.T) {
	for name, value := range map[string]string{
		"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_SESSION_TOKEN": "", "AWS_PROFILE": "", "AWS_EC2_METADATA_DISABLED": "true",
	} {
		t.Setenv(name, value)
	}
	for name, start := range map[string]func(*testing.T) *distant{
		"postgres": distantPostgres, "sqs": distantSQS, "sb": distantServiceBus(false), "sb of sessions": distantServiceBus(true),
		"redis replay store": distantRedis, "postgres replay store": distantPostgresStore,
	} {
		for _, shared := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s/shared=%t", name, shared), func(t *testing.T) {
				t.Parallel()
				d := start(t)
				dialsWhileAway(t, d, shared)
			})
		}
	}
}

func dialsWhileAway(t *testing.T, d *distant, shared bool) {
	t.Helper()
	key, err := keys.Generate("k1", nil)
	if err != nil {
		t.Fatal(err)
	}
	ring, err := keys.NewRing(key)
	if err != nil {
		t.Fatal(err)
	}
	client := func() *queue.Client {
		c, err := queue.New(d.open(), d.options(ring))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
			defer cancel()
			_ = c.Close(ctx) // what it closes was cut
		})
		return c
	}
	pool, err := worker.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	c := client()
	session := ""
	if strings.Contains(t.Name(), "sessions") {
		session = "s"
	}
	handled := make(chan string, 100)
	var senders []*queue.Sender
	for i := range awayQueues {
		if !shared && i > 0 {
			c = client()
		}
		name := fmt.Sprint("away", i)
		s, err := c.Sender(t.Context(), name, nil)
		if err != nil {
			t.Fatal(err)
		}
		senders = append(senders, s)
		r, err := c.Receiver(t.Context(), name, nil)
		if err != nil {
			t.Fatal(err)
		}
		err = pool.Handle(r, worker.HandlerFunc(func(_ context.Context, d *queue.Delivery) error {
			handled <- d.Queue
			return nil
		}), &worker.HandleOptions{Sessions: session != ""})
		if err != nil {
			t.Fatal(err)
		}
	}
	var all sync.WaitGroup
	all.Go(func() {
		if err := pool.Run(t.Context()); err != nil {
			t.Error(err)
		}
	})
	defer all.Wait()
	defer func() { _ = pool.Stop(context.Background()) }()
	ask := func(ctx context.Context) {
		var sends sync.WaitGroup
		for _, s := range senders {
			sends.Go(func() {
				for ctx.Err() == nil {
					if _, err := s.Send(ctx, &queue.Message{Body: []byte("x"), SessionID: session}); err == nil {
						return
					}
					timer := time.NewTimer(200 * time.Millisecond) // as an application does
					select {
					case <-timer.C:
					case <-ctx.Done():
					}
					timer.Stop()
				}
			})
		}
		sends.Wait()
	}
	work := func(limit time.Duration) {
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		defer cancel()
		ask(ctx)
		waiting := make(map[string]bool)
		for i := range awayQueues {
			waiting[fmt.Sprint("away", i)] = true
		}
		for len(waiting) > 0 {
			select {
			case name := <-handled:
				delete(waiting, name)
			case <-ctx.Done():
				t.Fatalf("not handled within %s: %v", limit, waiting)
			}
		}
	}
	work(3 * time.Minute)
	there := d.proxy.Server()
	d.proxy.Taken()
	d.proxy.Redirect("127.0.0.1:1") // refuses connections
	ctx, cancel := context.WithTimeout(t.Context(), awayTime)
	defer cancel()
	ask(ctx)
	<-ctx.Done()
	dials := d.proxy.Taken()
	t.Logf("%d connections in %s", dials, awayTime)
	if dials > maxDials || dials == 0 {
		t.Errorf("%d connections in %s with the broker away, want %d at most", dials, awayTime, maxDials)
	}
	d.proxy.Redirect(there)
	begin := time.Now()
	work(3 * time.Minute)
	t.Logf("at work again after %s", time.Since(begin))
}

func proxied(t *testing.T, server string) *faultproxy.TCP {
	t.Helper()
	p, err := faultproxy.NewTCP(server, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return p
}

func distantPostgres(t *testing.T) *distant {
	t.Helper()
	u, err := url.Parse(postgres.Shared(t).URL("postgres", "postgres"))
	if err != nil {
		t.Fatal(err)
	}
	p := proxied(t, u.Host)
	u.Host = p.Addr()
	schema := fmt.Sprintf("away%d", rand.Uint32())
	return &distant{proxy: p, open: func() driver.Broker {
		b, err := postgresqueue.Open(t.Context(), u.String()+"?sslmode=disable&timeout=3s&schema="+schema, nil)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}}
}

// beside is a broker in memory whose receivers have a replay store behind the proxy.
func beside(t *testing.T, p *faultproxy.TCP, open func() (*ReplayStore, error)) *distant {
	t.Helper()
	b := memqueue.New(nil)
	t.Cleanup(func() { _ = b.Close(context.Background()) })
	return &distant{proxy: p, open: b.Connect, store: func() replay.Store {
		s, err := open()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close(context.Background()) })
		return s
	}}
}

func distantRedis(t *testing.T) *distant {
	t.Helper()
	p := proxied(t, redispeer.New(t, nil).Address())
	return beside(t, p, func() (*ReplayStore, error) {
		return OpenReplayStore(t.Context(), "redis://"+p.Addr()+"?fsync=never")
	})
}

func distantPostgresStore(t *testing.T) *distant {
	t.Helper()
	u, err := url.Parse(postgres.Shared(t).URL("postgres", "postgres"))
	if err != nil {
		t.Fatal(err)
	}
	p := proxied(t, u.Host)
	u.Host = p.Addr()
	schema := fmt.Sprintf("away%d", rand.Uint32())
	return beside(t, p, func() (*ReplayStore, error) {
		return OpenReplayStore(t.Context(), u.String()+"?sslmode=disable&schema="+schema)
	})
}

func distantServiceBus(sessions bool) func(*testing.T) *distant {
	return func(t *testing.T) *distant {
		t.Helper()
		s, err := sbemulator.Start(&sbemulator.Options{AutoCreate: &sbemulator.QueueOptions{RequiresSession: sessions}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		p := proxied(t, s.Addr().String())
		return &distant{proxy: p, open: func() driver.Broker {
			b, err := sbqueue.FromConnectionString(strings.Replace(s.ConnectionString(), s.Addr().String(), p.Addr(), 1),
				&sbqueue.Options{Default: sbqueue.QueueOptions{Sessions: sessions}})
			if err != nil {
				t.Fatal(err)
			}
			return b
		}}
	}
}

func distantSQS(t *testing.T) *distant {
	t.Helper()
	server, err := fauxqs.Start(nil)
	if errors.Is(err, fauxqs.ErrNotInstalled) && os.Getenv("QRT_REQUIRE_PEERS") != "1" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	for i := range awayQueues {
		createQueue(t, server.URL(), fmt.Sprint("away", i), nil)
	}
	p := proxied(t, strings.TrimPrefix(server.URL(), "http://"))
	return &distant{proxy: p, open: func() driver.Broker {
		b, err := OpenBroker(t.Context(), "sqs://us-east-1/?poll=1s&endpoint=http://"+p.Addr())
		if err != nil {
			t.Fatal(err)
		}
		return b
	}}
}
