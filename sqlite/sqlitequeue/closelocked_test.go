package sqlitequeue

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/sqlite/internal/sqlitefile"
)

// TestCloseOfALockedFile: while another process holds the lock on the file, Close ends soon
// after its context, however many queues and sessions are open. What it could not give back
// comes again when its locks are over.
func TestCloseOfALockedFile(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "q.db")
		b, err := Open(t.Context(), path, nil)
		if err != nil {
			t.Fatal(err)
		}
		for i := range 4 {
			q, err := b.Open(t.Context(), fmt.Sprint("q", i), nil)
			if err != nil {
				t.Fatal(err)
			}
			for _, id := range []string{"a", "b", "c"} {
				if _, err := q.AcceptSession(t.Context(), id, 0); err != nil {
					t.Fatal(err)
				}
			}
			if err := q.Send(t.Context(), []*driver.Message{{ID: "m"}})[0].Err; err != nil {
				t.Fatal(err)
			}
			if got, err := q.Receive(t.Context(), 1, 0); len(got) != 1 || err != nil {
				t.Fatal(got, err)
			}
		}
		other, err := Open(t.Context(), path, nil)
		if err != nil {
			t.Fatal(err)
		}
		holding, release := make(chan struct{}), make(chan struct{})
		held := make(chan error)
		go func() {
			held <- other.file.Write(t.Context(), func(*sqlitefile.Conn) error {
				close(holding)
				<-release
				return nil
			})
		}()
		<-holding
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		begin := time.Now()
		err = b.Close(ctx)
		if took := time.Since(begin); took > 10*time.Second || err == nil {
			t.Errorf("Close, with 1 s: %v after %s", err, took)
		}
		close(release)
		if err := <-held; err != nil {
			t.Error(err)
		}
		if err := other.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
}
