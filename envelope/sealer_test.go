package envelope

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestSealOpen(t *testing.T) {
	key := newMasterKey(1)
	s := newTestSealer(t, key)
	o := NewOpener(nil)
	for _, n := range []int{0, 1, 15, 16, 17, 31, 32, 100, 1024, 65537} {
		for _, withContext := range []bool{false, true} {
			h := testHeader(t)
			c := testContext
			if !withContext {
				h.Bound = nil
				c = Context{MessageID: "m"}
			}
			plaintext := bytes.Repeat([]byte{0xa5}, n)
			data := testData(t, &c, h.Bound)
			b, err := s.Seal([]byte("before"), h, plaintext, data)
			if err != nil {
				t.Fatal(err)
			}
			sealed, ok := bytes.CutPrefix(b, []byte("before"))
			if !ok || len(sealed) != SealedSize(h, n) {
				t.Fatalf("%d bytes: sealed to %d, want %d", n, len(sealed), SealedSize(h, n))
			}
			if n >= 16 && bytes.Contains(sealed, plaintext[:16]) {
				t.Fatal("plaintext in the envelope")
			}
			kept := bytes.Clone(sealed)
			got, err := o.Open([]byte("before"), mustParse(t, sealed), key, data)
			if err != nil || string(got) != "before"+string(plaintext) {
				t.Fatalf("%d bytes: %d, %v", n, len(got), err)
			}
			if !bytes.Equal(sealed, kept) {
				t.Fatal("opening changed the envelope")
			}
		}
	}
}

// The Sealer's key ID, salt and commitment stand in the envelope, whatever the
// header brings, and the header stays as it was.
func TestSealIgnores(t *testing.T) {
	h := testHeader(t)
	h.Bound = nil
	h.KeyID, h.Sender, h.Padded = "not a key ID", "not a sender ID", true
	h.Salt[0], h.Commitment[0] = 1, 1
	was := *h
	b, err := newTestSealer(t, newMasterKey(1)).Seal(nil, h, testPlaintext, nil)
	if err != nil {
		t.Fatal(err)
	}
	m := mustParse(t, b)
	if m.KeyID != testHeader(t).KeyID || m.Sender != testSender || m.Padded || m.Salt == h.Salt || m.Commitment == h.Commitment {
		t.Errorf("header %+v", m.Header)
	}
	if h.KeyID != was.KeyID || h.Salt != was.Salt || h.Commitment != was.Commitment || h.EncryptedAt != was.EncryptedAt {
		t.Error("the caller's header was changed")
	}
}

func TestNewSealerErrors(t *testing.T) {
	if _, err := NewSealer(nil, "k", ""); err == nil {
		t.Error("no Deriver: no error")
	}
	for _, id := range []string{"a b", string(make([]byte, 65)), "schl\u00fcssel"} {
		if _, err := NewSealer(newMasterKey(1), id, ""); err == nil {
			t.Errorf("key ID %q: no error", id)
		}
		if _, err := NewSealer(newMasterKey(1), "k", id); err == nil {
			t.Errorf("sender ID %q: no error", id)
		}
	}
	if _, err := NewSealer(newMasterKey(1), "", "s"); err == nil {
		t.Error("no key ID: no error")
	}
	key := newMasterKey(1)
	s, err := NewSealer(key, "k", "s")
	if err != nil || key.derived.Load() != 0 {
		t.Fatalf("%v, derived %d times", err, key.derived.Load())
	}
	if s.KeyID() != "k" || s.Sender() != "s" {
		t.Errorf("key ID %q, sender %q", s.KeyID(), s.Sender())
	}
}

