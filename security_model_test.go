package queue_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/deadletter"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/envelope"
	"github.com/queue-runtime/queue/keys"
	"github.com/queue-runtime/queue/memqueue"
	"github.com/queue-runtime/queue/queuetest"
	"github.com/queue-runtime/queue/replay"
)

var (
	securitySchedules = flag.Int("security.schedules", 1500/scale, "how many random schedules the model test of the security guarantees runs")
	securitySeed      = flag.Uint64("security.seed", 0, "the first seed; 0 draws one")
	securityOnly      = flag.Bool("security.only", false, "run the first seed alone")
)

// plantedFault is a fault that the security model must find.
type plantedFault string

const (
	noFault          plantedFault = ""
	forgetfulStore   plantedFault = "a replay store that forgets"
	agelessStore     plantedFault = "a replay store to which all is fresh"
	hastyStore       plantedFault = "a replay store that takes claimed for handled"
	unboundID        plantedFault = "a message ID that is not authenticated"
	unboundSession   plantedFault = "a session ID that is not authenticated"
	unboundAttribute plantedFault = "attributes that are not authenticated"
	anyOrigin        plantedFault = "an origin that is not compared"
	deletingDriver   plantedFault = "a driver that deletes on dead-letter"
	lossyDriver      plantedFault = "a driver that shortens on dead-letter"
	plaintextAllowed plantedFault = "a policy that allows plaintext"
)

// TestSecurityModel runs random schedules of what honest parties do on two queues
// with one key, and of what an attacker does to the messages stored there. A
// ledger of its own says what was sent. Nothing else is ever delivered, nothing
// that was handled is delivered again, and nothing is gone that the attacker did
// not take: see docs/threat-model.md, "What is guaranteed".
func TestSecurityModel(t *testing.T) {
	first := *securitySeed
	if first == 0 {
		first = rand.Uint64N(1 << 40)
	}
	n := uint64(*securitySchedules)
	if *securityOnly {
		n = 1
	}
	t.Logf("%d schedules, seeds %d to %d; one alone: -security.only -security.seed=N", n, first, first+n-1)
	const parts = 2
	for part := range uint64(parts) {
		t.Run(fmt.Sprint("part", part), func(t *testing.T) {
			t.Parallel()
			sum := map[string]int{}
			for seed := first + part; seed < first+n; seed += parts {
				found := runSchedule(t, seed, noFault, sum)
				if len(found) > 0 {
					t.Fatalf("seed %d:\n%s", seed, strings.Join(found, "\n"))
				}
			}
			t.Log(sum)
			// A model in which nothing happens would pass.
			for _, what := range []string{"sent", "delivered", "completed", "resealed", "rejected authentication_failed", "rejected nonce_reused", "rejected message_expired", "rejected plaintext_rejected"} {
				if sum[what] == 0 && n >= 1000 { // fewer may by chance have none
					t.Errorf("nothing was %s in %d schedules", what, n/parts)
				}
			}
		})
	}
}

// TestSecurityModelFindsFaults is the test of the test.
func TestSecurityModelFindsFaults(t *testing.T) {
	for _, b := range []plantedFault{
		forgetfulStore, agelessStore, hastyStore, unboundID, unboundSession, unboundAttribute,
		anyOrigin, deletingDriver, lossyDriver, plaintextAllowed,
	} {
		t.Run(strings.ReplaceAll(string(b), " ", "_"), func(t *testing.T) {
			for seed := range uint64(500) {
				if found := runSchedule(t, seed, b, map[string]int{}); len(found) > 0 {
					t.Logf("seed %d: %s", seed, found[0])
					return
				}
			}
			t.Error("500 schedules did not find it")
		})
	}
}

// runSchedule runs one schedule and returns what it found wrong.
func runSchedule(t *testing.T, seed uint64, b plantedFault, sum map[string]int) (found []string) {
	synctest.Test(t, func(t *testing.T) {
		s := newSchedule(t, seed, b, sum)
		s.run()
		found = s.found
	})
	return found
}

const (
	securityAge   = 10 * time.Minute
	securitySkew  = 30 * time.Second
	securityRetry = 40 * time.Minute
	securityLock  = 20 * time.Second
)

var securityQueues = []string{orders, "invoices"}

