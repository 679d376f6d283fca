package tablereplay_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/data/aztables"

	"github.com/queue-runtime/queue/azure/tablereplay"
	"github.com/queue-runtime/queue/replay"
	"github.com/queue-runtime/queue/replay/replaytest"
	"github.com/queue-runtime/queue/testbed/azurite"
)

const table = "replay"

func credential() *aztables.SharedKeyCredential {
	c, err := aztables.NewSharedKeyCredential(azurite.Account, azurite.Key)
	if err != nil {
		panic(err) // it is a constant
	}
	return c
}

// client returns options of a client without connections that stay: those would keep the
// clock of a bubble from moving.
func client() *aztables.ClientOptions {
	o := &aztables.ClientOptions{}
	o.Transport = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	return o
}

// serve starts azurite with an empty table.
func serve(t testing.TB) *azurite.Server {
	t.Helper()
	server := azurite.Serve(t)
	if err := tablereplay.CreateSharedKey(t.Context(), server.Endpoint(), credential(), table, &tablereplay.Options{Client: client()}); err != nil {
		t.Fatal(err)
	}
	return server
}

func open(t testing.TB, server *azurite.Server, o *tablereplay.Options) *tablereplay.Store {
	t.Helper()
	o.Client = client()
	s, err := tablereplay.NewSharedKey(context.Background(), server.Endpoint(), credential(), table, o)
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
	client *aztables.Client
	prefix string
}

// contentOf goes past the proxy: what that loses is the store's to bear, not the test's.
func contentOf(t testing.TB, server *azurite.Server, prefix string) content {
	t.Helper()
	service, err := aztables.NewServiceClientWithSharedKey(server.Direct()+"/"+azurite.Account, credential(), client())
	if err != nil {
		t.Fatal(err)
	}
	return content{service.NewClient(table), prefix}
}

func (c content) read(t testing.TB) (entities [][]byte) {
	t.Helper()
	filter := fmt.Sprintf("PartitionKey ge '%[1]s.' and PartitionKey lt '%[1]s/'", c.prefix)
	pages := c.client.NewListEntitiesPager(&aztables.ListEntitiesOptions{Filter: &filter})
	for pages.More() {
		page, err := pages.NextPage(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		entities = append(entities, page.Entities...)
	}
	return entities
}

func (c content) clear(t testing.TB) {
	t.Helper()
	for _, e := range c.read(t) {
		var k struct{ PartitionKey, RowKey string }
		if err := json.Unmarshal(e, &k); err != nil {
			t.Fatal(err)
		}
		if _, err := c.client.DeleteEntity(context.Background(), k.PartitionKey, k.RowKey, nil); err != nil {
			t.Fatal(err)
		}
	}
}

func (c content) restore(t testing.TB, entities [][]byte) {
	t.Helper()
	c.clear(t)
	for _, e := range entities {
		if _, err := c.client.UpsertEntity(context.Background(), e, nil); err != nil {
			t.Fatal(err)
		}
	}
}

var prefixes atomic.Int64

// fixture returns handles on a store of its own in the table of a server.
func fixture(server *azurite.Server) func(t testing.TB, b replay.Bounds) replaytest.Fixture {
	return func(t testing.TB, b replay.Bounds) replaytest.Fixture {
		c := contentOf(t, server, fmt.Sprint("test-", prefixes.Add(1)))
		return replaytest.Fixture{
			Open: func(shift time.Duration) replay.Store {
				s := open(t, server, &tablereplay.Options{Bounds: b, Prefix: c.prefix})
				s.Shift(shift)
				return s
			},
			Lose: func() { c.clear(t) },
			Backup: func() func() {
				entities := c.read(t)
				return func() { c.restore(t, entities) }
			},
		}
	}
}

// remake deletes the table and makes an empty one while no request of another is at the
// server.
func remake(t testing.TB, server *azurite.Server) {
	t.Helper()
	server.Alone(func() {
		if _, err := contentOf(t, server, "").client.Delete(context.Background(), nil); err != nil {
			t.Fatal(err)
		}
		if err := tablereplay.CreateSharedKey(context.Background(), server.Direct()+"/"+azurite.Account, credential(), table, &tablereplay.Options{Client: client()}); err != nil {
			t.Fatal(err)
		}
	})
}