// A Sealer whose key is destroyed stops at once, although its cipher is warm.
func TestSealDestroyed(t *testing.T) {
	key := newMasterKey(1)
	s := newTestSealer(t, key)
	h := testHeader(t)
	if _, err := s.Seal(nil, h, testPlaintext, nil); err != nil {
		t.Fatal(err)
	}
	key.destroy()
	b, err := s.Seal(nil, h, testPlaintext, nil)
	if !errors.Is(err, ErrEncryptionFailed) || !errors.Is(err, errDestroyed) || b != nil {
		t.Fatalf("warm: %v, want ErrEncryptionFailed and the Deriver's", err)
	}
	if s.current.Load() != nil {
		t.Error("the cipher is kept")
	}
}

// failing is a Deriver without Err, which only finds out when it derives.
type failing struct{ err error }

func (f *failing) Derive(string, []byte) (okm [64]byte, err error) { return okm, f.err }

func TestSealDeriverFails(t *testing.T) {
	cause := errors.New("module unplugged")
	b, err := newTestSealer(t, &failing{cause}).Seal(nil, testHeader(t), testPlaintext, nil)
	if !errors.Is(err, ErrEncryptionFailed) || !errors.Is(err, cause) || b != nil {
		t.Fatalf("%v, want ErrEncryptionFailed and the cause", err)
	}
}

// Plaintext in the spare room of dst would be overwritten while it is sealed.
func TestSealOverlap(t *testing.T) {
	s := newTestSealer(t, newMasterKey(1))
	h := testHeader(t)
	buf := make([]byte, 4096)
	for _, at := range []int{0, 10, SealedSize(h, 0) - TagSize, SealedSize(h, 64) - 64} {
		plaintext := buf[at : at+64]
		fill := bytes.Repeat([]byte{7}, 64)
		copy(plaintext, fill)
		b, err := s.Seal(buf[:0], h, plaintext, nil)
		if !errors.Is(err, ErrEncryptionFailed) || !errors.Is(err, errOverlap) || b != nil {
			t.Errorf("plaintext at %d of dst: %v", at, err)
		}
		if !bytes.Equal(plaintext, fill) {
			t.Errorf("plaintext at %d of dst was overwritten", at)
		}
	}
	// Beside it, before or behind, is fine.
	copy(buf, testPlaintext)
	b, err := s.Seal(buf[:len(testPlaintext)], h, buf[:len(testPlaintext)], nil)
	if err != nil || !bytes.HasPrefix(b, testPlaintext) {
		t.Errorf("plaintext before: %v", err)
	}
	end := SealedSize(h, 64)
	if _, err := s.Seal(buf[:0], h, buf[end:end+64], nil); err != nil {
		t.Errorf("plaintext behind: %v", err)
	}
	// Context data is read before anything is written.
	data := testData(t, &testContext, h.Bound)
	copy(buf, data)
	b, err = s.Seal(buf[:0], h, testPlaintext, buf[:len(data)])
	if err != nil {
		t.Fatal(err)
	}
	if _, err := NewOpener(nil).Open(nil, mustParse(t, b), s.deriver, data); err != nil {
		t.Errorf("context in dst: %v", err)
	}
}

// Room for the envelope behind what dst holds is enough, to the byte.
func TestSealInPlace(t *testing.T) {
	s := newTestSealer(t, newMasterKey(1))
	h := testHeader(t)
	const before = 100
	dst := make([]byte, before, before+SealedSize(h, len(testPlaintext)))
	b, err := s.Seal(dst, h, testPlaintext, nil)
	if err != nil || len(b) != cap(dst) || &b[0] != &dst[0] {
		t.Errorf("with room for it: %d bytes, %v; want %d in their place", len(b), err, cap(dst))
	}
	b, err = s.Seal(dst[:before:cap(dst)-1], h, testPlaintext, nil)
	if err != nil || len(b) != cap(dst) || &b[0] == &dst[0] {
		t.Errorf("with room for one byte less: %d bytes, %v; want %d elsewhere", len(b), err, cap(dst))
	}
}

func TestCheckSize(t *testing.T) {
	const most = (1<<32 - 2) * 16
	if err := checkSize("plaintext", most); err != nil {
		t.Error(err)
	}
	if err := checkSize("plaintext", most+1); err == nil {
		t.Error("one byte above GCM's limit passes")
	}
}

