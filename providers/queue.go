package providers

import (
	"context"
	"fmt"

	"github.com/queue-runtime/queue/aws/sqsqueue"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/memqueue"
	"github.com/queue-runtime/queue/sqlite/sqlitequeue"
)

// QueueSchemes returns the schemes that [OpenQueue] takes:
//
//	mem://                        a broker in this process, empty at the start
//	mem://?max_deliveries=3
//	sqlite:///var/lib/app/queue.db  a file of this machine, made where it is not there
//	sqlite:queue.db                 relative to the working folder
//	sqs://eu-west-1/                AWS SQS; credentials and parameters as sqsqueue.Open has them
//
// Parameters of mem and sqlite are for the queues that are made on demand: lock
// and retention (durations such as 30s), and max_deliveries. sqlite has two more:
// synchronous, full or normal, says whether a confirmed call survives a power cut
// (sqlitequeue.Synchronous), and must_exist=true makes nothing on demand.
func QueueSchemes() []string { return []string{"mem", "sqlite", "sqs"} }

// OpenQueue opens the broker that rawURL names. It fails with [ErrUnknownScheme],
// which lists the schemes, and otherwise as the driver does.
func OpenQueue(ctx context.Context, rawURL string) (driver.Provider, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	switch schemeOf(rawURL) {
	case "mem":
		return openMem(rawURL)
	case "sqlite":
		return openSQLite(ctx, rawURL)
	case sqsqueue.Scheme:
		p, err := sqsqueue.Open(ctx, rawURL)
		if err != nil {
			return nil, err
		}
		return p, nil
	}
	return nil, unknownScheme("broker", rawURL, QueueSchemes())
}

func openMem(rawURL string) (driver.Provider, error) {
	u, err := parse("broker", rawURL, "mem://")
	if err != nil {
		return nil, err
	}
	if u.Opaque != "" || u.Host != "" || u.Path != "" && u.Path != "/" {
		return nil, fmt.Errorf("providers: broker: mem:// has neither host nor path")
	}
	p := parameters{what: "broker", values: u.Query()}
	o := &memqueue.Options{Default: memqueue.QueueOptions{
		Lock:          p.duration("lock"),
		Retention:     p.duration("retention"),
		MaxDeliveries: p.number("max_deliveries"),
	}}
	if err := p.finish(); err != nil {
		return nil, err
	}
	return memqueue.New(o), nil
}

func openSQLite(ctx context.Context, rawURL string) (driver.Provider, error) {
	const form = "sqlite:///path/queue.db"
	u, err := parse("broker", rawURL, form)
	if err != nil {
		return nil, err
	}
	path, err := filePath(u)
	if err != nil {
		return nil, fmt.Errorf("providers: broker: %w; use %s", err, form)
	}
	p := parameters{what: "broker", values: u.Query()}
	o := &sqlitequeue.Options{
		Default: sqlitequeue.QueueOptions{
			Lock:          p.duration("lock"),
			Retention:     p.duration("retention"),
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
