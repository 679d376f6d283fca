package sbqueue

import (
	"context"
	"errors"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"

	"github.com/queue-runtime/queue/driver"
)

// identity is an identity endpoint.
type identity struct{ err error }

func (i *identity) GetToken(context.Context, policy.TokenRequestOptions) (azcore.AccessToken, error) {
	return azcore.AccessToken{Token: "t"}, i.err
}

// TestIdentityAway: an identity endpoint that fails is a refusal until it has handed out
// a token, and from then on an outage.
func TestIdentityAway(t *testing.T) {
	var at policy.TokenRequestOptions
	endpoint := &identity{err: errors.New("connection refused")}
	c := &credential{TokenCredential: endpoint}
	_, err := c.GetToken(t.Context(), at)
	if kind := driver.KindOf(classify(t.Context(), err)); kind != driver.Other {
		t.Errorf("a credential that never worked: %v", classify(t.Context(), err))
	}
	endpoint.err = nil
	if _, err := c.GetToken(t.Context(), at); err != nil {
		t.Fatal(err)
	}
	endpoint.err = errors.New("connection refused")
	_, err = c.GetToken(t.Context(), at)
	var e *driver.Error
	if err = classify(t.Context(), err); !errors.As(err, &e) || !e.Transient() {
		t.Errorf("a credential that worked before: %v, want a transient error", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	endpoint.err = context.Canceled
	if _, err := c.GetToken(ctx, at); !errors.Is(classify(ctx, err), context.Canceled) {
		t.Errorf("a caller that gave up: %v", err)
	}
}
