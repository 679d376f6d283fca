package connect

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/queue-runtime/queue/aws/sqsqueue"
	"github.com/queue-runtime/queue/azure/sbqueue"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/memqueue"
	"github.com/queue-runtime/queue/postgres/postgresqueue"
	"github.com/queue-runtime/queue/sqlite/sqlitequeue"
)

// BrokerSchemes returns the schemes that [OpenBroker] takes:
//
//	mem://                          a broker in this process, empty at the start
//	mem://?max_deliveries=3
//	sqlite:///var/lib/app/queue.db  a file of this machine, created if it does not exist
//	sqlite:queue.db                 relative to the working folder
//	postgres://user@host/database   PostgreSQL; parameters as for postgresqueue.Open, no password in the URL
//	sqs://eu-west-1/                AWS SQS; credentials and parameters as for sqsqueue.Open
//	sb://NAMESPACE/                 Azure Service Bus; credentials by azidentity's default chain
//	sb:///?connection=NAME          the same; the environment variable NAME holds the connection string
//
// OpenBroker also accepts a Service Bus connection string (Endpoint=sb://...). It
// contains a secret: do not pass it in a program's arguments.
//
// The parameters of mem and sqlite apply to queues that are created on demand:
// lock, retention and dedup_window (durations such as 30s), and max_deliveries, of
// which a negative value means that the broker never dead-letters a message for its
// deliveries. sqlite has two more: synchronous=normal is faster than the default,
// full, but a power cut can undo confirmed calls (sqlitequeue.Synchronous), and
// must_exist=true creates neither file nor queue.
//
// The parameters of sb describe how its queues were created, for identities that
// may not ask the management API and for the emulator, which has none:
// sessions=true, lock, max_deliveries, retention, dedup=true, partitioned=true, max_bytes.
func BrokerSchemes() []string { return []string{"mem", "sqlite", "postgres", "sqs", "sb"} }

// OpenBroker opens the broker at rawURL. Its error wraps [ErrUnknownScheme] and lists
// the schemes if the scheme is none of [BrokerSchemes]; other errors are the
// driver's.
func OpenBroker(ctx context.Context, rawURL string) (driver.Broker, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	switch schemeOf(rawURL) {
	case "mem":
		return openMem(rawURL)
	case "sqlite":
		return openSQLite(ctx, rawURL)
	case "sb":
		return openServiceBus(rawURL)
	case "postgres", "postgresql":
		return openPostgres(ctx, rawURL)
	case sqsqueue.Scheme:
		if err := checkNames("broker", rawURL); err != nil {
			return nil, err
		}
		p, err := sqsqueue.Open(ctx, rawURL)
		if err != nil {
			return nil, err
		}
		return p, nil
	}
	if isConnection(rawURL) {
		return openConnection(rawURL, &sbqueue.Options{})
	}
	return nil, unknownScheme("broker", rawURL, BrokerSchemes())
}

// isConnection reports whether something is a Service Bus connection string.
func isConnection(text string) bool {
	const prefix = "Endpoint=sb://"
	return len(text) >= len(prefix) && strings.EqualFold(text[:len(prefix)], prefix)
}

func openMem(rawURL string) (driver.Broker, error) {
	u, err := parse("broker", rawURL, "mem://")
	if err != nil {
		return nil, err
	}
	if u.Opaque != "" || u.Host != "" || u.Path != "" && u.Path != "/" {
		return nil, fmt.Errorf("connect: broker: mem:// has neither host nor path")
	}
	p := parameters{what: "broker", values: u.Query()}
	o := &memqueue.Options{Default: memqueue.QueueOptions{
		Lock:          p.duration("lock"),
		Retention:     p.duration("retention"),
		DedupWindow:   p.duration("dedup_window"),
		MaxDeliveries: p.number("max_deliveries"),
	}}
	if err := p.finish(); err != nil {
		return nil, err
	}
	return memqueue.New(o), nil
}

func openSQLite(ctx context.Context, rawURL string) (driver.Broker, error) {
	const form = "sqlite:///path/queue.db"
	u, err := parse("broker", rawURL, form)
	if err != nil {
		return nil, err
	}
	path, err := filePath(u)
	if err != nil {
		return nil, fmt.Errorf("connect: broker: %w; use %s", err, form)
	}
	p := parameters{what: "broker", values: u.Query()}
	o := &sqlitequeue.Options{
		Default: sqlitequeue.QueueOptions{
			Lock:          p.duration("lock"),
			Retention:     p.duration("retention"),
			DedupWindow:   p.duration("dedup_window"),
			MaxDeliveries: p.number("max_deliveries"),
		},
		MustExist: p.choice("must_exist", "false", "true") == 1,
	}
	if p.choice("synchronous", "full", "normal") == 1 {
		o.Synchronous = sqlitequeue.Normal
	}
	if err := p.finish(); err != nil {
		return nil, err
	}
	b, err := sqlitequeue.Open(ctx, path, o)
	if err != nil {
		return nil, err
	}
	return b, nil
}

var errPassword = errors.New("the URL has a password: set the environment variable PGPASSWORD, or use a passfile (PGPASSFILE)")

func openPostgres(ctx context.Context, rawURL string) (driver.Broker, error) {
	u, err := parse("broker", rawURL, "postgres://user@host:5432/database")
	if err != nil {
		return nil, err
	}
	if _, given := u.User.Password(); given {
		return nil, fmt.Errorf("connect: broker: %w", errPassword)
	}
	if err := checkNames("broker", rawURL); err != nil {
		return nil, err
	}
	b, err := postgresqueue.Open(ctx, rawURL, nil)
	if err != nil {
		return nil, err
	}
	return b, nil
}
