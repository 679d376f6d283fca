package dynamoreplay_test

import (
	"context"
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/queue-runtime/queue/aws/dynamoreplay"
	"github.com/queue-runtime/queue/internal/httpclient"
	"github.com/queue-runtime/queue/replay"
	"github.com/queue-runtime/queue/replay/replaytest"
	"github.com/queue-runtime/queue/testbed/awspeer"
	"github.com/queue-runtime/queue/testbed/dynalite"
)

const table = "replay"

// config returns the configuration of a client without connections that stay: those
// would keep the clock of a bubble from moving.
func config() aws.Config {
	cfg := awspeer.Config("")
	cfg.BaseEndpoint, cfg.Region = nil, "eu-west-1"
	cfg.HTTPClient = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	return cfg
}

// serve starts dynalite with an empty table.
func serve(t testing.TB, o *dynalite.Options) *dynalite.Server {
	t.Helper()
	server := dynalite.Serve(t, o)
	if err := dynamoreplay.Create(t.Context(), config(), table, &dynamoreplay.Options{Endpoint: server.URL()}); err != nil {
		t.Fatal(err)
	}
	return server
}

func open(t testing.TB, o *dynamoreplay.Options) *dynamoreplay.Store {
	t.Helper()
	s, err := dynamoreplay.New(context.Background(), config(), table, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(context.Background()); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return s
}

// content is what the table holds under one prefix.
type content struct {
	client *dynamodb.Client
	prefix string
}

// contentOf goes past the proxy: what that loses is the store's to bear, not the test's.
func contentOf(server *dynalite.Server, prefix string) content {
	return content{dynamodb.NewFromConfig(config(), func(o *dynamodb.Options) {
		o.BaseEndpoint, o.HTTPClient = aws.String(server.Direct()), httpclient.PlainBodies{Doer: o.HTTPClient}
	}), prefix}
}

func (c content) read(t testing.TB) (items []map[string]types.AttributeValue) {
	t.Helper()
	var from map[string]types.AttributeValue
	for {
		out, err := c.client.Scan(context.Background(), &dynamodb.ScanInput{
			TableName: aws.String(table), ExclusiveStartKey: from, ConsistentRead: aws.Bool(true),
			FilterExpression:          aws.String("begins_with(p, :p)"),
			ExpressionAttributeValues: map[string]types.AttributeValue{":p": &types.AttributeValueMemberS{Value: c.prefix + "."}},
		})
		if err != nil {
			t.Fatal(err)
		}
		items = append(items, out.Items...)
		if from = out.LastEvaluatedKey; from == nil {
			return items
		}
	}
}

func (c content) clear(t testing.TB) {
	t.Helper()
	for _, item := range c.read(t) {
		_, err := c.client.DeleteItem(context.Background(), &dynamodb.DeleteItemInput{
			TableName: aws.String(table), Key: map[string]types.AttributeValue{"p": item["p"], "s": item["s"]},
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

func (c content) restore(t testing.TB, items []map[string]types.AttributeValue) {
	t.Helper()
	c.clear(t)
	for _, item := range items {
		if _, err := c.client.PutItem(context.Background(), &dynamodb.PutItemInput{TableName: aws.String(table), Item: item}); err != nil {
			t.Fatal(err)
		}
	}
}

var prefixes atomic.Int64

// fixture returns handles on a store of its own in the table of a server.
func fixture(server *dynalite.Server) func(t testing.TB, b replay.Bounds) replaytest.Fixture {
	return func(t testing.TB, b replay.Bounds) replaytest.Fixture {
		c := contentOf(server, fmt.Sprint("test-", prefixes.Add(1)))
		return replaytest.Fixture{
			Open: func(shift time.Duration) replay.Store {
				s := open(t, &dynamoreplay.Options{Endpoint: server.URL(), Bounds: b, Prefix: c.prefix})
				s.Shift(shift)
				return s
			},
			Lose: func() { c.clear(t) },
			Backup: func() func() {
				items := c.read(t)
				return func() { c.restore(t, items) }
			},
		}
	}
}

// remake deletes the table and makes an empty one while no request of another is at the
// server: dynalite removes one item after the other, and what is written meanwhile would
// stay.
func remake(t testing.TB, server *dynalite.Server) {
	t.Helper()
	server.Alone(func() {
		c := contentOf(server, "").client
		if _, err := c.DeleteTable(context.Background(), &dynamodb.DeleteTableInput{TableName: aws.String(table)}); err != nil {
			t.Fatal(err)
		}
		if err := dynamodb.NewTableNotExistsWaiter(c, func(o *dynamodb.TableNotExistsWaiterOptions) { o.MinDelay = 10 * time.Millisecond }).Wait(
			context.Background(), &dynamodb.DescribeTableInput{TableName: aws.String(table)}, time.Minute); err != nil {
			t.Fatal(err)
		}
		if err := dynamoreplay.Create(context.Background(), config(), table, &dynamoreplay.Options{Endpoint: server.Direct()}); err != nil {
			t.Fatal(err)
		}
	})
}
