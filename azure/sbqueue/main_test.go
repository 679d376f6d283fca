package sbqueue_test

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/queue-runtime/queue/testbed/sbemulator"
)

// side is how many tests run side by side where nothing else is asked for: they
// wait for locks and deadlines in real time, and need little of the processors.
const side = "16"

// emulatorVariable makes this binary an emulator, for what is to be measured
// without it.
const emulatorVariable = "SBQUEUE_TEST_EMULATOR"

func TestMain(m *testing.M) {
	if os.Getenv(emulatorVariable) != "" {
		if err := emulate(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	flag.Parse()
	asked := false
	flag.Visit(func(f *flag.Flag) { asked = asked || f.Name == "test.parallel" })
	if !asked {
		if err := flag.Set("test.parallel", side); err != nil {
			panic(err)
		}
	}
	os.Exit(m.Run())
}

// emulate serves until its standard input ends.
func emulate() error {
	ctx, stop := context.WithCancel(context.Background())
	go func() {
		defer stop()
		_, _ = io.Copy(io.Discard, os.Stdin)
	}()
	return sbemulator.Run(ctx, &sbemulator.Options{AutoCreate: &sbemulator.QueueOptions{}}, func(s *sbemulator.Server) error {
		_, err := fmt.Println(s.ConnectionString())
		return err
	})
}

// elsewhere starts an emulator in a process of its own and returns its connection
// string. It makes queues as they are asked for.
func elsewhere(tb testing.TB) string {
	tb.Helper()
	self, err := os.Executable()
	if err != nil {
		tb.Fatal(err)
	}
	cmd := exec.CommandContext(context.WithoutCancel(tb.Context()), self) // it ends with its standard input
	cmd.Env = append(os.Environ(), emulatorVariable+"=1")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		tb.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		tb.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		_ = in.Close()
		if err := cmd.Wait(); err != nil {
			tb.Errorf("emulator: %v", err)
		}
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		tb.Fatalf("emulator: %v", err)
	}
	return strings.TrimSpace(line)
}
