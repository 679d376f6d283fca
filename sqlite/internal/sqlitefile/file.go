package sqlitefile

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/queue-runtime/queue/driver"
)

// The marks in the header of each kind of file (PRAGMA application_id), so that
// none is taken for another: "QRTq" and "QRTn".
const (
	QueueID int32 = 0x51525471
	NonceID int32 = 0x5152546e
)

// Errors of Open that callers tell apart.
var (
	// ErrForeign: the file is an SQLite database of another application.
	ErrForeign = errors.New("the file belongs to another application")
	// ErrQueue: it is a queue's.
	ErrQueue = fmt.Errorf("the file is a queue's: %w", ErrForeign)
	// ErrNewer: the file's schema is newer than this program.
	ErrNewer = errors.New("the file was written by a newer version: update this program")
	// ErrClosed is the driver.Error after Close.
	ErrClosed = driver.Errorf(driver.Closed, "the file is closed")
)

// Config says what file to open and how.
type Config struct {
	// Path is the file's; see resolve.
	Path string
	// Create makes the file when it does not exist.
	Create bool
	// ApplicationID is QueueID or NonceID.
	ApplicationID int32
	// Migrations are the scripts that lead from each version of the schema
	// (PRAGMA user_version) to the next; the first makes it. At least one.
	Migrations []string
	// Normal selects synchronous NORMAL in place of FULL.
	Normal bool
	// LockTimeout is how long the lock of another process is waited for. Above zero.
	LockTimeout time.Duration
	// Readers is how many connections read at once. Above zero.
	Readers int
	// Changed is called, never twice at once, when another connection has
	// changed the file; only while Watch is on. It must not wait. Nil for none.
	Changed func()
}

const (
	pageSize = 4096
	// checkpointPages is after how many pages of the log they are moved into
	// the file: 16 MiB, so that what is sent and completed in between is
	// never written there at all.
	checkpointPages = 4096
	// logLimit is the size in bytes to which the log is cut back when it has
	// grown under a long read.
	logLimit = 64 << 20
	// Bytes of pages that a connection keeps in memory.
	writerCache = 16 << 20
	readerCache = 2 << 20
)

// File is one open file. It owns one goroutine, on Linux two while a caller has watched, and
// one more while calls are repeated that shared a transaction which failed; they end with
// Close. Its methods are safe for concurrent use.
type File struct {
	path   string
	config Config
	opened []identity
	// owner is full while a goroutine uses the writer and what follows it.
	owner  chan struct{}
	writer *Conn
	// unsynced is set while the writer does not wait for the disk.
	unsynced bool
	// version is the writer's dataVersion after its last commit or look.
	version uint32

	readers chan *Conn
	closing chan struct{}
	life    context.Context // until Close
	end     context.CancelFunc
	done    chan struct{} // run has ended
	wake    chan struct{} // capacity 1: there may be something to do
	turns   turnstile
	rivals  atomic.Bool               // another process was in the way lately: only run writes
	looked  atomic.Pointer[time.Time] // when the file was last seen in its place
	commits [2]atomic.Int64           // those that did not wait for the disk, those that did

	schemaVersion atomic.Int64 // of sqlite, when the schema was last compared

	mu       sync.Mutex // guards what follows, never held across a wait
	pending  []*request
	watchers int
	closed   bool
	closeErr error
}

// opening is held while a file is found and created; see createEmpty.
var opening sync.Mutex

// Open opens the file, creates its schema or migrates it.
func Open(ctx context.Context, c Config) (*File, error) {
	opening.Lock()
	path, err := resolve(c.Path, c.Create)
	opening.Unlock()
	if err != nil {
		return nil, openError(ctx, err)
	}
	writer, err := connect(path)
	if err != nil {
		return nil, openError(ctx, err)
	}
	f := &File{
		path:    path,
		config:  c,
		writer:  writer,
		readers: make(chan *Conn, c.Readers),
		closing: make(chan struct{}),
		done:    make(chan struct{}),
		wake:    make(chan struct{}, 1),
		owner:   make(chan struct{}, 1),
	}
	f.life, f.end = context.WithCancel(context.Background())
	if err := f.prepare(ctx); err != nil {
		return nil, openError(ctx, errors.Join(err, writer.close()))
	}
	if err := f.verifySchema(writer); err != nil {
		return nil, openError(ctx, errors.Join(err, writer.close()))
	}
	if f.opened, err = identify(path); err != nil {
		return nil, openError(ctx, errors.Join(err, writer.close()))
	}
	f.turns = openTurnstile(path)
	for range c.Readers {
		f.readers <- nil // opened when first needed
	}
	go f.run()
	return f, nil
}

