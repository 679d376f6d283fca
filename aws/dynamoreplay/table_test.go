package dynamoreplay_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/queue-runtime/queue/aws/dynamoreplay"
	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/replay"
	"github.com/queue-runtime/queue/testbed/dynalite"
	"github.com/queue-runtime/queue/testbed/httpproxy"
)

// describing puts a proxy in front of a server that changes how tables are described.
func describing(t *testing.T, server *dynalite.Server, change func(table map[string]any)) string {
	t.Helper()
	p, err := httpproxy.New(server.URL(), &httpproxy.Options{
		Amend: func(r *http.Request, _ []byte, a *httpproxy.Answer, _ func(*http.Request, []byte) (*httpproxy.Answer, error)) error {
			if !strings.HasSuffix(r.Header.Get("X-Amz-Target"), ".DescribeTable") {
				return nil
			}
			var body map[string]map[string]any
			if err := json.Unmarshal(a.Body, &body); err != nil {
				return err
			}
			change(body["Table"])
			var err error
			a.Body, err = json.Marshal(body)
			a.Header.Del("X-Amz-Crc32")
			return err
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return p.URL()
}

// TestGlobalTable: a table with replicas is refused, at once and if they come later.
func TestGlobalTable(t *testing.T) {
	server := serve(t, nil)
	for name, change := range map[string]func(map[string]any){
		"replicas": func(d map[string]any) { d["Replicas"] = []any{map[string]any{"RegionName": "us-east-1"}} },
		"version":  func(d map[string]any) { d["GlobalTableVersion"] = "2017.11.29" },
	} {
		url := describing(t, server, change)
		if _, err := dynamoreplay.New(t.Context(), config(), table, &dynamoreplay.Options{Endpoint: url}); !errors.Is(err, dynamoreplay.ErrGlobalTable) {
			t.Errorf("%s: %v", name, err)
		}
	}
	global := false
	s := open(t, &dynamoreplay.Options{Endpoint: describing(t, server, func(d map[string]any) {
		if global {
			d["Replicas"] = []any{map[string]any{"RegionName": "us-east-1"}}
		}
	})})
	begin := func() error {
		_, err := s.Begin(t.Context(), "group", []replay.Request{request(1, 1)})
		return err
	}
	if err := errors.Join(begin(), s.Probe(t.Context(), "group")); err != nil {
		t.Error(err)
	}
	global = true
	if err := s.Probe(t.Context(), "group"); !errors.Is(err, dynamoreplay.ErrGlobalTable) {
		t.Errorf("Probe: %v", err)
	}
	s.InspectNext()
	for range 2 {
		if err := begin(); !errors.Is(err, dynamoreplay.ErrGlobalTable) {
			t.Errorf("Begin: %v", err)
		}
	}
	global = false
	if err := begin(); err != nil {
		t.Errorf("without replicas again: %v", err)
	}
}

// TestOpenErrors: what cannot be a store is refused, with what to do.
func TestOpenErrors(t *testing.T) {
	server := serve(t, nil)
	o := &dynamoreplay.Options{Endpoint: server.URL()}
	_, err := dynamoreplay.New(t.Context(), config(), "none", o)
	if !errors.Is(err, driver.ErrNotFound) || !strings.Contains(err.Error(), "qrt nonces init") {
		t.Errorf("no such table: %v", err)
	}
	for _, name := range []string{"ab", "a table", "arn:aws:dynamodb:eu-west-1:123456789012:table/x", ""} {
		if _, err := dynamoreplay.New(t.Context(), config(), name, o); err == nil || !strings.Contains(err.Error(), "3 to 255") {
			t.Errorf("table %q: %v", name, err)
		}
	}
	without := config()
	without.Region = ""
	if _, err := dynamoreplay.New(t.Context(), without, table, o); err == nil || !strings.Contains(err.Error(), "AWS_REGION") {
		t.Errorf("no region: %v", err)
	}
	client := contentOf(server, "").client
	for name, schema := range map[string]types.ScalarAttributeType{"numbers": types.ScalarAttributeTypeN, "other-keys": types.ScalarAttributeTypeS} {
		key := map[string]string{"numbers": "p", "other-keys": "id"}[name]
		_, err := client.CreateTable(t.Context(), &dynamodb.CreateTableInput{
			TableName: aws.String(name), BillingMode: types.BillingModePayPerRequest,
			AttributeDefinitions: []types.AttributeDefinition{{AttributeName: aws.String(key), AttributeType: schema}, {AttributeName: aws.String("s"), AttributeType: schema}},
			KeySchema: []types.KeySchemaElement{
				{AttributeName: aws.String(key), KeyType: types.KeyTypeHash}, {AttributeName: aws.String("s"), KeyType: types.KeyTypeRange},
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := dynamoreplay.Create(t.Context(), config(), name, o); !errors.Is(err, dynamoreplay.ErrForeign) {
			t.Errorf("%s: Create: %v", name, err)
		}
		if _, err := dynamoreplay.New(t.Context(), config(), name, o); !errors.Is(err, dynamoreplay.ErrForeign) {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err = client.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: aws.String(table), Item: map[string]types.AttributeValue{
		"p": &types.AttributeValueMemberS{Value: ".m."}, "s": &types.AttributeValueMemberS{Value: "-"}, "text": &types.AttributeValueMemberS{Value: "of another program"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := dynamoreplay.New(t.Context(), config(), table, o); !errors.Is(err, driver.ErrCorrupt) || !strings.Contains(err.Error(), "table of its own") {
		t.Errorf("another program's items: %v", err)
	}
}

// TestNoNumbers: no attribute is a number, so that a time to live removes nothing.
func TestNoNumbers(t *testing.T) {
	server := serve(t, nil)
	s := open(t, &dynamoreplay.Options{Endpoint: server.URL()})
	if _, err := s.Begin(t.Context(), "group", []replay.Request{request(1, 1)}); err != nil {
		t.Fatal(err)
	}
	items := contentOf(server, "").read(t)
	if len(items) < 4 {
		t.Errorf("%d items, want those of the store, the group, the stream and the page", len(items))
	}
	for _, item := range items {
		for name, v := range item {
			switch v.(type) {
			case *types.AttributeValueMemberS, *types.AttributeValueMemberB:
			default:
				t.Errorf("attribute %s is a %T", name, v)
			}
		}
	}
}

// TestErrors: each failure has its kind, says what to do, and is repeated a few times.
func TestErrors(t *testing.T) {
	server := serve(t, nil)
	s := open(t, &dynamoreplay.Options{Endpoint: server.URL()})
	begin := func(ctx context.Context) error {
		_, err := s.Begin(ctx, "group", []replay.Request{request(1, 1)})
		return err
	}
	for _, c := range []struct {
		status     int
		code, want string
		kind       error
		requests   int
	}{
		{400, "ProvisionedThroughputExceededException", "capacity", driver.ErrThrottled, 4},
		{400, "ThrottlingException", "capacity", driver.ErrThrottled, 4},
		{500, "InternalServerError", "InternalServerError", driver.ErrUnavailable, 4},
		{503, "SomethingNew", "SomethingNew", driver.ErrUnavailable, 4},
		{400, "AccessDeniedException", "policy", driver.ErrPermission, 1},
		{400, "ResourceNotFoundException", "qrt nonces init", driver.ErrNotFound, 1},
		{400, "ValidationException", "ValidationException", nil, 1},
	} {
		server.Fail(httpproxy.Faults{Refused: 1000, Refusal: httpproxy.Answer{
			Status: c.status, Header: http.Header{"Content-Type": {"application/x-amz-json-1.0"}},
			Body: []byte(`{"__type":"com.amazonaws.dynamodb.v20120810#` + c.code + `","message":"text of the service"}`),
		}})
		server.Counts()
		err := begin(t.Context())
		if err == nil || c.kind != nil && !errors.Is(err, c.kind) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %v with %q", c.code, err, c.kind, c.want)
		}
		if n := server.Counts(); n["GetItem"] != c.requests {
			t.Errorf("%s: requests %v, want %d", c.code, n, c.requests)
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

// TestURL: what a URL says, and that no error shows a part of it that may be secret.
func TestURL(t *testing.T) {
	server := serve(t, nil)
	t.Setenv("AWS_ACCESS_KEY_ID", "test")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "test-secret-of-forty-characters-as-of-aws")
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	t.Setenv("AWS_CONFIG_FILE", os.DevNull)
	s, err := dynamoreplay.Open(t.Context(), "dynamodb://eu-west-1/"+table+"?prefix=a&endpoint="+server.URL(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Begin(t.Context(), "group", []replay.Request{request(1, 1)}); err != nil {
		t.Error(err)
	}
	if err := s.Close(context.Background()); err != nil {
		t.Error(err)
	}
	if len(contentOf(server, "a").read(t)) == 0 {
		t.Error("nothing is stored under the prefix")
	}
	made := "dynamodb://eu-west-1/made?endpoint=" + server.URL()
	for range 2 {
		if err := dynamoreplay.Init(t.Context(), made); err != nil {
			t.Error(err)
		}
	}
	if s, err = dynamoreplay.Open(t.Context(), made, nil); err != nil {
		t.Fatalf("a table that Init made: %v", err)
	}
	if err := s.Close(context.Background()); err != nil {
		t.Error(err)
	}
	for _, c := range []struct{ url, want string }{
		{"dynamo://eu-west-1/replay", `scheme "dynamo"`},
		{"dynamodb://eu-west-1", "no table"},
		{"dynamodb://eu-west-1/a/b", "more than a region and a table"},
		{"dynamodb://key:s3cret@eu-west-1/replay", "credentials in the URL"},
		{"dynamodb://eu-west-1/replay?prefix=a&prefix=b", "prefix: give it once"},
		{"dynamodb://eu-west-1/replay?endpoint=", "endpoint: give it once"},
		{"dynamodb://eu-west-1/replay?color=s3cret", `unknown URL parameter "color"`},
		{"dynamodb://eu-west-1/replay%zz", "does not parse"},
	} {
		if _, err := dynamoreplay.Open(t.Context(), c.url, nil); err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: %v, want %q", c.url, err, c.want)
		}
	}
}
