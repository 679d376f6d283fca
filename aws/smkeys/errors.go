package smkeys

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/queue-runtime/queue/internal/httpclient"
	"github.com/queue-runtime/queue/keys"
)

// unavailable is a failure of the service. It keeps the SDK's error for
// errors.As and shows only what holds no value.
type unavailable struct {
	text string
	err  error
}

func (e *unavailable) Error() string        { return e.text }
func (e *unavailable) Unwrap() error        { return e.err }
func (e *unavailable) Is(target error) bool { return target == keys.ErrUnavailable }

// notFound says that Secrets Manager has no such secret or version.
type notFound struct{ what string }

func (e *notFound) Error() string        { return "smkeys: " + keys.ErrNotFound.Error() + ": " + e.what }
func (e *notFound) Is(target error) bool { return target == keys.ErrNotFound }

// storeGone turns the absence of the pointer, or of the secret that holds all keys,
// into ErrUnavailable: without it no key can be said to be missing. It may have been
// deleted by mistake, and Secrets Manager can restore it for some days.
func storeGone(err error) error {
	var gone *notFound
	if errors.As(err, &gone) {
		return &unavailable{text: fmt.Sprintf("smkeys: %v: %s: create or restore this secret", keys.ErrUnavailable, gone.what)}
	}
	return err
}

// classify makes an error of this package of one of the SDK. The caller's own
// context error passes through.
func classify(ctx context.Context, operation, where string, err error) error {
	if cerr := ctx.Err(); cerr != nil {
		return cerr
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		// Of a timeout below; it must not pass for the caller's own.
		return &unavailable{text: fmt.Sprintf("smkeys: %v: %s: %s: no answer in time", keys.ErrUnavailable, operation, where)}
	}
	reason := "no answer from the service"
	var api smithy.APIError
	var status *smithyhttp.ResponseError
	var send *smithyhttp.RequestSendError
	switch {
	case errors.As(err, &api):
		code := api.ErrorCode()
		code = code[strings.LastIndexByte(code, '#')+1:]
		if code == "ResourceNotFoundException" {
			return &notFound{where}
		}
		// The one case of InvalidRequestException for these two calls (API
		// Reference, GetSecretValue).
		if code == "InvalidRequestException" && strings.Contains(api.ErrorMessage(), "marked") {
			return &notFound{where + " is marked for deletion"}
		}
		reason = code
		if errors.As(err, &status) && status.HTTPStatusCode() == http.StatusForbidden || strings.HasPrefix(code, "AccessDenied") {
			reason += ": grant secretsmanager:" + operation
		}
	case errors.Is(err, httpclient.ErrTooLarge):
		reason = httpclient.ErrTooLarge.Error()
	case errors.As(err, &send): // in a ResponseError of status 0
	case errors.As(err, &status):
		reason = "HTTP " + strconv.Itoa(status.HTTPStatusCode())
	default:
		reason = "the request could not be made: check region and credentials"
	}
	return &unavailable{text: fmt.Sprintf("smkeys: %v: %s: %s: %s", keys.ErrUnavailable, operation, where, reason), err: err}
}