// Commits returns how many transactions of this File were committed, and how many
// of them were on the disk before their callers were answered.
func (f *File) Commits() (all, synced int64) {
	synced = f.commits[1].Load()
	return f.commits[0].Load() + synced, synced
}

// Path returns the absolute path of the file, symbolic links resolved.
func (f *File) Path() string { return f.path }

// prepare recognises the file, sets the connection up and brings the schema up
// to date. Others may do the same at the same time, so each step may meet their
// locks and is tried again as a whole.
func (f *File) prepare(ctx context.Context) error {
	var version int64
	for _, step := range [...]func() error{
		func() (err error) {
			version, err = f.recognise()
			return err
		},
		func() error {
			if version != 0 {
				return nil
			}
			// Only an empty file takes it: freed pages can then be given back.
			return f.writer.script("PRAGMA page_size = " + strconv.Itoa(pageSize) + "; PRAGMA auto_vacuum = INCREMENTAL")
		},
		func() error {
			mode, err := f.writer.Text("PRAGMA journal_mode = WAL")
			if err == nil && mode != "wal" {
				err = fmt.Errorf("write-ahead logging is not available here (journal mode %q): use a local disk", mode)
			}
			return err
		},
		func() error { return configure(f.writer, f.config.Normal, writerCache) },
		f.migrate,
	} {
		if err := f.awaitLock(ctx, step); err != nil {
			return err
		}
	}
	return nil
}

// recognise returns the version of the schema, 0 for an empty file. It reads in
// one transaction: between two, another process may have made the schema.
func (f *File) recognise() (version int64, err error) {
	if _, err := f.writer.Exec("BEGIN"); err != nil {
		return 0, err
	}
	defer rollback(f.writer)
	pages, err := f.writer.Int("PRAGMA page_count")
	if err != nil {
		return 0, err
	}
	application, err := f.writer.Int("PRAGMA application_id")
	if err != nil {
		return 0, err
	}
	if version, err = f.writer.Int("PRAGMA user_version"); err != nil {
		return 0, err
	}
	tables, err := f.writer.Int("SELECT count(*) FROM sqlite_schema")
	if err != nil {
		return 0, err
	}
	// A process that creates a file writes its first page before its schema.
	fresh := pages <= 1 && application == 0 && version == 0 && tables == 0
	switch {
	case fresh:
		return 0, nil
	case application == int64(QueueID) && f.config.ApplicationID != QueueID:
		return 0, driver.Errorf(driver.Other, "%q: %w", f.path, ErrQueue)
	case application != int64(f.config.ApplicationID):
		return 0, driver.Errorf(driver.Other, "%q: %w", f.path, ErrForeign)
	case version < 1:
		return 0, driver.Errorf(driver.Corrupt, "%q has schema %d", f.path, version)
	}
	if err := f.known(version); err != nil {
		return version, err
	}
	// Before any migration runs: it would meet what was planted.
	return version, f.compareSchema(f.writer, version)
}

// known refuses a schema that is newer than this program.
func (f *File) known(version int64) error {
	if known := int64(len(f.config.Migrations)); version > known {
		return driver.Errorf(driver.Other, "%q has schema %d, this program knows %d: %w", f.path, version, known, ErrNewer)
	}
	return nil
}

// migrate brings the schema up to date in one transaction.
func (f *File) migrate() error {
	if _, err := f.writer.Exec("BEGIN IMMEDIATE"); err != nil {
		return err
	}
	version, err := f.writer.Int("PRAGMA user_version")
	if err == nil {
		err = f.known(version)
	}
	known := int64(len(f.config.Migrations))
	if err == nil && version == known {
		// BEGIN IMMEDIATE takes a file that can only be read for what it is.
		// So that this is known at once, write, and take it back.
		err = f.writer.script(fmt.Sprintf("PRAGMA user_version = %d", known))
		rollback(f.writer)
		return err
	}
	for ; err == nil && version < known; version++ {
		if err = f.writer.script(f.config.Migrations[version]); err == nil {
			err = f.writer.script(fmt.Sprintf("PRAGMA application_id = %d; PRAGMA user_version = %d", f.config.ApplicationID, version+1))
		}
	}
	if err == nil {
		_, err = f.writer.Exec("COMMIT")
	}
	if err != nil {
		rollback(f.writer)
	}
	return err
}

