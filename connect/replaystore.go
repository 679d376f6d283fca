package connect

import (
	"context"
	"errors"
	"fmt"

	"github.com/queue-runtime/queue/aws/dynamoreplay"
	"github.com/queue-runtime/queue/azure/tablereplay"
	"github.com/queue-runtime/queue/postgres/postgresreplay"
	"github.com/queue-runtime/queue/replay"
	"github.com/queue-runtime/queue/sqlite/sqlitereplay"
)

// ReplayStoreSchemes returns the schemes that [OpenReplayStore] takes:
//
//	mem://                          in this process: serves one receiver, and is lost at its end
//	sqlite:///var/lib/app/replay.db a file of this machine, shared by its processes
//	rediss://user@host:6379/0       Redis, for a fleet; parameters as for redisreplay.Open, no password in the URL
//	dynamodb://REGION/TABLE         a DynamoDB table, shared by all machines; parameters as dynamoreplay.Open has them
//	aztable://ACCOUNT/TABLE         an Azure table, shared by all machines; parameters as tablereplay.Open has them
//	postgres://user@host/database   PostgreSQL; parameters as for postgresreplay.Open, no password in the URL
//
// All take the bounds of [replay.Bounds] as parameters, and what is left out has its
// default:
//
//	records, streams, intervals                      of the whole store
//	group_records, group_streams, group_intervals    of each group
//	sender_records, sender_streams, sender_intervals of each sender of a group
//	recent                                           recently consumed messages
//	keep_stream, parked_ttl                          durations such as 360h
//
// sqlite has another one: synchronous=normal is faster than the default, full,
// but a power cut can lose records of consumed messages
// (sqlitereplay.Options.Normal). must_exist=true fails instead of making the store.
// postgres refuses a broker in the same database, unless trust_database_operators=true
// says that its operators may replay messages. Tables of dynamodb and aztable are made by
// [InitReplayStore] and never here.
func ReplayStoreSchemes() []string {
	return []string{"mem", "sqlite", "postgres", "redis", "rediss", dynamoreplay.Scheme, tablereplay.Scheme}
}

// OpenReplayStore opens the replay store at rawURL. Its error wraps
// [ErrUnknownScheme] and lists the schemes if the scheme is none of
// [ReplayStoreSchemes]; other errors are the store's.
func OpenReplayStore(ctx context.Context, rawURL string) (*ReplayStore, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	switch schemeOf(rawURL) {
	case "mem":
		u, err := parse("replay store", rawURL, "mem://")
		if err != nil {
			return nil, err
		}
		if u.Opaque != "" || u.Host != "" || u.Path != "" && u.Path != "/" {
			return nil, fmt.Errorf("connect: replay store: mem:// has neither host nor path")
		}
		p := parameters{what: "replay store", values: u.Query()}
		bounds := p.bounds()
		if err := p.finish(); err != nil {
			return nil, err
		}
		m, err := replay.NewMemory(&replay.MemoryOptions{Bounds: bounds})
		if err != nil {
			return nil, err
		}
		return &ReplayStore{Store: m}, nil
	case "sqlite":
		return openReplayFile(ctx, rawURL)
	case "redis", "rediss":
		return openRedis(ctx, rawURL)
	case dynamoreplay.Scheme:
		bounds, rest, err := takeBounds(rawURL, "dynamodb://REGION/TABLE")
		if err != nil {
			return nil, err
		}
		s, err := dynamoreplay.Open(ctx, rest, &dynamoreplay.Options{Bounds: bounds})
		if err != nil {
			return nil, err
		}
		return &ReplayStore{s, s.Close}, nil
	case tablereplay.Scheme:
		bounds, rest, err := takeBounds(rawURL, "aztable://ACCOUNT/TABLE")
		if err != nil {
			return nil, err
		}
		s, err := tablereplay.Open(ctx, rest, &tablereplay.Options{Bounds: bounds})
		if err != nil {
			return nil, err
		}
		return &ReplayStore{s, s.Close}, nil
	case "postgres", "postgresql":
		return openReplayDatabase(ctx, rawURL)
	}
	return nil, unknownScheme("replay store", rawURL, ReplayStoreSchemes())
}

