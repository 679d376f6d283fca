// Package awspeer starts the servers that the tests of this module talk to, each
// once a test binary, as child processes on 127.0.0.1 and a free port.
package awspeer

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
)

var (
	fauxqs, moto peer

	mu    sync.Mutex // guards stops
	stops []func()
)

type peer struct {
	once sync.Once
	url  string
	err  error
}

// Stop ends what was started. TestMain calls it last.
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

// Fauxqs returns the URL of fauxqs, which serves SQS. Where it is not installed
// the test is skipped, and with QRT_REQUIRE_PEERS=1 it fails.
func Fauxqs(t testing.TB) string {
	t.Helper()
	fauxqs.once.Do(func() { fauxqs.url, fauxqs.err = startFauxqs() })
	switch {
	case fauxqs.err == nil:
	case os.Getenv("QRT_REQUIRE_PEERS") == "1":
		t.Fatal(fauxqs.err)
	default:
		t.Skip(fauxqs.err)
	}
	return fauxqs.url
}

// Moto returns the URL of moto_server, which serves SQS and Secrets Manager and
// is a second opinion: where it is not installed the test is skipped.
func Moto(t testing.TB) string {
	t.Helper()
	moto.once.Do(func() { moto.url, moto.err = startMoto() })
	if moto.err != nil {
		t.Skip(moto.err)
	}
	return moto.url
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

func startFauxqs() (string, error) {
	if _, err := exec.LookPath("node"); err != nil {
		return "", errors.New("fauxqs: node (20 or newer) is not on the PATH")
	}
	_, file, _, _ := runtime.Caller(0)
	dir := filepath.Join(filepath.Dir(file), "..", "..", "testdata", "fauxqs")
	if _, err := os.Stat(filepath.Join(dir, "node_modules", "fauxqs")); err != nil {
		return "", errors.New("fauxqs: not installed: run npm ci --prefix aws/testdata/fauxqs")
	}
	cmd := exec.CommandContext(context.Background(), "node", "server.mjs") // until Stop
	cmd.Dir, cmd.Stderr = dir, os.Stderr
	in, err := cmd.StdinPipe() // the server ends with it
	if err != nil {
		return "", err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return "", err
	}
	if err := cmd.Start(); err != nil {
		return "", err
	}
	stopAtEnd(func() {
		_ = in.Close()
		_ = cmd.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return "", fmt.Errorf("fauxqs did not start: %w", err)
	}
	return strings.TrimSpace(line), nil
}

func startMoto() (string, error) {
	if _, err := exec.LookPath("moto_server"); err != nil {
		return "", errors.New("moto_server is not on the PATH: no second opinion")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	addr := l.Addr().String()
	if err := l.Close(); err != nil {
		return "", err
	}
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return "", err
	}
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
