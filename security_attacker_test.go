package queue_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/envelope"
	"github.com/queue-runtime/queue/keys"
	"github.com/queue-runtime/queue/memqueue"
	"github.com/queue-runtime/queue/replay"
)

// attack does one thing to what is stored.
func (s *schedule) attack() {
	name := s.queue()
	s.sum["attacks"]++
	switch s.draw(8) {
	case 0: // another queue that shares the key, or that the same message returns to
		other := s.queue()
		s.rewrite(name, func(all []memqueue.Stored, i int) []memqueue.Stored {
			s.copies = append(s.copies, all[i])
			if s.draw(2) == 0 {
				return slices.Delete(all, i, i+1)
			}
			return all
		})
		s.release(other, len(s.copies)-1)
	case 1: // a copy for later
		all, err := s.broker.Stored(name)
		s.must(err)
		dead, err := s.broker.StoredDeadLetters(name)
		s.must(err)
		s.copies = append(s.copies, dead...)
		if all = append(all, dead...); len(all) > 0 {
			s.copies = append(s.copies, all[s.draw(len(all))])
		}
	case 2: // now is later
		if len(s.copies) > 0 {
			s.release(name, s.draw(len(s.copies)))
		}
	case 3:
		s.deadLetter(name)
	default:
		s.rewrite(name, s.alter)
	}
}

// rewrite lets f change the messages of a queue, of which it gets the number of
// one. What is missing afterwards the attacker has taken.
func (s *schedule) rewrite(name string, f func(all []memqueue.Stored, i int) []memqueue.Stored) {
	s.must(s.broker.Rewrite(name, func(all []memqueue.Stored) []memqueue.Stored {
		if len(all) == 0 {
			return all
		}
		return f(all, s.draw(len(all)))
	}))
	s.rebase(name)
}

// rebase takes what is stored now as given, after the attacker's turn.
func (s *schedule) rebase(name string) {
	now := s.count(name)
	for k, c := range s.before[name] {
		if e := s.ledger[[2]string{name, c.m.ID}]; e != nil && now[k].n < c.n {
			e.touched = true
		}
	}
	s.before[name] = now
}

// release puts something that was held back into a queue.
func (s *schedule) release(name string, i int) {
	if i < 0 {
		return
	}
	m := s.copies[i]
	m.Body, m.Attributes = bytes.Clone(m.Body), maps.Clone(m.Attributes)
	m.NotBefore, m.TTL = time.Time{}, 0
	m.BrokerID = s.brokerID(m.BrokerID)
	s.must(s.broker.Rewrite(name, func(all []memqueue.Stored) []memqueue.Stored {
		return slices.Insert(all, min(s.draw(3), len(all)), m)
	}))
	s.rebase(name)
}

// brokerID is one that the attacker gives in place of have: the broker chooses
// them all.
func (s *schedule) brokerID(have string) string {
	switch s.draw(5) {
	case 0:
		return ""
	case 1:
		return "redrive:" + have // what the library itself writes for a redrive
	case 2:
		return strings.TrimPrefix(have, "redrive:")
	case 3:
		return strconv.Itoa(1 + s.draw(30)) // another message's
	}
	return have
}

// deadLetter moves a message to the dead-letter queue, by a connection of the
// attacker's own: one that waits, or one that was held back.
func (s *schedule) deadLetter(name string) {
	if n := len(s.copies); n > 0 && s.draw(2) == 0 {
		s.release(name, s.draw(n))
	}
	s.rewrite(name, func(all []memqueue.Stored, i int) []memqueue.Stored {
		m := all[i]
		m.NotBefore, m.TTL = time.Time{}, 0
		return slices.Insert(slices.Delete(all, i, i+1), 0, m)
	})
	conn := s.broker.Connect()
	q, err := conn.Open(s.Context(), name, nil)
	s.must(err)
	d, err := q.Receive(s.Context(), 1, 0)
	s.must(err)
	for _, d := range d {
		s.must(q.Settle(s.Context(), []driver.Settlement{{Delivery: d, Kind: driver.MoveToDeadLetter, Reason: "gave_up"}})[0])
	}
	s.must(conn.Close(s.Context()))
}

