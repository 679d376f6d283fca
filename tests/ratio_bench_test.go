package tests

import (
	"slices"
	"testing"
	"time"

	"github.com/queue-runtime/queue/envelope"
)

// BenchmarkRatio measures what an envelope costs beside plain AES-256-GCM so that
// a busy machine does not decide: both run in turns, a few microseconds each, and
// the quickest turn of each counts. It reports
//
//	gcm-ns, envelope-ns   the quickest turn, for one message
//	times-gcm             their ratio
//	median-times          the ratio of the two medians
//
// op=seal appends to a buffer of the caller's, op=open allocates the plaintext,
// op=open-into appends it to a buffer. Plain GCM has nothing to authenticate but
// the plaintext, the envelope also its header and the context.
func BenchmarkRatio(b *testing.B) {
	for _, size := range sizes {
		m := newMessage(b)
		plaintext := make([]byte, size)
		aead, s, o := plain(b), m.sealer(b), envelope.NewOpener(nil)
		dst := make([]byte, 0, envelope.SealedSize(&m.header, size))
		room := make([]byte, 0, size)
		bare := aead.Seal(nil, nil, plaintext, nil)
		body, err := s.Seal(nil, &m.header, plaintext, m.data)
		if err != nil {
			b.Fatal(err)
		}
		parsed, err := envelope.Parse(body)
		if err != nil {
			b.Fatal(err)
		}
		b.Run("op=seal/"+label(size), func(b *testing.B) {
			turns(b, size,
				func() error { aead.Seal(dst, nil, plaintext, nil); return nil },
				func() error { _, err := s.Seal(dst, &m.header, plaintext, m.data); return err })
		})
		b.Run("op=open/"+label(size), func(b *testing.B) {
			turns(b, size,
				func() error { _, err := aead.Open(nil, nil, bare, nil); return err },
				func() error { _, err := o.Open(nil, &parsed, m.key, m.data); return err })
		})
		b.Run("op=open-into/"+label(size), func(b *testing.B) {
			turns(b, size,
				func() error { _, err := aead.Open(room, nil, bare, nil); return err },
				func() error { _, err := o.Open(room, &parsed, m.key, m.data); return err })
		})
	}
}

// turns runs both in turns and reports.
func turns(b *testing.B, size int, gcm, env func() error) {
	each := max(1, 64<<10/(size+512)) // messages a turn
	var times [2][]time.Duration
	for b.Loop() {
		for i, f := range [...]func() error{gcm, env} {
			begin := time.Now()
			for range each {
				if err := f(); err != nil {
					b.Fatal(err)
				}
			}
			times[i] = append(times[i], time.Since(begin))
		}
	}
	for i := range times {
		slices.Sort(times[i])
	}
	one := func(d time.Duration) float64 { return float64(d) / float64(each) }
	quick := [2]time.Duration{times[0][0], times[1][0]}
	median := [2]time.Duration{times[0][len(times[0])/2], times[1][len(times[1])/2]}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(one(quick[0]), "gcm-ns")
	b.ReportMetric(one(quick[1]), "envelope-ns")
	b.ReportMetric(float64(quick[1])/float64(quick[0]), "times-gcm")
	b.ReportMetric(float64(median[1])/float64(median[0]), "median-times")
}