// InitReplayStore makes what a replay store needs before it can be opened: the table of
// dynamodb:// and aztable://, the file of sqlite://. What is there already stays as it
// is. It needs rights that receivers do not need.
func InitReplayStore(ctx context.Context, rawURL string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	switch schemeOf(rawURL) {
	case "mem":
		return errors.New("connect: replay store: mem:// is made by the process that uses it")
	case dynamoreplay.Scheme:
		_, rest, err := takeBounds(rawURL, "dynamodb://REGION/TABLE")
		if err != nil {
			return err
		}
		return dynamoreplay.Init(ctx, rest)
	case tablereplay.Scheme:
		_, rest, err := takeBounds(rawURL, "aztable://ACCOUNT/TABLE")
		if err != nil {
			return err
		}
		return tablereplay.Init(ctx, rest)
	}
	s, err := OpenReplayStore(ctx, rawURL)
	if err != nil {
		return err
	}
	return s.Close(ctx)
}

// takeBounds takes the bounds out of a URL whose other parameters a package of the store
// reads.
func takeBounds(rawURL, form string) (bounds replay.Bounds, rest string, err error) {
	if err := checkNames("replay store", rawURL); err != nil {
		return bounds, "", err
	}
	u, err := parse("replay store", rawURL, form)
	if err != nil {
		return bounds, "", err
	}
	p := parameters{what: "replay store", values: u.Query()}
	bounds = p.bounds()
	if p.err != nil {
		return bounds, "", p.err
	}
	left := u.Query()
	for _, name := range p.taken {
		left.Del(name)
	}
	u.RawQuery = left.Encode()
	return bounds, u.String(), nil
}

func openReplayFile(ctx context.Context, rawURL string) (*ReplayStore, error) {
	const form = "sqlite:///path/replay.db"
	u, err := parse("replay store", rawURL, form)
	if err != nil {
		return nil, err
	}
	path, err := filePath(u)
	if err != nil {
		return nil, fmt.Errorf("connect: replay store: %w; use %s", err, form)
	}
	p := parameters{what: "replay store", values: u.Query()}
	o := &sqlitereplay.Options{Bounds: p.bounds(), Normal: p.choice("synchronous", "full", "normal") == 1, MustExist: p.choice("must_exist", "false", "true") == 1}
	if err := p.finish(); err != nil {
		return nil, err
	}
	s, err := sqlitereplay.Open(ctx, path, o)
	if errors.Is(err, sqlitereplay.ErrQueue) {
		return nil, within(ownFile)
	}
	if err != nil {
		return nil, err
	}
	return &ReplayStore{s, s.Close}, nil
}

func openReplayDatabase(ctx context.Context, rawURL string) (*ReplayStore, error) {
	u, err := parse("replay store", rawURL, "postgres://user@host:5432/database")
	if err != nil {
		return nil, err
	}
	if _, given := u.User.Password(); given {
		return nil, fmt.Errorf("connect: replay store: %w", errPassword)
	}
	if err := checkNames("replay store", rawURL); err != nil {
		return nil, err
	}
	p := parameters{what: "replay store", values: u.Query()}
	bounds := p.bounds()
	if p.err != nil {
		return nil, p.err
	}
	for _, name := range p.taken { // the others are the package's to know
		p.values.Del(name)
	}
	u.RawQuery = p.values.Encode()
	s, err := postgresreplay.Open(ctx, u.String(), &postgresreplay.Options{Bounds: bounds})
	if err != nil {
		return nil, err
	}
	return &ReplayStore{s, s.Close}, nil
}

// bounds takes the bounds of a replay store.
func (p *parameters) bounds() replay.Bounds {
	return replay.Bounds{
		Store:      p.quota(""),
		Group:      p.quota("group_"),
		Sender:     p.quota("sender_"),
		Recent:     p.above("recent"),
		KeepStream: p.duration("keep_stream"),
		ParkedTTL:  p.duration("parked_ttl"),
	}
}

func (p *parameters) quota(prefix string) replay.Quota {
	return replay.Quota{Records: p.above(prefix + "records"), Streams: p.above(prefix + "streams"), Intervals: p.above(prefix + "intervals")}
}

// above returns a number above zero, or 0 if there is none.
func (p *parameters) above(name string) int {
	n := p.number(name)
	if n < 0 {
		p.fail("parameter %s is below zero", name)
		return 0
	}
	return n
}
