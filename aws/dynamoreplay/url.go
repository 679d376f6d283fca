package dynamoreplay

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/queue-runtime/queue/aws/internal/profile"
	"github.com/queue-runtime/queue/driver"
)

// Scheme is the scheme of the URLs that [Open] takes.
const Scheme = "dynamodb"

const form = "dynamodb://REGION/TABLE"

// Open is New for dynamodb://REGION/TABLE. Credentials come from the SDK's default
// chain (environment, profiles, container and instance roles), never from the URL; a
// shared credentials file is read again every minute. An empty REGION means the chain's.
// The parameters endpoint and prefix set the Options of those names, each at most once.
// o may be nil; what the URL says goes before what o says.
func Open(ctx context.Context, rawURL string, o *Options) (*Store, error) {
	cfg, table, o, err := resolve(ctx, rawURL, o)
	if err != nil {
		return nil, err
	}
	return New(ctx, cfg, table, o)
}

// Init is Create for a URL that Open takes.
func Init(ctx context.Context, rawURL string) error {
	cfg, table, o, err := resolve(ctx, rawURL, nil)
	if err != nil {
		return err
	}
	return Create(ctx, cfg, table, o)
}

func resolve(ctx context.Context, rawURL string, given *Options) (cfg aws.Config, table string, o *Options, err error) {
	o = &Options{}
	if given != nil {
		*o = *given
	}
	region, table, err := parseURL(rawURL, o)
	if err != nil {
		return cfg, "", nil, err
	}
	if cfg, err = profile.Load(ctx, region); err != nil {
		if cerr := ctx.Err(); cerr != nil {
			return cfg, "", nil, cerr
		}
		return cfg, "", nil, driver.Errorf(driver.Permission, "AWS configuration: %w", err)
	}
	return cfg, table, o, nil
}

// parseURL's errors name a part of the URL, never its value.
func parseURL(rawURL string, o *Options) (region, table string, err error) {
	u, err := url.Parse(rawURL)
	if err != nil {
		return "", "", errors.New("dynamoreplay: the URL does not parse: use " + form)
	}
	table = strings.TrimPrefix(u.Path, "/")
	switch {
	case u.Scheme != Scheme:
		return "", "", fmt.Errorf("dynamoreplay: scheme %q: use %s", u.Scheme, form)
	case u.User != nil:
		return "", "", errors.New("dynamoreplay: credentials in the URL: leave them to the SDK's chain")
	case u.Port() != "" || u.Opaque != "" || u.Fragment != "" || strings.Contains(table, "/"):
		return "", "", errors.New("dynamoreplay: more than a region and a table in the URL: use " + form)
	case table == "":
		return "", "", errors.New("dynamoreplay: no table in the URL: use " + form)
	}
	q, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return "", "", errors.New("dynamoreplay: the URL's query does not parse")
	}
	for name, values := range q {
		switch {
		case name != "endpoint" && name != "prefix":
			return "", "", fmt.Errorf("dynamoreplay: unknown URL parameter %q; known: endpoint, prefix", name)
		case len(values) != 1 || values[0] == "":
			return "", "", fmt.Errorf("dynamoreplay: URL parameter %s: give it once, with a value", name)
		case name == "endpoint":
			o.Endpoint = values[0]
		default:
			o.Prefix = values[0]
		}
	}
	return u.Hostname(), table, nil
}
