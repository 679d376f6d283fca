package fleet

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"

	"github.com/queue-runtime/queue/examples/bot/consumer"
	"github.com/queue-runtime/queue/examples/internal/service"
	"github.com/queue-runtime/queue/examples/webhook-router/router"
)

// The programs, by the names of their folders.
const (
	routerProgram = "webhook-router"
	botProgram    = "bot"
)

// becomeVariable tells a process which program to be.
const becomeVariable = "FLEET_PROGRAM"

// Become is for TestMain: in a process that a Fleet has started it runs the program
// and does not return; else it does nothing.
func Become() {
	switch program := os.Getenv(becomeVariable); program {
	case "":
	case routerProgram:
		ctx, _ := service.Signals() //nolint:govet // the process ends with it
		service.Exit(program, router.Run(ctx, nil, os.Stderr))
		os.Exit(0)
	case botProgram:
		ctx, _ := service.Signals() //nolint:govet // as above
		service.Exit(program, consumer.Run(ctx, nil, os.Stdout, os.Stderr))
		os.Exit(0)
	default:
		service.Exit(program, errors.New("no such program"))
	}
}

// Build builds both programs into a folder, with the go command. It must be called
// within this module or its workspace.
func Build(ctx context.Context, dir string) error {
	const module = "github.com/queue-runtime/queue/examples/"
	c := exec.CommandContext(ctx, "go", "build", "-o", dir+string(filepath.Separator), module+routerProgram, module+botProgram) //nolint:gosec // G204: our own programs, into a folder that the caller named
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("fleet: go build: %w\n%s", err, out)
	}
	return nil
}

// command returns how to start a program out of a folder, or in the running
// binary if that is empty.
func command(dir, program string) (argv, env []string, err error) {
	if dir != "" {
		path := filepath.Join(dir, program)
		if runtime.GOOS == "windows" {
			path += ".exe"
		}
		return []string{path}, nil, nil
	}
	self, err := os.Executable()
	if err != nil {
		return nil, nil, err
	}
	return []string{self}, []string{becomeVariable + "=" + program}, nil
}
