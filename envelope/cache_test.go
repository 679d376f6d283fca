package envelope

import (
	"bytes"
	"errors"
	"runtime"
	"sync"
	"testing"
	"unsafe"
	"weak"

	"github.com/queue-runtime/queue/internal/drbg"
)

// sealSalts returns n messages under n salts.
func sealSalts(t testing.TB, d Deriver, n int) [][]byte {
	t.Helper()
	list := make([][]byte, n)
	for i := range list {
		list[i] = sealTest(t, d)
	}
	return list
}

func mustReceive(t testing.TB, o *Opener, d Deriver, body []byte) {
	t.Helper()
	got, err := receive(o, d, body, &testContext)
	if err != nil || !bytes.Equal(got, testPlaintext) {
		t.Fatalf("%q, %v", got, err)
	}
}

func TestCacheHit(t *testing.T) {
	key := newMasterKey(1)
	body := sealTest(t, key)
	o := NewOpener(nil)
	key.derived.Store(0)
	for range 5 {
		mustReceive(t, o, key, body)
	}
	if n := key.derived.Load(); n != 1 {
		t.Errorf("derived %d times", n)
	}
	o.Forget("another")
	mustReceive(t, o, key, body)
	if n := key.derived.Load(); n != 1 {
		t.Errorf("forgetting another key: derived %d times", n)
	}
	o.Forget(testHeader(t).KeyID)
	if len(o.cache.index) != 0 || o.cache.places[0] != nil {
		t.Error("the forgotten key's cipher is kept")
	}
	mustReceive(t, o, key, body)
	if n := key.derived.Load(); n != 2 {
		t.Errorf("forgotten: derived %d times", n)
	}
}

// What is not authentic leaves no trace in the cache.
func TestCacheUnauthenticated(t *testing.T) {
	key := newMasterKey(1)
	o := NewOpener(nil)
	for _, at := range []int{8, 128, 200, -1} { // time, key ID or origin, salt or later, tag
		body := sealTest(t, key)
		if at < 0 {
			at += len(body)
		}
		body[at] ^= 1
		if _, err := receive(o, key, body, &testContext); !rejected(err) {
			t.Fatalf("byte %d: %v", at, err)
		}
	}
	if len(o.cache.index) != 0 || len(o.cache.places) != 0 {
		t.Errorf("%d entries", len(o.cache.index))
	}
}

// A hit counts only for the very Deriver and the commitment it came from.
func TestCacheIdentity(t *testing.T) {
	key, same, other := newMasterKey(1), newMasterKey(1), newMasterKey(2)
	body := sealTest(t, key)
	o := NewOpener(nil)
	mustReceive(t, o, key, body)
	if _, err := receive(o, other, body, &testContext); !errors.Is(err, ErrAuthenticationFailed) {
		t.Fatalf("another key found the cipher: %v", err)
	}
	if other.derived.Load() != 1 {
		t.Error("the other key was not asked")
	}
	// The same secret in another Deriver: its entry replaces the first.
	mustReceive(t, o, same, body)
	mustReceive(t, o, same, body)
	if n := same.derived.Load(); n != 1 {
		t.Errorf("derived %d times", n)
	}
	if n := len(o.cache.index); n != 1 {
		t.Errorf("%d entries for one salt", n)
	}
	// On a hit the commitment is compared, too.
	m := mustParse(t, body)
	m.Commitment[31] ^= 1
	data := testData(t, &testContext, m.Bound)
	if _, err := o.Open(nil, m, same, data); !errors.Is(err, ErrAuthenticationFailed) {
		t.Errorf("another commitment: %v", err)
	}
}

func TestCacheBound(t *testing.T) {
	key := newMasterKey(1)
	for _, tt := range []struct{ entries, want int }{{0, 16384}, {1, 1}, {3, 3}, {-1, 0}} {
		o := NewOpener(&OpenerOptions{Entries: tt.entries})
		for _, body := range sealSalts(t, key, tt.want+44) {
			mustReceive(t, o, key, body)
			mustReceive(t, o, key, body)
		}
		if n := len(o.cache.index); n != tt.want || len(o.cache.places) != tt.want {
			t.Errorf("Entries %d: %d entries in %d places, want %d", tt.entries, n, len(o.cache.places), tt.want)
		}
	}
}

