package sbemulator_test

import (
	"net"
	"strings"
	"testing"

	"github.com/queue-runtime/queue/testbed/sbemulator"
)

func TestListenAddr(t *testing.T) {
	for _, addr := range []string{"0.0.0.0:0", ":0", "nowhere", "127.0.0.1:99999"} {
		if s, err := sbemulator.Start(&sbemulator.Options{ListenAddr: addr}); err == nil {
			t.Errorf("listens on %s", addr)
			_ = s.Close()
		}
	}
	s := must[*sbemulator.Server](t)(sbemulator.Start(&sbemulator.Options{ListenAddr: "0.0.0.0:0", AllowRemote: true}))
	if c := s.ConnectionString(); !strings.HasPrefix(c, "Endpoint=sb://127.0.0.1:") {
		t.Error(c)
	}
	again := &sbemulator.Options{ListenAddr: s.Addr().String(), AllowRemote: true}
	if _, err := sbemulator.Start(again); err == nil {
		t.Error("listens on a port that is taken")
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := sbemulator.Start(&sbemulator.Options{IdleLinkTimeout: -1}); err == nil {
		t.Error("a negative timeout was taken")
	}
	if _, err := sbemulator.Start(&sbemulator.Options{AutoCreate: &sbemulator.QueueOptions{MaxBytes: -1}}); err == nil {
		t.Error("negative options of queues were taken")
	}
}

func TestServerClose(t *testing.T) {
	s := start(t, nil, nil)
	p := open(t, s, 64<<10, 100)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	p.closed("amqp:connection:forced")
	if err := s.Close(); err != nil {
		t.Error("second close:", err)
	}
	if _, err := net.Dial("tcp", s.Addr().String()); err == nil {
		t.Error("it still listens")
	}
}
