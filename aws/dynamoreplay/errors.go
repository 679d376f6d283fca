package dynamoreplay

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws/ratelimit"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/internal/httpclient"
)

// kinds maps the error codes of DynamoDB, and those that every AWS service shares
// (API Reference, Common Errors).
var kinds = map[string]driver.Kind{
	"ResourceNotFoundException": driver.NotFound,

	"AccessDeniedException":               driver.Permission,
	"ExpiredTokenException":               driver.Permission,
	"IncompleteSignatureException":        driver.Permission,
	"InvalidSignatureException":           driver.Permission,
	"MissingAuthenticationTokenException": driver.Permission,
	"OptInRequired":                       driver.Permission,
	"UnrecognizedClientException":         driver.Permission,

	"LimitExceededException":                 driver.Throttled,
	"ProvisionedThroughputExceededException": driver.Throttled,
	"RequestLimitExceeded":                   driver.Throttled,
	"ThrottlingException":                    driver.Throttled,

	"InternalServerError":              driver.Unavailable,
	"InternalFailure":                  driver.Unavailable,
	"ServiceUnavailable":               driver.Unavailable,
	"ServiceUnavailableException":      driver.Unavailable,
	"RequestTimeout":                   driver.Unavailable,
	"ReplicatedWriteConflictException": driver.Unavailable,

	"ItemCollectionSizeLimitExceededException": driver.Full,
}

// advice says what to do about a kind of error.
var advice = map[driver.Kind]string{
	driver.NotFound:   "make it with qrt nonces init, and check the region",
	driver.Permission: "check the credentials and the policy in docs/replay/dynamodb.md",
	driver.Throttled:  "raise the table's capacity, or let it scale on demand",
}

// classify makes the one driver.Error of an SDK error. Context errors of the caller pass
// through as they are.
func (b *backend) classify(ctx context.Context, operation string, err error) error {
	if cerr := ctx.Err(); cerr != nil {
		return cerr
	}
	var refusal smithy.APIError
	var status *smithyhttp.ResponseError
	var quota ratelimit.QuotaExceededError
	var send *smithyhttp.RequestSendError
	var kind driver.Kind
	var what string
	switch {
	case errors.As(err, &refusal):
		code := refusal.ErrorCode()
		kind, what = kinds[code[strings.LastIndexByte(code, '#')+1:]], code
		if kind == driver.Permission {
			what += ": " + refusal.ErrorMessage() // names the principal and the missing action
		}
		if kind == driver.Other && errors.As(err, &status) && status.HTTPStatusCode() >= http.StatusInternalServerError {
			kind = driver.Unavailable
		}
	case errors.As(err, &quota):
		kind, what = driver.Throttled, "too many requests were repeated"
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		// Of callTime; it must not pass for the caller's own.
		return driver.Errorf(driver.Unavailable, "dynamoreplay: %s on %s: no answer in time", operation, b.describe())
	case errors.Is(err, httpclient.ErrTooLarge):
		kind, what = driver.Unavailable, httpclient.ErrTooLarge.Error()
	case errors.As(err, &send), errors.As(err, &status):
		kind, what = driver.Unavailable, "no answer from the service"
	default:
		kind, what = driver.Permission, "the request could not be made or its answer not be read"
		if !strings.Contains(err.Error(), "credentials") {
			kind = driver.Unavailable
		}
	}
	text := fmt.Sprintf("dynamoreplay: %s on %s: %s", operation, b.describe(), what)
	if a := advice[kind]; a != "" {
		text += ": " + a
	}
	return driver.Errorf(kind, "%s", text)
}
