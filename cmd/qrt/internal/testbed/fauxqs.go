package testbed

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/queue-runtime/queue/aws/sqsqueue"
	"github.com/queue-runtime/queue/driver"
)

// SQSEmulatorURL stands for fauxqs, an emulator of SQS that runs in Node: a child
// of this process.
const SQSEmulatorURL = "emulator://sqs"

// FauxqsFolder is the environment variable that names the folder in whose
// node_modules fauxqs is; without it, it is where a clone of the project has it.
const FauxqsFolder = "QRT_FAUXQS"

// fauxqsScript serves SQS on loopback and a free port, and prints the URL; fauxqs's
// own command listens on all addresses. It ends with its standard input, so that it
// does not outlive this process, and leaves signals to it: a terminal sends an
// interrupt to both.
const fauxqsScript = `
import { buildApp } from "fauxqs";
process.on("SIGINT", () => {}).on("SIGTERM", () => {});
const app = buildApp({ logger: false, defaultRegion: "us-east-1" });
console.log(await app.listen({ host: "127.0.0.1", port: 0 }));
process.stdin.on("end", () => process.exit(0)).resume();
`

// childEnds is how long the emulator may take to end before it is killed.
const childEnds = 5 * time.Second

// openFauxqs starts fauxqs, with the driver of SQS in front of it.
func openFauxqs() (*Bed, error) {
	child, endpoint, err := startFauxqs()
	if err != nil {
		return nil, err
	}
	cfg := aws.Config{
		Region:       "us-east-1",
		BaseEndpoint: aws.String(endpoint),
		Credentials:  credentials.NewStaticCredentialsProvider("qrt", "an-emulator-looks-at-no-secret", ""),
	}
	b, _ := newSQSBed(cfg)
	b.Title = "fauxqs, an emulator of AWS SQS"
	b.Connect = func(context.Context) (driver.Broker, error) { return sqsqueue.New(cfg, nil) }
	b.close = child.end
	return b, nil
}

// fauxqsHome is the folder in whose node_modules fauxqs is.
func fauxqsHome() (string, error) {
	dir := os.Getenv(FauxqsFolder)
	if dir == "" {
		dir = filepath.Join("aws", "testdata", "fauxqs")
	}
	if _, err := os.Stat(filepath.Join(dir, "node_modules", "fauxqs")); err != nil { //nolint:gosec // G703: the folder is the operator's to name
		return "", fmt.Errorf("%s runs fauxqs, which is not in %s: npm ci --prefix aws/testdata/fauxqs in a clone of the project, or npm install fauxqs elsewhere and name that folder in %s", SQSEmulatorURL, dir, FauxqsFolder)
	}
	return dir, nil
}

// childProcess ends with its standard input.
type childProcess struct {
	in  interface{ Close() error }
	cmd *exec.Cmd
}

func startFauxqs() (*childProcess, string, error) {
	dir, err := fauxqsHome()
	if err != nil {
		return nil, "", err
	}
	node, err := exec.LookPath("node")
	if err != nil {
		return nil, "", fmt.Errorf("%s runs fauxqs, which needs node (20 or newer) on the PATH", SQSEmulatorURL)
	}
	cmd := exec.CommandContext(context.Background(), node, "--input-type=module", "--eval", fauxqsScript) //nolint:gosec // G204: node, and a script that is ours
	said := &bytes.Buffer{}
	cmd.Dir, cmd.Stderr = dir, said
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, "", err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, "", err
	}
	if err := cmd.Start(); err != nil {
		return nil, "", err
	}
	child := &childProcess{in, cmd}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		_ = child.end() // what it said tells more
		return nil, "", fmt.Errorf("fauxqs did not start: %s", lastLine(said.String()))
	}
	return child, strings.TrimSpace(line), nil
}

// lastLine is where node says what is wrong, but for its version.
func lastLine(text string) string {
	for line := range strings.Lines(text) {
		if strings.Contains(line, "Error") {
			return strings.TrimSpace(line)
		}
	}
	return "it said nothing"
}

// end ends the process, and waits for that.
func (c *childProcess) end() error {
	_ = c.in.Close()
	kill := time.AfterFunc(childEnds, func() { _ = c.cmd.Process.Kill() })
	defer kill.Stop()
	if err := c.cmd.Wait(); err != nil {
		return errors.Join(errors.New("the emulator ended with an error"), err)
	}
	return nil
}
