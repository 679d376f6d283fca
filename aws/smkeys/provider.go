package smkeys

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"

	"github.com/queue-runtime/queue/aws/internal/profile"
	"github.com/queue-runtime/queue/internal/httpclient"
	"github.com/queue-runtime/queue/keys"
)

// Layout is how keys lie in Secrets Manager: see the package's comment.
type Layout uint8

// The layouts.
const (
	Secrets  Layout = iota // a secret for each key, and a pointer
	Versions               // a version of one secret for each key
)

// Options configure a [Provider].
type Options struct {
	// Layout is how the keys lie. Zero means Secrets.
	Layout Layout
	// Endpoint is the base URL of the service. Empty means the region's own.
	Endpoint string
}

// Provider implements keys.Provider on Secrets Manager. It is safe for concurrent
// use and needs no closing.
//
// Its permissions are secretsmanager:GetSecretValue on the secrets, for Versions
// also secretsmanager:ListSecretVersionIds, and kms:Decrypt if they are under a
// customer's key. It never lists secrets, which no policy can confine.
type Provider struct {
	api    api
	name   string
	layout Layout
	given  keys.Given
}

var _ keys.Provider = (*Provider)(nil)

// api is what is used of Secrets Manager.
type api interface {
	GetSecretValue(context.Context, *secretsmanager.GetSecretValueInput, ...func(*secretsmanager.Options)) (*secretsmanager.GetSecretValueOutput, error)
	ListSecretVersionIds(context.Context, *secretsmanager.ListSecretVersionIdsInput, ...func(*secretsmanager.Options)) (*secretsmanager.ListSecretVersionIdsOutput, error)
}

// New returns a Provider over the SDK's configuration. name is the name of the
// pointer, or with Versions that of the secret: letters, digits and /_+=.@- (API
// Reference, CreateSecret). o may be nil. It does no I/O.
func New(cfg aws.Config, name string, o *Options) (*Provider, error) {
	if o == nil {
		o = &Options{}
	}
	if cfg.Region == "" {
		return nil, errors.New("smkeys: no region: set it in the configuration, AWS_REGION or the URL")
	}
	if err := checkName(name); err != nil {
		return nil, err
	}
	if o.Layout > Versions {
		return nil, fmt.Errorf("smkeys: Options.Layout is %d: use Secrets or Versions", o.Layout)
	}
	client := secretsmanager.NewFromConfig(cfg, func(so *secretsmanager.Options) {
		if o.Endpoint != "" {
			so.BaseEndpoint = aws.String(o.Endpoint)
		}
		so.HTTPClient = httpclient.New(so.HTTPClient, httpclient.AttemptTime)
		so.APIOptions = append(so.APIOptions, profile.DropRefused(so.Credentials))
	})
	return &Provider{api: client, name: name, layout: o.Layout}, nil
}

// maxName bounds the name of a secret (API Reference, CreateSecret).
const maxName = 512

// checkName leaves room for a slash and the longest key ID.
func checkName(name string) error {
	if limit := maxName - 1 - keys.MaxID; name == "" || len(name) > limit {
		return fmt.Errorf("smkeys: a name of %d bytes: use 1 to %d", len(name), limit)
	}
	for i := range len(name) {
		switch c := name[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', strings.IndexByte("/_+=.@-", c) >= 0:
		default:
			return fmt.Errorf("smkeys: byte %d of the name: use letters, digits and /_+=.@-", i)
		}
	}
	return nil
}

// secret returns the name of a key's secret, in the layout Secrets. No two IDs
// share one: an ID has no plus.
func (p *Provider) secret(id keys.ID) string {
	return p.name + "/" + strings.ReplaceAll(string(id), ":", "+")
}

// GetKey implements keys.Provider.
func (p *Provider) GetKey(ctx context.Context, id keys.ID) (*keys.Key, error) {
	if err := id.Validate(); err != nil {
		return nil, err
	}
	if p.layout == Versions {
		return p.version(ctx, id)
	}
	valid, err := p.ValidKeyIDs(ctx)
	if err != nil {
		return nil, err
	}
	for _, v := range valid {
		if v == id {
			return p.single(ctx, id)
		}
	}
	p.given.Drop(id)
	return nil, fmt.Errorf("smkeys: %w: %s is not among the valid keys of %s", keys.ErrNotFound, id, p.name)
}

