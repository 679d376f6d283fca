package router

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/otel/otelqueue"
	"github.com/queue-runtime/queue/postgres/outbox"
)

// database is the router's own: it notes which webhooks were taken, and has an outbox.
// Both in one transaction, so that a webhook is noted if and only if it is sent. With it
// the router takes webhooks while the broker is away, and drops repeats although the
// broker may not.
type database struct {
	db         *pgxpool.Pool
	box        *outbox.Outbox
	forwarders []*outbox.Forwarder

	stop    context.CancelFunc // of the forwarders
	running sync.WaitGroup
	unwatch func() error // ends the gauges
}

// tables are made if they are not there. GitHub delivers a webhook again for three days.
const (
	tables = `CREATE TABLE IF NOT EXISTS webhook_delivery (
		guid  text PRIMARY KEY,
		event text NOT NULL,
		taken timestamptz NOT NULL DEFAULT now()
	);
	CREATE INDEX IF NOT EXISTS webhook_delivery_taken ON webhook_delivery (taken)`

	note   = `INSERT INTO webhook_delivery (guid, event) VALUES ($1, $2) ON CONFLICT DO NOTHING`
	forget = `DELETE FROM webhook_delivery WHERE guid IN (
		SELECT guid FROM webhook_delivery WHERE taken < now() - interval '4 days' ORDER BY taken LIMIT 2 FOR UPDATE SKIP LOCKED)`
)

// openDatabase opens the router's database and starts to forward to the client's broker.
func openDatabase(ctx context.Context, url string, client *queue.Client, queues []string, o *outbox.ForwarderOptions) (_ *database, err error) {
	d := &database{stop: func() {}}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("DATABASE_URL: %w", err), d.close(context.WithoutCancel(ctx)))
		}
	}()
	if d.box, err = outbox.Open(ctx, url, nil); err != nil { // first: its errors do not quote the URL
		return nil, err
	}
	if d.db, err = pgxpool.New(ctx, url); err != nil {
		return nil, errors.New("not the URL of a database")
	}
	if _, err = d.db.Exec(ctx, tables); err != nil {
		return nil, err
	}
	for _, name := range queues {
		f, err := outbox.NewForwarder(ctx, d.box, client.Broker(), name, o)
		if err != nil {
			return nil, err
		}
		d.forwarders = append(d.forwarders, f)
	}
	return d, nil
}

// forward runs the forwarders until close.
func (d *database) forward(log *slog.Logger) {
	ctx, stop := context.WithCancel(context.Background())
	d.stop = stop
	for _, f := range d.forwarders {
		d.running.Go(func() {
			if err := f.Run(ctx); err != nil {
				log.Error("Forwarding ended", "queue", f.Queue(), "error", err.Error())
			}
		})
	}
}

// watch makes depth and age of the outbox metrics.
func (r *Router) watch() (err error) {
	counted := make([]otelqueue.Counted, len(r.database.forwarders))
	for i, f := range r.database.forwarders {
		counted[i] = f
	}
	r.database.unwatch, err = otelqueue.WatchDepth(r.telemetry.Meter, counted...)
	return err
}

// take notes a webhook and puts its message into the outbox. One that was noted before is
// not put again.
func (d *database) take(ctx context.Context, w *webhook, p *queue.Prepared) error {
	return pgx.BeginFunc(ctx, d.db, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, forget); err != nil {
			return err
		}
		noted, err := tx.Exec(ctx, note, w.delivery, w.event)
		if err != nil || noted.RowsAffected() == 0 {
			return err
		}
		return d.box.Put(ctx, tx, p)
	})
}

// close ends the forwarders. What waits in the outbox stays there.
func (d *database) close(ctx context.Context) error {
	d.stop()
	d.running.Wait()
	var errs []error
	if d.unwatch != nil {
		errs = append(errs, d.unwatch())
	}
	if d.box != nil {
		errs = append(errs, d.box.Close(ctx))
	}
	if d.db != nil {
		d.db.Close()
	}
	return errors.Join(errs...)
}
