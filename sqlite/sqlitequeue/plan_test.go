package sqlitequeue

import (
	"context"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

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
		strings.NewReplacer("ROW.queue", "?1", "ROW.session", "?2", "TURN", "?3").Replace(nextInSession),
	} {
		err := b.file.Read(context.Background(), func(c *sqlitefile.Conn) error {
			found, err := plannedForValues(c, q)
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

// plannedForValues returns the parameters of a statement for whose values SQLite has
// compiled it, as it does with LIMIT ?n: its program does not read them, and each run with
// another value, or the same, compiles it anew.
func plannedForValues(c *sqlitefile.Conn, q string) (found []string, err error) {
	read := make(map[string]bool)
	err = c.Query("EXPLAIN "+q, func(r sqlitefile.Row) error {
		if r.Text(1) == "Variable" {
			read[fmt.Sprint("?", r.Int(2))] = true
		}
		return nil
	}, slices.Repeat([]any{int64(7)}, 12)...)
	for _, p := range regexp.MustCompile(`\?\d+`).FindAllString(q, -1) {
		if !read[p] {
			found = append(found, p)
		}
	}
	return found, err
}
