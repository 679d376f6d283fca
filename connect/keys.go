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
//	folder:///etc/app/keys        a folder with a file for each key (keys.Folder), such as a mounted Secret
//	env://PREFIX                  environment variables, read once (keys.Env)
//	awssm://eu-west-1/qrt/pulls   AWS Secrets Manager, cached; parameters as smkeys.Open has them
//	azkv://VAULT/pulls            Azure Key Vault, cached; parameters as kvkeys.Open has them
//
// file and folder take one parameter, world_readable=true, for files that every user
// may read (keys.FileOptions.WorldReadable).
func KeySchemes() []string { return []string{"file", "folder", "env", smkeys.Scheme, kvkeys.Scheme} }

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
		path, o, err := keyPath("file", rawURL, "file:///path/keys.json")
		if err != nil {
			return nil, err
		}
		return keys.OpenFile(path, o)
	case "folder":
		path, o, err := keyPath("folder", rawURL, "folder:///path")
		if err != nil {
			return nil, err
		}
		return keys.OpenFolder(path, o)
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

// KeyFile returns the path in a file:// URL of a key file. It fails for every other URL.
func KeyFile(rawURL string) (string, error) {
	path, _, err := keyPath("file", rawURL, "file:///path/keys.json")
	return path, err
}

// keyPath reads a URL of that scheme, which names a file or folder. form is how such a
// URL looks.
func keyPath(scheme, rawURL, form string) (string, *keys.FileOptions, error) {
	u, err := parse("keys", rawURL, form)
	if err != nil {
		return "", nil, err
	}
	if u.Scheme != scheme {
		return "", nil, fmt.Errorf("connect: keys: this needs a key %s: use %s", scheme, form)
	}
	if scheme == "folder" && len(u.Path) > 1 {
		u.Path = strings.TrimSuffix(u.Path, "/")
	}
	path, err := filePath(u)
	if err != nil {
		return "", nil, fmt.Errorf("connect: keys: %w; use %s", err, form)
	}
	p := parameters{what: "keys", values: u.Query()}
	o := &keys.FileOptions{WorldReadable: p.choice("world_readable", "false", "true") == 1}
	if err := p.finish(); err != nil {
		return "", nil, err
	}
	return path, o, nil
}
