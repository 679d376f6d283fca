package kvkeys

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	azfake "github.com/Azure/azure-sdk-for-go/sdk/azcore/fake"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azsecrets"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azsecrets/fake"

	"github.com/queue-runtime/queue/keys"
)

// The vault's URL, and the resource that its challenge names. The certificate of
// httptest is good for it, so that nothing is switched off in the client.
const (
	vaultURL      = "https://qrt-unit.example.com"
	vaultResource = "https://example.com"
	accessToken   = "eyJ0-token-of-the-test"
)

// vault is a Key Vault over TLS: the SDK's official fake speaks the protocol, and
// before it stands what that leaves out, the challenge by 401, refusals, and the
// form of Key Vault's errors. It has the administrator's side as methods.
type vault struct {
	http *http.Client

	mu       sync.Mutex // guards what follows
	secrets  map[string][]*version
	fault    fault
	calls    map[string]int // by operation; "challenge" for those without a token
	times    []time.Time    // of every request
	page     int            // items a page
	versions int            // made so far
}

// version is a version of a secret; the last is the latest.
type version struct {
	id, value                   string
	tags                        map[string]string
	disabled                    bool
	created, notBefore, expires time.Time
}

// fault is what every request gets instead of an answer. The zero fault is none.
type fault struct {
	status int
	code   string // the inner one
	retry  string // Retry-After
	drop   bool   // the connection ends
	body   string // instead of Key Vault's
}

// newVault serves on loopback.
func newVault(t *testing.T) *vault { return serve(t, nil) }

// newPipedVault serves over pipes in memory, so that it works in a bubble of
// testing/synctest, whose time stands still while a goroutine waits for a socket.
func newPipedVault(t *testing.T) *vault {
	return serve(t, &pipes{conns: make(chan net.Conn), done: make(chan struct{})})
}

func serve(t *testing.T, l *pipes) *vault {
	t.Helper()
	v := &vault{secrets: make(map[string][]*version), calls: make(map[string]int), page: 25}
	s := httptest.NewUnstartedServer(v)
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // of connections that the client gives up
	if l != nil {
		if err := s.Listener.Close(); err != nil {
			t.Fatal(err)
		}
		s.Listener = l
	}
	s.StartTLS()
	v.http = s.Client()
	transport, ok := v.http.Transport.(*http.Transport)
	if !ok {
		t.Fatalf("a %T", v.http.Transport)
	}
	if l != nil {
		transport.DialContext = l.dial
	}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		s.Close()
	})
	return v
}

// vaultError is an error as Key Vault answers it.
type vaultError struct {
	status      int
	code, inner string
}

func (e *vaultError) Error() string { return e.inner }

func notFound() *vaultError { return &vaultError{http.StatusNotFound, "SecretNotFound", ""} }

func (e *vaultError) write(w http.ResponseWriter) {
	body := map[string]any{"code": e.code, "message": "What Key Vault tells people."}
	if e.inner != "" {
		body["innererror"] = map[string]string{"code": e.inner}
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(e.status)
	_ = json.NewEncoder(w).Encode(map[string]any{"error": body})
}

func (v *vault) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	operation := operationOf(r)
	v.mu.Lock()
	authorized := r.Header.Get("Authorization") == "Bearer "+accessToken
	if authorized {
		v.calls[operation]++
	} else {
		v.calls["challenge"]++
	}
	v.times = append(v.times, time.Now())
	f := v.fault
	v.mu.Unlock()
	switch {
	case f.drop:
		panic(http.ErrAbortHandler)
	case !authorized:
		w.Header().Set("WWW-Authenticate", `Bearer authorization="https://login.microsoftonline.com/11111111-2222-3333-4444-555555555555", resource="`+vaultResource+`"`)
		(&vaultError{http.StatusUnauthorized, "Unauthorized", ""}).write(w)
		return
	case f.status != 0:
		if f.retry != "" {
			w.Header().Set("Retry-After", f.retry)
		}
		if f.body != "" {
			w.WriteHeader(f.status)
			_, _ = io.WriteString(w, f.body)
			return
		}
		(&vaultError{f.status, http.StatusText(f.status), f.code}).write(w)
		return
	}
	// A transport of its own for each request: the fake's keeps one pager for all
	// lists at the same time.
	transport := fake.NewServerTransport(v.server(r))
	answer, err := transport.Do(r.WithContext(context.WithValue(r.Context(), runtime.CtxAPINameKey{}, "Client."+operation)))
	var refused *vaultError
	switch {
	case errors.As(err, &refused):
		refused.write(w)
		return
	case err != nil:
		panic(fmt.Sprintf("the fake: %v", err))
	}
	defer answer.Body.Close() //nolint:errcheck // in memory
	maps.Copy(w.Header(), answer.Header)
	w.WriteHeader(answer.StatusCode)
	_, _ = io.Copy(w, answer.Body)
}

