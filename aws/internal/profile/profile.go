// Package profile loads the configuration of the AWS SDK, and reads credentials that lie in
// a shared file again while the program runs. The SDK reads them once, so that a program
// would be refused for ever after they were rotated.
package profile

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
	"github.com/aws/smithy-go/logging"
)

// RereadEvery is how long credentials of a file are used until it is read again. Rotations
// leave the old ones valid for longer than that.
const RereadEvery = time.Minute

// fileSource is how the SDK calls credentials that lie in a shared file.
const fileSource = "SharedConfigCredentials"

// Load is config.LoadDefaultConfig without the SDK's own log lines, which would go to
// standard error: what they tell comes as an error, too. An empty region means that of the
// SDK's chain.
func Load(ctx context.Context, region string) (aws.Config, error) {
	load := func(ctx context.Context) (aws.Config, error) {
		o := []func(*config.LoadOptions) error{config.WithLogger(logging.Nop{})}
		if region != "" {
			o = append(o, config.WithRegion(region))
		}
		return config.LoadDefaultConfig(ctx, o...)
	}
	cfg, err := load(ctx)
	switch {
	case err != nil:
		return cfg, err
	case isRole(cfg.Credentials):
		cfg.Credentials = aws.NewCredentialsCache(&role{load: load, last: cfg.Credentials})
		return cfg, nil
	case !aws.IsCredentialsProvider(cfg.Credentials, credentials.StaticCredentialsProvider{}):
		return cfg, nil
	}
	// Static credentials are at hand: this asks no service.
	now, err := cfg.Credentials.Retrieve(ctx)
	if err != nil || !strings.HasPrefix(now.Source, fileSource) {
		return cfg, nil //nolint:nilerr // whatever is wrong comes with the first request
	}
	cfg.Credentials = aws.NewCredentialsCache(&rereading{load: load, last: now})
	return cfg, nil
}

func isRole(c aws.CredentialsProvider) bool {
	return aws.IsCredentialsProvider(c, (*stscreds.AssumeRoleProvider)(nil))
}

// role assumes a role with what the shared files have at each Retrieve, so once in the life of
// the role's credentials: the SDK would assume it for ever with the keys that it read first.
type role struct {
	load func(context.Context) (aws.Config, error)

	mu   sync.Mutex // guards last
	last aws.CredentialsProvider
}

// Retrieve implements aws.CredentialsProvider. While the files cannot be read, or name no role,
// it assumes the one that was read last.
func (r *role) Retrieve(ctx context.Context) (aws.Credentials, error) {
	cfg, err := r.load(ctx)
	r.mu.Lock()
	if err == nil && isRole(cfg.Credentials) {
		r.last = cfg.Credentials
	}
	last := r.last
	r.mu.Unlock()
	if cache, ok := last.(*aws.CredentialsCache); ok {
		cache.Invalidate()
	}
	return last.Retrieve(ctx)
}

// rereading reads the shared files at each Retrieve.
type rereading struct {
	load func(context.Context) (aws.Config, error)

	mu   sync.Mutex // guards last
	last aws.Credentials
}

// Retrieve implements aws.CredentialsProvider. While the files cannot be read, because they
// are being written for example, it returns what was read last.
func (r *rereading) Retrieve(ctx context.Context) (aws.Credentials, error) {
	now, err := r.read(ctx)
	if cerr := ctx.Err(); cerr != nil {
		return aws.Credentials{}, cerr
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err == nil {
		r.last = now
	}
	c := r.last
	c.CanExpire, c.Expires = true, time.Now().Add(RereadEvery)
	return c, nil
}

func (r *rereading) read(ctx context.Context) (aws.Credentials, error) {
	cfg, err := r.load(ctx)
	if err != nil {
		return aws.Credentials{}, err
	}
	if !aws.IsCredentialsProvider(cfg.Credentials, credentials.StaticCredentialsProvider{}) {
		return aws.Credentials{}, errOtherSource
	}
	c, err := cfg.Credentials.Retrieve(ctx)
	if err == nil && !strings.HasPrefix(c.Source, fileSource) {
		err = errOtherSource
	}
	return c, err
}

// errOtherSource says that the chain found another source, because the file is gone at the
// moment: the program must not go on under another identity.
var errOtherSource = errors.New("the credentials are not in the shared file any more")
