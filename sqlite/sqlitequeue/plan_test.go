package sqlitequeue

import (
	"context"
	"path/filepath"
	"strings"
	"testing"

	"github.com/queue-runtime/queue/sqlite/internal/plantest"
	"github.com/queue-runtime/queue/sqlite/internal/sqlitefile"
)

func TestPlans(t *testing.T) {
	b, err := Open(context.Background(), filepath.Join(t.TempDir(), "q.db"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = b.Close(context.Background()) }()
	for _, q := range []string{
		nextSeq, insertContent, insertMessage, countStored, findDuplicate, pruneDedup, selectLocked, setFree, moveToDead, removeMessage,
		selectNextDue, selectDue, selectExpired, selectOver, claimReady, anyReady, completeLocked, renewLocked, sessionTaken, nextSession, firstReady, holdSession,
		withdrawTurn, renewSession, selectHeld, dropSession, leaveSession, selectState, updateState, pruneStates, claimQueued, anyQueued, selectUntil,
		peekRows, selectCounts, countAll, selectOldest, selectQueue, selectContent, uncountDelivery,
		strings.NewReplacer("NEW.queue", "?1", "NEW.session", "?2").Replace(nextInSession("NEW", "?3")),
	} {
		err := b.file.Read(context.Background(), func(c *sqlitefile.Conn) error {
			found, err := plantest.ForValues(c, q)
			if err != nil {
				return err
			}
			if found != nil {
				t.Errorf("compiled for the values of %v: use +?n\n%s", found, q)
			}
			args := make([]any, 12)
			return c.Query("EXPLAIN QUERY PLAN "+q, func(r sqlitefile.Row) error {
				d := r.Text(3)
				t.Log(d)
				if strings.HasPrefix(d, "SCAN") && d != "SCAN CONSTANT ROW" || strings.Contains(d, "TEMP B-TREE") {
					t.Errorf("%s\n%s", d, q)
				}
				return nil
			}, args...)
		})
		if err != nil {
			t.Error(err, q)
		}
	}
}
