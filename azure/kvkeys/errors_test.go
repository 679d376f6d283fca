package kvkeys

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"

	"github.com/queue-runtime/queue/keys"
	"github.com/queue-runtime/queue/keys/keytest"
)

// Whatever the vault answers is told apart, over TLS and with the challenge.
func TestErrors(t *testing.T) { synctest.Test(t, testErrors) }

func testErrors(t *testing.T) {
	v := newPipedVault(t)
	v.key("k--a", 1, Current)
	p := v.provider(t, "k", Secrets)
	if _, err := p.GetKey(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if v.count("challenge") != 1 {
		t.Errorf("%d challenges", v.count("challenge"))
	}
	for name, c := range map[string]struct {
		fault
		reason   Reason
		sentinel error
		text     string
	}{
		"no role":            {fault{status: 403, code: "ForbiddenByRbac"}, Forbidden, keys.ErrUnavailable, "ForbiddenByRbac: this identity may not get it: assign the role Key Vault Secrets User"},
		"no access policy":   {fault{status: 403, code: "AccessDenied"}, Forbidden, keys.ErrUnavailable, "assign the role"},
		"firewall":           {fault{status: 403, code: "ForbiddenByFirewall"}, Forbidden, keys.ErrUnavailable, "firewall"},
		"private endpoint":   {fault{status: 403, code: "ForbiddenByConnection"}, Forbidden, keys.ErrUnavailable, "private endpoint"},
		"token refused":      {fault{status: 401}, Credentials, keys.ErrUnavailable, "of one tenant"},
		"disabled":           {fault{status: 403, code: "SecretDisabled"}, Disabled, keys.ErrNotFound, "disabled"},
		"broken":             {fault{status: 500, code: "InternalError"}, Unavailable, keys.ErrUnavailable, "HTTP 500 InternalError"},
		"away":               {fault{status: 503}, Unavailable, keys.ErrUnavailable, "HTTP 503"},
		"another's 404":      {fault{status: 404, body: "<html>not here</html>"}, Unavailable, keys.ErrUnavailable, "HTTP 404"},
		"bad request":        {fault{status: 400, code: "BadParameter"}, Unavailable, keys.ErrUnavailable, "HTTP 400 BadParameter"},
		"code of a stranger": {fault{status: 400, code: "<b>oops</b>"}, Unavailable, keys.ErrUnavailable, "HTTP 400"},
		"no JSON":            {fault{status: 200, body: "TOPSECRET"}, Unavailable, keys.ErrUnavailable, "answer not be read"},
		"cut off":            {fault{drop: true}, Unavailable, keys.ErrUnavailable, "no answer from the vault"},
	} {
		v.fail(c.fault)
		_, err := p.GetKey(t.Context(), "a")
		failure(t, err, c.reason, c.sentinel, "k--a", "qrt-unit.example.com", "key a", c.text)
		if s := fmt.Sprintf("%v %+v", err, errors.Unwrap(err)); strings.Contains(s, "oops") || strings.Contains(s, "TOPSECRET") || strings.Contains(s, accessToken) {
			t.Errorf("%s: %s", name, s)
		}
		_, err = p.CurrentKeyID(t.Context())
		if err == nil {
			t.Errorf("%s: CurrentKeyID answers", name)
		}
	}
	v.fail(fault{})
	v.remove("k--a")
	_, err := p.GetKey(t.Context(), "a")
	failure(t, err, NotFound, keys.ErrNotFound, "k--a", "key a", "no such secret")
	var response *azcore.ResponseError
	if !errors.As(err, &response) || response.StatusCode != 404 || response.RawResponse != nil {
		t.Errorf("the SDK's error, without the response: %#v", response)
	}
}

// What goes wrong before the vault answers.
func TestErrorsBeforeAnswer(t *testing.T) {
	v := newVault(t)
	at := place{secret: "s"}
	p := v.provider(t, "k", Secrets)
	for name, c := range map[string]struct {
		err    error
		reason Reason
		text   string
	}{
		"no such host": {&url.Error{Op: "Get", Err: &net.DNSError{IsNotFound: true}}, Unavailable, "no such host"},
		"no route":     {&url.Error{Op: "Get", Err: errors.New("no route")}, Unavailable, "no answer from the vault"},
		"no identity":  {azidentity.NewCredentialUnavailableError("a credential is missing"), Credentials, "az login"},
		"sign-in":      {&azidentity.AuthenticationFailedError{}, Credentials, "signing in to Microsoft Entra ID failed: check"},
		"timeout":      {fmt.Errorf("try: %w", context.DeadlineExceeded), Unavailable, "no answer in time"},
		"another":      {errors.New("challenge"), Unavailable, "check the vault's URL and the credentials"},
	} {
		err := p.classify(t.Context(), at, actionGet, c.err)
		failure(t, err, c.reason, keys.ErrUnavailable, "secret s", c.text)
		if errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: passes for the caller's own: %v", name, err)
		}
	}
	if got := entraCode(errors.New("AADSTS700016: Application not found")); got != " (AADSTS700016)" {
		t.Error(got)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.classify(ctx, at, actionGet, errors.New("x")); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	v.key("k--a", 1, Current)
	if _, err := p.GetKey(ctx, "a"); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}

	// A vault that names another resource than its own gets no token.
	other, err := New("https://other.test", identity{}, "k", v.options(Secrets))
	if err != nil {
		t.Fatal(err)
	}
	transport, _ := v.http.Transport.(*http.Transport)
	dial := transport.DialContext
	transport.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return dial(ctx, network, "x.example.com:443")
	}
	transport.TLSClientConfig.ServerName = "x.example.com"
	_, err = other.GetKey(t.Context(), "a")
	failure(t, err, Unavailable, keys.ErrUnavailable, "vault's URL")

	refusing, err := New(vaultURL, refusal{}, "k", v.options(Secrets))
	if err != nil {
		t.Fatal(err)
	}
	_, err = refusing.CurrentKeyID(t.Context())
	failure(t, err, Credentials, keys.ErrUnavailable, "no credential")
}

