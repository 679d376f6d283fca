package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"time"

	"maragu.dev/goqite"
	_ "modernc.org/sqlite" // the driver of ours, too
)

// openDB opens a SQLite file as goqite and River advise: with one connection, and the
// settings of ours (a write-ahead log, synchronous FULL).
func openDB(path string) (*sql.DB, error) {
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_pragma=busy_timeout(5000)&_txlock=immediate")
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1)
	db.SetMaxIdleConns(1)
	return db, nil
}

// goqiteSchema is schema_sqlite.sql of the version that go.mod names.
const goqiteSchema = `
create table goqite (
  id text primary key default ('m_' || lower(hex(randomblob(16)))),
  created text not null default (strftime('%Y-%m-%dT%H:%M:%fZ')),
  updated text not null default (strftime('%Y-%m-%dT%H:%M:%fZ')),
  queue text not null,
  body blob not null,
  timeout text not null default (strftime('%Y-%m-%dT%H:%M:%fZ')),
  received integer not null default 0,
  priority integer not null default 0
) strict;

create trigger goqite_updated_timestamp after update on goqite begin
  update goqite set updated = strftime('%Y-%m-%dT%H:%M:%fZ') where id = old.id;
end;

create index goqite_queue_priority_created_idx on goqite (queue, priority desc, created);
`

// goqiteQueue is goqite on a file of its own.
type goqiteQueue struct {
	corpus *corpus
	db     *sql.DB
	queue  *goqite.Queue
	serial atomic.Int64
}

func newGoqite(ctx context.Context, c *corpus, dir string) (*goqiteQueue, error) {
	g, err := connectGoqite(c, dir)
	if err != nil {
		return nil, err
	}
	if _, err := g.db.ExecContext(ctx, goqiteSchema); err != nil {
		return nil, errors.Join(fmt.Errorf("goqite: %w", err), g.db.Close())
	}
	return g, nil
}

// connectGoqite opens a file that newGoqite has made.
func connectGoqite(c *corpus, dir string) (*goqiteQueue, error) {
	db, err := openDB(filepath.Join(dir, "goqite.db"))
	if err != nil {
		return nil, err
	}
	return &goqiteQueue{corpus: c, db: db, queue: goqite.New(goqite.NewOpts{DB: db, Name: someName, Timeout: 30 * time.Second, MaxReceive: 10})}, nil
}

func openGoqite(ctx context.Context, c *corpus, dir string) (durable, error) {
	return newGoqite(ctx, c, dir)
}

func (g *goqiteQueue) send(ctx context.Context) error {
	return g.queue.Send(ctx, goqite.Message{Body: g.corpus.body(int(g.serial.Add(1)))})
}

func (g *goqiteQueue) handle(ctx context.Context) error {
	m, err := g.queue.Receive(ctx)
	if err != nil {
		return err
	}
	if m == nil {
		return errors.New("goqite: nothing to receive")
	}
	return g.queue.Delete(ctx, m.ID)
}

// fill sends n messages in one transaction.
func (g *goqiteQueue) fill(ctx context.Context, body []byte, n int) error {
	tx, err := g.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	for range n {
		if err := g.queue.SendTx(ctx, tx, goqite.Message{Body: body}); err != nil {
			return errors.Join(err, tx.Rollback())
		}
	}
	return tx.Commit()
}

func (g *goqiteQueue) close(context.Context) error { return g.db.Close() }
