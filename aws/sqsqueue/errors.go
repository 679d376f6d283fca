package sqsqueue

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/ratelimit"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/queue-runtime/queue/driver"
)

// kinds maps the error codes of SQS, and those that every AWS service shares
// (API Reference, Common Errors), without their namespaces.
var kinds = map[string]driver.Kind{
	"QueueDoesNotExist":    driver.NotFound,
	"NonExistentQueue":     driver.NotFound,
	"QueueDeletedRecently": driver.NotFound,

	"AccessDenied":                driver.Permission,
	"AccessDeniedException":       driver.Permission,
	"ExpiredToken":                driver.Permission,
	"ExpiredTokenException":       driver.Permission,
	"IncompleteSignature":         driver.Permission,
	"InvalidAccessKeyId":          driver.Permission,
	"InvalidClientTokenId":        driver.Permission,
	"InvalidSecurity":             driver.Permission,
	"InvalidSignatureException":   driver.Permission,
	"MissingAuthenticationToken":  driver.Permission,
	"NotAuthorized":               driver.Permission,
	"OptInRequired":               driver.Permission,
	"SignatureDoesNotMatch":       driver.Permission,
	"UnrecognizedClientException": driver.Permission,
	"KmsAccessDenied":             driver.Permission,
	"KmsDisabled":                 driver.Permission,
	"KmsInvalidKeyUsage":          driver.Permission,
	"KmsInvalidState":             driver.Permission,
	"KmsNotFound":                 driver.Permission,
	"KmsOptInRequired":            driver.Permission,
	"KMS.AccessDeniedException":   driver.Permission,
	"KMS.DisabledException":       driver.Permission,
	"KMS.InvalidStateException":   driver.Permission,
	"KMS.NotFoundException":       driver.Permission,
	"KMS.OptInRequired":           driver.Permission,
	// The clock is wrong here. The SDK has learned by the answer how far, and signs the next
	// request with the service's time.
	"RequestExpired":               driver.Unavailable,
	"RequestTimeTooSkewed":         driver.Unavailable,
	"KmsThrottled":                 driver.Throttled,
	"KMS.ThrottlingException":      driver.Throttled,
	"OverLimit":                    driver.Throttled, // too many messages in flight
	"RequestLimitExceeded":         driver.Throttled,
	"RequestThrottled":             driver.Throttled,
	"RequestThrottledException":    driver.Throttled,
	"SlowDown":                     driver.Throttled,
	"Throttling":                   driver.Throttled,
	"ThrottlingException":          driver.Throttled,
	"ThrottledException":           driver.Throttled,
	"TooManyRequestsException":     driver.Throttled,
	"BandwidthLimitExceeded":       driver.Throttled,
	"InternalError":                driver.Unavailable,
	"InternalFailure":              driver.Unavailable,
	"ServiceUnavailable":           driver.Unavailable,
	"ServiceUnavailableException":  driver.Unavailable,
	"RequestTimeout":               driver.Unavailable,
	"RequestTimeoutException":      driver.Unavailable,
	"MessageNotInflight":           driver.LockLost,
	"ReceiptHandleIsInvalid":       driver.LockLost,
	"InvalidMessageContents":       driver.Invalid,
	"InvalidAttributeValue":        driver.Invalid,
	"BatchRequestTooLong":          driver.TooLarge,
	"UnsupportedOperation":         driver.Other,
	"InvalidBatchEntryId":          driver.Other,
	"EmptyBatchRequest":            driver.Other,
	"TooManyEntriesInBatchRequest": driver.Other,
}

// serviceError is the cause of a driver.Error that SQS answered, in words that
// are safe to log: SQS repeats receipt handles and parameters in its own text,
// so only what is known to hold none is kept.
type serviceError struct {
	operation string // the API's action
	code      string // the API's code
	detail    string // empty, or the API's text
	requestID string // empty if unknown
	err       error  // nil for an entry of a batch
}

func (e *serviceError) Error() string {
	s := e.operation + ": " + e.code
	if e.detail != "" {
		s += ": " + e.detail
	}
	if e.requestID != "" {
		s += " (request " + e.requestID + ")"
	}
	return s
}

func (e *serviceError) Unwrap() error { return e.err }

// classify makes the one driver.Error of an SDK error. Context errors pass
// through as they are.
func classify(ctx context.Context, operation string, err error) error {
	if err == nil {
		return nil
	}
	if cerr := ctx.Err(); cerr != nil && (errors.Is(err, cerr) || isCanceled(err)) {
		return cerr
	}
	out := &driver.Error{RetryAfter: retryAfter(err)}
	cause := &serviceError{operation: operation, err: err}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		cause.err = nil // of a timeout below; it must not pass for the caller's own
	}
	if id := requestID(err); id != "" {
		cause.requestID = id
	}
	var api smithy.APIError
	var status *smithyhttp.ResponseError
	var credentials credentialsError
	answered := errors.As(err, &status) && status.HTTPStatusCode() > 0 // otherwise it stands for no answer
	switch {
	case errors.As(err, &api):
		cause.code = code(api.ErrorCode())
		out.Kind = kindOf(cause.code, api.ErrorMessage())
		if out.Kind == driver.Permission {
			cause.detail = api.ErrorMessage() // names the principal and the missing action
		}
	case errors.As(err, &credentials):
		cause.code, out.Kind = "no usable AWS credentials", driver.Permission
		if credentials.renewal {
			cause.code, out.Kind = "the AWS credentials could not be renewed", driver.Unavailable
		}
	case answered && status.HTTPStatusCode() < http.StatusBadRequest:
		cause.code, out.Kind = "the answer could not be read", driver.Unavailable
	case answered:
		cause.code, out.Kind = "HTTP "+strconv.Itoa(status.HTTPStatusCode()), driver.Unavailable
	case isQuota(err):
		cause.code, out.Kind = "retry quota exceeded", driver.Throttled
	default:
		cause.code, out.Kind = "no answer from the service", driver.Unavailable
		var send *smithyhttp.RequestSendError
		if !errors.As(err, &send) {
			cause.code, out.Kind = "the request could not be made", driver.Other
		}
	}
	if out.Kind == driver.Other && answered {
		switch c := status.HTTPStatusCode(); {
		case c == http.StatusTooManyRequests:
			out.Kind = driver.Throttled
		case c == http.StatusForbidden || c == http.StatusUnauthorized:
			out.Kind = driver.Permission
		case c >= 500:
			out.Kind = driver.Unavailable
		}
	}
	out.Err = cause
	return out
}

