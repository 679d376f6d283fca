package smkeys

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/queue-runtime/queue/aws/internal/profile"
	"github.com/queue-runtime/queue/keys"
)

// Scheme is the scheme of the URLs that [Open] takes.
const Scheme = "awssm"

// Open returns a Provider for awssm://REGION/NAME?parameters. Credentials come
// from the SDK's default chain, never from the URL; a shared credentials file is read
// again every minute. An empty REGION means the chain's.
//
// Parameters, each at most once: layout (secrets or versions) and endpoint set
// the Options of those names.
func Open(ctx context.Context, rawURL string) (*Provider, error) {
	region, name, o, err := parseURL(rawURL)
	if err != nil {
		return nil, err
	}
	cfg, err := profile.Load(ctx, region)
	if err != nil {
		if cerr := ctx.Err(); cerr != nil {
			return nil, cerr
		}
		return nil, &unavailable{text: fmt.Sprintf("smkeys: %v: AWS configuration: %v", keys.ErrUnavailable, err), err: err}
	}
	return New(cfg, name, o)
}

// parseURL's errors name a part of the URL, never its value.
func parseURL(rawURL string) (region, name string, o *Options, err error) {
	u, err := url.Parse(rawURL)
	if err != nil {
		return "", "", nil, errors.New("smkeys: the URL does not parse: use awssm://REGION/NAME")
	}
	switch {
	case u.Scheme != Scheme:
		return "", "", nil, fmt.Errorf("smkeys: scheme %q: use awssm://REGION/NAME", u.Scheme)
	case u.User != nil:
		return "", "", nil, errors.New("smkeys: credentials in the URL: leave them to the SDK's chain")
	case u.Port() != "" || u.Opaque != "" || u.Fragment != "":
		return "", "", nil, errors.New("smkeys: more than a region and a name in the URL: use awssm://REGION/NAME")
	}
	q, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return "", "", nil, errors.New("smkeys: the URL's query does not parse")
	}
	o = &Options{}
	for param, values := range q {
		if len(values) != 1 {
			return "", "", nil, fmt.Errorf("smkeys: URL parameter %q is given %d times", param, len(values))
		}
		switch v := values[0]; param {
		case "endpoint":
			e, err := url.Parse(v)
			if err != nil || e.Scheme != "http" && e.Scheme != "https" || e.Host == "" || e.User != nil {
				return "", "", nil, errors.New("smkeys: URL parameter endpoint is not an http or https URL")
			}
			o.Endpoint = v
		case "layout":
			switch v {
			case "secrets":
			case "versions":
				o.Layout = Versions
			default:
				return "", "", nil, errors.New("smkeys: URL parameter layout: use secrets or versions")
			}
		default:
			return "", "", nil, fmt.Errorf("smkeys: unknown URL parameter %q", param)
		}
	}
	name = strings.TrimPrefix(u.Path, "/")
	return u.Hostname(), name, o, checkName(name)
}
