// Command ledger receives payments from a queue and posts them to accounts in a PostgreSQL
// database: each once, whatever crashes when.
//
// It is configured by its environment; see the README in the folder above.
package main

import (
	"os"

	"github.com/queue-runtime/queue/examples/internal/service"
	"github.com/queue-runtime/queue/examples/ledger/book"
)

func main() {
	ctx, stop := service.Signals()
	defer stop()
	service.Exit("ledger", book.Run(ctx, nil, os.Stderr))
}