// alter changes the message at i, or puts another beside it.
func (s *schedule) alter(all []memqueue.Stored, i int) []memqueue.Stored {
	if s.draw(3) == 0 { // the original stays
		c := all[i]
		c.Body, c.Attributes = bytes.Clone(c.Body), maps.Clone(c.Attributes)
		c.BrokerID = s.brokerID(c.BrokerID)
		all = append(all, c)
		i = len(all) - 1
	}
	m, other := &all[i], &all[s.draw(len(all))]
	if m.Attributes == nil {
		m.Attributes = map[string]string{}
	}
	switch s.draw(22) {
	case 0, 1: // any bit
		if n := len(m.Body); n > 0 {
			m.Body[s.draw(n)] ^= 1 << s.draw(8)
		}
	case 2:
		m.Body, other.Body = other.Body, m.Body
	case 3:
		m.ID, other.ID = other.ID, m.ID
	case 4:
		m.ID += "x"
	case 5, 6:
		m.SessionID = []string{"", "s0", "s1", "s9"}[s.draw(4)]
	case 7:
		m.CorrelationID = []string{"", "c0", "c9"}[s.draw(3)]
	case 8:
		m.ContentType = []string{"", "text/html"}[s.draw(2)]
	case 9, 10: // mostly one that is there: another is not authenticated anyway
		names := slices.Sorted(maps.Keys(m.Attributes))
		if len(names) == 0 || s.draw(3) == 0 {
			names = []string{fmt.Sprint("a", s.draw(5))}
		}
		m.Attributes[names[s.draw(len(names))]] = fmt.Sprint(s.draw(4))
	case 11:
		delete(m.Attributes, fmt.Sprint("a", s.draw(4)))
	case 12: // the marker
		m.Sealed = s.draw(2) == 0
		m.Body = m.Body[min(len(m.Body), 4):]
	case 13:
		m.Sealed = s.draw(3) == 0
		m.Body = []byte("plain")
	case 14:
		m.Body = m.Body[:s.draw(len(m.Body)+1)]
	case 15:
		m.Body = append(m.Body, 0)
	case 16: // the times, to stay fresh or to be due
		if len(m.Body) > 30 {
			at := []int{6, 14, 22}[s.draw(3)]
			binary.BigEndian.PutUint64(m.Body[at:], uint64(time.Now().UnixMilli()))
		}
	case 17: // version, or another key
		if len(m.Body) > 33 {
			m.Body[[]int{4, 32}[s.draw(2)]] = byte('1' + s.draw(3))
		}
	case 18: // one header, another body
		if a, b := headerLen(m.Body), headerLen(other.Body); a > 0 && b > 0 {
			m.Body = slices.Concat(m.Body[:a], other.Body[b:])
		}
	case 19:
		m.NotBefore, m.TTL = time.Time{}, 0
	case 20:
		m.BrokerID, m.Count = s.brokerID(other.BrokerID), s.draw(30)
	case 21: // the order
		s.random.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	}
	return all
}

// headerLen is how much of an envelope stands before its nonce; 0 if body is no
// envelope.
func headerLen(body []byte) int {
	m, err := envelope.Parse(body)
	if err != nil {
		return 0
	}
	return len(body) - len(m.Tag) - len(m.Ciphertext) - len(m.Nonce)
}

// tamper changes what the broker says of a message on its way to a receiver.
func (s *schedule) tamper(_ string, d *driver.Delivery) {
	switch s.draw(12) {
	case 0:
		d.BrokerID = s.brokerID(d.BrokerID)
		if d.BrokerID == "" {
			d.BrokerID = "other"
		}
	case 1:
		d.Count = s.draw(30)
	case 2:
		d.EnqueuedAt = d.EnqueuedAt.Add(time.Duration(s.draw(240)-120) * time.Hour)
	case 3:
		d.Attributes = maps.Clone(d.Attributes)
		if d.Attributes == nil {
			d.Attributes = map[string]string{}
		}
		d.Attributes["added"] = "x"
	}
}

// inventory is what a queue and its dead-letter queue hold together.
type inventory map[string]counted

type counted struct {
	n int
	m driver.Message
}

func (s *schedule) count(name string) inventory {
	c := inventory{}
	main, err := s.broker.Stored(name)
	if err != nil && !errors.Is(err, driver.ErrNotFound) {
		s.Fatal(err)
	}
	dead, err := s.broker.StoredDeadLetters(name)
	if err != nil && !errors.Is(err, driver.ErrNotFound) {
		s.Fatal(err)
	}
	for _, m := range append(main, dead...) {
		var b strings.Builder
		for _, f := range []string{m.ID, m.SessionID, m.CorrelationID, m.ContentType, strconv.FormatBool(m.Sealed), string(m.Body)} {
			b.WriteString(strconv.Itoa(len(f)))
			b.WriteByte(':')
			b.WriteString(f)
		}
		for _, k := range slices.Sorted(maps.Keys(m.Attributes)) {
			b.WriteString(strconv.Quote(k))
			b.WriteString(strconv.Quote(m.Attributes[k]))
		}
		k := b.String()
		c[k] = counted{c[k].n + 1, m.Message}
	}
	return c
}

