package kvkeys

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azsecrets"

	"github.com/queue-runtime/queue/internal/httpclient"
	"github.com/queue-runtime/queue/keys"
)

// Layout is how keys lie in Key Vault: see the package's comment.
type Layout uint8

// The layouts.
const (
	Secrets  Layout = iota // a secret for each key
	Versions               // a version of one secret for each key
)

// Options configure a [Provider].
type Options struct {
	// Layout is how the keys lie. Zero means Secrets.
	Layout Layout
	// Client configures the SDK's client. Nil, and a zero Retry, mean two
	// retries within two seconds, and none of what is throttled.
	Client *azsecrets.ClientOptions
}

// Provider implements keys.Provider on the secrets of a vault. It is safe for
// concurrent use and needs no closing.
//
// It needs to read and to list: with Secrets on the vault, because listing cannot
// be confined to some of its secrets; with Versions on the one secret. The role
// Key Vault Secrets User has both.
type Provider struct {
	client   *azsecrets.Client
	vault    string // host
	name     string // in small letters
	layout   Layout
	throttle throttle
	given    keys.Given
}

var _ keys.Provider = (*Provider)(nil)

// New returns a Provider of the keys in the vault at vaultURL, such as
// https://task-tactician.vault.azure.net. name is, with Secrets, what the names of
// their secrets begin with, and may be empty; with Versions that of the secret. It
// consists of letters, digits and dashes; case makes no difference. o may be nil.
// It does no I/O.
func New(vaultURL string, credential azcore.TokenCredential, name string, o *Options) (*Provider, error) {
	if o == nil {
		o = &Options{}
	}
	if o.Layout > Versions {
		return nil, fmt.Errorf("kvkeys: Options.Layout is %d: use Secrets or Versions", o.Layout)
	}
	if err := checkName(name, o.Layout); err != nil {
		return nil, err
	}
	if credential == nil {
		return nil, errors.New("kvkeys: no credential: use one of package azidentity")
	}
	u, err := url.Parse(vaultURL)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		return nil, errors.New("kvkeys: the vault's URL is not of the form https://VAULT.vault.azure.net")
	}
	var co azsecrets.ClientOptions
	if o.Client != nil {
		co = *o.Client
	}
	if r := &co.Retry; r.MaxRetries == 0 && r.RetryDelay == 0 && r.MaxRetryDelay == 0 && r.TryTimeout == 0 && r.StatusCodes == nil && r.ShouldRetry == nil {
		*r = retries
	}
	co.Transport = httpclient.New(co.Transport, httpclient.AttemptTime)
	client, err := azsecrets.NewClient("https://"+u.Host, credential, &co)
	if err != nil {
		return nil, fmt.Errorf("kvkeys: %w", err)
	}
	return &Provider{client: client, vault: u.Host, name: strings.ToLower(name), layout: o.Layout}, nil
}

// retries repeat what passes in a moment. Not among it is 429: to repeat it is what
// the vault asks not to do. The time of a try is bounded in the HTTP client, because
// to sign in is part of a try here and may take seconds.
var retries = policy.RetryOptions{
	MaxRetries:    2,
	RetryDelay:    200 * time.Millisecond,
	MaxRetryDelay: time.Second,
	StatusCodes:   []int{408, 500, 502, 503, 504},
}

// ask makes one call to the vault, unless that is to be left alone.
func (p *Provider) ask(ctx context.Context, at place, action string, call func() error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	left, probe := p.throttle.enter()
	if left > 0 {
		e := p.failed(at, Throttled, "the vault asked to be left alone for another %v", left.Round(time.Millisecond))
		e.RetryAfter = left
		return e
	}
	defer p.throttle.leave(probe)
	if err := call(); err != nil {
		return p.classify(ctx, at, action, err)
	}
	return nil
}

// GetKey implements keys.Provider: two calls to the vault, one to get the value
// and one to list the versions.
func (p *Provider) GetKey(ctx context.Context, id keys.ID) (*keys.Key, error) {
	if err := id.Validate(); err != nil {
		return nil, err
	}
	get := p.single
	if p.layout == Versions {
		get = p.version
	}
	k, err := get(ctx, id)
	if errors.Is(err, keys.ErrNotFound) {
		p.given.Drop(id)
	}
	return k, err
}

