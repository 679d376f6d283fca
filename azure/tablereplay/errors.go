package tablereplay

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/azure-sdk-for-go/sdk/data/aztables"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/internal/httpclient"
)

// errNoETag: an answer lacks what the protocol has in it, so that what is stored now is
// not known.
var errNoETag = driver.Errorf(driver.Unavailable, "the answer has no ETag for a write")

// isCode reports whether the service answered with one of the codes.
func isCode(err error, codes ...aztables.TableErrorCode) bool {
	var r *azcore.ResponseError
	if !errors.As(err, &r) {
		return false
	}
	for _, c := range codes {
		if r.ErrorCode == string(c) {
			return true
		}
	}
	return false
}

// isConflict reports whether a write failed because the entity is not as it was.
func isConflict(err error) bool {
	var r *azcore.ResponseError
	return errors.As(err, &r) && isConflictStatus(r.StatusCode) && r.ErrorCode != string(aztables.TableNotFound)
}

func isConflictStatus(status int) bool {
	return status == http.StatusPreconditionFailed || status == http.StatusNotFound
}

// codeForm is how the service's codes look: other text of an answer is kept out of logs.
var codeForm = regexp.MustCompile(`^[A-Za-z0-9]{1,64}$`)

// classify makes the one driver.Error of an SDK error; nil of nil. Context errors of the
// caller pass through as they are.
func (b *backend) classify(ctx context.Context, action string, err error) error {
	if err == nil {
		return nil
	}
	if cerr := ctx.Err(); cerr != nil {
		return cerr
	}
	kind, what := driver.Unavailable, "no answer from the service"
	var r *azcore.ResponseError
	var sign *azidentity.AuthenticationFailedError
	switch {
	case errors.As(err, &r):
		kind, what = kindOf(r)
	case errors.As(err, &sign):
		kind, what = driver.Permission, "signing in to Microsoft Entra ID failed: check the identity that the environment configures"
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		// Of callTime; it must not pass for the caller's own.
		what = "no answer in time"
	case errors.Is(err, httpclient.ErrTooLarge):
		what = httpclient.ErrTooLarge.Error()
	case errors.Is(err, errAnswer), errors.Is(err, errNoETag):
		what = "the answer could not be read"
	}
	return driver.Errorf(kind, "tablereplay: %s: %s: %s", action, b.name, what)
}

func kindOf(r *azcore.ResponseError) (kind driver.Kind, what string) {
	what = fmt.Sprintf("HTTP %d", r.StatusCode)
	if codeForm.MatchString(r.ErrorCode) {
		what += " " + r.ErrorCode
	}
	switch {
	case r.ErrorCode == string(aztables.TableNotFound):
		return driver.NotFound, what + ": make it with qrt nonces init"
	case r.StatusCode == http.StatusUnauthorized, r.StatusCode == http.StatusForbidden:
		return driver.Permission, what + ": check the credentials and the role of docs/replay/aztable.md"
	case r.StatusCode == http.StatusTooManyRequests, r.ErrorCode == "ServerBusy":
		return driver.Throttled, what + ": spread groups over several accounts"
	case r.StatusCode >= http.StatusInternalServerError, r.StatusCode == http.StatusRequestTimeout:
		return driver.Unavailable, what
	}
	return driver.Other, what
}