// expect compares what is stored with what was before an honest action: byte for
// byte the same, except for what removed and added permit. Nil permits nothing.
func (s *schedule) expect(what, name string, removed, added func(m *driver.Message) bool) {
	before, now := s.before[name], s.count(name)
	s.before[name] = now
	for k, c := range before {
		if now[k].n < c.n && (removed == nil || !removed(&c.m)) {
			s.wrong("%s: %s/%s is gone", what, name, c.m.ID)
		}
	}
	for k, c := range now {
		if before[k].n < c.n && (added == nil || !added(&c.m)) {
			s.wrong("%s: %s/%s appeared", what, name, c.m.ID)
		}
	}
}

// sealing is what the honest parties seal at the moment.
type sealing int

const (
	nothing sealing = iota
	messages
	resealed
)

// securityTap stands directly before the broker. It notes every envelope that is
// sent, and has the faults that are planted in a driver.
type securityTap struct {
	driver.Broker
	s *schedule
}

func (p *securityTap) Open(ctx context.Context, name string, o *driver.QueueOptions) (driver.Queue, error) {
	q, err := p.Broker.Open(ctx, name, o)
	if err != nil {
		return nil, err
	}
	return &siegeTapQueue{q, p.s, name}, nil
}

type siegeTapQueue struct {
	driver.Queue
	s    *schedule
	name string
}

func (q *siegeTapQueue) Send(ctx context.Context, all []*driver.Message) []driver.SendResult {
	results := q.Queue.Send(ctx, all)
	for i, m := range all {
		if results[i].Err != nil || q.s.sending == nothing {
			continue // refused, or a dead letter as it is
		}
		e := q.s.ledger[[2]string{q.name, m.ID}]
		p, err := envelope.Parse(m.Body)
		if e == nil || err != nil {
			q.s.wrong("%s/%s: sent unsealed, or under an ID that no sender gave: %v", q.name, m.ID, err)
			continue
		}
		again := q.s.sending == resealed
		if again {
			e.redrives[m.DedupID]++
		}
		e.envelopes = append(e.envelopes, &sealedOnce{id: identityOf(&p), header: p.Header, resealed: again})
	}
	return results
}

func (q *siegeTapQueue) Settle(ctx context.Context, all []driver.Settlement) []error {
	all = slices.Clone(all)
	for i := range all {
		if all[i].Kind != driver.MoveToDeadLetter {
			continue
		}
		switch q.s.plantedFault {
		case deletingDriver:
			all[i].Kind = driver.Complete
		case lossyDriver:
			short := all[i].Delivery.Message
			short.Body = short.Body[:min(len(short.Body), 64)]
			if r := q.Queue.Send(ctx, []*driver.Message{&short}); r[0].Err == nil {
				all[i].Kind = driver.Complete
			}
		}
	}
	return q.Queue.Settle(ctx, all)
}

// securityKeys is a ring that cannot be reached for a while.
type securityKeys struct {
	*keys.Ring
	down atomic.Bool
}

func (k *securityKeys) err() error {
	if k.down.Load() {
		return fmt.Errorf("%w: connection refused", keys.ErrUnavailable)
	}
	return nil
}

func (k *securityKeys) GetKey(ctx context.Context, id keys.ID) (*keys.Key, error) {
	if err := k.err(); err != nil {
		return nil, err
	}
	return k.Ring.GetKey(ctx, id)
}

func (k *securityKeys) CurrentKeyID(ctx context.Context) (keys.ID, error) {
	if err := k.err(); err != nil {
		return "", err
	}
	return k.Ring.CurrentKeyID(ctx)
}

func (k *securityKeys) ValidKeyIDs(ctx context.Context) ([]keys.ID, error) {
	if err := k.err(); err != nil {
		return nil, err
	}
	return k.Ring.ValidKeyIDs(ctx)
}

// securityCrypto is a sender with a clock of its own, within the skew, or one that
// does not authenticate a field.
type securityCrypto struct {
	queue.CryptoProvider
	s       *schedule
	skewed  bool
	unbound byte // the tag of the field (qre1, Section 4.2)
}

func (c *securityCrypto) Encrypt(ctx context.Context, id keys.ID, h envelope.Header, plaintext, data []byte) (envelope.EncryptedMessage, error) {
	if c.skewed && h.NotBefore == 0 {
		skew := int64(c.s.draw(60_000) - 30_000)
		for c.s.times[h.EncryptedAt+skew] {
			skew = int64(c.s.draw(60_000) - 30_000)
		}
		c.s.times[h.EncryptedAt+skew] = true
		h.EncryptedAt += skew
		if h.ExpiresAt > 0 {
			h.ExpiresAt += skew
		}
	}
	return c.CryptoProvider.Encrypt(ctx, id, h, plaintext, c.cut(data))
}

