package attacktest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/drivertest"
	"github.com/queue-runtime/queue/envelope"
	"github.com/queue-runtime/queue/keys"
	"github.com/queue-runtime/queue/observe"
	"github.com/queue-runtime/queue/replay"
)

// scenario is one attack on one broker: the victim's senders and receivers, and a
// record of what was sent, forged and received.
type scenario struct {
	attack attack
	env    *Env
	ctx    context.Context
	n      int

	keys     *keys.Ring
	provider *countingKeys // the receiver's view of keys
	victim   *queue.Client // the client that sends honest messages
	padding  envelope.Padding

	sent     map[string]fingerprint // of honest messages, by message ID
	payloads map[string][]byte      // of honest messages, by message ID

	queue    string                    // the queue under attack
	attempts map[string]driver.Message // forged messages as stored, by message ID
	became   map[string]disposition    // disposition of attempts, by message ID

	mu       sync.Mutex     // guards what follows: observers run anywhere
	errors   map[string]int // by error type, from metrics
	rejected []*queue.RejectedError

	faults     []string
	faultCount map[string]int // by format
	closers    []func(context.Context) error
}

// fingerprint identifies the content of an honest message.
type fingerprint [sha256.Size]byte

// fingerprintOf covers every field that an application acts on.
func fingerprintOf(m *queue.Message) fingerprint {
	h := sha256.New()
	field := func(s string) { fmt.Fprintf(h, "%d:%s", len(s), s) }
	for _, s := range []string{m.ID, m.SessionID, m.CorrelationID, m.ContentType, string(m.Body)} {
		field(s)
	}
	for _, k := range slices.Sorted(maps.Keys(m.Attributes)) {
		field(k)
		field(m.Attributes[k])
	}
	return fingerprint(h.Sum(nil))
}

// The key IDs of the victim. They have the same length, so that swap_key_id
// changes no other byte of the header.
const (
	keyID      keys.ID = "attack-1"
	otherKeyID keys.ID = "attack-2"
)

func newScenario(ctx context.Context, a attack, env *Env, n int) (*scenario, error) {
	s := &scenario{
		attack: a, env: env, ctx: ctx, n: n,
		sent: make(map[string]fingerprint), payloads: make(map[string][]byte),
		attempts: make(map[string]driver.Message), became: make(map[string]disposition),
		errors: make(map[string]int), faultCount: make(map[string]int),
	}
	var made []*keys.Key
	for _, id := range []keys.ID{keyID, otherKeyID} {
		k, err := keys.Generate(id, nil)
		if err != nil {
			return nil, err
		}
		made = append(made, k)
	}
	var err error
	if s.keys, err = keys.NewRing(made...); err != nil {
		return nil, err
	}
	s.provider = &countingKeys{Provider: s.keys}
	s.victim, err = s.client(&queue.Options{Keys: s.keys, Crypto: queue.CryptoConfig{Enabled: true}})
	return s, err
}

// countingKeys counts the calls to a key provider.
type countingKeys struct {
	keys.Provider
	mu    sync.Mutex
	calls int
}

func (a *countingKeys) count() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.calls++
}

// GetKey counts.
func (a *countingKeys) GetKey(ctx context.Context, id keys.ID) (*keys.Key, error) {
	a.count()
	return a.Provider.GetKey(ctx, id)
}

// ValidKeyIDs counts.
func (a *countingKeys) ValidKeyIDs(ctx context.Context) ([]keys.ID, error) {
	a.count()
	return a.Provider.ValidKeyIDs(ctx)
}

// errorCounter is the Observer of the receiver: it counts errors as metrics do.
type errorCounter struct {
	observe.Nop
	s *scenario
}

// CryptoError counts one error.
func (w errorCounter) CryptoError(_ context.Context, _ observe.Source, e observe.CryptoError) {
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	w.s.errors[e.Reason]++
}

// client opens a connection of its own and a Client over it.
func (s *scenario) client(o *queue.Options) (*queue.Client, error) {
	p, err := s.env.Broker.Connect(s.ctx)
	if err != nil {
		return nil, err
	}
	o.Logger = slog.New(slog.DiscardHandler)
	c, err := queue.New(p, o)
	if err != nil {
		return nil, errors.Join(err, p.Close(s.ctx))
	}
	s.closers = append(s.closers, c.Close)
	return c, nil
}

