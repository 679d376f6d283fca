package cas_test

import (
	"fmt"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/queue-runtime/queue/replay/cas"
	"github.com/queue-runtime/queue/replay/replaytest"
)

// TestBytesPerMessage: what steady traffic of 20 senders leaves in the storage once it is
// folded, and what it writes. 10^6 messages with QRT_SOAK=1, 2 x 10^4 else.
func TestBytesPerMessage(t *testing.T) {
	seconds := 20
	if os.Getenv("QRT_SOAK") == "1" {
		seconds = 1000
	}
	for _, span := range []int{256, 1024} {
		t.Run(fmt.Sprint("span=", span), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMemory()
				s := open(t, m, &cas.Options{PageSpan: span})
				x := &replaytest.Traffic{Store: s}
				x.Run(t, seconds)
				stats, err := s.Stats(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				recent := stats.Bytes
				for range 3 {
					time.Sleep(6 * time.Minute)
					if err := s.Probe(t.Context(), "group"); err != nil { // it sweeps
						t.Fatal(err)
					}
					synctest.Wait()
				}
				if stats, err = s.Stats(t.Context()); err != nil {
					t.Fatal(err)
				}
				each := float64(stats.Bytes) / float64(x.Handled)
				t.Logf("%d handled: %.1f bytes of each are stored at the end of the traffic, %.2f once folded; %d bytes written in %d writes, %d for each message",
					x.Handled, float64(recent)/float64(x.Handled), each, m.written, m.writes, m.written/x.Handled)
				if each > 4 {
					t.Errorf("%.1f bytes of each message are stored for good, want at most 4: %+v", each, stats)
				}
			})
		})
	}
}
