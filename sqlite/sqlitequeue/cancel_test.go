package sqlitequeue

import (
	"context"
	"errors"
	"testing"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/sqlite/internal/sqlitefile"
)

// late is a context that ends with the next commit: after a claim is in the file,
// and before the call that made it has returned.
type late struct {
	context.Context
	file  *sqlitefile.File
	begun int64
}

func newLate(ctx context.Context, b *Broker) *late {
	all, _ := b.file.Commits()
	return &late{ctx, b.file, all}
}

func (l *late) Err() error {
	if all, _ := l.file.Commits(); all > l.begun {
		return context.Canceled
	}
	return l.Context.Err()
}

// TestCanceledClaim: a call whose context ends keeps nothing locked, and a
// message that no caller got does not count as delivered.
func TestCanceledClaim(t *testing.T) {
	ctx := t.Context()
	b, q, closed := fresh(ctx, t)
	defer closed()
	for _, r := range q.Send(ctx, []*driver.Message{{ID: "m"}, {ID: "n", SessionID: "s"}}) {
		if r.Err != nil {
			t.Fatal(r.Err)
		}
	}
	canceled := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v, want context.Canceled", what, err)
		}
	}
	_, err := q.AcceptSession(newLate(ctx, b), "", 0)
	canceled("AcceptSession", err)
	s, err := q.AcceptSession(ctx, "s", 0)
	if err != nil {
		t.Fatalf("AcceptSession afterwards: %v", err)
	}
	for what, source := range map[string]driver.Source{"queue": q, "session": s} {
		_, err := source.Receive(newLate(ctx, b), 2, 0)
		canceled(what, err)
		got, err := source.Receive(ctx, 2, 0)
		if err != nil || len(got) != 1 || got[0].Count != 1 {
			t.Errorf("%s: %d messages afterwards, %v; want one at its first delivery", what, len(got), err)
		}
	}
}
