package cli

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/queue-runtime/queue/cmd/qrt/internal/display"
	"github.com/queue-runtime/queue/deadletter"
	"github.com/queue-runtime/queue/driver"
)

// What a handler failed with is shown framed, so that it cannot look like another message,
// and left out of evidence, because it may hold payload.
func TestLetterDetail(t *testing.T) {
	text := func(r messageReport) (shown, asJSON string) {
		var b strings.Builder
		r.show(display.New(&b, display.Never))
		j, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		return b.String(), string(j)
	}
	l := &deadletter.Letter{DeadLetter: driver.DeadLetter{Reason: "max_deliveries"}, Detail: "no such account: Jane Doe\nmessage m2\x1b[2J"}
	r := newLetterReport(l)
	shown, asJSON := text(r)
	if !strings.Contains(shown, "│ no such account: Jane Doe\n│ message m2") || strings.Contains(shown, "\x1b") || !strings.Contains(asJSON, `"detail":"no such account: Jane Doe`) {
		t.Errorf("%s\n%s", shown, asJSON)
	}
	if shown, asJSON := text(r.withoutBody()); strings.Contains(shown+asJSON, "Jane") {
		t.Errorf("without body: %s\n%s", shown, asJSON)
	}
	l.Detail, l.DetailErr = "", errors.New("authentication failed")
	if shown, asJSON := text(newLetterReport(l)); !strings.Contains(shown, "does not open  authentication failed") || !strings.Contains(asJSON, `"detail_error":"authentication failed"`) {
		t.Errorf("%s\n%s", shown, asJSON)
	}
}
