package tablereplay

import (
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/data/aztables"

	"github.com/queue-runtime/queue/replay/cas"
)

// NewBackend returns the backend of a table.
func NewBackend(t testing.TB, accountURL string, key *aztables.SharedKeyCredential, table string, o *Options) cas.Batcher {
	t.Helper()
	a := account{url: accountURL, key: key}
	b, err := a.backend(table, o)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
