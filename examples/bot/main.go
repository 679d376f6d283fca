// Command bot receives the webhooks of one queue, with the one key of that queue,
// and writes what each makes it do to standard output.
//
// It is configured by its environment; see the README in the folder above.
package main

import (
	"os"

	"github.com/queue-runtime/queue/examples/bot/consumer"
	"github.com/queue-runtime/queue/examples/internal/service"
)

func main() {
	ctx, stop := service.Signals()
	defer stop()
	service.ReportErrors(os.Stderr, "bot")
	service.Exit("bot", consumer.Run(ctx, nil, os.Stdout, os.Stderr))
}