// single fetches a key that is a secret of its own.
func (p *Provider) single(ctx context.Context, id keys.ID) (*keys.Key, error) {
	at := place{id: id}
	var err error
	if at.secret, err = SecretName(p.name, id); err != nil {
		return nil, p.failed(at, NotFound, "%v", err) // the vault refuses such a name, so the key cannot exist
	}
	s, err := p.get(ctx, at, "")
	if err != nil {
		return nil, err
	}
	found := entryOf(s.ID, s.Attributes, s.Tags)
	if err := p.usable(at, found); err != nil {
		return nil, err
	}
	all, err := p.versionsOf(ctx, at)
	if err != nil {
		return nil, err
	}
	for _, e := range all {
		if !e.disabled && e.version != found.version {
			return nil, p.failed(at, Ambiguous, "it has several enabled versions, and one key ID names one key for ever: "+
				"disable those that messages were not sealed under, and give a new key a new ID")
		}
	}
	return p.take(at, s)
}

// version fetches a key that is a version.
func (p *Provider) version(ctx context.Context, id keys.ID) (*keys.Key, error) {
	at := place{secret: p.name, id: id}
	all, err := p.versionsOf(ctx, at)
	if err != nil {
		return nil, err
	}
	var found *entry
	var refused error
	for _, e := range all {
		if e.id != id {
			continue
		}
		if err := p.usable(at, e); err != nil {
			refused = err
			continue
		}
		if found != nil {
			return nil, p.failed(at, Ambiguous, "several enabled versions have this key ID, and one key ID names one key for ever: "+
				"disable those that messages were not sealed under, and give a new key a new ID")
		}
		found = e
	}
	switch {
	case found == nil && refused != nil:
		return nil, refused
	case found == nil:
		return nil, p.failed(at, NotFound, "no version has the tag %s with this key ID", TagID)
	}
	s, err := p.get(ctx, at, found.version)
	if err != nil {
		return nil, err
	}
	return p.take(at, s)
}

// get asks for a value. An empty version means the latest.
func (p *Provider) get(ctx context.Context, at place, version string) (s azsecrets.Secret, err error) {
	err = p.ask(ctx, at, actionGet, func() error {
		r, err := p.client.GetSecret(ctx, at.secret, version, nil)
		s = r.Secret
		return err
	})
	return s, err
}

// CurrentKeyID implements keys.Provider.
func (p *Provider) CurrentKeyID(ctx context.Context) (keys.ID, error) {
	all, err := p.list(ctx)
	if err != nil {
		return "", err
	}
	now := time.Now()
	var current *entry
	at := place{secret: p.root()}
	refused := p.failed(at, Unmarked, "no key is current: give the one to seal with the tag %s=%s", Tag, Current)
	for _, e := range all {
		switch {
		case e.tag != Current:
		case e.disabled:
			refused = p.failed(at, Disabled, "the current key %s is disabled: give another one the tag %s=%s", e.id, Tag, Current)
		case now.Before(e.notBefore):
			refused = p.failed(at, NotYetValid, "the current key %s is not to be used before %s", e.id, e.notBefore.UTC().Format(time.RFC3339))
		case current == nil || e.newer(current):
			current = e
		}
	}
	if current == nil {
		return "", refused
	}
	return current.id, nil
}

// ValidKeyIDs implements keys.Provider: one call to the vault for each 25 secrets
// in it, or with Versions for each 25 versions of the secret.
func (p *Provider) ValidKeyIDs(ctx context.Context) ([]keys.ID, error) {
	all, err := p.list(ctx)
	if err != nil {
		return nil, err
	}
	var out []keys.ID
	seen := make(map[keys.ID]bool)
	for _, e := range all {
		if !e.disabled && !seen[e.id] {
			seen[e.id] = true
			out = append(out, e.id)
		}
	}
	return out, nil
}