// refusal is a credential that has nothing to sign in with.
type refusal struct{}

func (refusal) GetToken(context.Context, policy.TokenRequestOptions) (azcore.AccessToken, error) {
	return azcore.AccessToken{}, azidentity.NewCredentialUnavailableError("credential: not configured")
}

// After a 429 no request is made before the time that the vault names, in each form in
// which it can name it.
func TestRetryAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newPipedVault(t)
		v.key("k--a", 1, Current)
		p := v.provider(t, "k", Secrets)
		state(t, p, "a", "a")
		for _, c := range []struct {
			header string
			want   time.Duration
		}{
			{"7", 7 * time.Second},
			{"", throttleDefault},
			{"0", throttleDefault},
			{"soon", throttleDefault},
			{"86400", throttleMost},
			{time.Now().Add(2 * time.Hour).UTC().Format(http.TimeFormat), throttleMost},
		} {
			v.fail(fault{status: 429, code: "Throttled", retry: c.header})
			before := v.total()
			_, err := p.GetKey(t.Context(), "a")
			failure(t, err, Throttled, keys.ErrUnavailable, "k--a", "429", "keys.Cached")
			var e *Error
			if errors.As(err, &e) && e.RetryAfter != c.want {
				t.Errorf("Retry-After %q: %v, want %v", c.header, e.RetryAfter, c.want)
			}
			time.Sleep(c.want - time.Millisecond)
			_, err = p.ValidKeyIDs(t.Context())
			failure(t, err, Throttled, keys.ErrUnavailable, "left alone for another 1ms")
			if n := v.total() - before; n != 1 {
				t.Errorf("Retry-After %q: %d requests before the time is over, want 1", c.header, n)
			}
			v.fail(fault{})
			time.Sleep(time.Millisecond)
			state(t, p, "a", "a")
		}
		v.fail(fault{status: 503, retry: "30"})
		if _, err := p.GetKey(t.Context(), "a"); !errors.Is(err, keys.ErrUnavailable) {
			t.Error(err)
		}
		_, err := p.GetKey(t.Context(), "a")
		failure(t, err, Throttled, keys.ErrUnavailable)
	})
	for header, want := range map[string]time.Duration{"Retry-After-Ms": 1500 * time.Millisecond, "X-Ms-Retry-After-Ms": 1500 * time.Millisecond} {
		if d := retryAfter(&http.Response{Header: http.Header{header: {"1500"}}}); d != want {
			t.Errorf("%s: %v", header, d)
		}
	}
	if retryAfter(nil) != 0 {
		t.Error("no answer asks to wait")
	}
}

// When the vault's time is over one caller finds out, and the others stay away
// until it has: they would all be throttled with it.
func TestThrottleProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var th throttle
		pass := func(want time.Duration, wantProbe bool) {
			t.Helper()
			if left, probe := th.enter(); left != want || probe != wantProbe {
				t.Errorf("%v, %v, want %v, %v", left, probe, want, wantProbe)
			}
		}
		pass(0, false)
		pass(0, false)
		if d := th.close(5 * time.Second); d != 5*time.Second {
			t.Error(d)
		}
		if d := th.close(2 * time.Second); d != 5*time.Second {
			t.Errorf("%v: a shorter time cuts a longer one", d)
		}
		time.Sleep(2 * time.Second)
		pass(3*time.Second, false)
		time.Sleep(3 * time.Second)
		pass(0, true)
		pass(throttleLeast, false)
		th.leave(false) // of a call from before
		pass(throttleLeast, false)
		th.close(0) // the probe was throttled
		th.leave(true)
		pass(throttleDefault, false)
		time.Sleep(throttleDefault)
		pass(0, true)
		th.leave(true)
		pass(0, false)
		pass(0, false)
	})
}

func TestReasons(t *testing.T) {
	for r := NotFound; r <= Unavailable; r++ {
		if s := r.String(); s == "" || strings.Contains(s, "Reason") {
			t.Errorf("%d has no name: %s", r, s)
		}
	}
	if s := Reason(99).String(); s != "Reason(99)" {
		t.Error(s)
	}
}

// Nothing of a secret is in what a caller may log.
func TestNoLeak(t *testing.T) {
	v := newVault(t)
	v.key("k--a", 'S', Current)
	p := v.provider(t, "k", Secrets)
	k, err := p.GetKey(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	v.key("k--a", 'T', Current)
	_, err = p.GetKey(t.Context(), "a")
	for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
		text := fmt.Sprintf(verb, []any{p, k, err})
		if found := keytest.Leak(text, secretOf('S')); found != "" {
			t.Errorf("%s shows %s", verb, found)
		}
		if found := keytest.Leak(text, secretOf('T')); found != "" || strings.Contains(text, accessToken) {
			t.Errorf("%s shows %s", verb, found)
		}
	}
}
