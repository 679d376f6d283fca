package queue

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"
	"weak"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/internal/intake"
	"github.com/queue-runtime/queue/keys"
)

// checkValue tells two secrets apart without saying anything about them (qre1,
// Section 3.4). It is zero for keys that have none: a sender key, and the keys of a
// CryptoProvider without Keys.
type checkValue [keys.CheckSize]byte

// maxKnownKeys bounds what a Client remembers of keys. Only keys under which a message
// opened count, so that no forged message takes up room.
const maxKnownKeys = 1 << 12

// knownKeys remembers under which keys messages opened, for the receivers of a Client. It
// is safe for concurrent use.
type knownKeys struct {
	mu     sync.Mutex            // guards what follows
	opened map[knownKey]struct{} // in any queue
	names  map[string][]knownKey // which secrets key IDs name, by queue; a list that was given out does not change
	count  int                   // of what names has; only grows
}

type knownKey struct {
	id    keys.ID
	value checkValue
	queue string // for a key without a check value: another queue's may be another key
}

// knownKeyOf is a key under which a message of queue opened, or did not.
func knownKeyOf(queue string, id keys.ID, v checkValue) knownKey {
	if v != (checkValue{}) {
		queue = ""
	}
	return knownKey{id, v, queue}
}

// note remembers that a message of queue opened under a key. It returns another queue
// whose messages opened under the same one, "" if there is none.
func (k *knownKeys) note(queue string, id keys.ID, v checkValue) (other string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.opened == nil {
		k.opened, k.names = make(map[knownKey]struct{}), make(map[string][]knownKey)
	}
	if len(k.opened) < maxKnownKeys {
		k.opened[knownKeyOf(queue, id, v)] = struct{}{}
	}
	named := slices.ContainsFunc(k.names[queue], func(o knownKey) bool { return o.id == id })
	if !named && v != (checkValue{}) && k.count < maxKnownKeys {
		k.names[queue] = append(k.names[queue], knownKeyOf(queue, id, v))
		k.count++
	}
	for name, known := range k.names {
		if name != queue && v != (checkValue{}) && slices.Contains(known, knownKeyOf(name, id, v)) {
			return name
		}
	}
	return ""
}

// correct notes the check value that the replay store has of a key ID: it was there first,
// whatever has opened messages here.
func (k *knownKeys) correct(queue string, id keys.ID, v checkValue) {
	k.note(queue, id, v)
	k.mu.Lock()
	defer k.mu.Unlock()
	i := slices.IndexFunc(k.names[queue], func(o knownKey) bool { return o.id == id && o.value != v })
	if i >= 0 {
		k.names[queue] = slices.Clone(k.names[queue])
		k.names[queue][i].value = v
	}
}

// works reports whether a message opened under the key, in any queue; of a key without a
// check value, in this queue.
func (k *knownKeys) works(queue string, id keys.ID, v checkValue) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	_, ok := k.opened[knownKeyOf(queue, id, v)]
	return ok
}

// revision changes whenever named returns more, for any queue.
func (k *knownKeys) revision() int64 {
	k.mu.Lock()
	defer k.mu.Unlock()
	return int64(k.count)
}

// named returns the IDs that have opened messages of queue, with their check values.
func (k *knownKeys) named(queue string) []knownKey {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.names[queue]
}

// checked is the check value of a key that was looked at.
type checked struct {
	key   weak.Pointer[keys.Key] // a retired key must not be kept
	value checkValue
}

// checkedKeys spares deriving the check value of the same key twice.
type checkedKeys struct {
	mu sync.Mutex // guards what follows
	of map[keys.ID]checked
}

// valueOf returns the check value of a key, zero if it has none.
func (c *checkedKeys) valueOf(key *keys.Key) checkValue {
	c.mu.Lock()
	defer c.mu.Unlock()
	if x, ok := c.of[key.ID()]; ok && x.key.Value() == key {
		return x.value
	}
	v, err := key.CheckValue()
	if err != nil {
		return checkValue{} // a sender key, or one that was just destroyed
	}
	if c.of == nil {
		c.of = make(map[keys.ID]checked)
	}
	c.of[key.ID()] = checked{weak.Make(key), v}
	return v
}

// valueOf returns the check value of the receiver's key of that ID; zero if the key has none,
// or is not at hand. It asks no key store.
func (r *Receiver) valueOf(id keys.ID) checkValue {
	if r.opener.Valid == nil {
		return checkValue{}
	}
	key := r.opener.Valid.AtHand(id)
	if key == nil {
		return checkValue{}
	}
	return r.checked.valueOf(key)
}