// One salt under two sender IDs is two entries, although one key serves both.
func TestCacheSenders(t *testing.T) {
	key := newMasterKey(1)
	data := testData(t, &testContext, testHeader(t).Bound)
	salt := Salt{1, 2, 3}
	var list []*EncryptedMessage
	for _, sender := range []string{"a", "b", ""} {
		s, err := NewSealer(key, "k", sender)
		if err != nil {
			t.Fatal(err)
		}
		e := &epoch{salt: salt, start: testHeader(t).EncryptedAt}
		if e.derived, err = derive(key, "k", sender, &salt); err != nil {
			t.Fatal(err)
		}
		e.latest.Store(e.start)
		s.current.Store(e)
		b, err := s.Seal(nil, testHeader(t), testPlaintext, data)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, mustParse(t, b))
	}
	o := NewOpener(nil)
	key.derived.Store(0)
	for range 3 {
		for _, m := range list {
			if m.Salt != salt {
				t.Fatal("the salts differ")
			}
			if _, err := o.Open(nil, m, key, data); err != nil {
				t.Fatalf("sender %q: %v", m.Sender, err)
			}
		}
	}
	if n := key.derived.Load(); n != 3 {
		t.Errorf("derived %d times for three entries", n)
	}
	o.Forget("k")
	if n := len(o.cache.index); n != 0 {
		t.Errorf("%d ciphers of a forgotten key", n)
	}
}

// The strings of an entry are no part of the message's header, which would be kept with
// them, and are shared with the entry before where they are the same.
func TestCacheKeepsNoHeader(t *testing.T) {
	key := newMasterKey(1)
	o := NewOpener(nil)
	messages := make([]*EncryptedMessage, 2)
	for i := range messages {
		messages[i] = mustParse(t, sealTest(t, key))
		if _, err := o.Open(nil, messages[i], key, testData(t, &testContext, messages[i].Bound)); err != nil {
			t.Fatal(err)
		}
	}
	first, second := o.cache.places[0].key, o.cache.places[1].key
	for _, s := range [][3]string{{messages[0].KeyID, first.keyID, second.keyID}, {messages[0].Sender, first.sender, second.sender}} {
		if s[1] != s[0] || s[2] != s[0] || s[0] == "" {
			t.Fatalf("%q and %q of %q", s[1], s[2], s[0])
		}
		if unsafe.StringData(s[1]) == unsafe.StringData(s[0]) {
			t.Errorf("%q: the entry keeps the header", s[0])
		}
		if unsafe.StringData(s[1]) != unsafe.StringData(s[2]) {
			t.Errorf("%q: the entries do not share it", s[0])
		}
	}
}

// forgetful is a Deriver whose key is forgotten while it derives.
type forgetful struct {
	masterKey
	opener *Opener
}

func (k *forgetful) Derive(sender string, info []byte) ([64]byte, error) {
	k.opener.Forget("merge-warden/2026-01")
	return k.masterKey.Derive(sender, info)
}

// A key that is forgotten while a message is opened with it leaves no cipher.
func TestCacheForgottenMeanwhile(t *testing.T) {
	plain := newMasterKey(1)
	o := NewOpener(nil)
	key := &forgetful{masterKey{secret: plain.secret}, o}
	mustReceive(t, o, key, sealTest(t, plain))
	if n := len(o.cache.index); n != 0 {
		t.Errorf("%d ciphers of a forgotten key", n)
	}
}

// What was evicted is gone: it is neither found nor kept in memory.
func TestCacheEvicted(t *testing.T) {
	key := newMasterKey(1)
	o := NewOpener(&OpenerOptions{Entries: 1})
	bodies := sealSalts(t, key, 2)
	key.derived.Store(0)
	for i := range 10 {
		mustReceive(t, o, key, bodies[i%2])
		mustReceive(t, o, key, bodies[i%2])
	}
	if n := key.derived.Load(); n != 10 {
		t.Errorf("derived %d times, want 10", n)
	}
	kept := make(map[*entry]bool)
	for i := range o.cache.recent {
		if e := o.cache.recent[i].Load(); e != nil {
			kept[e] = true
		}
	}
	if len(kept) > 1 || len(kept) == 1 && !kept[o.cache.places[0]] {
		t.Errorf("%d entries are kept beside the one in its place", len(kept))
	}
}

// One salt under two key IDs is two entries, although one Deriver serves both.
func TestCacheKeyIDs(t *testing.T) {
	key := newMasterKey(1)
	data := testData(t, &testContext, testHeader(t).Bound)
	salt := Salt{1, 2, 3}
	seal := func(id string) *EncryptedMessage {
		s, err := NewSealer(key, id, testSender)
		if err != nil {
			t.Fatal(err)
		}
		e := &epoch{salt: salt, start: testHeader(t).EncryptedAt}
		if e.derived, err = derive(key, id, testSender, &salt); err != nil {
			t.Fatal(err)
		}
		e.latest.Store(e.start)
		s.current.Store(e)
		b, err := s.Seal(nil, testHeader(t), testPlaintext, data)
		if err != nil {
			t.Fatal(err)
		}
		return mustParse(t, b)
	}
	a, b := seal("a"), seal("b")
	if a.Salt != salt || b.Salt != salt {
		t.Fatal("the salts differ")
	}
	o := NewOpener(nil)
	key.derived.Store(0)
	for range 3 {
		for _, m := range []*EncryptedMessage{a, a, b, b} {
			if _, err := o.Open(nil, m, key, data); err != nil {
				t.Fatalf("key ID %s: %v", m.KeyID, err)
			}
		}
	}
	if n := key.derived.Load(); n != 2 {
		t.Errorf("derived %d times for two entries", n)
	}
}