// schedule is one run of the model. What honest parties and the attacker do is drawn step
// by step, in one goroutine; receivers overlap by what they hold.
type schedule struct {
	*testing.T
	random       *rand.Rand
	plantedFault plantedFault
	sum          map[string]int
	found        []string

	broker    *memqueue.Broker
	net       *queuetest.Proxy
	store     *securityStore
	ring      *keys.Ring
	keys      *securityKeys // the ring, which can be out of reach
	removed   []keys.ID
	keyCount  int
	client    *queue.Client
	senders   map[string]*queue.Sender
	receivers map[string][]*queue.Receiver
	held      []*queue.Delivery

	sent    int
	sending sealing
	ledger  map[[2]string]*entry // by queue and message ID
	before  map[string]inventory // by queue
	copies  []memqueue.Stored    // the attacker's
	times   map[int64]bool       // of sealing, by skewed clocks
}

// entry is what the ledger knows of a message that was sent.
type entry struct {
	digest    [sha256.Size]byte
	notBefore time.Time
	ttl       time.Duration
	confirmed bool // the sender was told that the broker has it
	touched   bool // the attacker took it away, or changed it
	delivered bool
	envelopes []*sealedOnce
	redrives  map[string]int // by DedupID: reseals of one dead letter
}

// sealedOnce is one envelope of a message, as it went to the broker.
type sealedOnce struct {
	id       replay.Identity
	header   envelope.Header
	resealed bool
}

// envelopeOf returns the envelope that a delivery came in. Time passes between
// two steps, so that only two reseals in one redrive look alike.
func (s *schedule) envelopeOf(d *queue.Delivery) (found *sealedOnce) {
	e := s.ledger[[2]string{d.Queue, d.ID}]
	if e == nil {
		return nil
	}
	for _, v := range e.envelopes {
		if v.header.EncryptedAt != d.EncryptedAt.UnixMilli() || v.header.KeyID != string(d.KeyID) {
			continue
		}
		if found == nil || s.store.handled[found.id] {
			found = v
		}
	}
	return found
}

// lives: h ends no later than the message, by clocks that are off by the skew at
// each sealing.
func (e *entry) lives(h *envelope.Header) bool {
	latest := e.envelopes[0].header.ExpiresAt + int64(len(e.envelopes))*securitySkew.Milliseconds()
	return h.ExpiresAt > 0 && h.ExpiresAt <= latest
}

// digest is of all that a handler acts on.
func digest(queueName string, m *queue.Message) [sha256.Size]byte {
	var b strings.Builder
	for _, f := range []string{queueName, m.ID, m.SessionID, m.CorrelationID, m.ContentType, string(m.Body)} {
		fmt.Fprintf(&b, "%d:%s", len(f), f)
	}
	for _, k := range slices.Sorted(maps.Keys(m.Attributes)) {
		fmt.Fprintf(&b, "%d:%s%d:%s", len(k), k, len(m.Attributes[k]), m.Attributes[k])
	}
	return sha256.Sum256([]byte(b.String()))
}

func newSchedule(t *testing.T, seed uint64, b plantedFault, sum map[string]int) *schedule {
	s := &schedule{
		T: t, random: rand.New(rand.NewPCG(seed, 2)), plantedFault: b, sum: sum,
		broker: memqueue.New(&memqueue.Options{Default: memqueue.QueueOptions{
			Lock: securityLock, MaxDeliveries: -1, DeadLetterExpired: true, // else the broker deletes
		}}),
		ring: newRing(t, "k1"), keyCount: 1,
		senders: map[string]*queue.Sender{}, receivers: map[string][]*queue.Receiver{},
		ledger: map[[2]string]*entry{}, before: map[string]inventory{}, times: map[int64]bool{},
	}
	memory, err := replay.NewMemory(nil)
	s.must(err)
	s.store = &securityStore{Store: memory, plantedFault: b, handled: map[replay.Identity]bool{}, completed: map[replay.Identity]bool{}, seen: map[replay.Identity]time.Time{}, granted: map[replay.Token]bool{}}
	s.net = queuetest.Wrap(&securityTap{Broker: s.broker, s: s}, seed)
	s.keys = &securityKeys{Ring: s.ring}
	o := queue.Strict(s.keys, s.store)
	o.Logger = quiet()
	o.Crypto.MaxMessageAge, o.Crypto.MaxClockSkew, o.Crypto.RetryWindow = securityAge, securitySkew, securityRetry
	o.OnRejected = func(_ context.Context, e *queue.RejectedError) { s.sum["rejected "+e.Reason]++ }
	switch b {
	case anyOrigin:
		o.Crypto.AcceptedOrigins = securityQueues
	case plaintextAllowed:
		o.Crypto.PlaintextPolicy = queue.Allow
	}
	unbound := map[plantedFault]byte{unboundID: 1, unboundSession: 2, unboundAttribute: 0x40}[b]
	if skewed := s.draw(2) == 0; skewed || unbound > 0 {
		inner, err := queue.NewAESGCM(s.keys)
		s.must(err)
		o.CryptoProvider = &securityCrypto{CryptoProvider: inner, s: s, unbound: unbound, skewed: skewed}
	}
	s.client, err = queue.New(s.net, o)
	s.must(err)
	for _, q := range securityQueues {
		s.senders[q], err = s.client.Sender(t.Context(), q, nil)
		s.must(err)
		for range 2 {
			r, err := s.client.Receiver(t.Context(), q, &queue.ReceiverOptions{Wait: time.Millisecond})
			s.must(err)
			s.receivers[q] = append(s.receivers[q], r)
		}
		s.before[q] = s.count(q)
	}
	return s
}