// noAnswer is the error of a request that took longer than this driver waits.
func noAnswer(operation string) error {
	return &driver.Error{Kind: driver.Unavailable, Err: &serviceError{operation: operation, code: "no answer in time"}}
}

// entryError makes the error of one entry of a batch that failed.
func entryError(operation string, e types.BatchResultErrorEntry) error {
	c := code(aws.ToString(e.Code))
	kind := kindOf(c, aws.ToString(e.Message))
	if kind == driver.Other && !e.SenderFault {
		kind = driver.Unavailable
	}
	return &driver.Error{Kind: kind, Err: &serviceError{operation: operation, code: c}}
}

// code strips a namespace, such as "AWS.SimpleQueueService." or
// "com.amazonaws.sqs#".
func code(c string) string {
	c = c[strings.LastIndexByte(c, '#')+1:]
	return strings.TrimPrefix(c, "AWS.SimpleQueueService.")
}

func kindOf(code, text string) driver.Kind {
	// A FIFO queue refuses a handle whose visibility is over, as a parameter
	// that is not valid ("The receipt handle has expired"); so does
	// ChangeMessageVisibility on any queue.
	if code == "InvalidParameterValue" || code == "InvalidParameterValueException" {
		switch {
		case strings.Contains(text, "ReceiptHandle"), strings.Contains(text, "receipt handle"), strings.Contains(text, "VisibilityTimeout for the message is beyond"):
			return driver.LockLost
		case strings.Contains(text, "must be shorter than"):
			return driver.TooLarge
		}
		return driver.Invalid
	}
	return kinds[code]
}

// isExpired reports whether the service refused credentials because their time is over.
func isExpired(err error) bool {
	var s *serviceError
	return errors.As(err, &s) && (s.code == "ExpiredToken" || s.code == "ExpiredTokenException")
}

// isUnknownKey reports whether the service refused credentials because it does not know
// them, or not this secret: they may have been rotated.
func isUnknownKey(err error) bool {
	var s *serviceError
	if !errors.As(err, &s) {
		return false
	}
	switch s.code {
	case "InvalidAccessKeyId", "InvalidClientTokenId", "InvalidSignatureException", "SignatureDoesNotMatch", "UnrecognizedClientException":
		return true
	}
	return false
}

func isCanceled(err error) bool {
	var c *smithy.CanceledError
	var a *aws.RequestCanceledError
	return errors.As(err, &c) || errors.As(err, &a)
}

func isQuota(err error) bool {
	var q ratelimit.QuotaExceededError
	return errors.As(err, &q)
}

func requestID(err error) string {
	var r interface{ ServiceRequestID() string }
	if errors.As(err, &r) {
		return r.ServiceRequestID()
	}
	return ""
}

// retryAfter reads the Retry-After header in seconds (RFC 9110, Section 10.2.3),
// 0 if there is none.
func retryAfter(err error) time.Duration {
	var r *smithyhttp.ResponseError
	if !errors.As(err, &r) || r.Response == nil || r.Response.Response == nil {
		return 0
	}
	secs, perr := strconv.Atoi(r.Response.Header.Get("Retry-After"))
	if perr != nil || secs < 0 || secs > int(time.Hour/time.Second) {
		return 0
	}
	return time.Duration(secs) * time.Second
}

// credentialsError marks what the credential chain answered, so that it can be
// told from an error of the network.
type credentialsError struct {
	err     error
	renewal bool // there were usable ones before: what hands them out may come back
}

func (e credentialsError) Error() string { return e.err.Error() }
func (e credentialsError) Unwrap() error { return e.err }

// markedCredentials marks the errors of a credential chain.
type markedCredentials struct {
	aws.CredentialsProvider
	worked atomic.Bool
}

func (m *markedCredentials) Retrieve(ctx context.Context) (aws.Credentials, error) {
	c, err := m.CredentialsProvider.Retrieve(ctx)
	switch {
	case err == nil:
		m.worked.Store(true)
	case ctx.Err() == nil:
		err = credentialsError{err, m.worked.Load()}
	}
	return c, err
}

// invalidate drops what the SDK keeps of credentials that the service refused.
func (m *markedCredentials) invalidate() {
	if m == nil {
		return
	}
	if c, ok := m.CredentialsProvider.(interface{ Invalidate() }); ok {
		c.Invalidate()
	}
}

// IsCredentialsProvider lets the SDK see through the mark, to find anonymous
// credentials.
func (m *markedCredentials) IsCredentialsProvider(target aws.CredentialsProvider) bool {
	return aws.IsCredentialsProvider(m.CredentialsProvider, target)
}
