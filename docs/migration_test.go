// Package docs_test compiles and runs the fragments of the documents beside it.
// internal/archtest sees to it that each fragment stands in a Go file.
package docs_test

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/keys"
	"github.com/queue-runtime/queue/memqueue"
	"github.com/queue-runtime/queue/replay"
)

const (
	name    = "task-tactician"
	backlog = 4 * 24 * time.Hour
)

func adopt(broker driver.Broker) (*queue.Client, error) {
	client, err := queue.New(broker, nil)
	return client, err
}

func announce(broker driver.Broker) (*queue.Client, error) {
	client, err := queue.New(broker, &queue.Options{Environment: "production"})
	return client, err
}

func generate() (*keys.Key, error) {
	key, err := keys.Generate("task-tactician-2026-11", nil)
	return key, err
}

func newRing(key *keys.Key) (*keys.Ring, error) {
	ring, err := keys.NewRing(key)
	return ring, err
}

func rollOut(ring keys.Provider) *queue.Options {
	options := &queue.Options{
		Environment: "production",
		Keys:        ring,
		Crypto: queue.CryptoConfig{
			Enabled:         true,
			PlaintextPolicy: queue.AllowWithAlert,
			MaxMessageAge:   backlog,
		},
	}
	return options
}

func plainSender(ctx context.Context, client *queue.Client) (*queue.Sender, error) {
	sender, err := client.Sender(ctx, "task-tactician", &queue.SenderOptions{
		Crypto: &queue.CryptoConfig{Enabled: false, Loosen: true},
	})
	return sender, err
}

func enforce(ring keys.Provider, store replay.Store) *queue.Options {
	options := queue.Strict(ring, store)
	options.Environment = "production"
	return options
}

func enforceFor(ring keys.Provider, store replay.Store, backlog time.Duration) *queue.Options {
	options := enforce(ring, store)
	options.Crypto.MaxMessageAge = backlog
	return options
}

func relax(options *queue.Options) {
	options.Crypto.PlaintextPolicy = queue.AllowWithAlert
}

func newStore() (replay.Store, error) {
	store, err := replay.NewMemory(nil)
	return store, err
}

func rotate(ring *keys.Ring, key, next *keys.Key) error {
	if err := ring.Add(next); err != nil {
		return err
	}
	// once every receiver has it:
	if err := ring.SetCurrent(next.ID()); err != nil {
		return err
	}
	// once no waiting and no dead message needs the old one:
	if err := ring.Remove(key.ID()); err != nil {
		return err
	}
	return nil
}

// silence keeps the log lines of one test out of the output.
func silence(t *testing.T) {
	old := slog.Default()
	slog.SetDefault(slog.New(slog.DiscardHandler))
	t.Cleanup(func() { slog.SetDefault(old) })
}

// migration is one broker with clients in several phases.
type migration struct {
	t      *testing.T
	broker driver.Broker
}

func (m *migration) client(o *queue.Options) *queue.Client {
	m.t.Helper()
	c, err := queue.New(m.broker, o)
	if err != nil {
		m.t.Fatal(err)
	}
	return c
}

func (m *migration) send(c *queue.Client, body string) {
	m.t.Helper()
	s, err := c.Sender(m.t.Context(), name, nil)
	if err != nil {
		m.t.Fatal(err)
	}
	m.sendTo(s, body)
}

func (m *migration) sendTo(s *queue.Sender, body string) {
	m.t.Helper()
	if _, err := s.Send(m.t.Context(), &queue.Message{Body: []byte(body)}); err != nil {
		m.t.Fatal(err)
	}
}

// receive wants the next message to be this one, and completes it.
func (m *migration) receive(c *queue.Client, body string, encrypted bool) {
	m.t.Helper()
	d, err := m.one(c)
	if err != nil {
		m.t.Fatal(err)
	}
	if string(d.Body) != body || d.Encrypted != encrypted {
		m.t.Fatalf("received %q, encrypted %v, want %q, %v", d.Body, d.Encrypted, body, encrypted)
	}
	if err := d.Complete(m.t.Context()); err != nil {
		m.t.Fatal(err)
	}
}

func (m *migration) reject(c *queue.Client, want error) {
	m.t.Helper()
	if _, err := m.one(c); !errors.Is(err, want) {
		m.t.Fatalf("error %v, want %v", err, want)
	}
}

func (m *migration) one(c *queue.Client) (*queue.Delivery, error) {
	m.t.Helper()
	r, err := c.Receiver(m.t.Context(), name, &queue.ReceiverOptions{Wait: time.Millisecond})
	if err != nil {
		m.t.Fatal(err)
	}
	return r.ReceiveOne(m.t.Context())
}

// TestMigration walks through the four phases and back, with messages of each
// phase waiting in the queue when the next one begins.
func TestMigration(t *testing.T) {
	silence(t)
	m := &migration{t, memqueue.New(&memqueue.Options{Default: memqueue.QueueOptions{Retention: backlog}})}
	t.Cleanup(func() {
		if err := m.broker.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	if _, err := adopt(m.broker); err != nil {
		t.Fatal(err)
	}
	if _, err := announce(m.broker); err != nil {
		t.Fatal(err)
	}
	key, err := generate()
	if err != nil {
		t.Fatal(err)
	}
	ring, err := newRing(key)
	if err != nil {
		t.Fatal(err)
	}
	store, err := newStore()
	if err != nil {
		t.Fatal(err)
	}
	phase1 := m.client(nil)
	phase2 := m.client(&queue.Options{Environment: "production"})
	phase3 := m.client(rollOut(ring))
	phase4 := m.client(enforce(ring, store))

	m.send(phase1, "one")
	m.receive(phase2, "one", false)

	// Receivers first: they read what the senders of before still send.
	m.send(phase2, "two")
	s, err := plainSender(t.Context(), phase3)
	if err != nil {
		t.Fatal(err)
	}
	m.sendTo(s, "three")
	m.receive(phase3, "two", false)
	m.receive(phase3, "three", false)
	m.send(phase3, "four")
	m.receive(phase3, "four", true)

	// A receiver that was forgotten gives a sealed message back.
	m.send(phase3, "five")
	m.reject(phase2, queue.ErrKeyNotFound)

	// A sender that was forgotten is found.
	m.send(phase2, "six")
	m.reject(phase4, queue.ErrUnencryptedMessage)
	m.send(phase3, "seven")
	m.receive(phase4, "seven", true)

	// Back: plaintext passes again, replays do not.
	relaxed := enforceFor(ring, store, backlog)
	relax(relaxed)
	back := m.client(relaxed)
	m.send(phase2, "eight")
	m.send(phase4, "nine")
	m.receive(back, "eight", false)
	m.receive(back, "nine", true)

	// Rotation: what is sealed under the new key is read, the old one is gone.
	next, err := keys.Generate("task-tactician-2026-12", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := rotate(ring, key, next); err != nil {
		t.Fatal(err)
	}
	if got := ring.IDs(); !slices.Equal(got, []keys.ID{next.ID()}) {
		t.Fatalf("keys %q after rotation, want only %q", got, next.ID())
	}
	m.send(phase4, "ten")
	m.receive(phase4, "ten", true)
}