// operationOf returns the name of the client's method for a request.
func operationOf(r *http.Request) string {
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	switch {
	case r.Method == http.MethodPut:
		return "SetSecret"
	case r.Method == http.MethodPatch:
		return "UpdateSecretProperties"
	case r.Method == http.MethodDelete:
		return "DeleteSecret"
	case len(parts) == 1:
		return "NewListSecretPropertiesPager"
	case len(parts) == 3 && parts[2] == "versions":
		return "NewListSecretPropertiesVersionsPager"
	}
	return "GetSecret"
}

// server is the official fake over the state, for one request.
func (v *vault) server(r *http.Request) *fake.Server {
	from, _ := strconv.Atoi(r.URL.Query().Get("$skiptoken"))
	page := func(all []*azsecrets.SecretProperties) (part []*azsecrets.SecretProperties, next *string) {
		end := min(len(all), from+v.page)
		if end < len(all) {
			next = to.Ptr(vaultURL + r.URL.Path + "?api-version=1&$skiptoken=" + strconv.Itoa(end))
		}
		return all[from:end], next
	}
	return &fake.Server{
		GetSecret: func(_ context.Context, name, id string, _ *azsecrets.GetSecretOptions) (ok azfake.Responder[azsecrets.GetSecretResponse], bad azfake.ErrorResponder) {
			v.mu.Lock()
			defer v.mu.Unlock()
			found := v.find(name, id)
			switch {
			case found == nil:
				bad.SetError(notFound())
			case found.disabled:
				bad.SetError(&vaultError{http.StatusForbidden, "Forbidden", "SecretDisabled"})
			default:
				s := azsecrets.Secret{ID: found.url(name), Attributes: found.attributes(), Tags: found.pointers(), Value: &found.value}
				ok.SetResponse(http.StatusOK, azsecrets.GetSecretResponse{Secret: s}, nil)
			}
			return ok, bad
		},
		NewListSecretPropertiesPager: func(*azsecrets.ListSecretPropertiesOptions) (out azfake.PagerResponder[azsecrets.ListSecretPropertiesResponse]) {
			v.mu.Lock()
			defer v.mu.Unlock()
			var all []*azsecrets.SecretProperties
			for _, name := range slices.Sorted(maps.Keys(v.secrets)) {
				latest := v.find(name, "")
				all = append(all, latest.properties(name, azsecrets.ID(vaultURL+"/secrets/"+name)))
			}
			var l azsecrets.SecretPropertiesListResult
			l.Value, l.NextLink = page(all)
			out.AddPage(http.StatusOK, azsecrets.ListSecretPropertiesResponse{SecretPropertiesListResult: l}, nil)
			return out
		},
		NewListSecretPropertiesVersionsPager: func(name string, _ *azsecrets.ListSecretPropertiesVersionsOptions) (out azfake.PagerResponder[azsecrets.ListSecretPropertiesVersionsResponse]) {
			v.mu.Lock()
			defer v.mu.Unlock()
			var all []*azsecrets.SecretProperties
			for _, x := range v.secrets[strings.ToLower(name)] {
				all = append(all, x.properties(name, *x.url(name)))
			}
			var l azsecrets.SecretPropertiesListResult
			l.Value, l.NextLink = page(all)
			out.AddPage(http.StatusOK, azsecrets.ListSecretPropertiesVersionsResponse{SecretPropertiesListResult: l}, nil)
			return out
		},
		SetSecret: func(_ context.Context, name string, s azsecrets.SetSecretParameters, _ *azsecrets.SetSecretOptions) (ok azfake.Responder[azsecrets.SetSecretResponse], _ azfake.ErrorResponder) {
			x := &version{value: *s.Value, created: time.Now().Truncate(time.Second)}
			x.change(s.SecretAttributes, s.Tags)
			v.add(name, x)
			ok.SetResponse(http.StatusOK, azsecrets.SetSecretResponse{Secret: azsecrets.Secret{ID: x.url(name)}}, nil)
			return ok, azfake.ErrorResponder{}
		},
		UpdateSecretProperties: func(_ context.Context, name, id string, s azsecrets.UpdateSecretPropertiesParameters, _ *azsecrets.UpdateSecretPropertiesOptions) (ok azfake.Responder[azsecrets.UpdateSecretPropertiesResponse], bad azfake.ErrorResponder) {
			v.mu.Lock()
			defer v.mu.Unlock()
			x := v.find(name, id)
			if x == nil {
				bad.SetError(notFound())
				return ok, bad
			}
			x.change(s.SecretAttributes, s.Tags)
			ok.SetResponse(http.StatusOK, azsecrets.UpdateSecretPropertiesResponse{}, nil)
			return ok, bad
		},
		DeleteSecret: func(_ context.Context, name string, _ *azsecrets.DeleteSecretOptions) (ok azfake.Responder[azsecrets.DeleteSecretResponse], _ azfake.ErrorResponder) {
			v.remove(name)
			ok.SetResponse(http.StatusOK, azsecrets.DeleteSecretResponse{}, nil)
			return ok, azfake.ErrorResponder{}
		},
	}
}

