package sqlitereplay

import (
	"context"
	"path/filepath"
	"strings"
	"testing"

	"github.com/queue-runtime/queue/sqlite/internal/sqlitefile"
)

// TestPlans: no statement of a call walks a whole table or index, or sorts.
func TestPlans(t *testing.T) {
	s, err := Open(context.Background(), filepath.Join(t.TempDir(), "replay.db"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close(context.Background()) }()
	for _, q := range []string{
		selectStore, count, selectGroup, updateGroup, selectSender, nextSender, selectStream, selectHead, updateHead, oldStreams,
		keepStream, deleteStream, selectPage, updateBody, updatePage, deletePage, allPages, duePages,
	} {
		err := s.engine.file.Read(context.Background(), func(c *sqlitefile.Conn) error {
			return c.Query("EXPLAIN QUERY PLAN "+q, func(r sqlitefile.Row) error {
				// (grp=?) alone is all senders of a group.
				d := r.Text(3)
				if strings.HasPrefix(d, "SCAN") || strings.Contains(d, "TEMP B-TREE") || strings.HasSuffix(d, "(grp=?)") {
					t.Errorf("%s\n%s", d, q)
				}
				return nil
			}, make([]any, 6)...)
		})
		if err != nil {
			t.Error(err, q)
		}
	}
}
