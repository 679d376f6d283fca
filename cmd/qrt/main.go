// Command qrt is for the people who operate queues of sealed messages: it sends
// and receives, looks after dead letters and keys, finds out what is wrong, and
// shows what the library protects against.
//
//	qrt demo                  the whole library, in a few seconds
//	qrt send QUEUE < file     and, in another terminal,
//	qrt receive QUEUE
//	qrt help                  everything else
//
// # Exit codes
//
// 0 done; 1 failed; 2 wrong usage; 3 nothing found; 141 nobody reads standard
// output any more, as a shell calls a process that SIGPIPE ended. With --json, results go to
// standard output as one object (streams as JSON Lines) and an error to standard
// error as one object.
//
// # Signals
//
// The first interrupt or SIGTERM ends what runs in good order: messages that
// were fetched and not handled go back to their queue. A second one ends the
// process. A reader of standard output that has seen enough ends it like the first.
package main

import (
	"os"

	"github.com/queue-runtime/queue/cmd/qrt/internal/cli"
)

func main() { os.Exit(cli.Main()) }