// find returns a version, the latest for an empty id. Names have no case.
func (v *vault) find(name, id string) *version {
	all := v.secrets[strings.ToLower(name)]
	for i := len(all) - 1; i >= 0; i-- {
		if id == "" || all[i].id == id {
			return all[i]
		}
	}
	return nil
}

// add puts a version into a secret.
func (v *vault) add(name string, x *version) *version {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.addLocked(name, x)
}

func (v *vault) addLocked(name string, x *version) *version {
	v.versions++
	sum := sha256.Sum256([]byte(strconv.Itoa(v.versions)))
	x.id = hex.EncodeToString(sum[:16])
	v.secrets[strings.ToLower(name)] = append(v.secrets[strings.ToLower(name)], x)
	return x
}

// key adds a key, made now.
func (v *vault) key(name string, secret byte, tag string) *version {
	return v.add(name, keyVersion(secret, tag))
}

func keyVersion(secret byte, tag string) *version {
	return &version{value: base64.StdEncoding.EncodeToString(secretOf(secret)), tags: map[string]string{Tag: tag}, created: time.Now()}
}

// set changes a version.
func (v *vault) set(x *version, change func(*version)) {
	v.mu.Lock()
	defer v.mu.Unlock()
	change(x)
}

func (v *vault) disable(x *version, disabled bool) {
	v.set(x, func(x *version) { x.disabled = disabled })
}

func (v *vault) mark(x *version, tag string) {
	v.set(x, func(x *version) { x.tags[Tag] = tag })
}

func (v *vault) remove(name string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.secrets, strings.ToLower(name))
}

func (v *vault) fail(f fault) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.fault = f
}

// total is how many requests there were.
func (v *vault) total() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return len(v.times)
}

// answered is how many requests had a token.
func (v *vault) answered() int { return v.total() - v.count("challenge") }

func (v *vault) count(operation string) int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.calls[operation]
}

// peak is the most requests in any ten seconds, the window of Key Vault's limit.
func (v *vault) peak() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	most, begin := 0, 0
	for i, at := range v.times {
		for at.Sub(v.times[begin]) > 10*time.Second {
			begin++
		}
		most = max(most, i-begin+1)
	}
	return most
}

func (x *version) url(name string) *azsecrets.ID {
	return to.Ptr(azsecrets.ID(vaultURL + "/secrets/" + name + "/" + x.id))
}

func (x *version) properties(_ string, id azsecrets.ID) *azsecrets.SecretProperties {
	return &azsecrets.SecretProperties{ID: &id, Attributes: x.attributes(), Tags: x.pointers()}
}

func (x *version) attributes() *azsecrets.SecretAttributes {
	a := &azsecrets.SecretAttributes{Enabled: to.Ptr(!x.disabled)}
	for _, f := range []struct {
		to   **time.Time
		from time.Time
	}{{&a.Created, x.created}, {&a.NotBefore, x.notBefore}, {&a.Expires, x.expires}} {
		if !f.from.IsZero() {
			*f.to = to.Ptr(f.from)
		}
	}
	return a
}

func (x *version) pointers() map[string]*string {
	out := make(map[string]*string)
	for k, v := range x.tags {
		out[k] = to.Ptr(v)
	}
	return out
}

// change is an administrator's update: what is nil stays.
func (x *version) change(a *azsecrets.SecretAttributes, tags map[string]*string) {
	if tags != nil {
		x.tags = make(map[string]string)
		for k, v := range tags {
			x.tags[k] = *v
		}
	}
	if a != nil && a.Enabled != nil {
		x.disabled = !*a.Enabled
	}
}

func secretOf(b byte) []byte { return []byte(strings.Repeat(string([]byte{b}), keys.Size)) }

// identity is a credential that gives a token for the vault's resource only.
type identity struct{}

func (identity) GetToken(_ context.Context, o policy.TokenRequestOptions) (azcore.AccessToken, error) {
	if !slices.Equal(o.Scopes, []string{vaultResource + "/.default"}) || o.TenantID != "11111111-2222-3333-4444-555555555555" {
		return azcore.AccessToken{}, fmt.Errorf("a token for %q of %q", o.Scopes, o.TenantID)
	}
	return azcore.AccessToken{Token: accessToken, ExpiresOn: time.Now().Add(24 * time.Hour)}, nil
}

func (v *vault) options(layout Layout) *Options {
	return &Options{Layout: layout, Client: &azsecrets.ClientOptions{ClientOptions: azcore.ClientOptions{Transport: v.http}}}
}

func (v *vault) provider(t *testing.T, name string, layout Layout) *Provider {
	t.Helper()
	p, err := New(vaultURL, identity{}, name, v.options(layout))
	if err != nil {
		t.Fatal(err)
	}
	return p
}