func (s *schedule) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

func (s *schedule) wrong(format string, args ...any) {
	s.found = append(s.found, fmt.Sprintf(format, args...))
}

func (s *schedule) draw(n int) int { return s.random.IntN(n) }

func (s *schedule) wait(d time.Duration) { <-time.After(d) }

func (s *schedule) queue() string { return securityQueues[s.draw(len(securityQueues))] }

func (s *schedule) run() {
	s.net.Tamper(s.tamper)
	for range 30 + s.draw(40) {
		s.wait(time.Millisecond)
		switch n := s.draw(100); {
		case n < 16:
			s.send()
		case n < 34:
			s.receive(s.queue())
		case n < 48:
			s.settleOne()
		case n < 51:
			s.session()
		case n < 55:
			s.rotate()
		case n < 58:
			s.store.trouble = storeTrouble(s.draw(3))
		case n < 61:
			s.disturb()
		case n < 67:
			s.redrive()
		case n < 76:
			s.wait(time.Duration(s.draw([]int{2e3, 30e3, 120e3, 900e3}[s.draw(4)])) * time.Millisecond)
		default:
			s.attack()
		}
		if len(s.found) > 0 {
			break
		}
	}
	if len(s.found) == 0 {
		s.calm()
	}
	s.must(s.client.Close(context.Background()))
}

// send sends a few messages with all that a message can have.
func (s *schedule) send() {
	name := s.queue()
	var batch []*queue.Message
	for range 1 + s.draw(3) {
		m := &queue.Message{ID: fmt.Sprint("m", s.sent), Body: fmt.Appendf(nil, "body %d of %s", s.sent, name)}
		if last := fmt.Sprint("m", s.sent-1); s.draw(4) == 0 && s.sent > 0 && s.ledger[[2]string{name, last}] == nil {
			m.ID = last // that the other queue has, with another body
		} else {
			s.sent++
		}
		if s.draw(2) == 0 {
			m.SessionID = fmt.Sprint("s", s.draw(3))
		}
		if s.draw(2) == 0 {
			m.CorrelationID = fmt.Sprint("c", s.draw(3))
		}
		if s.draw(2) == 0 {
			m.ContentType = "application/json"
		}
		for range s.draw(3) {
			if m.Attributes == nil {
				m.Attributes = map[string]string{}
			}
			m.Attributes[fmt.Sprint("a", s.draw(4))] = fmt.Sprint(s.draw(3))
		}
		now := time.Now().Truncate(time.Millisecond)
		if s.draw(6) == 0 {
			m.NotBefore = now.Add(time.Duration(1+s.draw([]int{60, 7200}[s.draw(2)])) * time.Second)
		}
		if s.draw(6) == 0 {
			m.TTL = time.Duration(1+s.draw(1800)) * time.Second
		}
		key := [2]string{name, m.ID}
		if s.ledger[key] != nil {
			continue // twice in this batch
		}
		s.ledger[key] = &entry{digest: digest(name, m), notBefore: m.NotBefore, ttl: m.TTL, redrives: map[string]int{}}
		batch = append(batch, m)
	}
	if len(batch) == 0 {
		return
	}
	s.sending = messages
	results, err := s.senders[name].SendBatch(s.Context(), batch)
	s.sending = nothing
	for i, m := range batch {
		if err == nil || i < len(results) && results[i].Err == nil {
			s.ledger[[2]string{name, m.ID}].confirmed = true
			s.sum["sent"]++
		}
	}
	s.expect("send", name, nil, func(m *driver.Message) bool {
		return slices.ContainsFunc(batch, func(b *queue.Message) bool { return b.ID == m.ID })
	})
}

