package kvkeys

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"

	"github.com/queue-runtime/queue/internal/httpclient"
	"github.com/queue-runtime/queue/keys"
)

// Reason says what is the matter with a key, or with the vault.
type Reason uint8

// The reasons, with the error of package keys that each is.
const (
	NotFound    Reason = iota + 1 // no such secret or version: ErrNotFound
	Unmarked                      // no tag that makes it a key, or none is current: ErrNotFound
	Disabled                      // withdrawn by the vault's administrator: ErrNotFound
	NotYetValid                   // the current key's not-before date is ahead: ErrNotFound
	Ambiguous                     // several enabled versions under one key ID: ErrInvalidKey
	Invalid                       // the value is no key, or not the one it was: ErrInvalidKey
	Forbidden                     // the vault refuses this identity or network: ErrUnavailable
	Credentials                   // there is no identity to ask with: ErrUnavailable
	Throttled                     // too many requests; RetryAfter says how long: ErrUnavailable
	Unavailable                   // no answer, or one that tells nothing: ErrUnavailable
)

// String returns the reason's name, such as not_found.
func (r Reason) String() string {
	names := [...]string{NotFound: "not_found", Unmarked: "unmarked", Disabled: "disabled", NotYetValid: "not_yet_valid", Ambiguous: "ambiguous",
		Invalid: "invalid", Forbidden: "forbidden", Credentials: "credentials", Throttled: "throttled", Unavailable: "unavailable"}
	if int(r) >= len(names) || names[r] == "" {
		return "Reason(" + strconv.Itoa(int(r)) + ")"
	}
	return names[r]
}

func (r Reason) sentinel() error {
	switch r {
	case NotFound, Unmarked, Disabled, NotYetValid:
		return keys.ErrNotFound
	case Ambiguous, Invalid:
		return keys.ErrInvalidKey
	}
	return keys.ErrUnavailable
}

// Error is a failure of a [Provider]. It is the error of package keys that its
// Reason says, for errors.Is. It never holds a value.
type Error struct {
	Reason Reason
	// Secret is the name of the secret; empty for a failure of the whole vault.
	Secret string
	// KeyID is the key that was asked for; empty if none was.
	KeyID keys.ID
	// RetryAfter is how long the vault is left alone. 0 means not at all.
	RetryAfter time.Duration

	vault  string
	detail string
	err    error
}

// Error names the secret, the reason and what to do.
func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "kvkeys: %v: ", e.Reason.sentinel())
	if e.Secret != "" {
		fmt.Fprintf(&b, "secret %s in ", e.Secret)
	}
	b.WriteString(e.vault)
	if e.KeyID != "" {
		fmt.Fprintf(&b, " (key %s)", e.KeyID)
	}
	b.WriteString(": " + e.detail)
	return b.String()
}

// Unwrap returns the SDK's error, without the response, whose request holds the
// access token.
func (e *Error) Unwrap() error { return e.err }

// Is reports whether target is the error of package keys that the Reason says.
func (e *Error) Is(target error) bool { return target == e.Reason.sentinel() }

// place is what an error is about.
type place struct {
	secret string
	id     keys.ID
}

func (p *Provider) failed(at place, r Reason, format string, args ...any) *Error {
	return &Error{Reason: r, Secret: at.secret, KeyID: at.id, vault: p.vault, detail: fmt.Sprintf(format, args...)}
}

// Actions of the identity that asks, as roles and access policies name them.
const (
	actionGet  = "get"
	actionList = "list"
)

