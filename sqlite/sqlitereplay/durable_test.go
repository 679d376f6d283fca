package sqlitereplay

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/queue-runtime/queue/replay"
)

// TestDurable: what was claimed and consumed has waited for the disk, unless
// Normal was chosen.
func TestDurable(t *testing.T) {
	for _, normal := range []bool{false, true} {
		ctx := t.Context()
		s, err := Open(ctx, filepath.Join(t.TempDir(), "nonces.db"), &Options{Normal: normal})
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := s.Close(context.Background()); err != nil {
				t.Error(err)
			}
		}()
		now := time.Now()
		r := replay.Request{
			Group: "g", ID: "id", BrokerID: "b", Lease: time.Minute, Now: now, FreshUntil: now.Add(time.Minute),
			RetryWindow: time.Hour, RetainClaimed: now.Add(time.Hour), RetainConsumed: now.Add(time.Hour),
		}
		var claim replay.Claim
		for i, do := range []func() error{
			func() (err error) { claim, err = s.Begin(ctx, r); return err },
			func() error { return s.Renew(ctx, r.Group, r.ID, claim.Token, time.Minute) },
			func() error { return s.Release(ctx, r.Group, r.ID, claim.Token) },
			func() (err error) { claim, err = s.Begin(ctx, r); return err },
			func() error { return s.Consume(ctx, r.Group, r.ID, claim.Token) },
		} {
			all, synced := s.file.Commits()
			if err := do(); err != nil {
				t.Fatal(err)
			}
			allAfter, syncedAfter := s.file.Commits()
			if allAfter != all+1 || (syncedAfter == synced+1) == normal {
				t.Errorf("normal %v, step %d: %d commits, %d of them synced", normal, i, allAfter-all, syncedAfter-synced)
			}
		}
	}
}
