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
// 0 done; 1 failed; 2 wrong usage; 3 nothing found; 141 the reader of standard output
// has gone (128 + SIGPIPE). With --json, results go to standard output as one object
// (streams as JSON Lines) and an error to standard error as one object.
//
// # Signals
//
// The first interrupt or SIGTERM ends the command in good order: messages that were
// fetched and not handled go back to their queue. A second one kills the process. If
// the reader of standard output goes away, the command ends as after the first.
package main

import (
	"os"

	"github.com/queue-runtime/queue/cmd/qrt/internal/cli"
)

func main() { os.Exit(cli.Main()) }
