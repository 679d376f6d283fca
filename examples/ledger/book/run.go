package book

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/connect"
	"github.com/queue-runtime/queue/examples/internal/service"
	"github.com/queue-runtime/queue/postgres/postgresreplay"
	"github.com/queue-runtime/queue/worker"
)

// Config is the configuration of a ledger, from its environment.
type Config struct {
	// Broker is a URL of package connect, in another database than the ledger.
	Broker string `env:"BROKER_URL,required,notEmpty"`

	// Queue is the one that payments come from.
	Queue string `env:"QUEUE,required,notEmpty"`

	// Keys is the URL of the keys of that queue.
	Keys string `env:"KEYS_URL,required,notEmpty"`

	// Database is the postgres:// URL of the database of the ledger and of its replay
	// store.
	Database string `env:"DATABASE_URL,required,notEmpty"`

	// MaxAge is how old a payment may be. 0: as old as the broker keeps it, if it
	// tells that.
	MaxAge time.Duration `env:"MAX_MESSAGE_AGE" envDefault:"0s"`

	// Concurrency is how many payments are posted at once.
	Concurrency int `env:"CONCURRENCY" envDefault:"8"`

	// LogLevel is DEBUG, INFO, WARN or ERROR.
	LogLevel slog.Level `env:"LOG_LEVEL" envDefault:"INFO"`

	// DrainTimeout is how long payments under way may take when the program is told
	// to end.
	DrainTimeout time.Duration `env:"DRAIN_TIMEOUT" envDefault:"20s"`
}

// Validate says what is wrong with c, each with the name of its variable.
func (c *Config) Validate() error {
	errs := []error{service.Positive("DRAIN_TIMEOUT", c.DrainTimeout)}
	if c.Concurrency < 1 {
		errs = append(errs, errors.New("CONCURRENCY must be at least 1"))
	}
	if c.MaxAge < 0 {
		errs = append(errs, errors.New("MAX_MESSAGE_AGE is negative"))
	}
	return errors.Join(errs...)
}

// Run is the program: it posts payments until ctx ends, and then finishes what is under
// way. A nil environ stands for the process's environment.
func Run(ctx context.Context, environ map[string]string, logs io.Writer) (err error) {
	var c Config
	if err := service.Load(&c, environ); err != nil {
		return err
	}
	log := service.NewLogger(logs, c.Queue, c.LogLevel)
	db, err := pgxpool.New(ctx, c.Database)
	if err != nil {
		return errors.New("DATABASE_URL is not the URL of a database") // the error could show it
	}
	defer db.Close()
	store, err := postgresreplay.Open(ctx, c.Database, nil)
	if err != nil {
		return err
	}
	defer service.Finish(ctx, &err, store.Close)
	b, err := Open(ctx, db, store)
	if err != nil {
		return err
	}
	set, err := connect.Open(ctx, connect.Config{Broker: c.Broker, Keys: c.Keys})
	if err != nil {
		return err
	}
	defer service.Finish(ctx, &err, set.Close)
	o := queue.Strict(set.Keys, store)
	o.Logger = log
	if c.MaxAge > 0 {
		o.Crypto.MaxMessageAge = c.MaxAge
	}
	client, err := queue.New(set.Broker, o)
	if err != nil {
		return err
	}
	defer service.Finish(ctx, &err, client.Close)
	receiver, err := client.Receiver(ctx, c.Queue, nil)
	if err != nil {
		return err
	}
	pool, err := worker.New(&worker.Options{Concurrency: c.Concurrency, DrainTimeout: c.DrainTimeout})
	if err != nil {
		return err
	}
	err = pool.Handle(receiver, worker.JSON(func(ctx context.Context, p Payment, d *queue.Delivery) error {
		return b.Post(ctx, d, &p)
	}), nil)
	if err != nil {
		return err
	}
	log.Info("Ready", "broker", connect.Redact(c.Broker))
	return pool.Run(ctx)
}
