package queue

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"testing"
)

// told is an Observer that keeps what it is told.
type told struct {
	NopObserver
	events []string
}

func (o *told) Event(_ context.Context, e Event) {
	o.events = append(o.events, string(e.Kind)+" "+e.ErrorType)
}

// Where one outage follows on another, each that was reported is also reported to be
// over: otherwise its alert would never end.
func TestOutageAfterOutage(t *testing.T) {
	o := &told{}
	h := &health{r: &Receiver{endpoint: &endpoint{scope: newScope(o, "orders", ""), log: slog.New(slog.DiscardHandler)}}}
	away := errors.New("away")
	h.suspend(t.Context(), codeNonceStore, "k1", away, false)
	h.suspend(t.Context(), codeNonceStore, "k1", away, true)
	h.suspend(t.Context(), codeKeyProvider, "k1", away, false) // of a message that was on its way
	h.suspend(t.Context(), codeKeyProvider, "k1", away, true)  // the message that was let through
	h.recovered(t.Context())
	want := []string{
		"paused " + codeNonceStore, "resumed " + codeNonceStore,
		"paused " + codeKeyProvider, "resumed " + codeKeyProvider,
	}
	if !slices.Equal(o.events, want) {
		t.Errorf("told %q, want %q", o.events, want)
	}
}
