package otelqueue_test

import (
	"strings"
	"testing"

	"github.com/queue-runtime/queue/observe"
)

// The gauges of the accounting: of several receivers the larger value counts, and a gauge
// has no series for what is not known, or never was above zero.
func TestAccountedGauges(t *testing.T) {
	x := observed(t, nil)
	ctx := t.Context()
	a := observe.Source{Queue: "accounted", ID: 1 << 40}
	b := observe.Source{Queue: "accounted", ID: 1<<40 + 1}
	never := observe.Source{Queue: "closed", ID: 1<<40 + 2}
	expect := func(when string, want ...string) {
		t.Helper()
		var got []string
		for line := range strings.Lines(x.scrape()) {
			for _, name := range []string{"queue_messages_late{", "queue_messages_missing{", "queue_replay_store_full{"} {
				if strings.HasPrefix(line, name) {
					got = append(got, strings.TrimSpace(line))
				}
			}
		}
		if strings.Join(got, "\n") != strings.Join(want, "\n") {
			t.Errorf("%s:\n%s\nwant\n%s", when, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
	// What is told of a source that is closed, or never opened, changes nothing.
	x.observer.Accounted(ctx, never, observe.Accounted{Late: 1, Missing: 1, Full: 1, Accounting: true})
	x.observer.Configured(ctx, a, observe.Configured{Role: observe.Receiver, Encrypted: true})
	x.observer.Configured(ctx, b, observe.Configured{Role: observe.Receiver, Encrypted: true})
	expect("before the first account")

	x.observer.Accounted(ctx, a, observe.Accounted{Full: 0.25})
	expect("without accounting", `queue_replay_store_full{queue="accounted"} 0.25`)

	x.observer.Accounted(ctx, a, observe.Accounted{Late: 3, Full: 0.25, Accounting: true})
	x.observer.Accounted(ctx, b, observe.Accounted{Late: 2, Missing: 4, Full: 0.5, Accounting: true})
	expect("two receivers", `queue_messages_late{queue="accounted"} 3`, `queue_messages_missing{queue="accounted"} 4`, `queue_replay_store_full{queue="accounted"} 0.5`)

	x.observer.Closed(ctx, b, observe.Closed{Role: observe.Receiver})
	x.observer.Accounted(ctx, a, observe.Accounted{Full: 0.25, Accounting: true})
	expect("all came after all", `queue_messages_late{queue="accounted"} 0`, `queue_replay_store_full{queue="accounted"} 0.25`)

	x.observer.Closed(ctx, a, observe.Closed{Role: observe.Receiver})
	x.observer.Accounted(ctx, a, observe.Accounted{Late: 1, Accounting: true})
	expect("closed")
}
