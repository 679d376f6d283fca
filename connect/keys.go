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

// OpenKeys opens the key provider at rawURL. Its error wraps [ErrUnknownScheme] and
// lists the schemes if the scheme is none of [KeySchemes]; other errors are those
// of the provider. No error quotes rawURL, which may hold keys by mistake.
func OpenKeys(ctx context.Context, rawURL string) (*Keys, error) {
	return OpenKeysCached(ctx, rawURL, nil)
}

// OpenKeysCached is [OpenKeys] with options for the cache in front of a secret
// store: how long its answers are used, and who observes it. Key files and
// environment variables have no cache. A nil o means the defaults.
func OpenKeysCached(ctx context.Context, rawURL string, o *keys.CachedOptions) (*Keys, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	switch schemeOf(rawURL) {
	case "file":
		path, err := KeyFile(rawURL)
		if err != nil {
			return nil, err
		}
		f, err := keys.OpenFile(path, nil)
		if err != nil {
			return nil, err
		}
		return &Keys{Provider: f}, nil
	case "env":
		u, err := parse("keys", rawURL, "env://PREFIX")
		if err != nil {
			return nil, err
		}
		prefix := u.Host
		if prefix == "" || u.Opaque != "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.User != nil {
			return nil, errors.New("connect: keys: use env://PREFIX, where PREFIX is the name of the variable")
		}
		e, err := keys.NewEnv(prefix)
		if err != nil {
			return nil, err
		}
		return &Keys{Provider: e}, nil
	case smkeys.Scheme:
		if err := checkNames("keys", rawURL); err != nil {
			return nil, err
		}
		p, err := smkeys.Open(ctx, rawURL)
		if err != nil {
			return nil, err
		}
		return cached(p, o)
	case kvkeys.Scheme:
		if err := checkNames("keys", rawURL); err != nil {
			return nil, err
		}
		p, err := kvkeys.Open(ctx, rawURL)
		if err != nil {
			return nil, err
		}
		return cached(p, o)
	}
	return nil, unknownScheme("keys", rawURL, KeySchemes())
}

// cached puts a cache in front of a secret store. It bounds the calls and bridges
// outages.
func cached(p keys.Provider, o *keys.CachedOptions) (*Keys, error) {
	c, err := keys.NewCached(p, o)
	if err != nil {
		return nil, err
	}
	return &Keys{Provider: c, closer: c}, nil
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
