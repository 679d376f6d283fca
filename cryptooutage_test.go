package queue_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/envelope"
)

// remoteCrypto is a CryptoProvider of the application's own, which opens nothing while away.
type remoteCrypto struct {
	queue.CryptoProvider
	away  atomic.Bool
	tries atomic.Int64
}

func (c *remoteCrypto) Decrypt(ctx context.Context, m envelope.EncryptedMessage, data []byte) ([]byte, error) {
	if c.away.Load() {
		c.tries.Add(1)
		return nil, errors.New("503 Service Unavailable")
	}
	return c.CryptoProvider.Decrypt(ctx, m, data)
}

// A CryptoProvider that is away although its keys are not costs a broker that counts each
// delivery the batch in hand and then one message at a time: nothing is dead-lettered.
func TestCryptoProviderAwayBesideItsKeys(t *testing.T) {
	const backlog, batch = 40, 10
	few := func(x *fixture, _ *queue.Options) { x.Broker = newBroker(10) }
	inBubble(t, few, func(x *fixture) {
		inner, err := queue.NewAESGCM(x.Ring)
		x.Must(err)
		remote := &remoteCrypto{CryptoProvider: inner}
		h := &hostileBroker{counts: true}
		c := x.hostile(h, 24*time.Hour, func(o *queue.Options) { o.CryptoProvider = remote })
		for range backlog {
			x.Send(&queue.Message{Body: []byte("a")})
		}
		r := x.receiverOf(c, &queue.ReceiverOptions{Wait: 20 * time.Second})
		remote.away.Store(true)
		const outage = 20 * time.Minute
		for begin := time.Now(); time.Since(begin) < outage; {
			ds, err := r.Receive(x.Context(), batch)
			x.Nothing(ds, err, queue.ErrKeyProvider)
		}
		if n, most := h.fetched, batch+int(outage/(30*time.Second))+5; n > most {
			x.Errorf("%d messages fetched in %s, want at most %d: a batch, and one every 30 s", n, outage, most)
		}
		remote.away.Store(false)
		if n, dead := x.drain(r, 10*time.Minute), len(x.DeadReasons(orders)); n != backlog || dead > 0 {
			x.Errorf("%d of %d delivered, %d dead letters", n, backlog, dead)
		}
	})
}

// Few messages outlast two hours of it, in sessions of a broker without a delay, too.
func TestFewMessagesAndACryptoProviderThatIsAway(t *testing.T) {
	for _, sessions := range []bool{false, true} {
		for _, messages := range []int{1, 4} {
			inBubble(t, func(x *fixture, _ *queue.Options) { x.Broker = newBroker(10) }, func(x *fixture) {
				inner, err := queue.NewAESGCM(x.Ring)
				x.Must(err)
				remote := &remoteCrypto{CryptoProvider: inner}
				h := &hostileBroker{counts: true, caps: func(c *driver.Capabilities) {
					if sessions {
						c.AbandonDelay, c.Peek = driver.None, driver.None
					}
				}}
				c := x.hostile(h, 24*time.Hour, func(o *queue.Options) { o.CryptoProvider = remote })
				for i := range messages {
					m := &queue.Message{Body: []byte("a")}
					if sessions {
						m.SessionID = fmt.Sprint("s", i)
					}
					x.Send(m)
				}
				r := x.receiverOf(c, &queue.ReceiverOptions{Wait: time.Second})
				got := 0
				receive := func() {
					if !sessions {
						d, err := r.ReceiveOne(x.Context())
						if err == nil {
							x.Must(d.Complete(x.Context()))
							got++
						}
						return
					}
					s, err := r.NextSession(x.Context())
					if err != nil {
						return
					}
					if d, err := s.ReceiveOne(x.Context()); err == nil {
						x.Must(d.Complete(x.Context()))
						got++
					}
					x.Must(s.Close(x.Context()))
				}
				remote.away.Store(true)
				for begin := time.Now(); time.Since(begin) < 2*time.Hour; {
					receive()
				}
				remote.away.Store(false)
				for begin := time.Now(); got < messages && time.Since(begin) < 40*time.Minute; {
					receive()
				}
				if dead := x.DeadReasons(orders); got != messages || len(dead) > 0 {
					x.Errorf("sessions %t: %d of %d delivered, dead letters %v", sessions, got, messages, dead)
				}
			})
		}
	}
}

// An AESGCM over a provider that is not the Client's is asked without a message.
func TestAESGCMOverKeysOfItsOwn(t *testing.T) {
	inBubble(t, nil, func(x *fixture) {
		provider := &countingProvider{Provider: x.Ring}
		own, err := queue.NewAESGCM(provider)
		x.Must(err)
		h := &hostileBroker{counts: true}
		c := x.hostile(h, 24*time.Hour, func(o *queue.Options) { o.CryptoProvider = own })
		x.Send(&queue.Message{Body: []byte("a")})
		r := x.receiverOf(c, &queue.ReceiverOptions{Wait: 20 * time.Second})
		provider.broken.Store(true)
		for range 20 {
			if d, err := r.ReceiveOne(x.Context()); !errors.Is(err, queue.ErrKeyProvider) {
				x.Fatalf("ReceiveOne = %v, %v", d, err)
			}
		}
		if h.fetched != 1 {
			x.Errorf("%d messages fetched, want the one that met the outage", h.fetched)
		}
		provider.broken.Store(false)
		x.Wait(time.Minute)
		x.Must(x.One(r).Complete(x.Context()))
	})
}

// Forgeries at the head of the queue, under a key that has opened nothing yet, do not make
// the outage of a CryptoProvider last: each is passed at once.
func TestForgeriesBesideAnOutage(t *testing.T) {
	const forgeries = 30
	inBubble(t, nil, func(x *fixture) {
		inner, err := queue.NewAESGCM(x.Ring)
		x.Must(err)
		remote := &remoteCrypto{CryptoProvider: inner}
		c := x.hostile(&hostileBroker{}, 24*time.Hour, func(o *queue.Options) { o.CryptoProvider = remote })
		r := x.receiverOf(c, &queue.ReceiverOptions{Wait: 20 * time.Second, MaxAuthFailures: 2 * forgeries})
		x.Send(&queue.Message{ID: "good", Body: []byte("a")})
		remote.away.Store(true)
		x.None(r, queue.ErrKeyProvider)
		remote.away.Store(false)
		x.Wait(5 * time.Second) // past the delay of the message
		x.Rewrite(orders, func(all []driver.Message) []driver.Message {
			forged := make([]driver.Message, forgeries, forgeries+1)
			for i := range forged {
				forged[i] = all[0]
				forged[i].ID, forged[i].Body = fmt.Sprint("forged", i), slices.Clone(all[0].Body)
				forged[i].Body[len(forged[i].Body)-1] ^= 1
			}
			return append(forged, all...)
		})
		begin := time.Now()
		for {
			d, err := r.ReceiveOne(x.Context())
			if err == nil {
				x.Must(d.Complete(x.Context()))
				break
			}
			if !errors.Is(err, queue.ErrAuthenticationFailed) {
				x.Fatal(err)
			}
		}
		if took := time.Since(begin); took > time.Second {
			x.Errorf("the good message came after %s, want at once", took)
		}
	})
}