func (c *securityCrypto) Decrypt(ctx context.Context, m envelope.EncryptedMessage, data []byte) ([]byte, error) {
	return c.CryptoProvider.Decrypt(ctx, m, c.cut(data))
}

// cut leaves the field out of the context.
func (c *securityCrypto) cut(data []byte) []byte {
	if c.unbound == 0 {
		return data
	}
	var out []byte
	for len(data) >= 5 {
		n := 5 + int(binary.BigEndian.Uint32(data[1:]))
		if data[0] != c.unbound {
			out = append(out, data[:n]...)
		}
		data = data[n:]
	}
	return out
}

// storeTrouble is how a replay store fails for a while.
type storeTrouble int

const (
	storeWorks storeTrouble = iota
	storeFails
	storeLosesAnswers
)

var errSiegeStore = errors.New("the store does not answer")

// securityStore fails for a while, notes what is recorded, and has the faults that
// are planted in a store.
type securityStore struct {
	replay.Store
	plantedFault plantedFault
	trouble      storeTrouble

	mu        sync.Mutex               // guards what follows while messages are received
	handled   map[replay.Identity]bool // consumed
	completed map[replay.Identity]bool // by a handler
	seen      map[replay.Identity]time.Time
	granted   map[replay.Token]bool // claims that only a planted fault granted
}

func (s *securityStore) Begin(ctx context.Context, group string, r []replay.Request) ([]replay.Claim, error) {
	if s.trouble == storeFails {
		return nil, errSiegeStore
	}
	asked := r
	if s.plantedFault == agelessStore {
		r = slices.Clone(r)
		for i := range r {
			r[i].FreshUntil = r[i].Now.Add(time.Hour)
		}
	}
	claims, err := s.Store.Begin(ctx, group, r)
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range claims {
		c := &claims[i]
		switch {
		case s.plantedFault == forgetfulStore && (errors.Is(c.Err, replay.ErrReused) || errors.Is(c.Err, replay.ErrDuplicate)):
			c.Err = nil
			s.granted[r[i].Token] = true
		case s.plantedFault == hastyStore && errors.Is(c.Err, replay.ErrBusy):
			c.Err = replay.ErrDuplicate
		case c.Err == nil:
			// What an operator has redriven is seen anew if the store has forgotten, after its
			// retry window, that it was seen.
			redriven := asked[i].Resealed && !asked[i].Now.After(asked[i].FreshUntil) && c.FirstSeen.Equal(r[i].Now.Truncate(time.Millisecond))
			if seen, ok := s.seen[r[i].ID]; !ok || redriven && r[i].Now.Sub(seen) > securityRetry {
				s.seen[r[i].ID] = r[i].Now
			}
		}
	}
	return claims, s.answer(err)
}

func (s *securityStore) answer(err error) error {
	if err == nil && s.trouble == storeLosesAnswers {
		return errSiegeStore
	}
	return err
}

func (s *securityStore) Finish(ctx context.Context, group string, f []replay.Finish) ([]replay.Finished, error) {
	if s.trouble == storeFails {
		return nil, errSiegeStore
	}
	done, err := s.Store.Finish(ctx, group, f)
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range done {
		switch {
		case s.granted[f[i].Token]:
			done[i].Err = nil
		case done[i].Err == nil && f[i].Kind == replay.Consumed:
			s.handled[f[i].ID] = true
		}
	}
	return done, s.answer(err)
}

func (s *securityStore) Renew(ctx context.Context, group string, l []replay.Lease) ([]replay.Renewed, error) {
	if s.trouble == storeFails {
		return nil, errSiegeStore
	}
	r, err := s.Store.Renew(ctx, group, l)
	return r, s.answer(err)
}

func (s *securityStore) Look(ctx context.Context, group string, q []replay.Query) ([]replay.Look, error) {
	if s.trouble == storeFails {
		return nil, errSiegeStore
	}
	l, err := s.Store.Look(ctx, group, q)
	return l, s.answer(err)
}

func (s *securityStore) Probe(ctx context.Context, group string) error {
	if s.trouble != storeWorks {
		return errSiegeStore
	}
	return s.Store.Probe(ctx, group)
}

// identityOf names the message of an envelope.
func identityOf(e *envelope.EncryptedMessage) replay.Identity {
	return replay.Identity{Sender: e.Sender, Stream: e.Stream, Sequence: e.Sequence}
}