// classify makes an error of this package of one of the SDK. The caller's own
// context error passes through.
func (p *Provider) classify(ctx context.Context, at place, action string, err error) error {
	if cerr := ctx.Err(); cerr != nil {
		return cerr
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		// Of a timeout below; it must not pass for the caller's own.
		return p.failed(at, Unavailable, "%s: no answer in time", action)
	}
	var response *azcore.ResponseError
	if errors.As(err, &response) {
		e := p.refused(at, action, response)
		e.err = &azcore.ResponseError{StatusCode: response.StatusCode, ErrorCode: response.ErrorCode}
		return e
	}
	e := p.failed(at, Unavailable, "%s: the request could not be made or its answer not be read: check the vault's URL and the credentials", action)
	var dns *net.DNSError
	var authentication *azidentity.AuthenticationFailedError
	var transport *url.Error
	var network net.Error
	switch {
	case errors.As(err, &authentication):
		e.Reason = Credentials
		e.detail = "signing in to Microsoft Entra ID failed" + entraCode(authentication) + ": check the identity that the environment configures"
		err = errors.New(authentication.Error()) // without its response, which has the request
	case isUnavailableCredential(err):
		e.Reason = Credentials
		e.detail = "no credential: assign a managed or workload identity, set AZURE_CLIENT_ID and the other variables of azidentity, or run az login"
	case errors.As(err, &dns) && dns.IsNotFound:
		e.detail = "there is no such host: check the vault's name, and the private DNS zone if it has one"
	case errors.Is(err, httpclient.ErrTooLarge):
		e.detail = action + ": " + httpclient.ErrTooLarge.Error()
	case errors.As(err, &transport), errors.As(err, &network):
		e.detail = action + ": no answer from the vault"
	}
	e.err = err
	return e
}

// refused reads an answer that is no success.
func (p *Provider) refused(at place, action string, r *azcore.ResponseError) *Error {
	code := innerCode(r)
	what := fmt.Sprintf("HTTP %d", r.StatusCode)
	if code != "" {
		what += " " + code
	}
	switch {
	case r.StatusCode == http.StatusNotFound && code == "SecretNotFound":
		return p.failed(at, NotFound, "the vault has no such secret, or it is deleted")
	case r.StatusCode == http.StatusForbidden && code == "SecretDisabled":
		return p.failed(at, Disabled, "it is disabled: enable it, if messages under it are still to be opened")
	case r.StatusCode == http.StatusForbidden && (code == "ForbiddenByFirewall" || code == "ForbiddenByConnection"):
		return p.failed(at, Forbidden, "%s: the vault refuses this network: add it to the vault's firewall, or use its private endpoint", what)
	case r.StatusCode == http.StatusForbidden:
		return p.failed(at, Forbidden, "%s: this identity may not %s it: assign the role Key Vault Secrets User", what, action)
	case r.StatusCode == http.StatusUnauthorized:
		return p.failed(at, Credentials, "%s: the vault does not take the token: check that identity and vault are of one tenant", what)
	case r.StatusCode == http.StatusTooManyRequests:
		wait := p.throttle.close(retryAfter(r.RawResponse))
		e := p.failed(at, Throttled, "%s: the vault is throttled; it is left alone for %v: keep a keys.Cached in front, or spread keys over vaults", what, wait)
		e.RetryAfter = wait
		return e
	}
	e := p.failed(at, Unavailable, "%s: %s", action, what)
	if wait := retryAfter(r.RawResponse); r.StatusCode == http.StatusServiceUnavailable && wait > 0 {
		e.RetryAfter = p.throttle.close(wait)
	}
	return e
}

// innerCode returns the most telling code of an answer: Key Vault's own is within
// the general one, as error.innererror.code.
func innerCode(r *azcore.ResponseError) string {
	var body struct {
		Error struct {
			Code  string
			Inner struct{ Code string } `json:"innererror"`
		}
	}
	code := r.ErrorCode
	if r.RawResponse != nil {
		if b, err := runtime.Payload(r.RawResponse); err == nil && json.Unmarshal(b, &body) == nil && body.Error.Inner.Code != "" {
			code = body.Error.Inner.Code
		}
	}
	if !codeForm.MatchString(code) {
		return "" // not from Key Vault: no text of strangers in the log
	}
	return code
}

var (
	codeForm  = regexp.MustCompile(`^[A-Za-z0-9]{1,64}$`)
	entraForm = regexp.MustCompile(`AADSTS[0-9]{1,10}`)
)

// entraCode returns Entra ID's code, such as " (AADSTS700016)", or "".
func entraCode(err error) string {
	if code := entraForm.FindString(err.Error()); code != "" {
		return " (" + code + ")"
	}
	return ""
}

// isUnavailableCredential reports whether no credential of the chain could be
// tried. The SDK's type for it has no exported name.
func isUnavailableCredential(err error) bool {
	var e interface {
		error
		NonRetriable()
	}
	return errors.As(err, &e) && strings.Contains(strings.ToLower(e.Error()), "credential")
}
