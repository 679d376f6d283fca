package sbqueue

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"
	"github.com/Azure/go-amqp"

	"github.com/queue-runtime/queue/driver"
)

// busyWait is how long Service Bus asks to wait when it is busy.
const busyWait = 10 * time.Second

// conditions are the AMQP conditions that the SDK gives no code, or too coarse a
// one (AMQP 1.0, Part 2, Section 2.8, and Service Bus's own).
var conditions = map[amqp.ErrCond]driver.Kind{
	amqp.ErrCondNotFound:                        driver.NotFound,
	amqp.ErrCondUnauthorizedAccess:              driver.Permission,
	amqp.ErrCondResourceLimitExceeded:           driver.Full,
	amqp.ErrCondMessageSizeExceeded:             driver.TooLarge,
	amqp.ErrCondNotAllowed:                      driver.Invalid,
	amqp.ErrCondNotImplemented:                  driver.Invalid,
	amqp.ErrCondResourceLocked:                  driver.SessionHeld,
	amqp.ErrCondResourceDeleted:                 driver.NotFound,
	"com.microsoft:server-busy":                 driver.Throttled,
	"com.microsoft:message-lock-lost":           driver.LockLost,
	"com.microsoft:session-lock-lost":           driver.SessionLost,
	"com.microsoft:session-cannot-be-locked":    driver.SessionHeld,
	"com.microsoft:timeout":                     driver.Unavailable,
	"com.microsoft:operation-cancelled":         driver.Unavailable,
	"com.microsoft:entity-disabled":             driver.Permission,
	"com.microsoft:message-not-found":           driver.LockLost,
	"com.microsoft:argument-error":              driver.Invalid,
	"com.microsoft:argument-out-of-range":       driver.Invalid,
	"com.microsoft:publisher-revoked":           driver.Permission,
	"com.microsoft:entity-already-exists":       driver.Invalid,
	"com.microsoft:retry":                       driver.Unavailable,
	"com.microsoft:auth-failed":                 driver.Permission,
	"com.microsoft:transfer-destination-error":  driver.NotFound,
	"com.microsoft:store-lock-lost":             driver.LockLost,
	"com.microsoft:no-matching-subscription":    driver.NotFound,
	"com.microsoft:address-already-in-use":      driver.Unavailable,
	"com.microsoft:partition-not-owned":         driver.Unavailable,
	"com.microsoft:precondition-failed":         driver.Invalid,
	"com.microsoft:container-close":             driver.Unavailable,
	"com.microsoft:namespace-quota-exceeded":    driver.Full,
	"com.microsoft:entity-quota-exceeded":       driver.Full,
	"com.microsoft:message-size-exceeded-quota": driver.TooLarge,
}

// classify turns an error of the SDK into a driver.Error. The end of the caller's
// own context passes through.
func classify(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil && (errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)) {
		return ctx.Err()
	}
	var done *driver.Error
	if errors.As(err, &done) {
		return err
	}
	e := &driver.Error{Kind: kindOf(err), Err: errors.New(text(err))}
	if e.Kind == driver.Throttled {
		e.RetryAfter = busyWait
	}
	return e
}

func kindOf(err error) driver.Kind {
	if k, ok := identityKind(err); ok {
		return k
	}
	var condition *amqp.Error
	if errors.As(err, &condition) {
		if k, ok := conditions[condition.Condition]; ok {
			return k
		}
	}
	if errors.Is(err, azservicebus.ErrMessageTooLarge) {
		return driver.TooLarge
	}
	// The SDK's type for the answers of the management link is not exported.
	var answer interface {
		error
		RPCCode() int
	}
	if errors.As(err, &answer) {
		return kindOfStatus(answer.RPCCode())
	}
	var sb *azservicebus.Error
	if errors.As(err, &sb) {
		switch sb.Code {
		case azservicebus.CodeLockLost:
			return driver.LockLost
		case azservicebus.CodeUnauthorizedAccess:
			return driver.Permission
		case azservicebus.CodeNotFound:
			return driver.NotFound
		case azservicebus.CodeClosed:
			return driver.Closed
		case azservicebus.CodeConnectionLost:
			return kindOfText(sb.Error())
		case azservicebus.CodeTimeout:
			return driver.Unavailable
		}
	}
	var response *azcore.ResponseError
	if errors.As(err, &response) {
		return kindOfStatus(response.StatusCode)
	}
	if isDead(err) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return driver.Unavailable // a deadline of the SDK's or of this package, not the caller's
	}
	return driver.Other
}

