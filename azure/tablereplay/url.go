package tablereplay

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"regexp"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/azure-sdk-for-go/sdk/data/aztables"

	"github.com/queue-runtime/queue/driver"
)

// Scheme is the scheme of the URLs that [Open] takes.
const Scheme = "aztable"

const form = "aztable://ACCOUNT/TABLE"

// Open is New for aztable://ACCOUNT/TABLE. ACCOUNT is the name of a storage account, or
// the host of its tables if that is in another cloud than the public one. Credentials
// come from azidentity's default chain (environment, workload identity, managed identity,
// Azure CLI), or from the environment variable that the parameter key names: a key of
// the account. They are never in the URL. The parameter endpoint is the base URL of an
// emulator's tables, and prefix sets Options.Prefix. Each may be given once. o may be nil;
// what the URL says goes before what o says.
func Open(ctx context.Context, rawURL string, o *Options) (*Store, error) {
	a, table, o, err := resolve(rawURL, o)
	if err != nil {
		return nil, err
	}
	return open(ctx, *a, table, o)
}

// Init is Create, or CreateSharedKey, for a URL that Open takes.
func Init(ctx context.Context, rawURL string) error {
	a, table, o, err := resolve(rawURL, nil)
	if err != nil {
		return err
	}
	return create(ctx, *a, table, o)
}

func resolve(rawURL string, given *Options) (a *account, table string, o *Options, err error) {
	o = &Options{}
	if given != nil {
		*o = *given
	}
	p, err := parseURL(rawURL)
	if err != nil {
		return nil, "", nil, err
	}
	if p.prefix != "" {
		o.Prefix = p.prefix
	}
	a = &account{url: p.endpoint}
	if p.variable == "" {
		if a.token, err = azidentity.NewDefaultAzureCredential(nil); err != nil {
			return nil, "", nil, driver.Errorf(driver.Permission, "tablereplay: no credential: check AZURE_CLIENT_ID, AZURE_TENANT_ID and the other variables of azidentity, and AZURE_TOKEN_CREDENTIALS: %w", err)
		}
		return a, p.table, o, nil
	}
	if a.key, err = aztables.NewSharedKeyCredential(p.account, os.Getenv(p.variable)); err != nil || os.Getenv(p.variable) == "" {
		return nil, "", nil, fmt.Errorf("tablereplay: environment variable %s holds no key of a storage account", p.variable)
	}
	return a, p.table, o, nil
}

// parsed is what a URL says.
type parsed struct{ account, endpoint, table, variable, prefix string }

var (
	accountName  = regexp.MustCompile(`^[a-z0-9]{3,24}$`)
	variableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,127}$`)
)

// parseURL's errors name a part of the URL, never its value.
func parseURL(rawURL string) (p parsed, err error) {
	u, err := url.Parse(rawURL)
	if err != nil {
		return p, errors.New("tablereplay: the URL does not parse: use " + form)
	}
	p.table = strings.TrimPrefix(u.Path, "/")
	host := strings.ToLower(u.Hostname())
	p.account, _, _ = strings.Cut(host, ".")
	switch {
	case u.Scheme != Scheme:
		return p, fmt.Errorf("tablereplay: scheme %q: use %s", u.Scheme, form)
	case u.User != nil:
		return p, errors.New("tablereplay: credentials in the URL: name an environment variable with the parameter key, or leave them to the SDK's chain")
	case u.Port() != "" || u.Opaque != "" || u.Fragment != "" || strings.Contains(p.table, "/"):
		return p, errors.New("tablereplay: more than an account and a table in the URL: use " + form)
	case !accountName.MatchString(p.account):
		return p, errors.New("tablereplay: the account in the URL has 3 to 24 small letters and digits: use " + form)
	case p.table == "":
		return p, errors.New("tablereplay: no table in the URL: use " + form)
	}
	p.endpoint = "https://" + host
	if !strings.Contains(host, ".") {
		p.endpoint += ".table.core.windows.net"
	}
	q, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return p, errors.New("tablereplay: the URL's query does not parse")
	}
	for name, values := range q {
		target := map[string]*string{"endpoint": &p.endpoint, "key": &p.variable, "prefix": &p.prefix}[name]
		switch {
		case target == nil:
			return p, fmt.Errorf("tablereplay: unknown URL parameter %q; known: endpoint, key, prefix", name)
		case len(values) != 1 || values[0] == "":
			return p, fmt.Errorf("tablereplay: URL parameter %s: give it once, with a value", name)
		case name == "key" && !variableName.MatchString(values[0]):
			return p, errors.New("tablereplay: URL parameter key names an environment variable; the key itself must not be in the URL")
		}
		*target = values[0]
	}
	return p, nil
}
