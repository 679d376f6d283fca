// Package command runs programs for the tools of this repository.
package command

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// In is where programs run: a folder and an environment. The zero value is the
// folder and the environment of this process. It is safe for concurrent use.
type In struct {
	Dir string
	Env []string // NAME=value; added to the environment of this process and stronger than it
}

// With returns in with more variables.
func (in In) With(env ...string) In {
	in.Env = append(append([]string(nil), in.Env...), env...)
	return in
}

// At returns in with another folder.
func (in In) At(dir string) In {
	in.Dir = dir
	return in
}

// Output runs a program and returns its standard output without the white space
// around it. An error names the program and says what it wrote to standard error.
func (in In) Output(ctx context.Context, name string, args ...string) (string, error) {
	return in.Pipe(ctx, "", name, args...)
}

// Pipe is Output with a standard input.
func (in In) Pipe(ctx context.Context, input, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = in.Dir
	cmd.Env = append(os.Environ(), in.Env...)
	cmd.Stdin = strings.NewReader(input)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, strings.TrimSpace(errs.String()+out.String()))
	}
	return strings.TrimSpace(out.String()), nil
}