// What is in use stays, while salts that are met once come and go.
func TestCacheSecondChance(t *testing.T) {
	key := newMasterKey(1)
	o := NewOpener(&OpenerOptions{Entries: 4})
	steady := sealTest(t, key)
	mustReceive(t, o, key, steady)
	bodies := sealSalts(t, key, 50)
	key.derived.Store(0)
	for _, body := range bodies {
		mustReceive(t, o, key, steady)
		mustReceive(t, o, key, body)
	}
	if n := key.derived.Load(); n != 50 {
		t.Errorf("derived %d times, want 50: the cipher in use was dropped", n)
	}
}

// Places that Forget emptied are filled again before anything is evicted.
func TestCacheRefill(t *testing.T) {
	o := NewOpener(&OpenerOptions{Entries: 4})
	key := newMasterKey(1)
	data := testData(t, &testContext, testHeader(t).Bound)
	seal := func(id string) []byte {
		s, err := NewSealer(key, id, testSender)
		if err != nil {
			t.Fatal(err)
		}
		b, err := s.Seal(nil, testHeader(t), testPlaintext, data)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	stay := [][]byte{seal("stay"), seal("stay")}
	for _, body := range [][]byte{stay[0], seal("go"), stay[1], seal("go")} {
		mustReceive(t, o, key, body)
	}
	o.Forget("go")
	if n := len(o.cache.index); n != 2 {
		t.Fatalf("%d entries after Forget", n)
	}
	for range 2 {
		mustReceive(t, o, key, seal("new"))
	}
	if n := len(o.cache.index); n != 4 || len(o.cache.free) != 0 {
		t.Fatalf("%d entries, %d free places", n, len(o.cache.free))
	}
	key.derived.Store(0)
	for _, body := range stay {
		mustReceive(t, o, key, body)
	}
	if n := key.derived.Load(); n != 0 {
		t.Errorf("an entry was evicted while places were free: derived %d times", n)
	}
}

// byValue is a Deriver that cannot be compared.
type byValue struct {
	key *masterKey
	_   []int
}

func (v byValue) Derive(sender string, info []byte) ([64]byte, error) {
	return v.key.Derive(sender, info)
}

func TestCacheIncomparable(t *testing.T) {
	key := newMasterKey(1)
	body := sealTest(t, key)
	o := NewOpener(nil)
	for range 2 {
		mustReceive(t, o, byValue{key: key}, body)
	}
	if len(o.cache.index) != 0 {
		t.Error("cached")
	}
	mustReceive(t, o, key, body)
	mustReceive(t, o, byValue{key: key}, body)
	mustReceive(t, o, key, body)
	if n := len(o.cache.index); n != 1 {
		t.Errorf("%d entries, want that of the comparable one", n)
	}
}

func TestCacheConcurrently(t *testing.T) {
	key := newMasterKey(1)
	o := NewOpener(&OpenerOptions{Entries: 3})
	bodies := sealSalts(t, key, 8)
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := range 200 {
				body := bodies[(w*i)%len(bodies)]
				got, err := receive(o, key, body, &testContext)
				if err != nil || !bytes.Equal(got, testPlaintext) {
					t.Errorf("%q, %v", got, err)
					return
				}
				if i%50 == w {
					o.Forget(testHeader(t).KeyID)
				}
			}
		})
	}
	wg.Wait()
	if n := len(o.cache.index); n > 3 {
		t.Errorf("%d entries", n)
	}
}

// What was derived from a retired key is not reachable any more, neither from the
// Opener nor from the Sealer.
func TestRetiredKeyIsCollected(t *testing.T) {
	t.Cleanup(drbg.Prime) // collecting garbage empties the generator's pool
	key := newMasterKey(1)
	s := newTestSealer(t, key)
	h := testHeader(t)
	data := testData(t, &testContext, h.Bound)
	o := NewOpener(nil)
	var ciphers []weak.Pointer[derived]
	for range 5 {
		body, err := s.Seal(nil, h, testPlaintext, data)
		if err != nil {
			t.Fatal(err)
		}
		for range 2 { // the second time it becomes a recent one
			mustReceive(t, o, key, body)
		}
		ciphers = append(ciphers, weak.Make(s.current.Load().derived), weak.Make(o.cache.get(mustParse(t, body), key)))
		s.EndEpoch()
	}
	last, err := s.Seal(nil, h, testPlaintext, data)
	if err != nil {
		t.Fatal(err)
	}
	ciphers = append(ciphers, weak.Make(s.current.Load().derived))
	mustReceive(t, o, key, last)
	o.Forget(h.KeyID)
	s.EndEpoch()
	runtime.GC()
	for i, c := range ciphers {
		if c.Value() != nil {
			t.Errorf("cipher %d of the retired key is reachable", i)
		}
	}
	runtime.KeepAlive(o)
	runtime.KeepAlive(s)
}
