package sqsqueue

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
)

// TestMain lets more tests run at once than there are processors: those against
// a peer mostly wait.
func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", "12"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	code := m.Run()
	for _, stop := range peers.stops {
		stop()
	}
	os.Exit(code)
}

// peers are the child processes of this run; each is started once.
var peers struct {
	fauxqs, moto peerOnce

	mu    sync.Mutex
	stops []func()
}

type peerOnce struct {
	once sync.Once
	url  string
	err  error
}

// missing skips a test whose peer is not there, or fails it where the peers are
// required.
func missing(t *testing.T, err error) {
	t.Helper()
	if os.Getenv("QRT_REQUIRE_PEERS") == "1" {
		t.Fatal(err)
	}
	t.Skip(err)
}

// fauxqs returns the configuration of a client of the peer, and its URL.
func fauxqs(t *testing.T) (aws.Config, string) {
	t.Helper()
	p := &peers.fauxqs
	p.once.Do(func() { p.url, p.err = startFauxqs() })
	if p.err != nil {
		missing(t, p.err)
	}
	return emulated(p.url), p.url
}

// moto is fauxqs for moto_server, which is a second opinion where it is there.
func moto(t *testing.T) (aws.Config, string) {
	t.Helper()
	p := &peers.moto
	p.once.Do(func() { p.url, p.err = startMoto() })
	if p.err != nil {
		t.Skip(p.err)
	}
	return emulated(p.url), p.url
}

func emulated(url string) aws.Config {
	return aws.Config{
		Region:       "us-east-1",
		BaseEndpoint: aws.String(url),
		Credentials:  credentials.NewStaticCredentialsProvider("test", "test", ""),
		Retryer:      func() aws.Retryer { return aws.NopRetryer{} },
	}
}

// live returns the configuration of real AWS, where the environment asks for it.
func live(t *testing.T) aws.Config {
	t.Helper()
	if os.Getenv("QRT_SQS_LIVE") == "" {
		t.Skip("QRT_SQS_LIVE is not set: no test against AWS itself, which costs money")
	}
	cfg, err := config.LoadDefaultConfig(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := cfg.Credentials.Retrieve(t.Context()); err != nil {
		t.Skip("QRT_SQS_LIVE is set and there are no AWS credentials")
	}
	return cfg
}

func startFauxqs() (string, error) {
	dir, err := filepath.Abs(filepath.Join("..", "testdata", "fauxqs"))
	if err != nil {
		return "", err
	}
	if _, err := exec.LookPath("node"); err != nil {
		return "", errors.New("fauxqs: node (20 or newer) is not on the PATH")
	}
	if _, err := os.Stat(filepath.Join(dir, "node_modules", "fauxqs")); err != nil {
		return "", errors.New("fauxqs: not installed: run npm ci --prefix aws/testdata/fauxqs")
	}
	cmd := exec.Command("node", "server.mjs")
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
	cmd := exec.Command("moto_server", "-H", "127.0.0.1", "-p", port)
	if err := cmd.Start(); err != nil {
		return "", err
	}
	stopAtEnd(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for {
		var d net.Dialer
		c, err := d.DialContext(ctx, "tcp", addr)
		if err == nil {
			return "http://" + addr, c.Close()
		}
		select {
		case <-ctx.Done():
			return "", fmt.Errorf("moto_server did not start: %w", err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func stopAtEnd(f func()) {
	peers.mu.Lock()
	defer peers.mu.Unlock()
	peers.stops = append(peers.stops, f)
}

// rawClient is a client of the SDK, past the driver.
func rawClient(cfg aws.Config) *sqs.Client { return sqs.NewFromConfig(cfg) }

// counts asks fauxqs how often each action was called since the last reset.
func counts(t *testing.T, url string) map[string]int {
	t.Helper()
	out := make(map[string]int)
	res, err := http.Get(url + "/counts")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	if err := json.NewDecoder(res.Body).Decode(&out); err != nil {
		t.Fatal(err)
	}
	return out
}
