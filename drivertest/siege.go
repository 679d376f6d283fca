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
	queue.NopObserver
	s *siege
}

// Event counts the errors.
func (w witness) Event(_ context.Context, e queue.Event) {
	if e.Kind != queue.EventCryptoError {
		return
	}
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	w.s.errors[e.ErrorType]++
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
			TrackNonces:     !how.untracked,
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
		o.Nonces = store
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

// harvest receives from a queue until every attempt has met its fate and want
// honest messages have come, or nothing comes any more. accept judges a delivered
// attempt.
func (s *siege) harvest(r *queue.Receiver, want int, accept func(*queue.Delivery)) error {
	arrived := make(map[string]bool)
	take := func(list []*queue.Delivery) error {
		for _, d := range list {
			_, attempt := s.attempts[d.ID]
			genuine := d.Encrypted && fingerprintOf(&d.Message) == s.honest[d.ID]
			switch {
			case attempt:
				s.fate[d.ID] = delivered
				accept(d)
			case genuine && arrived[d.ID]:
				s.fault("message %q was delivered twice", d.ID)
			case genuine:
				arrived[d.ID] = true
			default:
				s.fault("message %q was delivered, and nobody sent it like that", d.ID)
			}
			if err := d.Complete(s.ctx); err != nil {
				return err
			}
		}
		return nil
	}
	note := func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, e := range s.rejected {
			if _, attempt := s.attempts[e.MessageID]; !attempt {
				s.fault("the honest message %q was rejected: %s", e.MessageID, e.ErrorType)
				continue
			}
			if e.SettleErr != nil {
				s.fault("message %q could not be settled: %v", e.MessageID, e.SettleErr)
			}
			if e.Disposition == queue.Abandoned {
				s.fate[e.MessageID] = abandoned
			} else {
				s.fate[e.MessageID] = deadLettered
			}
		}
		s.rejected = nil
	}
	slack := s.env.Broker.Slack
	if slack == 0 {
		slack = 5 * time.Second
	}
	for last := time.Now(); len(s.fate) < len(s.attempts) || len(arrived) < want; {
		before := len(s.fate) + len(arrived)
		if err := s.round(r, take); err != nil {
			return err
		}
		note()
		if len(s.fate)+len(arrived) > before {
			last = time.Now()
		}
		if time.Since(last) > 2*slack {
			break
		}
	}
	// Nothing more may come.
	if err := s.round(r, take); err != nil {
		return err
	}
	note()
	if len(arrived) < want {
		s.fault("%d of %d honest messages were lost", want-len(arrived), want)
	}
	return s.kept(r)
}

// kept looks for what was abandoned, where the broker lets one look: it must
// still be there.
func (s *siege) kept(r *queue.Receiver) error {
	if r.Capabilities().Peek == driver.None {
		return nil
	}
	there := make(map[string]bool)
	for cursor := ""; ; {
		list, next, err := r.Peek(s.ctx, cursor, 100)
		if err != nil {
			return err
		}
		for _, p := range list {
			there[p.ID] = true
		}
		if next == "" {
			break
		}
		cursor = next
	}
	for _, id := range slices.Sorted(maps.Keys(s.fate)) {
		if s.fate[id] == abandoned && !there[id] {
			s.fault("message %q was abandoned and is gone", id)
		}
	}
	return nil
}

// round receives once, in whichever way the queue has.
func (s *siege) round(r *queue.Receiver, take func([]*queue.Delivery) error) error {
	if !r.Capabilities().SessionOnly {
		list, err := r.Receive(s.ctx, 10)
		if err != nil {
			return err
		}
		return take(list)
	}
	session, err := r.NextSession(s.ctx)
	if errors.Is(err, queue.ErrNoSession) {
		return nil
	}
	if err != nil {
		return err
	}
	list, err := session.Receive(s.ctx, 10)
	if err == nil {
		err = take(list)
	}
	if errors.Is(err, queue.ErrSessionLost) {
		err = nil // a message that must wait releases the session
	}
	return errors.Join(err, session.Close(s.ctx))
}

// outcome compares what happened with the threat model.
func (s *siege) outcome() Outcome {
	o := Outcome{Name: s.attack.name, Attempts: len(s.attempts)}
	for _, id := range slices.Sorted(maps.Keys(s.attempts)) {
		fate, ok := s.fate[id]
		if !ok {
			s.fault("message %q was neither delivered nor rejected", id)
			continue
		}
		if fate != s.attack.becomes {
			s.fault("message %q was %s, it must be %s", id, fate, s.attack.becomes)
		}
		switch fate {
		case delivered:
			o.Delivered++
		case deadLettered:
			o.DeadLettered++
		case abandoned:
			o.Abandoned++
		}
	}
	s.mu.Lock()
	counted := s.errors[s.attack.errorType]
	o.ErrorType = strings.Join(slices.Sorted(maps.Keys(s.errors)), ",")
	s.mu.Unlock()
	if o.Attempts != s.n {
		s.fault("%d attempts were made, not %d", o.Attempts, s.n)
	}
	if o.ErrorType != s.attack.errorType {
		s.fault("the error type is %q, it must be %q", o.ErrorType, s.attack.errorType)
	}
	// What is abandoned comes again, and is counted again.
	if s.attack.errorType != "" && (counted < o.Attempts || counted > o.Attempts && s.attack.becomes != abandoned) {
		s.fault("the metrics count %d times %q in %d attempts", counted, s.attack.errorType, o.Attempts)
	}
	s.graves(o.DeadLettered)
	slices.Sort(s.faults)
	o.Faults = s.faults
	return o
}

// graves holds the dead letters against what the attacker stored: none was
// deleted, none was changed, and each says why it is there.
func (s *siege) graves(want int) {
	dead, why, err := s.env.Broker.Attacker.DeadLetters(s.ctx, s.queue)
	if err != nil {
		s.fault("the dead letters could not be read: %v", err)
		return
	}
	found := 0
	for i := range dead {
		m, ok := s.attempts[dead[i].ID]
		if !ok {
			s.fault("the honest message %q is a dead letter", dead[i].ID)
			continue
		}
		found++
		if d := difference(&m, &dead[i]); d != "" {
			s.fault("the dead letter %q is not what was rejected: %s", m.ID, d)
		}
		if why[i].Reason != s.attack.errorType {
			s.fault("the dead letter %q has the reason %q, it must be %q", m.ID, why[i].Reason, s.attack.errorType)
		}
	}
	if found != want {
		s.fault("%d messages were dead-lettered and %d are dead letters", want, found)
	}
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
