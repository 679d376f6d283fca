package postgresqueue_test

import (
	"testing"
	"time"

	"github.com/queue-runtime/queue/driver"
)

// TestAge: how old the oldest message is comes from the server, whose clock wrote when it
// was enqueued. A planted time is no error.
func TestAge(t *testing.T) {
	t.Parallel()
	for enqueued, want := range map[string][2]time.Duration{ // the least age and the greatest
		`clock_timestamp() - interval '1 hour'`: {time.Hour, time.Hour + time.Minute},
		`clock_timestamp() + interval '1 hour'`: {-time.Hour - time.Minute, -time.Hour + time.Minute},
		`'4000-01-01 BC'`:                       {99 * 365 * 24 * time.Hour, 101 * 365 * 24 * time.Hour},
		`'infinity'`:                            {},
		`'-infinity'`:                           {},
	} {
		t.Run(enqueued, func(t *testing.T) {
			t.Parallel()
			rawURL, schema := newSchema(t, "")
			q := openQueue(t, rawURL)
			send(t, q, &driver.Message{ID: "a"})
			sql(t, `UPDATE `+schema+`.message SET enqueued = `+enqueued)
			st, err := q.Stats(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if want == [2]time.Duration{} {
				if !st.Oldest.IsZero() {
					t.Errorf("oldest is %s, want unknown", st.Oldest)
				}
				return
			}
			if age := time.Since(st.Oldest); age < want[0] || age > want[1] {
				t.Errorf("age is %s, want %s to %s", age, want[0], want[1])
			}
		})
	}
}