// isDead reports whether err says that the link, or the connection below it, is
// no more.
func isDead(err error) bool { return err != nil && dead(err) }

func dead(err error) bool { // apart, because its variables escape
	var link *amqp.LinkError
	var session *amqp.SessionError
	var conn *amqp.ConnError
	var network net.Error
	var sb *azservicebus.Error
	switch {
	case errors.As(err, &sb):
		return sb.Code == azservicebus.CodeClosed || sb.Code == azservicebus.CodeConnectionLost && kindOfText(sb.Error()) == driver.Unavailable
	case errors.Is(err, context.DeadlineExceeded): // is a net.Error, too
		return false
	case errors.Is(err, errNoAnswer):
		return true
	}
	return errors.As(err, &link) || errors.As(err, &session) || errors.As(err, &conn) || errors.As(err, &network) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed)
}

// isAway reports whether err says that there is no connection: a link or session that the
// broker ended came over one.
func isAway(err error) bool {
	var link *amqp.LinkError
	var session *amqp.SessionError
	return isDead(err) && !errors.As(err, &link) && !errors.As(err, &session) && !errors.Is(err, errNoAnswer)
}

// kindOfStatus is the kind of a status of the management link or the management
// API, which both take them from HTTP.
func kindOfStatus(code int) driver.Kind {
	switch code {
	case http.StatusBadRequest:
		return driver.Invalid
	case http.StatusUnauthorized, http.StatusForbidden:
		return driver.Permission
	case http.StatusNotFound:
		return driver.NotFound
	case http.StatusGone:
		return driver.LockLost
	case http.StatusTooManyRequests:
		return driver.Throttled
	case http.StatusRequestTimeout:
		return driver.Unavailable
	}
	if code >= 500 {
		return driver.Unavailable
	}
	return driver.Other
}

// kindOfText reads the kind out of an error that the SDK calls a lost connection:
// it does so with every answer that it does not know, and unwraps to nothing, so
// that status and condition are left in its text alone.
func kindOfText(s string) driver.Kind {
	if _, sleep, ok := strings.Cut(s, "*Error{Condition: "); ok {
		name, _, _ := strings.Cut(sleep, ",")
		if k, ok := conditions[amqp.ErrCond(name)]; ok {
			return k
		}
	}
	if _, sleep, ok := strings.Cut(s, "rpc: failed, status code "); ok {
		digits, _, _ := strings.Cut(sleep, " ")
		if code, err := strconv.Atoi(digits); err == nil {
			return kindOfStatus(code)
		}
	}
	return driver.Unavailable
}

// isStuck reports whether the sender or receiver that err comes from may be of no
// more use: its link was detached for a reason that the SDK takes for passing, or
// for final, and it goes on with the dead link.
func isStuck(err error) bool { return err != nil && stuck(err) }

func stuck(err error) bool {
	var dead *amqp.LinkError
	if errors.As(err, &dead) {
		return true
	}
	var sb *azservicebus.Error
	return errors.As(err, &sb) && (sb.Code == azservicebus.CodeTimeout || sb.Code == azservicebus.CodeUnauthorizedAccess)
}

// isLost reports whether err says that a link or connection was lost, for no reason
// that would last.
func isLost(err error) bool {
	if !isDead(err) {
		return false
	}
	switch kindOf(err) {
	case driver.Unavailable, driver.Closed:
		return true
	}
	return false
}

// text is an error's text without anything that could be a credential.
func text(err error) string {
	s := err.Error()
	lower := strings.ToLower(s)
	for _, secret := range []string{"sharedaccess", "sig=", "bearer "} {
		if strings.Contains(lower, secret) {
			return "the text of the error is withheld: it may hold a credential"
		}
	}
	return s
}

func errClosed() error { return &driver.Error{Kind: driver.Closed} }