// receive takes messages and keeps them.
func (s *schedule) receive(name string) {
	r := s.receivers[name][s.draw(2)]
	good, err := r.Receive(s.Context(), 1+s.draw(5))
	if (len(good) > 0) != (err == nil) || err != nil && !errors.Is(err, queue.ErrNoMessage) && !siegeError(err) {
		s.Fatalf("Receive: %v", err)
	}
	for _, d := range good {
		s.judge(name, d)
		s.held = append(s.held, d)
	}
	s.expect("receive", name, s.wasHandled, nil)
}

// siegeError is for what trouble of the store and the broker makes.
func siegeError(err error) bool {
	for _, e := range []error{queue.ErrReceivingPaused, queue.ErrReplayStore, queue.ErrUnavailable, queue.ErrLockLost, queue.ErrSessionLost, queue.ErrKeyProvider, errSiegeStore} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// wasHandled: the completion of this very envelope was recorded, so that the
// broker's message may be removed.
func (s *schedule) wasHandled(m *driver.Message) bool {
	e, err := envelope.Parse(m.Body)
	return err == nil && s.store.handled[identityOf(&e)]
}

// judge holds a delivery against the ledger.
func (s *schedule) judge(name string, d *queue.Delivery) {
	s.sum["delivered"]++
	now := time.Now()
	e := s.ledger[[2]string{name, d.ID}]
	switch {
	case !d.Encrypted:
		s.wrong("%s/%s: delivered without encryption", name, d.ID)
		return
	case e == nil:
		s.wrong("%s/%s: delivered, and was never sent there", name, d.ID)
		return
	case d.Queue != name || d.Origin != name || digest(name, &d.Message) != e.digest:
		s.wrong("%s/%s: delivered altered: %+v", name, d.ID, d.Received)
		return
	}
	v := s.envelopeOf(d)
	if v == nil {
		s.wrong("%s/%s: delivered under %q from %s, and was never sealed so", name, d.ID, d.KeyID, d.EncryptedAt)
		return
	}
	h := &v.header
	e.delivered = true
	// However often it is redriven, it stays one message.
	for _, other := range e.envelopes {
		if s.store.handled[other.id] {
			s.wrong("%s/%s: delivered again after it was handled", name, d.ID)
		}
	}
	for _, other := range s.held {
		if other.Queue == name && other.ID == d.ID && other.EncryptedAt.Equal(d.EncryptedAt) && now.Before(other.HeldUntil()) {
			s.wrong("%s/%s: delivered while another holds it until %s", name, d.ID, other.HeldUntil())
		}
	}
	from := time.UnixMilli(max(h.EncryptedAt, h.NotBefore))
	for _, other := range e.envelopes {
		// Which of its envelopes was delivered cannot be told: the newest counts.
		if at := time.UnixMilli(other.header.ResealedAt); at.After(from) {
			from = at
		}
	}
	seen, ok := s.store.seen[v.id]
	// Headers and stores count milliseconds.
	late := func(t time.Time) bool { return t.UnixMilli() > from.Add(securityAge+securitySkew).UnixMilli() }
	switch {
	case now.Before(e.notBefore.Add(-securitySkew)):
		s.wrong("%s/%s: delivered at %s, before %s", name, d.ID, now, e.notBefore)
	case h.ExpiresAt > 0 && now.After(time.UnixMilli(h.ExpiresAt).Add(securitySkew)):
		s.wrong("%s/%s: delivered after it expired", name, d.ID)
	case !ok && s.plantedFault == noFault:
		s.wrong("%s/%s: delivered without a claim", name, d.ID)
	case ok && late(now) && (late(seen) || now.Sub(seen) > securityRetry):
		s.wrong("%s/%s: delivered too old: of %s, first seen at %s, now %s", name, d.ID, from, seen, now)
	case v.resealed && e.ttl > 0 && !e.lives(h):
		s.wrong("%s/%s: a redrive made its life longer", name, d.ID)
	case !v.resealed && (!d.NotBefore.Equal(e.notBefore) || d.TTL < e.ttl || d.TTL > e.ttl+time.Millisecond): // rounded up
		s.wrong("%s/%s: delivered with NotBefore %s, TTL %s; want %s, %s", name, d.ID, d.NotBefore, d.TTL, e.notBefore, e.ttl)
	}
}

// settleOne does to a held message what an application does, or a crash.
func (s *schedule) settleOne() {
	if len(s.held) == 0 {
		return
	}
	i := s.draw(len(s.held))
	d := s.held[i]
	n := s.draw(20)
	if n == 0 {
		if err := d.Renew(s.Context()); err != nil && !siegeError(err) {
			s.Fatalf("Renew: %v", err)
		}
		s.expect("renew", d.Queue, nil, nil)
		return
	}
	s.held = slices.Delete(s.held, i, i+1)
	switch {
	case n < 10:
		s.complete(d)
	case n < 13:
		s.store.trouble = storeFails // a crash before the mark
		s.complete(d)
		s.store.trouble = storeWorks
	case n < 15:
		s.net.Inject(queuetest.Fault{On: queuetest.Settle, Err: queuetest.Unavailable(), Times: 1}) // behind the mark
		s.complete(d)
		s.net.Heal()
	case n < 17:
		s.note(d.Abandon(s.Context(), time.Duration(s.draw(60))*time.Second))
	case n < 19:
		s.note(d.DeadLetter(s.Context(), queue.Reason{Code: "gave_up"}))
	default: // it is forgotten, and its lock runs out
	}
	s.expect("settle", d.Queue, s.wasHandled, nil)
}

func (s *schedule) complete(d *queue.Delivery) {
	v := s.envelopeOf(d)
	if v == nil {
		return // found wrong when it was delivered
	}
	before := s.store.handled[v.id]
	err := d.Complete(s.Context())
	s.note(err)
	if err == nil {
		s.sum["completed"]++
	}
	// Confirmed, whatever the store does; or recorded, and the answer was lost.
	if err == nil || s.store.handled[v.id] && !before {
		s.store.handled[v.id], s.store.completed[v.id] = true, true
	}
}

func (s *schedule) note(err error) {
	s.Helper()
	if err != nil && !siegeError(err) {
		s.Fatalf("settling: %v", err)
	}
}

// session handles some of one session.
func (s *schedule) session() {
	name := s.queue()
	ss, err := s.receivers[name][s.draw(2)].NextSession(s.Context())
	if err != nil {
		if !siegeError(err) && !errors.Is(err, queue.ErrNoSession) {
			s.Fatalf("NextSession: %v", err)
		}
		return
	}
	good, err := ss.Receive(s.Context(), 1+s.draw(3))
	if len(good) > 0 || !errors.Is(err, queue.ErrNoMessage) {
		s.note(err)
	}
	for _, d := range good {
		s.judge(name, d)
		if s.draw(3) > 0 {
			s.complete(d)
		} else {
			s.note(d.Abandon(s.Context(), 0))
		}
	}
	s.note(ss.Close(s.Context()))
	s.expect("session", name, s.wasHandled, nil)
}

func (s *schedule) rotate() {
	switch ids := s.ring.IDs(); s.draw(5) {
	case 0:
		s.keyCount++
		s.must(s.ring.Add(newKey(s, keys.ID(fmt.Sprint("k", s.keyCount)), byte(s.keyCount))))
	case 1:
		if len(ids) > 0 {
			s.must(s.ring.SetCurrent(ids[s.draw(len(ids))]))
		}
	case 2:
		if len(ids) > 0 {
			id := ids[s.draw(len(ids))]
			s.must(s.ring.Remove(id))
			s.removed = append(s.removed, id)
		}
	case 3:
		s.restore()
	case 4:
		s.keys.down.Store(!s.keys.down.Load())
	}
}

// restore brings the removed keys back.
func (s *schedule) restore() {
	for _, id := range s.removed {
		var n int
		_, err := fmt.Sscanf(string(id), "k%d", &n)
		s.must(err)
		s.must(s.ring.Add(newKey(s, id, byte(n))))
	}
	s.removed = nil
	s.must(s.ring.SetCurrent(s.ring.IDs()[0]))
}

func (s *schedule) disturb() {
	f := queuetest.Fault{Times: 1}
	switch s.draw(4) {
	case 0:
		f.On, f.LostAnswer = queuetest.Settle, queuetest.Unavailable()
	case 1:
		f.On, f.Err = queuetest.Settle, queuetest.Unavailable()
	case 2:
		f.On, f.LostAnswer = queuetest.Send, queuetest.Unavailable()
	case 3:
		f.On, f.Err = queuetest.Send, queuetest.Unavailable()
	}
	s.net.Inject(f)
}

// redrive sends the dead letters back, as they are or sealed anew.
func (s *schedule) redrive() {
	name := s.queue()
	d, err := deadletter.Open(s.Context(), s.client, name, &deadletter.Options{Wait: time.Millisecond})
	s.must(err)
	reseal, dry := s.draw(3) > 0, s.draw(6) == 0
	if reseal {
		s.sending = resealed
	}
	report, err := d.Redrive(s.Context(), &deadletter.RedriveOptions{Reseal: reseal, DryRun: dry})
	s.sending = nothing
	if !errors.Is(err, deadletter.ErrIncomplete) { // the attacker may hold letters, or lie about their number
		s.must(err)
	}
	s.must(d.Close(s.Context()))
	if dry {
		s.expect("dry run", name, nil, nil)
		return
	}
	s.sum["redriven"] += report.Redriven
	s.sum["resealed"] += report.Resealed
	// An answer that is lost leaves both, never none.
	s.expect("redrive", name, func(m *driver.Message) bool {
		e := s.ledger[[2]string{name, m.ID}]
		return reseal && e != nil && len(e.redrives) > 0
	}, func(m *driver.Message) bool {
		e := s.ledger[[2]string{name, m.ID}]
		return !reseal || e != nil && s.isEnvelopeOf(e, m)
	})
}

// calm: the attacker is quiet, the keys are back and the store is healthy. What
// the attacker left alone is then delivered, or there.
func (s *schedule) calm() {
	s.net.Tamper(nil)
	s.net.Heal()
	s.store.trouble = storeWorks
	s.keys.down.Store(false)
	s.restore()
	s.prove()
	s.held = nil
	empty := false
	for i := 0; i < 300 && !empty && len(s.found) == 0; i++ {
		s.wait(time.Duration(min(1+i/10, 5)) * time.Minute)
		empty = true
		for _, name := range securityQueues {
			empty = s.drain(name) && empty
		}
	}
	if !empty && len(s.found) == 0 {
		s.wrong("the queues are not empty after a day of calm")
	}
	for _, name := range securityQueues {
		s.expect("in the end", name, nil, nil)
	}
	for key, e := range s.ledger {
		if !e.confirmed || e.touched || e.delivered {
			continue
		}
		there := false
		for _, c := range s.before[key[0]] {
			there = there || c.m.ID == key[1] && s.isEnvelopeOf(e, &c.m)
		}
		if !there {
			s.wrong("%s/%s: neither delivered nor anywhere", key[0], key[1])
		}
	}
}

// prove sends a message under each key in each queue. Without one that opens, forgeries
// under a key are not told from its wrong secret, and stay.
func (s *schedule) prove() {
	for _, id := range s.ring.IDs() {
		s.must(s.ring.SetCurrent(id))
		s.wait(10 * time.Minute) // until the cached answer of the keys is over
		for _, name := range securityQueues {
			m := &queue.Message{ID: fmt.Sprint("m", s.sent), Body: []byte("proof")}
			s.sent++
			s.ledger[[2]string{name, m.ID}] = &entry{digest: digest(name, m), redrives: map[string]int{}}
			s.sending = messages
			_, err := s.senders[name].Send(s.Context(), m)
			s.sending = nothing
			s.must(err)
			s.expect("prove", name, nil, func(stored *driver.Message) bool { return stored.ID == m.ID })
		}
	}
}

// drain handles what there is, and tells whether nothing is left.
func (s *schedule) drain(name string) bool {
	left := func() (driver.Stats, int64) {
		st, err := s.receivers[name][0].Stats(s.Context())
		s.must(err)
		return st, st.Ready + st.InFlight + st.Scheduled
	}
	for range 20 {
		if st, _ := left(); st.Ready == 0 {
			break
		}
		s.receive(name)
		if len(s.found) > 0 {
			break
		}
		for _, d := range s.held {
			s.complete(d)
		}
		s.held = nil
		s.expect("drain", name, s.wasHandled, nil)
	}
	_, n := left()
	return n == 0
}

func (s *schedule) isEnvelopeOf(e *entry, m *driver.Message) bool {
	p, err := envelope.Parse(m.Body)
	return err == nil && slices.ContainsFunc(e.envelopes, func(v *sealedOnce) bool { return v.id == identityOf(&p) })
}
