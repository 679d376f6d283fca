package sqlitefile

import (
	"errors"
	"fmt"
	"slices"

	"modernc.org/sqlite"

	"github.com/queue-runtime/queue/driver"
)

// readSchema reads the definition of every table, index, view and trigger.
const readSchema = `SELECT type || ' ' || name || ' on ' || tbl_name || ': ' || ifnull(sql, '') FROM sqlite_schema
	WHERE name NOT LIKE 'sqlite\_stat%' ESCAPE '\' ORDER BY 1`

// schemaOf returns the definitions of a database.
func schemaOf(c *Conn) (all []string, err error) {
	err = c.Query(readSchema, func(r Row) error {
		all = append(all, r.Text(0))
		return nil
	})
	return all, err
}

// expectSchema returns what the migrations up to a version make.
func expectSchema(migrations []string) (all []string, err error) {
	raw, err := new(sqlite.Driver).Open(":memory:")
	if err != nil {
		return nil, err
	}
	c := &Conn{raw: raw, statements: make(map[string]statement)}
	for _, m := range migrations {
		if err == nil {
			err = c.script(m)
		}
	}
	if err == nil {
		all, err = schemaOf(c)
	}
	return all, errors.Join(err, c.close())
}

// compareSchema refuses a file whose schema is not exactly what the migrations up
// to version make: what else is there, a trigger or a view, was planted.
func (f *File) compareSchema(c *Conn, version int64) error {
	want, err := expectSchema(f.config.Migrations[:version])
	if err != nil {
		return err
	}
	got, err := schemaOf(c)
	if err != nil {
		return err
	}
	for _, s := range got {
		if !slices.Contains(want, s) {
			return driver.Errorf(driver.Corrupt, "%q has a schema that this program did not make (%.60q): %w", f.path, s, ErrForeign)
		}
	}
	if len(got) != len(want) {
		return driver.Errorf(driver.Corrupt, "%q lacks %d of the tables and indexes of its schema: %w", f.path, len(want)-len(got), ErrForeign)
	}
	return nil
}

// verifySchema compares the schema again if it was changed since it was compared
// last: whatever else is in the file may run without end, and whatever it does is done in
// the name of this program. It is called in each transaction, before anything else is read.
func (f *File) verifySchema(c *Conn) error {
	now, err := c.Int("PRAGMA schema_version")
	if err != nil || now == f.schemaVersion.Load() {
		return err
	}
	version, err := c.Int("PRAGMA user_version")
	if err != nil {
		return err
	}
	if err := f.known(version); err != nil { // a newer program has opened it
		return err
	}
	if err := f.compareSchema(c, int64(len(f.config.Migrations))); err != nil {
		return fmt.Errorf("the schema was changed while the file was open: %w", err)
	}
	f.schemaVersion.Store(now)
	return nil
}
