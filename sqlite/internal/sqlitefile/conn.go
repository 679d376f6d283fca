package sqlitefile

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net/url"
	"path/filepath"
	"strings"

	"modernc.org/sqlite"
)

// Conn is one connection to the file. It speaks to the SQLite driver through
// database/sql/driver and not through database/sql: a transaction must stay on
// one connection in any case, and the pool, its locks and its copies cost a
// third of the time of a short statement.
//
// A Conn is used by one goroutine at a time. It keeps every statement it was
// ever given, so statements are constants, with values only as arguments.
type Conn struct {
	raw        driver.Conn
	ctx        context.Context // of the statements: see within
	statements map[string]statement
	args       []driver.NamedValue
	row        []driver.Value
	epoch      uint64
}

type statement interface {
	driver.Stmt
	driver.StmtExecContext
	driver.StmtQueryContext
}

// connect opens a connection to a file that exists.
func connect(path string) (*Conn, error) {
	// A URI, because SQLite would cut a plain name at its first question mark.
	// Defensive mode keeps SQL, triggers planted in the file included, from
	// corrupting it by writing to shadow tables or the schema.
	slashed := filepath.ToSlash(path)
	if !strings.HasPrefix(slashed, "/") {
		slashed = "/" + slashed // a Windows drive
	}
	name := url.URL{Scheme: "file", Path: slashed, OmitHost: true, RawQuery: "mode=rw&_defensive=1"}
	raw, err := new(sqlite.Driver).Open(name.String())
	if err != nil {
		return nil, err
	}
	return &Conn{raw: raw, ctx: context.Background(), statements: make(map[string]statement)}, nil
}

// within calls do. When ctx ends, SQLite interrupts the statement under way, and those that
// follow fail. It costs a goroutine for each statement, so what is known to end soon goes
// without.
func (c *Conn) within(ctx context.Context, do func(*Conn) error) error {
	c.ctx = ctx
	defer func() { c.ctx = context.Background() }()
	return do(c)
}

// Epoch is the same in two transactions of [File.Write] or [File.WriteUnsynced] if
// nothing has changed the file from the first to the second but what was run on this
// connection, and none of that was undone. What the first has read and written still
// holds in the second. It is above 0.
func (c *Conn) Epoch() uint64 { return c.epoch }

// dataVersion changes with every change of the file, whichever connection makes it. It is
// that of the view that the connection's last transaction had
// (sqlite.org/c3ref/c_fcntl_begin_atomic_write.html, SQLITE_FCNTL_DATA_VERSION). A tenth
// of the time of PRAGMA data_version, which SQLite compiles anew each time.
func (c *Conn) dataVersion() (uint32, error) {
	return c.raw.(sqlite.FileControl).FileControlDataVersion("main")
}

// Exec runs a statement to its end and returns how many rows it changed.
// Arguments are int64, string, []byte or nil.
func (c *Conn) Exec(sql string, args ...any) (int64, error) {
	r, err := c.exec(sql, args)
	if err != nil {
		return 0, err
	}
	return r.RowsAffected()
}

// Insert runs an INSERT of one row and returns its ID.
func (c *Conn) Insert(sql string, args ...any) (int64, error) {
	r, err := c.exec(sql, args)
	if err != nil {
		return 0, err
	}
	return r.LastInsertId()
}

func (c *Conn) exec(sql string, args []any) (driver.Result, error) {
	s, err := c.prepare(sql)
	if err != nil {
		return nil, err
	}
	r, err := s.ExecContext(c.ctx, c.bind(args))
	c.unbind()
	return r, err
}

// Query calls each with every row in turn; a row is valid until each returns,
// its strings and byte slices for longer. An error of each ends it. Within each
// the connection may run any statement but this one.
func (c *Conn) Query(sql string, each func(Row) error, args ...any) (err error) {
	s, err := c.prepare(sql)
	if err != nil {
		return err
	}
	rows, err := s.QueryContext(c.ctx, c.bind(args))
	c.unbind()
	if err != nil {
		return err
	}
	defer func() {
		if e := rows.Close(); err == nil {
			err = e
		}
	}()
	// each may run a query of its own on this connection.
	row := append(c.row[:0], make([]driver.Value, len(rows.Columns()))...)
	c.row = nil
	defer func() { clear(row); c.row = row }()
	for {
		switch err := rows.Next(row); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		if err := each(row); err != nil {
			return err
		}
	}
}

// One is Query for at most one row; it reports whether there was one.
func (c *Conn) One(sql string, each func(Row) error, args ...any) (found bool, err error) {
	err = c.Query(sql, func(r Row) error {
		if found {
			return nil
		}
		found = true
		return each(r)
	}, args...)
	return found, err
}

// Int returns the first column of the first row, 0 if there is none.
func (c *Conn) Int(sql string, args ...any) (int64, error) {
	var n int64
	_, err := c.One(sql, func(r Row) error { n = r.Int(0); return nil }, args...)
	return n, err
}

// Text is Int for a text.
func (c *Conn) Text(sql string, args ...any) (string, error) {
	var s string
	_, err := c.One(sql, func(r Row) error { s = r.Text(0); return nil }, args...)
	return s, err
}

// script runs statements that are not worth keeping.
func (c *Conn) script(sql string) error {
	_, err := c.raw.(driver.ExecerContext).ExecContext(context.Background(), sql, nil)
	return err
}

func (c *Conn) prepare(sql string) (statement, error) {
	if s, ok := c.statements[sql]; ok {
		return s, nil
	}
	prepared, err := c.raw.Prepare(sql)
	if err != nil {
		return nil, err
	}
	s, ok := prepared.(statement)
	if !ok {
		return nil, errors.Join(fmt.Errorf("sqlite driver: unexpected statement %T", prepared), prepared.Close())
	}
	c.statements[sql] = s
	return s, nil
}

func (c *Conn) bind(args []any) []driver.NamedValue {
	for i, a := range args {
		c.args = append(c.args, driver.NamedValue{Ordinal: i + 1, Value: a})
	}
	return c.args
}

func (c *Conn) unbind() {
	clear(c.args) // keep no body alive
	c.args = c.args[:0]
}

func (c *Conn) close() error {
	var err error
	for _, s := range c.statements {
		err = errors.Join(err, s.Close())
	}
	return errors.Join(err, c.raw.Close())
}

// Row is one row of a result. Its methods never fail: an attacker who can write to the
// file can store any value in any column, and a value of an unexpected kind reads as
// the zero value.
type Row []driver.Value

// Int returns an integer column; 0 for anything else.
func (r Row) Int(i int) int64 {
	n, _ := r[i].(int64)
	return n
}

// Text returns a text column; empty for anything else.
func (r Row) Text(i int) string {
	s, _ := r[i].(string)
	return s
}

// Bytes returns the bytes of a blob or text column; nil for anything else.
func (r Row) Bytes(i int) []byte {
	switch v := r[i].(type) {
	case []byte:
		return v
	case string:
		return []byte(v)
	}
	return nil
}

// Null reports whether a column is NULL.
func (r Row) Null(i int) bool { return r[i] == nil }
