// Package plantest looks into how SQLite compiles statements. It is for tests.
package plantest

import (
	"fmt"
	"regexp"
	"slices"

	"github.com/queue-runtime/queue/sqlite/internal/sqlitefile"
)

// ForValues returns the parameters of a statement for whose values SQLite has
// compiled it, as it does with LIMIT ?n: its program does not read them, and each run with
// another value, or the same, compiles it anew.
func ForValues(c *sqlitefile.Conn, q string) (found []string, err error) {
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
