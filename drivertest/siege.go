package drivertest

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
	"github.com/queue-runtime/queue/keys"
	"github.com/queue-runtime/queue/observe"
	"github.com/queue-runtime/queue/replay"
)

// siege is one attack on one broker: the victim's senders and receivers, the
// attacker, and the ledger that tells what is honest.
type siege struct {
	attack attack
	env    *AttackEnv
	ctx    context.Context
	n      int

	keys    *keys.Ring
	asked   *askedKeys // what the receiver sees of keys
	sealing *queue.Client

	honest map[string]fingerprint // by message ID: what was sent
	sent   map[string][]byte      // payloads, by message ID

	queue    string                    // the queue that is received from
	attempts map[string]driver.Message // by message ID: what the attacker has stored
	fate     map[string]disposition    // of attempts

	mu       sync.Mutex     // guards what follows: observers run anywhere
	errors   map[string]int // by error type, from metrics
	rejected []*queue.RejectedError

	faults  []string
	told    map[string]int // faults by their format
	closers []func(context.Context) error
}

// fingerprint is what the ledger knows of an honest message.
type fingerprint [sha256.Size]byte

// fingerprintOf covers all that a receiver acts on.
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

// The keys of the victim. They are of one length, so that one can stand in the
// other's place.
const (
	keyID      keys.ID = "siege-1"
	otherKeyID keys.ID = "siege-2"
)

func newSiege(ctx context.Context, a attack, env *AttackEnv, n int) (*siege, error) {
	s := &siege{
		attack: a, env: env, ctx: ctx, n: n,
		honest: make(map[string]fingerprint), sent: make(map[string][]byte),
		attempts: make(map[string]driver.Message), fate: make(map[string]disposition),
		errors: make(map[string]int), told: make(map[string]int),
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
	s.asked = &askedKeys{Provider: s.keys}
	s.sealing, err = s.client(&queue.Options{Keys: s.keys, Crypto: queue.CryptoConfig{Enabled: true}})
	return s, err
}

// askedKeys counts the calls to a key provider.
type askedKeys struct {
	keys.Provider
	mu    sync.Mutex
	calls int
}

func (a *askedKeys) count() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.calls++
}

// GetKey counts.
func (a *askedKeys) GetKey(ctx context.Context, id keys.ID) (*keys.Key, error) {
	a.count()
	return a.Provider.GetKey(ctx, id)
}

// ValidKeyIDs counts.
func (a *askedKeys) ValidKeyIDs(ctx context.Context) ([]keys.ID, error) {
	a.count()
	return a.Provider.ValidKeyIDs(ctx)
}

// witness is the Observer of a siege: what the metrics count.
type witness struct {
	observe.Nop
	s *siege
}

// CryptoError counts.
func (w witness) CryptoError(_ context.Context, _ observe.Source, e observe.CryptoError) {
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	w.s.errors[e.Reason]++
}

// client opens a connection of its own and a Client over it.
func (s *siege) client(o *queue.Options) (*queue.Client, error) {
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

// receiving is how the victim receives; the zero value is strict, with tracking.
type receiving struct {
	policy    queue.PlaintextPolicy
	untracked bool
	maxAge    time.Duration // 0: an hour
	keys      keys.Provider // nil: those of the siege
}

// receiver opens a receiver of its own connection for a queue.
func (s *siege) receiver(name string, how receiving) (*queue.Receiver, error) {
	o := &queue.Options{
		Keys:     s.asked,
		Observer: witness{s: s},
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
		o.Crypto.MaxMessageAge = time.Hour
	} else {
		o.Crypto.MaxClockSkew = time.Millisecond
	}
	if !how.untracked {
		store, err := replay.NewMemory(nil)
		if err != nil {
			return nil, err
		}
		o.ReplayStore = store
	}
	c, err := s.client(o)
	if err != nil {
		return nil, err
	}
	return c.Receiver(s.ctx, name, &queue.ReceiverOptions{
		Wait:            time.Second,
		MaxAuthFailures: 1 << 30, // the attack is to run to its end
		RotationHorizon: 24 * time.Hour,
	})
}

// fault notes a fault; of a kind that comes for every message, the first few.
func (s *siege) fault(format string, args ...any) {
	const few = 3
	switch s.told[format]++; {
	case s.told[format] <= few:
		s.faults = append(s.faults, fmt.Sprintf(format, args...))
	case s.told[format] == few+1:
		s.faults = append(s.faults, fmt.Sprintf(format, args...)+" (and more of this kind)")
	}
}

// payload is the i-th body.
func (s *siege) payload(i int) []byte {
	if s.env.Payload != nil {
		return s.env.Payload(i)
	}
	return fmt.Appendf(nil, `{"action":"opened","number":%d,"secret":"%x","padding":%q}`,
		i, sha256.Sum256(fmt.Appendf(nil, "payload %d", i)), strings.Repeat("octocat ", 120))
}

// message is the i-th honest message.
func (s *siege) message(i int, session string) *queue.Message {
	return &queue.Message{
		ID:            fmt.Sprintf("message-%05d", i),
		SessionID:     session,
		CorrelationID: fmt.Sprintf("delivery-%05d", i),
		ContentType:   "application/json",
		Attributes:    map[string]string{"event": "pull_request", "repository": "acme/api", "sender": fmt.Sprintf("user-%d", i)},
		Body:          s.payload(i),
	}
}

// bystanders is how many honest messages go along with n that are attacked.
func (s *siege) bystanders() int { return s.n/5 + 1 }

// newQueue makes a queue.
func (s *siege) newQueue(sessions bool) (string, error) {
	return s.env.Broker.NewQueue(s.ctx, QueueSpec{Sessions: sessions})
}

// send seals and sends messages from to to, and enters them in the ledger.
func (s *siege) send(name string, from, to int, sessions bool) error {
	sender, err := s.sealing.Sender(s.ctx, name, nil)
	if err != nil {
		return err
	}
	var all []*queue.Message
	for i := from; i < to; i++ {
		session := ""
		if sessions {
			session = fmt.Sprintf("acme/api#%d", i)
		}
		m := s.message(i, session)
		s.honest[m.ID] = fingerprintOf(m)
		s.sent[m.ID] = m.Body
		all = append(all, m)
	}
	if _, err := sender.SendBatch(s.ctx, all); err != nil {
		return err
	}
	return sender.Close(s.ctx)
}

// capture is what the attacker reads of a queue, which must tell him nothing.
func (s *siege) capture(name string) ([]driver.Message, error) {
	all, err := s.env.Broker.Attacker.Read(s.ctx, name)
	if err != nil {
		return nil, fmt.Errorf("the attacker reads: %w", err)
	}
	for _, m := range all {
		plain := s.sent[m.ID]
		if len(plain) > 16 && (bytes.Contains(m.Body, plain[:16]) || bytes.Contains(m.Body, plain[len(plain)/2:][:min(16, len(plain)/2)])) {
			s.fault("the payload of message %q can be read at the broker", m.ID)
		}
	}
	return all, nil
}

// assault lets the attacker rewrite a queue, and reads back what he did.
// attempts are the messages that he forged, or altered.
func (s *siege) assault(name string, f func([]driver.Message) (all, attempts []driver.Message, err error)) error {
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
		if d := difference(m, back); d != "" {
			return fmt.Errorf("the attacker stored message %q and reads another: %s", m.ID, d)
		}
	}
	return nil
}

func (s *siege) close(ctx context.Context) error {
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

func (d disposition) String() string {
	switch d {
	case delivered:
		return "delivered"
	case deadLettered:
		return "dead-lettered"
	case abandoned:
		return "abandoned"
	}
	return "invalid"
}
