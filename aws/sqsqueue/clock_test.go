package sqsqueue

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/queue-runtime/queue/driver"
)

// TestWrongClock: a client whose clock is a day off works: the SDK signs with the time that
// the service tells, after one request that is refused.
func TestWrongClock(t *testing.T) {
	for _, code := range []string{"InvalidSignatureException", "RequestTimeTooSkewed", "RequestExpired", "SignatureDoesNotMatch"} {
		for _, off := range []time.Duration{24 * time.Hour, -24 * time.Hour} {
			t.Run(fmt.Sprint(code, off), func(t *testing.T) {
				t.Parallel()
				refused := 0
				f := newFakeSQS()
				f.create("q", nil)
				x := serve(t, f)
				x.before = func(w http.ResponseWriter, r *http.Request, action string, n int) bool {
					there := time.Now().Add(off)
					w.Header().Set("Date", there.UTC().Format(http.TimeFormat))
					signed, err := time.Parse("20060102T150405Z", r.Header.Get("X-Amz-Date"))
					if err == nil && signed.Sub(there).Abs() < 5*time.Minute {
						return true
					}
					x.mu.Lock()
					refused++
					x.mu.Unlock()
					w.Header().Set("Content-Type", "application/x-amz-json-1.0")
					w.WriteHeader(http.StatusForbidden)
					fmt.Fprintf(w, `{"__type":"com.amazon.coral.service#%s","message":"Signature expired"}`, code)
					return false
				}
				b := x.broker(t, unhurried)
				q, err := b.Open(t.Context(), "q", nil)
				if driver.KindOf(err) == driver.Unavailable { // the SDK does not repeat it by itself
					q, err = b.Open(t.Context(), "q", nil)
				}
				if err != nil {
					t.Fatal(err)
				}
				for range 3 {
					if err := q.Send(t.Context(), []*driver.Message{{ID: "a", Body: []byte("x")}})[0].Err; err != nil {
						t.Fatal(err)
					}
				}
				d, err := q.Receive(t.Context(), 1, time.Second)
				if err != nil || len(d) != 1 {
					t.Fatalf("Receive: %d messages, %v", len(d), err)
				}
				if errs := q.Settle(t.Context(), []driver.Settlement{{Delivery: d[0], Kind: driver.Complete}}); errs[0] != nil {
					t.Error(errs[0])
				}
				if refused != 1 {
					t.Errorf("%d requests were refused, want the first", refused)
				}
			})
		}
	}
}