// sealAt seals one message at that time and returns its salt.
func sealAt(t *testing.T, s *Sealer, ms int64) Salt {
	t.Helper()
	h := testHeader(t)
	h.EncryptedAt = ms
	b, err := s.Seal(nil, h, testPlaintext, nil)
	if err != nil {
		t.Fatal(err)
	}
	return mustParse(t, b).Salt
}

func steps(from, to, by int64) (list []int64) {
	for at := from; at <= to; at += by {
		list = append(list, at)
	}
	return list
}

func only(i ...int) []int { return i }

// A Sealer that is told so draws a new salt.
func TestEndEpoch(t *testing.T) {
	s := newTestSealer(t, newMasterKey(1))
	first := sealAt(t, s, 1000)
	if sealAt(t, s, 1000) != first {
		t.Error("two messages, two epochs")
	}
	s.EndEpoch()
	if s.current.Load() != nil {
		t.Error("the cipher is kept")
	}
	if sealAt(t, s, 1000) == first {
		t.Error("the epoch went on")
	}
}

// ending is a Deriver beside which an epoch is ended.
type ending struct {
	masterKey
	end func()
}

func (k *ending) Derive(sender string, info []byte) ([64]byte, error) {
	k.end()
	return k.masterKey.Derive(sender, info)
}

// A salt that was drawn before EndEpoch serves no message that is sealed after it, also if it
// was being derived from meanwhile: a copy of the process may have the same one.
func TestEndEpochWhileOneBegins(t *testing.T) {
	var s *Sealer
	key := &ending{end: func() { s.EndEpoch() }}
	key.secret = bytes.Repeat([]byte{1}, 32)
	s = newTestSealer(t, key)
	first := sealAt(t, s, 1000)
	key.end = func() {}
	second := sealAt(t, s, 1000)
	if second == first {
		t.Error("the epoch went on")
	}
	if sealAt(t, s, 1000) != second {
		t.Error("the next epoch serves one message only")
	}
}

func TestEpochTime(t *testing.T) {
	const minute = 60_000
	const begin = 1_760_000_000_000
	for _, tt := range []struct {
		name  string
		at    []int64 // after begin
		fresh []int   // the messages that begin a new epoch
	}{
		{"within 5 minutes", steps(0, 5*minute, idleMillis), only(0)},
		{"past 5 minutes", append(steps(0, 5*minute, idleMillis), 5*minute+1, 5*minute+2), only(0, 11)},
		{"counted from the first", steps(0, 9*minute, 20_000), only(0, 16)},
		{"30 seconds without one", []int64{0, idleMillis, 2*idleMillis + 1, 2*idleMillis + 2, 3*idleMillis + 2, 4*idleMillis + 3}, only(0, 2, 5)},
		{"30 seconds from the latest, not from the last", []int64{0, 1000, 500, idleMillis + 1000, 2*idleMillis + 1001}, only(0, 4)},
		{"set back before the first", []int64{0, -1, 0, -1}, only(0, 1)},
		{"set back within the epoch", []int64{0, 20_000, 10_000, 10_001}, only(0, 2)},
		{"overtaken by a second", []int64{0, 20_000, 19_000, 18_999}, only(0, 3)},
		{"set forward for good", []int64{0, 1e9, 1e9 + 1}, only(0, 1)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			key := newMasterKey(1)
			s := newTestSealer(t, key)
			seen := make(map[Salt]bool)
			var last Salt
			for i, at := range tt.at {
				salt := sealAt(t, s, begin+at)
				if got, want := salt != last, slices.Contains(tt.fresh, i); got != want {
					t.Errorf("message %d at %d: new epoch %v, want %v", i, at, got, want)
				}
				if salt != last && seen[salt] {
					t.Errorf("message %d: a salt came back", i)
				}
				seen[salt] = true
				last = salt
			}
			if int(key.derived.Load()) != len(seen) {
				t.Errorf("derived %d times for %d salts", key.derived.Load(), len(seen))
			}
		})
	}
}

