package sbqueue

import (
	"context"
	"errors"
	"sync/atomic"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"

	"github.com/queue-runtime/queue/driver"
)

// credential is a credential that remembers whether it has worked. An identity endpoint
// that is away for some seconds fails as a wrong secret does; but what has handed out
// tokens before will as a rule do so again, so its failure is transient then.
type credential struct {
	azcore.TokenCredential
	worked atomic.Bool
}

// GetToken implements azcore.TokenCredential.
func (c *credential) GetToken(ctx context.Context, o policy.TokenRequestOptions) (azcore.AccessToken, error) {
	t, err := c.TokenCredential.GetToken(ctx, o)
	switch {
	case err == nil:
		c.worked.Store(true)
	case c.worked.Load() && ctx.Err() == nil:
		err = &identityError{err}
	}
	return t, err
}

// identityError is a failure of a credential that has worked before.
type identityError struct{ err error }

func (e *identityError) Error() string {
	return "no token, from a credential that worked before: " + e.err.Error()
}

func (e *identityError) Unwrap() error { return e.err }

// identityKind returns Unavailable for an identityError.
func identityKind(err error) (driver.Kind, bool) {
	var e *identityError
	return driver.Unavailable, errors.As(err, &e)
}
