// Command manpages writes the manual pages of qrt into a folder:
//
//	manpages VERSION DIR
//
// SOURCE_DATE_EPOCH, in seconds since 1970, is their date
// (https://reproducible-builds.org/docs/source-date-epoch/).
package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra/doc"

	"github.com/queue-runtime/queue/cmd/qrt/internal/cli"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "manpages:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 2 {
		return errors.New("usage: manpages VERSION DIR")
	}
	version, dir := args[0], args[1]
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	root := cli.Tree()
	root.DisableAutoGenTag = true // a line with the date of today
	return doc.GenManTree(root, &doc.GenManHeader{Section: "1", Source: "qrt " + version, Manual: "queue-runtime"}, dir)
}
