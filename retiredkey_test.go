package queue_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"testing"
	"time"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/envelope"
	"github.com/queue-runtime/queue/internal/drbg"
	"github.com/queue-runtime/queue/keys"
	"github.com/queue-runtime/queue/memqueue"
)

// hidden is bytes that a heap dump does not show in this place.
type hidden struct {
	name  string
	bytes []byte // each with all bits flipped
}

func flip(b []byte) []byte {
	b = bytes.Clone(b)
	for i := range b {
		b[i] = ^b[i]
	}
	return b
}

// swapped has the bytes of each 32-bit word in reverse order, as portable code keeps an AES
// key schedule on a little-endian machine.
func swapped(b []byte) []byte {
	b = bytes.Clone(b)
	for i := 0; i+4 <= len(b); i += 4 {
		slices.Reverse(b[i : i+4])
	}
	return b
}

// traces are the bytes that a process must not hold once the key is retired: the key
// itself, and the AES key of the message with that envelope, which begins its key schedule
// (FIPS 197, Section 5.2).
func traces(t *testing.T, secret []byte, body []byte) (out []hidden) {
	t.Helper()
	done := make(chan struct{})
	go func() { // on a stack of its own, which ends
		defer close(done)
		k, err := keys.New("k1", secret, nil)
		if err != nil {
			t.Error(err)
			return
		}
		defer k.Destroy()
		e, err := envelope.Parse(body)
		if err != nil {
			t.Error(err)
			return
		}
		info := append([]byte("QRE1/A256GCM-HKDF-SHA256-COMMIT/v1\x00"), byte(len(e.KeyID)))
		info = append(append(info, e.KeyID...), e.Salt[:]...)
		okm, err := k.Derive("", info)
		if err != nil {
			t.Error(err)
			return
		}
		for _, s := range []struct {
			name  string
			bytes []byte
		}{{"master key", secret}, {"message key", okm[:32]}} {
			out = append(out, hidden{s.name, flip(s.bytes)}, hidden{s.name + ", words swapped", flip(swapped(s.bytes))})
		}
		clear(okm[:])
		clear(secret)
	}()
	<-done
	return out
}

// found dumps the heap and returns the names of those in it.
func found(t *testing.T, list []hidden) (names []string) {
	t.Helper()
	t.Cleanup(drbg.Prime) // collecting garbage empties the generator's pool
	runtime.GC()          // twice: the first may only queue clean-ups
	runtime.GC()
	f, err := os.Create(filepath.Join(t.TempDir(), "heap"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	debug.WriteHeapDump(f.Fd())
	dump, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range list {
		pattern := flip(h.bytes)
		if bytes.Contains(dump, pattern) {
			names = append(names, h.name)
		}
		clear(pattern)
	}
	clear(dump)
	return names
}

// retirable is a ring with the key k1. It is a function of its own, so that its caller's
// frame does not keep the key.
func retirable(t *testing.T, secret []byte) *keys.Ring {
	t.Helper()
	first, err := keys.New("k1", secret, nil)
	if err != nil {
		t.Fatal(err)
	}
	ring, err := keys.NewRing(first)
	if err != nil {
		t.Fatal(err)
	}
	return ring
}

// Once the caches have seen that a key was removed from a Ring, neither it nor an AES key
// schedule that was made of it is left, in a sender and a receiver that live on.
func TestRetiredKeyLeavesNothing(t *testing.T) {
	ctx := t.Context()
	secret := make([]byte, keys.Size)
	for i := range secret {
		secret[i] = byte(i*37 + os.Getpid())
	}
	ring := retirable(t, secret)
	lists := make(chan struct{}, 1000)
	cached, err := keys.NewCached(ring, &keys.CachedOptions{ListTTL: 20 * time.Millisecond, OnEvent: func(e keys.CacheEvent) {
		if e.Kind == keys.CacheFetch && e.Call == "ValidKeyIDs" {
			select {
			case lists <- struct{}{}: // sent after the listeners of OnRetired were called
			default:
			}
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cached.Close(context.Background()) }()
	broker := memqueue.New(&memqueue.Options{Default: memqueue.QueueOptions{}})
	c, err := queue.New(broker, &queue.Options{Keys: cached, Logger: quiet(), Crypto: queue.CryptoConfig{Enabled: true, PlaintextPolicy: queue.Reject}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close(context.Background()) }()
	s, err := c.Sender(ctx, orders, nil)
	if err != nil {
		t.Fatal(err)
	}
	r, err := c.Receiver(ctx, orders, &queue.ReceiverOptions{Wait: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	var body []byte
	exchange := func(id keys.ID) {
		t.Helper()
		if _, err := s.Send(ctx, &queue.Message{Body: []byte("a")}); err != nil {
			t.Fatal(err)
		}
		stored, err := broker.Attacker().Read(ctx, orders)
		if err != nil || len(stored) != 1 {
			t.Fatalf("%d stored, %v", len(stored), err)
		}
		body = stored[0].Body
		d, err := r.ReceiveOne(ctx)
		if err != nil || d.KeyID != id {
			t.Fatalf("received %v, %v; want it under that key", d, err)
		}
		if err := d.Complete(ctx); err != nil {
			t.Fatal(err)
		}
	}
	exchange("k1")
	list := traces(t, secret, body)
	before := found(t, list)
	for _, want := range []string{"master key", "message key"} {
		if !slices.ContainsFunc(before, func(s string) bool { return s == want || s == want+", words swapped" }) {
			t.Errorf("before the key is retired the dump has %q, and not the %s: this test proves nothing", before, want)
		}
	}
	second, err := keys.Generate("k2", nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{ring.Add(second), ring.SetCurrent("k2"), ring.Remove("k1")} {
		if err != nil {
			t.Fatal(err)
		}
	}
	exchange("k2")
	for len(lists) > 0 {
		<-lists
	}
	for range 2 { // the first may have begun before
		<-lists
	}
	if after := found(t, list); len(after) > 0 {
		t.Errorf("after the key was retired the dump has %s", after)
	}
	runtime.KeepAlive(s)
	runtime.KeepAlive(r)
}