// configure sets what holds for a connection and not for the file.
func configure(c *Conn, normal bool, cache int) error {
	synchronous := "FULL"
	if normal {
		synchronous = "NORMAL"
	}
	// trusted_schema and cell_size_check: an attacker may have altered the file
	// (sqlite.org/security.html).
	return c.script("PRAGMA synchronous = " + synchronous +
		"; PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON; PRAGMA mmap_size = 0; PRAGMA temp_store = MEMORY" +
		"; PRAGMA recursive_triggers = OFF; PRAGMA foreign_keys = OFF" +
		"; PRAGMA cache_size = -" + strconv.Itoa(cache>>10) +
		"; PRAGMA wal_autocheckpoint = " + strconv.Itoa(checkpointPages) +
		"; PRAGMA journal_size_limit = " + strconv.Itoa(logLimit))
}

// Read runs do on a connection for reading. Each statement sees what was
// committed when it began. do must not write, and may run more than once.
func (f *File) Read(ctx context.Context, do func(*Conn) error) error {
	return f.read(ctx, func(ctx context.Context, c *Conn) error { return c.within(ctx, do) })
}

// read calls do with a connection of those that read, and a context that also ends when
// the file closes.
func (f *File) read(ctx context.Context, do func(context.Context, *Conn) error) error {
	var c *Conn
	select {
	case <-f.closing:
		return ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	case c = <-f.readers:
	}
	defer func() { f.readers <- c }()
	if err := f.lately(); err != nil {
		return err
	}
	bounded, cancel := context.WithCancel(ctx)
	defer cancel()
	unhook := context.AfterFunc(f.life, cancel)
	defer unhook()
	err := f.awaitLock(ctx, func() (err error) {
		if c == nil {
			if c, err = f.reader(); err != nil {
				return err
			}
		}
		if err := f.verifySchema(c); err != nil {
			return err
		}
		return do(bounded, c)
	})
	switch {
	case !interrupted(err) || bounded.Err() == nil:
		return Classify(err)
	case ctx.Err() != nil:
		return ctx.Err()
	default:
		return ErrClosed
	}
}

// Snapshot is Read with one view of the file for all statements of do.
func (f *File) Snapshot(ctx context.Context, do func(*Conn) error) error {
	return f.read(ctx, func(ctx context.Context, c *Conn) error {
		if _, err := c.Exec("BEGIN"); err != nil {
			return err
		}
		err := f.verifySchema(c)
		if err == nil {
			err = c.within(ctx, do)
		}
		if _, e := c.Exec("COMMIT"); e != nil {
			err = errors.Join(err, e)
			rollback(c)
		}
		return err
	})
}

func (f *File) reader() (*Conn, error) {
	c, err := connect(f.path)
	if err != nil {
		return nil, err
	}
	if err := configure(c, f.config.Normal, readerCache); err != nil {
		return nil, errors.Join(err, c.close())
	}
	if err := c.script("PRAGMA query_only = ON"); err != nil {
		return nil, errors.Join(err, c.close())
	}
	return c, nil
}

// Check walks the whole file and reports the first damage as driver.Corrupt.
// It reads every page: for diagnosis, not for every start.
func (f *File) Check(ctx context.Context) error {
	return f.Read(ctx, func(c *Conn) error {
		found, err := c.Text("PRAGMA quick_check(1)")
		if err == nil && found != "ok" {
			err = driver.Errorf(driver.Corrupt, "%s", found)
		}
		return err
	})
}

// Pages returns how many pages of the file are in use and how many are free.
func (f *File) Pages(ctx context.Context) (used, free int64, err error) {
	err = f.Read(ctx, func(c *Conn) error {
		total, err := c.Int("PRAGMA page_count")
		if err != nil {
			return err
		}
		free, err = c.Int("PRAGMA freelist_count")
		used = total - free
		return err
	})
	return used, free, err
}

// Shrink cuts up to n free pages off the file. It does not wait for the disk: what
// a power cut brings back is free as before.
func (f *File) Shrink(ctx context.Context, n int) error {
	return f.WriteUnsynced(ctx, func(c *Conn) error {
		return c.script("PRAGMA incremental_vacuum(" + strconv.Itoa(n) + ")")
	})
}

// logSize is the size of the write-ahead log in bytes.
func (f *File) logSize() int64 {
	info, err := os.Stat(f.path + "-wal")
	if err != nil {
		return 0
	}
	return info.Size()
}

// Close ends what is waiting with ErrClosed and closes the file. A second Close
// returns nil.
func (f *File) Close(ctx context.Context) error {
	f.mu.Lock()
	first := !f.closed
	if first {
		f.closed = true
		close(f.closing)
		f.end()
	}
	f.mu.Unlock()
	select {
	case <-f.done:
	case <-ctx.Done():
		return ctx.Err()
	}
	if !first {
		return nil
	}
	return f.closeErr
}