func TestEpochMessages(t *testing.T) {
	s := newTestSealer(t, newMasterKey(1))
	first := sealAt(t, s, 1000)
	s.current.Load().served.Store((epochMessages - 1) << bytesBits)
	if sealAt(t, s, 1000) != first {
		t.Error("message 2^20 is not in the epoch")
	}
	if sealAt(t, s, 1000) == first {
		t.Error("message 2^20 + 1 is in the epoch")
	}
	if got := s.current.Load().served.Load() >> bytesBits; got != 1 {
		t.Errorf("the new epoch counts %d", got)
	}
}

func TestEpochBytes(t *testing.T) {
	s := newTestSealer(t, newMasterKey(1))
	first := sealAt(t, s, 1000)
	if got := s.current.Load().served.Load() % (1 << bytesBits); got != uint64(len(testPlaintext)) {
		t.Errorf("counted %d bytes, want %d", got, len(testPlaintext))
	}
	s.current.Load().served.Store(1<<bytesBits + epochBytes - uint64(len(testPlaintext)))
	if sealAt(t, s, 1000) != first {
		t.Error("the last byte of 64 GiB is not in the epoch")
	}
	if sealAt(t, s, 1000) == first {
		t.Error("more than 64 GiB are in the epoch")
	}
	if maxPlaintext > epochBytes {
		t.Error("the longest plaintext fits no epoch")
	}
}

// Many goroutines seal with one Sealer over the end of epochs: every message
// opens, no nonce comes twice under a salt, and no epoch serves too many.
func TestSealConcurrently(t *testing.T) {
	key := newMasterKey(1)
	s := newTestSealer(t, key)
	o := NewOpener(&OpenerOptions{Entries: 2})
	h := testHeader(t)
	data := testData(t, &testContext, h.Bound)
	const workers, each = 8, 200
	ids := make([][]string, workers)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			h := *h
			var buf []byte
			for i := range each {
				h.EncryptedAt = 1_760_000_000_000 + int64(i)*5000 // an epoch is 60 of these
				plaintext := fmt.Appendf(nil, "%d %d", w, i)
				b, err := s.Seal(buf[:0], &h, plaintext, data)
				if err != nil {
					t.Error(err)
					return
				}
				buf = b
				m, err := Parse(b)
				if err != nil {
					t.Error(err)
					return
				}
				got, err := o.Open(nil, &m, key, data)
				if err != nil || !bytes.Equal(got, plaintext) {
					t.Errorf("%q, %v, want %q", got, err, plaintext)
					return
				}
				ids[w] = append(ids[w], string(m.Salt[:])+string(m.Nonce[:]))
			}
		})
	}
	wg.Wait()
	all := slices.Concat(ids...)
	slices.Sort(all)
	if n := len(slices.Compact(all)); n != workers*each {
		t.Errorf("%d different nonces for %d messages", n, workers*each)
	}
}

// slow is a Deriver that waits, as a hardware module does.
type slow struct {
	masterKey
	wait time.Duration
}

func (k *slow) Derive(sender string, info []byte) ([64]byte, error) {
	time.Sleep(k.wait)
	return k.masterKey.Derive(sender, info)
}

// While one derives a new epoch, the others wait for it instead of deriving too.
func TestEpochDerivedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		key := &slow{wait: time.Second}
		key.secret = bytes.Repeat([]byte{1}, 32)
		s := newTestSealer(t, key)
		begin := time.Now()
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() { sealAt(t, s, 1000) })
		}
		wg.Wait()
		if n := key.derived.Load(); n != 1 {
			t.Errorf("derived %d times", n)
		}
		if d := time.Since(begin); d != time.Second {
			t.Errorf("took %s, want one derivation", d)
		}
	})
}
