// Command webhook-router receives GitHub's webhooks over HTTP, verifies them, and
// sends each, sealed under the key of its queue, to one of three queues.
//
// It is configured by its environment; see the README in the folder above.
package main

import (
	"os"

	"github.com/queue-runtime/queue/examples/internal/service"
	"github.com/queue-runtime/queue/examples/webhook-router/router"
)

func main() {
	ctx, stop := service.Signals()
	defer stop()
	service.ReportErrors(os.Stderr, "webhook-router")
	service.Exit("webhook-router", router.Run(ctx, nil, os.Stderr))
}