// receiverSettings say how the victim receives. The zero value is strict and tracks
// replays.
type receiverSettings struct {
	policy    queue.PlaintextPolicy
	untracked bool
	maxAge    time.Duration // 0: one day
	keys      keys.Provider // nil means those of the scenario
}

// receiver opens a receiver over a connection of its own.
func (s *scenario) receiver(name string, how receiverSettings) (*queue.Receiver, error) {
	o := &queue.Options{
		Keys:     s.provider,
		Observer: errorCounter{s: s},
		Crypto: queue.CryptoConfig{
			Enabled:         true,
			PlaintextPolicy: how.policy,
			MaxMessageAge:   how.maxAge,
			TrackReplays:    !how.untracked,
		},
		OnRejected: func(_ context.Context, e *queue.RejectedError) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.rejected = append(s.rejected, e)
		},
	}
	if how.keys != nil {
		o.Keys = how.keys
	}
	if how.maxAge == 0 {
		o.Crypto.MaxMessageAge = 24 * time.Hour
	} else {
		o.Crypto.MaxClockSkew = time.Millisecond
	}
	if !how.untracked {
		// It keeps one tag, so that a copy is found out by its number: a copy whose tag is
		// kept is completed silently, as a repeat of the broker's.
		store, err := replay.NewMemory(&replay.MemoryOptions{Bounds: replay.Bounds{Recent: 1}})
		if err != nil {
			return nil, err
		}
		o.ReplayStore = store
	}
	c, err := s.client(o)
	if err != nil {
		return nil, err
	}
	settings := &queue.ReceiverOptions{
		Wait:            time.Second,
		MaxAuthFailures: 1 << 30, // no pause: the attack must run to its end
		RotationHorizon: o.Crypto.MaxMessageAge,
	}
	if s.attack.errorType == driver.ReasonAuthentication {
		if err := s.prove(c, o.Keys, settings); err != nil {
			return nil, fmt.Errorf("prove the keys: %w", err)
		}
	}
	return c.Receiver(s.ctx, name, settings)
}

// prove has a message opened under each key, in a queue of its own: only then is what
// fails known to be forged, and dead-lettered.
func (s *scenario) prove(c *queue.Client, p keys.Provider, settings *queue.ReceiverOptions) error {
	name, err := s.newQueue()
	if err != nil {
		return err
	}
	ids, err := p.ValidKeyIDs(s.ctx)
	if err != nil {
		return err
	}
	for i, id := range ids {
		key, err := p.GetKey(s.ctx, id)
		if err != nil {
			return err
		}
		alone, err := keys.NewRing(key)
		if err != nil {
			return err
		}
		sender, err := s.victim.Sender(s.ctx, name, &queue.SenderOptions{Keys: alone})
		if err != nil {
			return err
		}
		m := &queue.Message{ID: "proof-" + string(id), Body: []byte("proof")}
		if s.attack.sessions {
			m.SessionID = fmt.Sprint("proof-", i)
		}
		if _, err := sender.Send(s.ctx, m); err != nil {
			return err
		}
		if err := sender.Close(s.ctx); err != nil {
			return err
		}
	}
	r, err := c.Receiver(s.ctx, name, settings)
	if err != nil {
		return err
	}
	got := 0
	take := func(list []*queue.Delivery) error {
		got += len(list)
		for _, d := range list {
			if err := d.Complete(s.ctx); err != nil {
				return err
			}
		}
		return nil
	}
	for range 10 * len(ids) {
		if err := s.round(r, take); err != nil {
			return err
		}
		if got == len(ids) {
			return r.Close(s.ctx)
		}
	}
	return fmt.Errorf("%d of %d keys opened a message", got, len(ids))
}

// fault records a fault. Of faults with the same format only the first few are
// kept.
func (s *scenario) fault(format string, args ...any) {
	const few = 3
	switch s.faultCount[format]++; {
	case s.faultCount[format] <= few:
		s.faults = append(s.faults, fmt.Sprintf(format, args...))
	case s.faultCount[format] == few+1:
		s.faults = append(s.faults, fmt.Sprintf(format, args...)+" (and more of this kind)")
	}
}

