// Package awspeer starts the servers that tests of AWS drivers talk to, each once
// in a test binary, as child processes on 127.0.0.1 and a free port.
package awspeer

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/queue-runtime/queue/testbed/fauxqs"
	"github.com/queue-runtime/queue/testbed/internal/freeport"
)

// TB is the part of *testing.T that this package uses.
type TB interface {
	Helper()
	Fatal(args ...any)
	Skip(args ...any)
}

var (
	sqsServer, motoServer peer

	mu    sync.Mutex // guards stops
	stops []func()
)

// peer is a server that is started on first use.
type peer struct {
	once sync.Once
	url  string
	err  error
}

// Stop ends the servers. TestMain calls it last.
func Stop() {
	mu.Lock()
	defer mu.Unlock()
	for _, stop := range stops {
		stop()
	}
	stops = nil
}

func stopAtEnd(f func()) {
	mu.Lock()
	defer mu.Unlock()
	stops = append(stops, f)
}

// Fauxqs returns the URL of fauxqs, which serves SQS. If fauxqs is not installed
// it skips the test, or fails it if QRT_REQUIRE_PEERS is 1.
func Fauxqs(t TB) string {
	t.Helper()
	sqsServer.once.Do(func() {
		s, err := fauxqs.Start(nil)
		if err != nil {
			sqsServer.err = err
			return
		}
		sqsServer.url = s.URL()
		stopAtEnd(func() { _ = s.Close() }) // the tests have their results
	})
	switch {
	case sqsServer.err == nil:
	case errors.Is(sqsServer.err, fauxqs.ErrNotInstalled) && os.Getenv("QRT_REQUIRE_PEERS") != "1":
		t.Skip(sqsServer.err)
	default:
		t.Fatal(sqsServer.err)
	}
	return sqsServer.url
}

// Moto returns the URL of moto_server, which serves SQS and Secrets Manager. It is
// a second opinion beside fauxqs: without it the test is skipped.
func Moto(t TB) string {
	t.Helper()
	motoServer.once.Do(func() { motoServer.url, motoServer.err = startMoto() })
	if motoServer.err != nil {
		t.Skip(motoServer.err)
	}
	return motoServer.url
}

// Config returns the configuration of a client of an emulator, without retries.
func Config(url string) aws.Config {
	return aws.Config{
		Region:       "us-east-1",
		BaseEndpoint: aws.String(url),
		Credentials:  credentials.NewStaticCredentialsProvider("test", "test-secret-of-forty-characters-as-of-aws", ""),
		Retryer:      func() aws.Retryer { return aws.NopRetryer{} },
	}
}

func startMoto() (string, error) {
	if _, err := exec.LookPath("moto_server"); err != nil {
		return "", errors.New("moto_server is not on the PATH: pip install moto[server] installs it")
	}
	number, release, err := freeport.Take()
	if err != nil {
		return "", err
	}
	stopAtEnd(release)
	port := strconv.Itoa(number)
	addr := net.JoinHostPort("127.0.0.1", port)
	cmd := exec.CommandContext(context.Background(), "moto_server", "-H", "127.0.0.1", "-p", port) //nolint:gosec // G204: the port is ours
	if err := cmd.Start(); err != nil {
		return "", err
	}
	stopAtEnd(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	retry := time.NewTicker(50 * time.Millisecond)
	defer retry.Stop()
	for {
		var d net.Dialer
		c, err := d.DialContext(ctx, "tcp", addr)
		if err == nil {
			return "http://" + addr, c.Close()
		}
		select {
		case <-ctx.Done():
			return "", fmt.Errorf("moto_server did not start: %w", err)
		case <-retry.C:
		}
	}
}
