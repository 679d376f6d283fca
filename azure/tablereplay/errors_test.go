package tablereplay_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/data/aztables"

	"github.com/queue-runtime/queue/azure/tablereplay"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/replay"
	"github.com/queue-runtime/queue/testbed/azurite"
	"github.com/queue-runtime/queue/testbed/httpproxy"
)

// TestErrors: each failure has its kind and says what to do.
func TestErrors(t *testing.T) {
	server := serve(t)
	s := open(t, server, &tablereplay.Options{})
	begin := func(ctx context.Context) error {
		_, err := s.Begin(ctx, "group", []replay.Request{request(1, 1)})
		return err
	}
	refuse := func(status int, code string) {
		server.Fail(httpproxy.Faults{Refused: 1000, Refusal: httpproxy.Answer{
			Status: status, Header: http.Header{"Content-Type": {"application/json"}, "X-Ms-Error-Code": {code}},
			Body: []byte(`{"odata.error":{"code":"` + code + `","message":{"lang":"en-US","value":"text of the service"}}}`),
		}})
	}
	for _, c := range []struct {
		status     int
		code, want string
		kind       error
	}{
		{503, "ServerBusy", "ServerBusy", driver.ErrThrottled},
		{500, "InternalError", "HTTP 500", driver.ErrUnavailable},
		{403, "AuthorizationPermissionMismatch", "role", driver.ErrPermission},
		{404, "TableNotFound", "qrt nonces init", driver.ErrNotFound},
		{404, "TableBeingDeleted", "HTTP 404", nil},
		{400, "InvalidInput", "HTTP 400", nil},
	} {
		refuse(c.status, c.code)
		server.Counts()
		err := begin(t.Context())
		if err == nil || c.kind != nil && !errors.Is(err, c.kind) || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "text of the service") {
			t.Errorf("%s: %v, want %v with %q", c.code, err, c.kind, c.want)
		}
		if n := server.Counts(); n["GET"] > 4 || n["PUT"] > 4 {
			t.Errorf("%s: asked %v times, want at most 4", c.code, n)
		}
	}
	server.Fail(httpproxy.Faults{Cut: true})
	if err := begin(t.Context()); !errors.Is(err, driver.ErrUnavailable) {
		t.Errorf("cut off: %v", err)
	}
	server.Fail(httpproxy.Faults{Delay: time.Minute})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := begin(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the caller's own time is over: %v", err)
	}
	server.Fail(httpproxy.Faults{})
	if err := begin(t.Context()); err != nil {
		t.Errorf("after the trouble: %v", err)
	}
}

// TestOpenErrors: what cannot be a store is refused, with what to do.
func TestOpenErrors(t *testing.T) {
	server := serve(t)
	o := &tablereplay.Options{Client: client()}
	_, err := tablereplay.NewSharedKey(t.Context(), server.Endpoint(), credential(), "none", o)
	if !errors.Is(err, driver.ErrNotFound) || !strings.Contains(err.Error(), "qrt nonces init") {
		t.Errorf("no such table: %v", err)
	}
	wrong, err := aztables.NewSharedKeyCredential(azurite.Account, "d3JvbmcK")
	if err != nil {
		t.Fatal(err)
	}
	if _, err = tablereplay.NewSharedKey(t.Context(), server.Endpoint(), wrong, table, o); !errors.Is(err, driver.ErrPermission) {
		t.Errorf("another key: %v", err)
	}
	for _, c := range []struct{ url, table, want string }{
		{server.Endpoint(), "a-b", "letters and digits"},
		{server.Endpoint(), "9table", "a letter first"},
		{"https://x.table.cosmos.azure.com", table, "Cosmos"},
		{"x.table.core.windows.net", table, "https://ACCOUNT"},
		{"https://user:secret@x.table.core.windows.net", table, "https://ACCOUNT"},
	} {
		if _, err := tablereplay.NewSharedKey(t.Context(), c.url, credential(), c.table, o); err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s, table %s: %v, want %q", c.url, c.table, err, c.want)
		}
	}
	if _, err := tablereplay.NewSharedKey(t.Context(), server.Endpoint(), credential(), table, &tablereplay.Options{Prefix: strings.Repeat("x", 51)}); err == nil {
		t.Error("a prefix of 51 characters is taken")
	}
	c := contentOf(t, server, "")
	if _, err := c.client.AddEntity(t.Context(), []byte(`{"PartitionKey":".m.","RowKey":"-","text":"of another program"}`), nil); err != nil {
		t.Fatal(err)
	}
	if _, err := tablereplay.NewSharedKey(t.Context(), server.Endpoint(), credential(), table, o); !errors.Is(err, driver.ErrCorrupt) || !strings.Contains(err.Error(), "table of its own") {
		t.Errorf("another program's table: %v", err)
	}
}

// TestCreate: a table is made once, and made again without harm.
func TestCreate(t *testing.T) {
	server := serve(t)
	s := open(t, server, &tablereplay.Options{})
	before, err := s.Stats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := tablereplay.CreateSharedKey(t.Context(), server.Endpoint(), credential(), table, &tablereplay.Options{Client: client()}); err != nil {
		t.Error(err)
	}
	after, err := s.Stats(t.Context())
	if err != nil || after.Stamp.ID != before.Stamp.ID {
		t.Errorf("stamp %v, %v; want the ID from before", after.Stamp, err)
	}
}

// TestURL: what a URL says, and that no error shows a part of it that may be secret.
func TestURL(t *testing.T) {
	server := serve(t)
	t.Setenv("TABLE_KEY", azurite.Key)
	t.Setenv("NO_KEY", "not base64: s3cret")
	base := "aztable://" + azurite.Account + "/" + table
	s, err := tablereplay.Open(t.Context(), base+"?key=TABLE_KEY&prefix=a&endpoint="+server.Endpoint(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Begin(t.Context(), "group", []replay.Request{request(1, 1)}); err != nil {
		t.Error(err)
	}
	if err := s.Close(context.Background()); err != nil {
		t.Error(err)
	}
	if len(contentOf(t, server, "a").read(t)) == 0 {
		t.Error("nothing is stored under the prefix")
	}
	if err := tablereplay.Init(t.Context(), "aztable://"+azurite.Account+"/made?key=TABLE_KEY&endpoint="+server.Endpoint()); err != nil {
		t.Error(err)
	}
	if _, err := tablereplay.Open(t.Context(), "aztable://"+azurite.Account+"/made?key=TABLE_KEY&endpoint="+server.Endpoint(), nil); err != nil {
		t.Errorf("a table that Init made: %v", err)
	}
	for _, c := range []struct{ url, want string }{
		{"table://account/replay", `scheme "table"`},
		{"aztable://account", "no table"},
		{"aztable://account/a/b", "more than an account and a table"},
		{"aztable://ac-count/replay", "small letters and digits"},
		{"aztable://user:s3cret@account/replay", "credentials in the URL"},
		{base + "?key=" + "s3cret/key==", "names an environment variable"},
		{base + "?key=NO_KEY", "NO_KEY holds no key"},
		{base + "?key=MISSING_KEY", "MISSING_KEY holds no key"},
		{base + "?prefix=a&prefix=b", "prefix: give it once"},
		{base + "?color=s3cret", `unknown URL parameter "color"`},
		{"aztable://account/replay%zz", "does not parse"},
	} {
		if _, err := tablereplay.Open(t.Context(), c.url, nil); err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: %v, want %q", c.url, err, c.want)
		}
	}
}
