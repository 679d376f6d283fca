package replay

import (
	"context"
	"encoding/binary"
	"runtime"
	"sync/atomic"
	"testing"
	"time"
)

func benchID(n uint64) ID {
	b := make([]byte, 1+6+32+12) // length-prefixed key ID, salt, nonce
	binary.BigEndian.PutUint64(b[len(b)-8:], n)
	return ID(b)
}

func benchRequest(n uint64, now time.Time) Request {
	return Request{
		Group: "task-tactician", ID: benchID(n), BrokerID: "5c1a0c3e-8f0e-4d8c-9a57-0a6ad2b1f7f1",
		Lease: time.Minute, Now: now, FreshUntil: now.Add(time.Minute), RetryWindow: 24 * time.Hour,
		RetainClaimed: now.Add(24 * time.Hour), RetainConsumed: now.Add(10 * time.Minute),
	}
}

// BenchmarkMemoryEntry reports what one remembered envelope costs, index and
// calendar included, in a store that is full.
func BenchmarkMemoryEntry(b *testing.B) {
	const entries = 1 << 20
	for b.Loop() {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		m, err := NewMemory(&MemoryOptions{MaxEntries: entries})
		if err != nil {
			b.Fatal(err)
		}
		start := time.Now()
		for n := range uint64(entries) {
			// Spread as traffic is: 500 a second.
			r := benchRequest(n, start)
			spread := time.Duration(n) * 2 * time.Millisecond
			r.RetainClaimed, r.RetainConsumed = r.RetainClaimed.Add(spread), r.RetainConsumed.Add(spread)
			c, err := m.Begin(context.Background(), r)
			if err == nil {
				err = m.Consume(context.Background(), r.Group, r.ID, c.Token)
			}
			if err != nil {
				b.Fatal(err)
			}
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/entries, "B/entry")
		runtime.KeepAlive(m)
	}
}

// BenchmarkMemoryMessage is what one message costs a receiver: Begin and Consume.
func BenchmarkMemoryMessage(b *testing.B) {
	m, err := NewMemory(&MemoryOptions{MaxEntries: 1 << 22})
	if err != nil {
		b.Fatal(err)
	}
	var n atomic.Uint64
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			r := benchRequest(n.Add(1), time.Now())
			c, err := m.Begin(context.Background(), r)
			if err == nil {
				err = m.Consume(context.Background(), r.Group, r.ID, c.Token)
			}
			if err != nil {
				b.Error(err)
				return
			}
		}
	})
}
