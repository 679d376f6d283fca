package connect

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/queue-runtime/queue/aws/smkeys"
	"github.com/queue-runtime/queue/azure/kvkeys"
	"github.com/queue-runtime/queue/keys"
)

// KeySchemes returns the schemes that [OpenKeys] takes:
//
//	file:///etc/app/keys.json     a key file, read again when it changes (keys.File)
//	env://PREFIX                  environment variables, read once (keys.Env)
//	awssm://eu-west-1/qrt/pulls   AWS Secrets Manager, cached; parameters as smkeys.Open has them
//	azkv://VAULT/pulls            Azure Key Vault, cached; parameters as kvkeys.Open has them
func KeySchemes() []string { return []string{"file", "env", smkeys.Scheme, kvkeys.Scheme} }

// OpenKeys opens the key provider that rawURL names, behind a cache that the
// caller closes. The cache passes questions to a file and to variables through
// ([keys.Cached]). OpenKeys fails with [ErrUnknownScheme], which lists the
// schemes, and otherwise as the provider does. No error repeats rawURL: it may be
// keys that were put in the place of the URL.
func OpenKeys(ctx context.Context, rawURL string) (*keys.Cached, error) {
	return OpenKeysCached(ctx, rawURL, nil)
}

// OpenKeysCached is [OpenKeys] with options of the cache: how long it uses the
// answers of a secret store, and a callback for what it does. o may be nil.
func OpenKeysCached(ctx context.Context, rawURL string, o *keys.CachedOptions) (*keys.Cached, error) {
	p, err := openProvider(ctx, rawURL)
	if err != nil {
		return nil, err
	}
	return keys.NewCached(p, o)
}

func openProvider(ctx context.Context, rawURL string) (keys.Provider, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	switch schemeOf(rawURL) {
	case "file":
		path, err := KeyFile(rawURL)
		if err != nil {
			return nil, err
		}
		return keys.OpenFile(path, nil)
	case "env":
		u, err := parse("keys", rawURL, "env://PREFIX")
		if err != nil {
			return nil, err
		}
		prefix := u.Host
		if prefix == "" || u.Opaque != "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.User != nil {
			return nil, errors.New("connect: keys: use env://PREFIX, where PREFIX is the name of the variable")
		}
		return keys.NewEnv(prefix)
	case smkeys.Scheme:
		if err := checkNames("keys", rawURL); err != nil {
			return nil, err
		}
		return smkeys.Open(ctx, rawURL)
	case kvkeys.Scheme:
		if err := checkNames("keys", rawURL); err != nil {
			return nil, err
		}
		return kvkeys.Open(ctx, rawURL)
	}
	return nil, unknownScheme("keys", rawURL, KeySchemes())
}

// KeyFile returns the path in a file:// URL.
func KeyFile(rawURL string) (string, error) {
	u, err := parse("keys", rawURL, "file:///path/keys.json")
	if err != nil {
		return "", err
	}
	if u.Scheme != "file" {
		return "", fmt.Errorf("connect: keys: this needs a key file: use file:///path/keys.json")
	}
	path, err := filePath(u)
	if err != nil {
		return "", fmt.Errorf("connect: keys: %w; use file:///path/keys.json", err)
	}
	if u.RawQuery != "" {
		return "", fmt.Errorf("connect: keys: file:// takes no parameters")
	}
	return path, nil
}
