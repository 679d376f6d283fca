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
//	mem://                          in this process: serves one receiver, and forgets at restart
//	sqlite:///var/lib/app/nonces.db a file of this machine, shared by its processes
//
// sqlite has one parameter: synchronous, full or normal, says whether what was
// consumed is remembered after a power cut (sqlitereplay.Options.Normal).
func ReplayStoreSchemes() []string { return []string{"mem", "sqlite"} }

// OpenReplayStore opens the replay store that rawURL names. It fails with
// [ErrUnknownScheme], which lists the schemes, and otherwise as the store does.
func OpenReplayStore(ctx context.Context, rawURL string) (*ReplayStore, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	switch schemeOf(rawURL) {
	case "mem":
		u, err := parse("nonces", rawURL, "mem://")
		if err != nil {
			return nil, err
		}
		if u.Opaque != "" || u.Host != "" || u.Path != "" && u.Path != "/" || u.RawQuery != "" {
			return nil, fmt.Errorf("connect: nonces: mem:// has neither host nor path nor parameters")
		}
		m, err := replay.NewMemory(nil)
		if err != nil {
			return nil, err
		}
		return &ReplayStore{NonceStore: m}, nil
	case "sqlite":
		return openNonceFile(ctx, rawURL)
	}
	return nil, unknownScheme("nonces", rawURL, ReplayStoreSchemes())
}

func openNonceFile(ctx context.Context, rawURL string) (*ReplayStore, error) {
	const form = "sqlite:///path/nonces.db"
	u, err := parse("nonces", rawURL, form)
	if err != nil {
		return nil, err
	}
	path, err := filePath(u)
	if err != nil {
		return nil, fmt.Errorf("connect: nonces: %w; use %s", err, form)
	}
	p := parameters{what: "nonces", values: u.Query()}
	o := &sqlitereplay.Options{Normal: p.choice("synchronous", "full", "normal") == 1}
	if err := p.finish(); err != nil {
		return nil, err
	}
	s, err := sqlitereplay.Open(ctx, path, o)
	if errors.Is(err, sqlitereplay.ErrQueue) {
		return nil, within("use a file of its own, where the queue's owner cannot write")
	}
	if err != nil {
		return nil, err
	}
	return &ReplayStore{s, s.Close}, nil
}
