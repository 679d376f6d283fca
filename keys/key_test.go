package keys_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/queue-runtime/queue/keys"
)

// secret returns 32 bytes that no text has by chance.
func secret(n byte) []byte {
	b := make([]byte, keys.Size)
	for i := range b {
		b[i] = 167*n + 101*byte(i) + 7*byte(i*i) + 59
	}
	return b
}

func mustKey(t testing.TB, id keys.ID, n byte) *keys.Key {
	t.Helper()
	k, err := keys.New(id, secret(n), nil)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// TestDerive uses the pseudorandom key and info of RFC 5869, Appendix A.1. The
// output there has 42 bytes; those of 64 begin with them, because expansion is a
// prefix code.
func TestDerive(t *testing.T) {
	prk, err := hex.DecodeString("077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5")
	if err != nil {
		t.Fatal(err)
	}
	info, err := hex.DecodeString("f0f1f2f3f4f5f6f7f8f9")
	if err != nil {
		t.Fatal(err)
	}
	const want = "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"
	k, err := keys.New("rfc5869", prk, nil)
	if err != nil {
		t.Fatal(err)
	}
	okm, err := k.Expand(info)
	if err != nil {
		t.Fatal(err)
	}
	if got := hex.EncodeToString(okm[:42]); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestNewRefuses(t *testing.T) {
	day := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for name, c := range map[string]struct {
		id     keys.ID
		secret []byte
		o      *keys.Options
		says   string
	}{
		"no ID":          {"", secret(1), nil, "0 bytes: use 1 to 64"},
		"a long ID":      {keys.ID(strings.Repeat("k", 65)), secret(1), nil, "65 bytes: use 1 to 64"},
		"a space":        {"a b", secret(1), nil, "byte 1 of the ID"},
		"not ASCII":      {"schlüssel", secret(1), nil, "byte 4 of the ID"},
		"a line break":   {"k\n", secret(1), nil, "byte 1 of the ID"},
		"no secret":      {"k", nil, nil, "a secret of 0 bytes: use 32"},
		"31 bytes":       {"k", secret(1)[:31], nil, "a secret of 31 bytes: use 32"},
		"33 bytes":       {"k", append(secret(1), 1), nil, "a secret of 33 bytes: use 32"},
		"zeroes":         {"k", make([]byte, 32), nil, "all zeroes"},
		"expired before": {"k", secret(1), &keys.Options{Created: day, Expires: day.Add(-1)}, "expires before"},
	} {
		k, err := keys.New(c.id, c.secret, c.o)
		if k != nil || !errors.Is(err, keys.ErrInvalidKey) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, %v; want an error that says %q", name, k, err, c.says)
		}
	}
	for _, id := range []keys.ID{"k", "AZaz09._:/-", keys.ID(strings.Repeat("k", 64))} {
		if _, err := keys.New(id, secret(1), nil); err != nil {
			t.Errorf("%s: %v", id, err)
		}
	}
	one := make([]byte, 32)
	one[31] = 1
	if _, err := keys.New("k", one, nil); err != nil {
		t.Errorf("a secret with one bit set: %v", err)
	}
}

func TestNewCopies(t *testing.T) {
	s := secret(1)
	k, err := keys.New("k", s, nil)
	if err != nil {
		t.Fatal(err)
	}
	clear(s)
	if !k.Equal(mustKey(t, "other", 1)) {
		t.Error("zeroing the caller's bytes changed the key")
	}
}

func TestKeyTimes(t *testing.T) {
	now := time.Now() // with a monotonic reading
	k, err := keys.New("k", secret(1), &keys.Options{Created: now, Expires: now.Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	if k.Created() != now.Round(0) || k.Expires() != now.Add(time.Hour).Round(0) {
		t.Errorf("created %v, expires %v", k.Created(), k.Expires())
	}
	if k.Expired(now) || k.Expired(now.Add(time.Hour-1)) || !k.Expired(now.Add(time.Hour)) {
		t.Error("it does not expire at its time")
	}
	if mustKey(t, "k", 1).Expired(time.Unix(math.MaxInt32, 0)) {
		t.Error("a key without expiry expired")
	}
}

func TestGenerate(t *testing.T) {
	before := time.Now().Round(0)
	a, err := keys.Generate("a", nil)
	if err != nil {
		t.Fatal(err)
	}
	b, err := keys.Generate("b", &keys.Options{Created: before.Add(-time.Hour), Expires: before.Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	if a.Equal(b) {
		t.Error("two generated keys have one secret")
	}
	if a.Created().Before(before) || time.Since(a.Created()) > time.Minute || !a.Expires().IsZero() {
		t.Errorf("created %v, expires %v", a.Created(), a.Expires())
	}
	if !b.Created().Equal(before.Add(-time.Hour)) || !b.Expires().Equal(before.Add(time.Hour)) {
		t.Errorf("created %v, expires %v", b.Created(), b.Expires())
	}
	if _, err := keys.Generate("", nil); !errors.Is(err, keys.ErrInvalidKey) {
		t.Errorf("no ID: %v", err)
	}
}

func TestEqual(t *testing.T) {
	a := mustKey(t, "a", 1)
	if !a.Equal(a) || !a.Equal(mustKey(t, "b", 1)) || a.Equal(mustKey(t, "a", 2)) {
		t.Error("Equal does not compare secrets")
	}
	gone := mustKey(t, "a", 1)
	gone.Destroy()
	if a.Equal(gone) || gone.Equal(a) || gone.Equal(gone) {
		t.Error("a destroyed key equals one")
	}
}

func TestDestroy(t *testing.T) {
	k := mustKey(t, "k-1", 1)
	if err := k.Err(); err != nil {
		t.Errorf("Err before: %v", err)
	}
	k.Destroy()
	k.Destroy()
	if err := k.Err(); !errors.Is(err, keys.ErrDestroyed) {
		t.Errorf("Err after: %v", err)
	}
	okm, err := k.Derive("", nil)
	if okm != [64]byte{} || !errors.Is(err, keys.ErrDestroyed) || !strings.Contains(err.Error(), "k-1") {
		t.Errorf("Derive after: %x, %v", okm, err)
	}
	if k.ID() != "k-1" {
		t.Errorf("ID after: %q", k.ID())
	}
}

func TestZeroKey(t *testing.T) {
	var k keys.Key
	k.Destroy()
	if _, err := k.Derive("", nil); !errors.Is(err, keys.ErrDestroyed) {
		t.Errorf("Derive: %v", err)
	}
	if err := k.Err(); !errors.Is(err, keys.ErrDestroyed) {
		t.Errorf("Err: %v", err)
	}
}

// TestDestroyRace: whatever the moment, a derivation gives the bytes of the key
// or ErrDestroyed, and never those of a zeroed secret.
func TestDestroyRace(t *testing.T) {
	info := bytes.Repeat([]byte("info"), 64)
	want, err := mustKey(t, "k", 1).Derive("", info)
	if err != nil {
		t.Fatal(err)
	}
	before, after := 0, 0
	for range 200 {
		k := mustKey(t, "k", 1)
		var mu sync.Mutex
		var all sync.WaitGroup
		begun, destroyed := make(chan struct{}, 1), make(chan struct{})
		for range 4 {
			all.Go(func() {
				for over := false; !over; runtime.Gosched() {
					select {
					case <-destroyed:
						over = true // once more
					default:
					}
					okm, err := k.Derive("", info)
					mu.Lock()
					switch {
					case err == nil && okm == want:
						before++
					case errors.Is(err, keys.ErrDestroyed) && okm == [64]byte{}:
						after++
					default:
						t.Errorf("Derive: %x, %v", okm, err)
					}
					mu.Unlock()
					select {
					case begun <- struct{}{}:
					default:
					}
				}
			})
		}
		all.Go(func() {
			defer close(destroyed)
			<-begun
			k.Destroy()
			if k.Err() == nil {
				t.Error("Destroy returned, and the key is usable")
			}
		})
		all.Wait()
	}
	if before == 0 || after == 0 {
		t.Errorf("no race: %d before, %d after", before, after)
	}
}

func BenchmarkDerive(b *testing.B) {
	k := mustKey(b, "k", 1)
	info := make([]byte, 80)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := k.Derive("", info); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkErr(b *testing.B) {
	k := mustKey(b, "k", 1)
	for b.Loop() {
		if err := k.Err(); err != nil {
			b.Fatal(err)
		}
	}
}