// single fetches a key that is a secret of its own.
func (p *Provider) single(ctx context.Context, id keys.ID) (*keys.Key, error) {
	v, err := p.fetch(ctx, p.secret(id), stageCurrent, "")
	if err != nil {
		if errors.Is(err, keys.ErrNotFound) {
			p.given.Drop(id)
			return nil, fmt.Errorf("%w (key %s)", err, id)
		}
		return nil, err
	}
	return p.take(id, p.secret(id), v)
}

// version fetches a key that is a version.
func (p *Provider) version(ctx context.Context, id keys.ID) (*keys.Key, error) {
	where := p.name + ", version " + string(id)
	v, err := p.fetch(ctx, p.name, "", string(id))
	if err != nil {
		if errors.Is(err, keys.ErrNotFound) {
			// The version, or the secret with all of them?
			if _, err := p.versions(ctx); err != nil {
				return nil, err
			}
			p.given.Drop(id)
			return nil, fmt.Errorf("%w (key %s)", err, id)
		}
		return nil, err
	}
	if len(v.VersionStages) == 0 {
		p.given.Drop(id)
		return nil, fmt.Errorf("smkeys: %w: %s has no staging label any more", keys.ErrNotFound, where)
	}
	return p.take(id, where, v)
}

// CurrentKeyID implements keys.Provider.
func (p *Provider) CurrentKeyID(ctx context.Context) (keys.ID, error) {
	v, err := p.fetch(ctx, p.name, stageCurrent, "")
	if err != nil {
		return "", storeGone(err)
	}
	if p.layout == Versions {
		id := keys.ID(aws.ToString(v.VersionId))
		if err := id.Validate(); err != nil {
			return "", fmt.Errorf("smkeys: the version ID of %s: %w", p.name, err)
		}
		return id, nil
	}
	ids, err := parsePointer(p.name, v)
	if err != nil {
		return "", err
	}
	if ids.Current == "" {
		return "", fmt.Errorf("smkeys: %w: %s names no current key", keys.ErrNotFound, p.name)
	}
	return ids.Current, nil
}

// ValidKeyIDs implements keys.Provider: one call to the service for Versions, up
// to three for Secrets.
func (p *Provider) ValidKeyIDs(ctx context.Context) ([]keys.ID, error) {
	if p.layout == Versions {
		return p.versions(ctx)
	}
	var out []keys.ID
	seen := make(map[keys.ID]bool)
	// In the order in which a rotation moves an ID, so that one that moves in the
	// meantime is not missed.
	for _, stage := range [...]string{stagePending, stageCurrent, stagePrevious} {
		v, err := p.fetch(ctx, p.name, stage, "")
		if errors.Is(err, keys.ErrNotFound) && stage != stageCurrent {
			continue // nothing has that stage
		}
		if err != nil {
			return nil, storeGone(err)
		}
		ids, err := parsePointer(p.name, v)
		if err != nil {
			return nil, err
		}
		for _, id := range append(ids.Valid, ids.Current) {
			if id != "" && !seen[id] {
				seen[id] = true
				out = append(out, id)
			}
		}
	}
	return out, nil
}

// versions lists the versions that have a label.
func (p *Provider) versions(ctx context.Context) ([]keys.ID, error) {
	var out []keys.ID
	in := &secretsmanager.ListSecretVersionIdsInput{SecretId: aws.String(p.name)}
	for {
		page, err := p.api.ListSecretVersionIds(ctx, in)
		if err != nil {
			return nil, storeGone(classify(ctx, "ListSecretVersionIds", p.name, err))
		}
		for _, v := range page.Versions {
			id := keys.ID(aws.ToString(v.VersionId))
			if len(v.VersionStages) == 0 || id.Validate() != nil {
				continue // the ID is whatever token a version was made with
			}
			out = append(out, id)
		}
		if aws.ToString(page.NextToken) == "" {
			return out, nil
		}
		in.NextToken = page.NextToken
	}
}

// Staging labels that Secrets Manager itself moves.
const (
	stageCurrent  = "AWSCURRENT"
	stagePending  = "AWSPENDING"
	stagePrevious = "AWSPREVIOUS"
)

// fetch asks for a value, by stage or by version.
func (p *Provider) fetch(ctx context.Context, secret, stage, version string) (*secretsmanager.GetSecretValueOutput, error) {
	in := &secretsmanager.GetSecretValueInput{SecretId: aws.String(secret)}
	where := secret
	if stage != "" {
		in.VersionStage, where = aws.String(stage), where+", "+stage
	}
	if version != "" {
		in.VersionId, where = aws.String(version), where+", version "+version
	}
	v, err := p.api.GetSecretValue(ctx, in)
	if err != nil {
		return nil, classify(ctx, "GetSecretValue", where, err)
	}
	return v, nil
}
