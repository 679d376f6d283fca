package profile

import (
	"context"
	"errors"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/smithy-go"
	"github.com/aws/smithy-go/middleware"
)

// refused are the error codes of a service that does not take the credentials: their time
// is over, or it does not know them, or not this secret (API references, Common Errors).
var refused = map[string]bool{
	"ExpiredToken": true, "ExpiredTokenException": true, "InvalidAccessKeyId": true, "InvalidClientTokenId": true,
	"InvalidSignatureException": true, "SignatureDoesNotMatch": true, "UnrecognizedClientException": true,
}

// DropRefused returns an option of a client that drops what the SDK keeps of credentials
// once the service refused them: what hands them out may have newer ones. Without it the SDK
// uses them until the time that they came with is over.
func DropRefused(c aws.CredentialsProvider) func(*middleware.Stack) error {
	return func(s *middleware.Stack) error {
		cache, ok := c.(interface{ Invalidate() })
		if !ok {
			return nil
		}
		return s.Deserialize.Add(middleware.DeserializeMiddlewareFunc("DropRefusedCredentials", func(
			ctx context.Context, in middleware.DeserializeInput, next middleware.DeserializeHandler,
		) (middleware.DeserializeOutput, middleware.Metadata, error) {
			out, metadata, err := next.HandleDeserialize(ctx, in)
			var api smithy.APIError
			if errors.As(err, &api) && refused[api.ErrorCode()[strings.LastIndexByte(api.ErrorCode(), '#')+1:]] {
				cache.Invalidate()
			}
			return out, metadata, err
		}), middleware.Before)
	}
}
