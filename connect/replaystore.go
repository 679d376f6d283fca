package connect

import (
	"context"
	"errors"
	"fmt"

	"github.com/queue-runtime/queue/replay"
	"github.com/queue-runtime/queue/sqlite/sqlitereplay"
)

// ReplayStoreSchemes returns the schemes that [OpenReplayStore] takes:
//
//	mem://                          in this process: serves one receiver, and is lost at its end
//	sqlite:///var/lib/app/replay.db a file of this machine, shared by its processes
//
// sqlite has one parameter: synchronous=normal is faster than the default, full,
// but a power cut can lose records of consumed messages
// (sqlitereplay.Options.Normal).
func ReplayStoreSchemes() []string { return []string{"mem", "sqlite"} }

// OpenReplayStore opens the replay store at rawURL. Its error wraps
// [ErrUnknownScheme] and lists the schemes if the scheme is none of
// [ReplayStoreSchemes]; other errors are those of the store.
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
		if u.Opaque != "" || u.Host != "" || u.Path != "" && u.Path != "/" || u.RawQuery != "" {
			return nil, fmt.Errorf("connect: replay store: mem:// has neither host nor path nor parameters")
		}
		m, err := replay.NewMemory(nil)
		if err != nil {
			return nil, err
		}
		return &ReplayStore{Store: m}, nil
	case "sqlite":
		return openReplayFile(ctx, rawURL)
	}
	return nil, unknownScheme("replay store", rawURL, ReplayStoreSchemes())
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
	o := &sqlitereplay.Options{Normal: p.choice("synchronous", "full", "normal") == 1}
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
