package kvkeys

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
)

// Scheme is the scheme of the URLs that [Open] takes.
const Scheme = "azkv"

// domain is the domain of the public cloud's vaults.
const domain = ".vault.azure.net"

const form = "azkv://VAULT/NAME, or azkv://VAULT if the vault holds the keys of one queue only"

// Open returns a Provider for azkv://VAULT/NAME?parameters. VAULT is the vault's
// name, or its host if that is in another cloud than the public one. Credentials
// come from azidentity's default chain (environment, workload identity, managed
// identity, Azure CLI), never from the URL.
//
// There is one parameter: layout (secrets or versions) sets Options.Layout.
func Open(ctx context.Context, rawURL string) (*Provider, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	vault, name, o, err := parseURL(rawURL)
	if err != nil {
		return nil, err
	}
	credential, err := azidentity.NewDefaultAzureCredential(nil)
	if err != nil {
		return nil, &Error{Reason: Credentials, vault: vault, detail: "no credential: check AZURE_CLIENT_ID, AZURE_TENANT_ID and the other variables of azidentity, and AZURE_TOKEN_CREDENTIALS", err: err}
	}
	return New("https://"+vault, credential, name, o)
}

// parseURL's errors name a part of the URL, never its value.
func parseURL(rawURL string) (vault, name string, o *Options, err error) {
	fail := func(what string) (string, string, *Options, error) {
		return "", "", nil, fmt.Errorf("kvkeys: %s: use %s", what, form)
	}
	u, err := url.Parse(rawURL)
	if err != nil {
		return fail("the URL does not parse")
	}
	switch {
	case u.Scheme != Scheme:
		return fail(fmt.Sprintf("scheme %q", u.Scheme))
	case u.User != nil:
		return fail("credentials in the URL, which are the SDK's chain's affair")
	case u.Port() != "" || u.Opaque != "" || u.Fragment != "":
		return fail("more than a vault and a name in the URL")
	case u.Hostname() == "":
		return fail("no vault in the URL")
	}
	q, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return fail("the URL's query does not parse")
	}
	o = &Options{}
	for parameter, values := range q {
		switch {
		case parameter != "layout":
			return "", "", nil, fmt.Errorf("kvkeys: unknown URL parameter %q; known: layout", parameter)
		case len(values) != 1:
			return "", "", nil, fmt.Errorf("kvkeys: URL parameter layout is given %d times", len(values))
		case values[0] == "versions":
			o.Layout = Versions
		case values[0] != "secrets":
			return "", "", nil, errors.New("kvkeys: URL parameter layout: use secrets or versions")
		}
	}
	if vault = strings.ToLower(u.Hostname()); !strings.Contains(vault, ".") {
		vault += domain
	}
	if err := checkHost(vault); err != nil {
		return "", "", nil, err
	}
	name = strings.TrimPrefix(u.Path, "/")
	return vault, name, o, checkName(name, o.Layout)
}

// checkHost takes a host of letters, digits, dashes and dots.
func checkHost(host string) error {
	for i := range len(host) {
		switch c := host[i]; {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '-', c == '.':
		default:
			return fmt.Errorf("kvkeys: byte %d of the vault: use letters, digits, dashes and dots", i)
		}
	}
	return nil
}
