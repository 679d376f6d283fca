package otelqueue

import (
	"hash/maphash"
	"sync"
	"sync/atomic"
)

// hashSeed is the seed of all tables.
var hashSeed = maphash.MakeSeed()

// firstBuckets is the length of a table's first array, a power of 2. A process with
// one queue has about as many series.
const firstBuckets = 32

// table holds a value for each key, made once and never removed. get takes no lock
// for a key that is there, which is what every message asks for, and adding one costs
// the same however many there are: the arrays of buckets double, so that each entry is
// copied once on average. The zero table is ready to use.
type table[K comparable, V any] struct {
	buckets atomic.Pointer[[]atomic.Pointer[entry[K, V]]] // a power of 2 of them

	adding sync.Mutex // guards the rest, and every change of buckets
	size   int        // entries
	copied int        // entries that were copied into a longer array, ever
}

// entry does not change once a bucket leads to it.
type entry[K comparable, V any] struct {
	key   K
	value *V
	next  *entry[K, V]
}

// get returns the value of k, which fresh makes if there is none. fresh runs at most
// once for a key, and must not use the table.
func (t *table[K, V]) get(k K, fresh func(K) *V) *V {
	h := maphash.Comparable(hashSeed, k)
	if v := t.find(h, k); v != nil {
		return v
	}
	t.adding.Lock()
	defer t.adding.Unlock()
	if v := t.find(h, k); v != nil {
		return v
	}
	if b := t.buckets.Load(); b == nil || t.size >= len(*b) {
		t.grow()
	}
	b := *t.buckets.Load()
	at := &b[h&uint64(len(b)-1)] //nolint:gosec // G115: b is not empty
	e := &entry[K, V]{key: k, value: fresh(k), next: at.Load()}
	at.Store(e)
	t.size++
	return e.value
}

// find returns nil if k is not there.
func (t *table[K, V]) find(h uint64, k K) *V {
	all := t.buckets.Load()
	if all == nil {
		return nil
	}
	b := *all
	for e := b[h&uint64(len(b)-1)].Load(); e != nil; e = e.next { //nolint:gosec // G115: b is not empty
		if e.key == k {
			return e.value
		}
	}
	return nil
}

// grow doubles the array. Calls of find that run meanwhile finish in the old one,
// whose entries stay as they are.
func (t *table[K, V]) grow() {
	old := t.buckets.Load()
	if old == nil {
		b := make([]atomic.Pointer[entry[K, V]], firstBuckets)
		t.buckets.Store(&b)
		return
	}
	b := make([]atomic.Pointer[entry[K, V]], 2*len(*old))
	for i := range *old {
		for e := (*old)[i].Load(); e != nil; e = e.next {
			at := &b[maphash.Comparable(hashSeed, e.key)&uint64(len(b)-1)] //nolint:gosec // G115: b is not empty
			at.Store(&entry[K, V]{key: e.key, value: e.value, next: at.Load()})
			t.copied++
		}
	}
	t.buckets.Store(&b)
}

// each calls f with the values, in no order. What is added meanwhile may be left out.
func (t *table[K, V]) each(f func(*V)) {
	all := t.buckets.Load()
	if all == nil {
		return
	}
	for i := range *all {
		for e := (*all)[i].Load(); e != nil; e = e.next {
			f(e.value)
		}
	}
}
