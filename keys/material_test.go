package keys

import (
	"bytes"
	"errors"
	"runtime"
	"testing"
	"time"
	"unsafe"
)

func testKey(t testing.TB, id ID, n byte) *Key {
	t.Helper()
	k, err := New(id, bytes.Repeat([]byte{n}, Size), nil)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// peek returns the very bytes of a key, which outlive its closure for the test.
func peek(t *testing.T, k *Key) *[Size]byte {
	t.Helper()
	var bytes *[Size]byte
	if err := k.with(func(secret *[Size]byte) error { bytes = secret; return nil }); err != nil {
		t.Fatal(err)
	}
	return bytes
}

func TestDestroyZeroes(t *testing.T) {
	k := testKey(t, "k", 7)
	held := peek(t, k)
	if *held != [Size]byte(bytes.Repeat([]byte{7}, Size)) {
		t.Fatalf("the secret is %x", *held)
	}
	k.Destroy()
	if *held != [Size]byte{} {
		t.Errorf("the secret is %x", *held)
	}
}

func TestRemoveZeroes(t *testing.T) {
	k := testKey(t, "k", 7)
	held := peek(t, k)
	r, err := NewRing(k)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Remove("k"); err != nil {
		t.Fatal(err)
	}
	if *held != [Size]byte{} {
		t.Errorf("the secret is %x", *held)
	}
}

// TestDropZeroes: a key without references is zeroed without Destroy.
func TestDropZeroes(t *testing.T) {
	var gone func() bool
	held := func() *[Size]byte {
		k := testKey(t, "k", 7)
		flag := k.gone
		gone = flag.Load
		return peek(t, k)
	}()
	for range 100 {
		if gone() {
			break
		}
		runtime.GC()
		runtime.Gosched()
	}
	if !gone() {
		t.Fatal("the key was dropped and lives")
	}
	// The flag is set first. What zeroes then may have no processor for a while, and holds the
	// lock of the material.
	m := (*material)(unsafe.Add(unsafe.Pointer(held), -int(unsafe.Offsetof(material{}.secret))))
	secret := func() [Size]byte {
		m.mu.RLock()
		defer m.mu.RUnlock()
		return m.secret
	}
	for began := time.Now(); secret() != [Size]byte{} && time.Since(began) < time.Minute; {
		runtime.Gosched()
	}
	if got := secret(); got != [Size]byte{} {
		t.Errorf("the secret is %x", got)
	}
}

// TestDestroyWaits: a use under way keeps the bytes until it is done, though no
// new one begins.
func TestDestroyWaits(t *testing.T) {
	k := testKey(t, "k", 7)
	inside, finish, done := make(chan struct{}), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		err := k.with(func(secret *[Size]byte) error {
			close(inside)
			<-finish
			if *secret != [Size]byte(bytes.Repeat([]byte{7}, Size)) {
				t.Errorf("in use, the secret became %x", *secret)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}()
	<-inside
	destroyed := make(chan struct{})
	go func() { k.Destroy(); close(destroyed) }()
	for k.Err() == nil {
		runtime.Gosched()
	}
	select {
	case <-destroyed:
		t.Error("Destroy returned during a use")
	default:
	}
	close(finish)
	<-done
	<-destroyed
	if err := k.with(func(*[Size]byte) error { return nil }); !errors.Is(err, ErrDestroyed) {
		t.Errorf("used after: %v", err)
	}
}

// TestCopyDies: go vet refuses copies; one that is made in spite of it is no way
// around Destroy.
func TestCopyDies(t *testing.T) {
	k := testKey(t, "k", 7)
	c := &Key{id: k.id, gone: k.gone, hold: k.hold, wipe: k.wipe}
	k.Destroy()
	if _, err := c.Derive("", nil); !errors.Is(err, ErrDestroyed) || c.Err() == nil {
		t.Errorf("Derive: %v", err)
	}
}
