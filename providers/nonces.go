package providers

import (
	"context"
	"fmt"

	"github.com/queue-runtime/queue/replay"
)

// NonceSchemes returns the schemes that [OpenNonces] takes:
//
//	mem://                        in this process: serves one receiver, and forgets at restart
func NonceSchemes() []string { return []string{"mem"} }

// OpenNonces opens the nonce store that rawURL names. It fails with
// [ErrUnknownScheme], which lists the schemes, and otherwise as the store does.
func OpenNonces(ctx context.Context, rawURL string) (*Nonces, error) {
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
			return nil, fmt.Errorf("providers: nonces: mem:// has neither host nor path nor parameters")
		}
		m, err := replay.NewMemory(nil)
		if err != nil {
			return nil, err
		}
		return &Nonces{NonceStore: m}, nil
	}
	return nil, unknownScheme("nonces", rawURL, NonceSchemes())
}