// payload is the i-th body.
func (s *scenario) payload(i int) []byte {
	if s.env.Payload != nil {
		return s.env.Payload(i)
	}
	return fmt.Appendf(nil, `{"action":"opened","number":%d,"secret":"%x","padding":%q}`,
		i, sha256.Sum256(fmt.Appendf(nil, "payload %d", i)), strings.Repeat("octocat ", 120))
}

// message is the i-th honest message.
func (s *scenario) message(i int, session string) *queue.Message {
	return &queue.Message{
		ID:            fmt.Sprintf("message-%05d", i),
		SessionID:     session,
		CorrelationID: fmt.Sprintf("delivery-%05d", i),
		ContentType:   "application/json",
		Attributes:    map[string]string{"event": "pull_request", "repository": "acme/api", "sender": fmt.Sprintf("user-%d", i)},
		Body:          s.payload(i),
	}
}

// companions is the number of honest messages that accompany n attacked ones.
func (s *scenario) companions() int { return s.n/5 + 1 }

// newQueue makes a queue.
func (s *scenario) newQueue() (string, error) {
	return s.env.Broker.NewQueue(s.ctx, drivertest.QueueSpec{Sessions: s.attack.sessions})
}

// send seals and sends the honest messages from to to-1 and records them.
func (s *scenario) send(name string, from, to int) error {
	sender, err := s.victim.Sender(s.ctx, name, &queue.SenderOptions{Padding: s.padding})
	if err != nil {
		return err
	}
	var all []*queue.Message
	for i := from; i < to; i++ {
		session := ""
		if s.attack.sessions {
			session = fmt.Sprintf("acme/api#%d", i)
		}
		m := s.message(i, session)
		s.sent[m.ID] = fingerprintOf(m)
		s.payloads[m.ID] = m.Body
		all = append(all, m)
	}
	if _, err := sender.SendBatch(s.ctx, all); err != nil {
		return err
	}
	return sender.Close(s.ctx)
}

// capture returns what the attacker reads from a queue. It is a fault if a payload
// can be read.
func (s *scenario) capture(name string) ([]driver.Message, error) {
	all, err := s.env.Broker.Attacker.Read(s.ctx, name)
	if err != nil {
		return nil, fmt.Errorf("the attacker reads: %w", err)
	}
	for _, m := range all {
		plain := s.payloads[m.ID]
		if len(plain) > 16 && (bytes.Contains(m.Body, plain[:16]) || bytes.Contains(m.Body, plain[len(plain)/2:][:min(16, len(plain)/2)])) {
			s.fault("the payload of message %q can be read at the broker", m.ID)
		}
	}
	return all, nil
}

// rewrite lets the attacker replace the messages of a queue, and checks that the
// broker stores them as forged. f returns all messages to store, and the forged
// or altered ones among them as attempts.
func (s *scenario) rewrite(name string, f func([]driver.Message) (all, attempts []driver.Message, err error)) error {
	s.queue = name
	var forged []driver.Message
	var failed error
	err := s.env.Broker.Attacker.Rewrite(s.ctx, name, func(all []driver.Message) []driver.Message {
		var out []driver.Message
		if out, forged, failed = f(all); failed != nil {
			return all
		}
		return out
	})
	if err = errors.Join(failed, err); err != nil {
		return fmt.Errorf("the attacker rewrites: %w", err)
	}
	stored, err := s.env.Broker.Attacker.Read(s.ctx, name)
	if err != nil {
		return fmt.Errorf("the attacker reads back: %w", err)
	}
	byID := make(map[string]*driver.Message)
	for i := range stored {
		byID[stored[i].ID] = &stored[i]
	}
	for i := range forged {
		m := &forged[i]
		if _, twice := s.attempts[m.ID]; twice {
			return fmt.Errorf("two attempts have the message ID %q", m.ID)
		}
		s.attempts[m.ID] = *m
		back := byID[m.ID]
		if back == nil {
			return fmt.Errorf("the attacker stored message %q and does not find it", m.ID)
		}
		if d := drivertest.Difference(m, back); d != "" {
			return fmt.Errorf("the attacker stored message %q and reads another: %s", m.ID, d)
		}
	}
	return nil
}

func (s *scenario) close(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer cancel()
	var all error
	for _, c := range slices.Backward(s.closers) {
		all = errors.Join(all, c(ctx))
	}
	for _, id := range s.keys.IDs() {
		all = errors.Join(all, s.keys.Remove(id))
	}
	return all
}