// opened notes that a message opened under a key.
func (r *Receiver) opened(ctx context.Context, permit *intake.Permit, id keys.ID) {
	if !permit.Opened(ctx, id) {
		return
	}
	if other := r.client.known.note(r.queue, id, r.valueOf(id)); other != "" {
		r.warnOfSharedKey(ctx, id, other)
	}
}

// warnOfSharedKey says once for each Client that the queues which a key is for were not set
// apart: its holders can send to all of them.
func (r *Receiver) warnOfSharedKey(ctx context.Context, id keys.ID, other string) {
	key := r.opener.Valid.AtHand(id)
	if key == nil || len(key.Queues()) > 0 || r.client.sharedKeyTold.Swap(true) {
		return
	}
	r.log.LogAttrs(ctx, slog.LevelWarn, "One key opens messages of several queues: its holders can send to each of them",
		slog.String("queue", r.queue), slog.String("other_queue", other), slog.String("key_id", string(id)))
}

// countedWaits bounds for how many of the longest pauses a message is given back on a
// broker that counts: half an hour, which a corrected secret then waits at most.
const countedWaits = 6

// spread makes the wait of a message that tested something longer on a broker that counts:
// another message should be the next test, because each has few deliveries.
func (r *Receiver) spread(wait time.Duration, count int) time.Duration {
	if r.caps.ReleaseUncounted {
		return wait
	}
	return min(wait*time.Duration(2*min(max(count, 1), countedWaits)), countedWaits*intake.MaxPause)
}

// spent reports whether a message has used up so many of the deliveries that its broker
// counts that the rest has to last.
func (r *Receiver) spent(count int) bool {
	return !r.caps.ReleaseUncounted && count > r.options.MaxDeliveries/4
}

// spreadFailed is spread for a message that could not be opened: what is left of its
// deliveries lasts for some hours, in which a secret can be corrected.
func (r *Receiver) spreadFailed(wait time.Duration, count int) time.Duration {
	if r.spent(count) {
		wait = max(wait, intake.MaxPause)
	}
	return r.spread(wait, count)
}

// failed says what follows for a message that did not authenticate. It is forged if the
// key opens others, here or at another receiver of the Client.
func (r *Receiver) failed(ctx context.Context, t *taken, permit *intake.Permit, v *intake.Verdict) {
	id := t.d.KeyID
	if r.client.known.works(r.queue, id, r.valueOf(id)) {
		permit.Opened(ctx, id)
	}
	f := permit.Failed(ctx, id, r.spent(t.d.Count))
	v.Wait = f.Wait
	switch {
	case f.State == intake.KeyWorks:
		v.Final = true
	case f.State == intake.NoneWorks: // the secret may be wrong
		v.Wait = r.spreadFailed(v.Wait, v.Count)
	case t.inNamedSession():
		left := r.sessionWait(t)
		v.Final = left == 0
		if r.spent(v.Count) && !v.Final { // what is left of the deliveries lasts for what is left of the wait
			each := left / time.Duration(max(1, r.options.MaxDeliveries-v.Count))
			v.Wait = min(max(v.Wait, each), left)
		}
	default:
		v.Wait = r.spreadFailed(v.Wait, v.Count)
		v.Final = r.outdated(t.d.raw)
	}
}

// outdated reports whether a message that failed could not be delivered even if its key
// were corrected now.
func (r *Receiver) outdated(raw *driver.Delivery) bool {
	if raw.EnqueuedAt.IsZero() || r.cfg.InsecureSkipFreshness {
		return false
	}
	return time.Now().After(raw.EnqueuedAt.Add(r.cfg.MaxMessageAge + r.cfg.MaxClockSkew))
}

// keyChanged returns an outage if a key ID that opened messages of this queue names
// another secret at this receiver. Under it every message would look forged. It asks no
// key store.
func (r *Receiver) keyChanged() *intake.Outage {
	for _, k := range r.client.known.named(r.queue) {
		if r.contradicts(k) {
			return &intake.Outage{Reason: driver.ReasonKeyProvider, KeyID: k.id, Cause: fmt.Errorf("%w: %w: key %q has another secret here than the one that opened messages of this queue: mount the right secret under that ID, or give the new key a new ID", ErrKeyProvider, ErrKeyChanged, k.id)}
		}
	}
	return nil
}

// contradicts reports whether the receiver has another secret under the ID of a known key.
func (r *Receiver) contradicts(k knownKey) bool {
	v := r.valueOf(k.id)
	return v != k.value && v != (checkValue{})
}
