package nodepeer

import (
	"errors"
	"os"

	"github.com/queue-runtime/queue/testbed/httpproxy"
)

// Proxied is a Process with a proxy in front, whose address stays when the process is
// started again.
type Proxied struct {
	*httpproxy.Proxy
	config  Config
	process *Process
}

// StartProxied starts a server and its proxy.
func StartProxied(c *Config, o *httpproxy.Options) (*Proxied, error) {
	process, err := Start(c)
	if err != nil {
		return nil, err
	}
	proxy, err := httpproxy.New(process.URL(), o)
	if err != nil {
		return nil, errors.Join(err, process.Close())
	}
	return &Proxied{proxy, *c, process}, nil
}

// Direct returns the URL of the process itself: what goes there is neither counted nor
// disturbed. It changes with each Restart.
func (p *Proxied) Direct() string { return p.process.URL() }

// Kill ends the process at once. The proxy stays, and answers nothing.
func (p *Proxied) Kill() error { return p.process.Kill() }

// Restart starts the process again, on the same data and behind the same address.
func (p *Proxied) Restart() error {
	if err := p.process.Close(); err != nil {
		return err
	}
	process, err := Start(&p.config)
	if err != nil {
		return err
	}
	p.process = process
	return p.Forward(process.URL())
}

// Close ends the process and the proxy.
func (p *Proxied) Close() error { return errors.Join(p.Proxy.Close(), p.process.Close()) }

// TB is the part of *testing.T that [Serve] uses.
type TB interface {
	Helper()
	Cleanup(f func())
	Fatal(args ...any)
	Error(args ...any)
	Skip(args ...any)
}

// Serve starts a server that ends with the test. If missing says that its package is not
// installed it skips the test, or fails it if QRT_REQUIRE_PEERS is 1.
func Serve[S interface{ Close() error }](t TB, start func() (S, error), missing error) S {
	t.Helper()
	s, err := start()
	if errors.Is(err, missing) && os.Getenv("QRT_REQUIRE_PEERS") != "1" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}
