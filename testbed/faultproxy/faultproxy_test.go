package faultproxy

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/queue-runtime/queue/driver"
	"github.com/queue-runtime/queue/memqueue"
)

// echo starts a server that sends back what it gets, line by line.
func echo(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = c.Close() }()
				_, _ = io.Copy(c, c)
			}()
		}
	}()
	return l.Addr().String()
}

// say sends a line and returns the answer, within a second.
func say(c net.Conn, line string) (string, error) { return sayWithin(time.Second, c, line) }

func sayWithin(limit time.Duration, c net.Conn, line string) (string, error) {
	_ = c.SetDeadline(time.Now().Add(limit))
	if _, err := io.WriteString(c, line+"\n"); err != nil {
		return "", err
	}
	answer, err := bufio.NewReader(c).ReadString('\n')
	return strings.TrimSuffix(answer, "\n"), err
}

func isTimeout(err error) bool {
	var e net.Error
	return errors.As(err, &e) && e.Timeout()
}

// Whatever befalls connections, each passes all, ends or is silent; afterwards all pass.
func TestTCP(t *testing.T) {
	f := New(1, 3)
	p, err := NewTCP(echo(t), f, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = p.Close() }()
	for range 60 {
		c, err := net.Dial("tcp", p.Addr())
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range []string{"one", "two", "three"} {
			answer, err := say(c, line)
			if err == nil && answer != line {
				t.Fatalf("%q became %q", line, answer)
			}
			if err != nil {
				break
			}
		}
		_ = c.Close()
		if counts := f.Counts(); counts[Silence] > 0 && counts[Delay] > 0 && counts[Drop]+counts[Cut]+counts[HalfClose]+counts[Refuse] > 0 {
			break
		}
	}
	counts := f.Counts()
	for _, kind := range []Fault{Delay, Silence} {
		if counts[kind] == 0 {
			t.Errorf("no %s: %s", kind, f)
		}
	}
	if counts[Drop]+counts[Cut]+counts[HalfClose]+counts[Refuse] == 0 {
		t.Errorf("no connection ended: %s", f)
	}
	f.Calm()
	for range 20 {
		c, err := net.Dial("tcp", p.Addr())
		if err != nil {
			t.Fatal(err)
		}
		if answer, err := sayWithin(time.Minute, c, "calm"); answer != "calm" {
			t.Errorf("after the faults: %q, %v", answer, err)
		}
		_ = c.Close()
	}
}

// A connection that is silent stays so, also when the faults are over.
func TestTCPSilenceLasts(t *testing.T) {
	f := New(1, 2)
	p, err := NewTCP(echo(t), f, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = p.Close() }()
	for range 1000 {
		c, err := net.Dial("tcp", p.Addr())
		if err != nil {
			t.Fatal(err)
		}
		_, err = say(c, "x")
		if f.Counts()[Silence] == 0 {
			_ = c.Close()
			continue
		}
		f.Calm()
		_, again := say(c, "y")
		_ = c.Close()
		if !isTimeout(err) || !isTimeout(again) {
			t.Errorf("a silent connection: %v, and after the faults %v; want time-outs", err, again)
		}
		return
	}
	t.Error("no connection fell silent")
}

// Each fault of HTTP happens, and what it promises: a request that is dropped or refused
// does not arrive, and one whose answer is lost does, once.
func TestHTTP(t *testing.T) {
	var mu sync.Mutex
	arrivals := make(map[string]int)
	arrived := func(path string) int {
		mu.Lock()
		defer mu.Unlock()
		return arrivals[path]
	}
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		arrivals[r.URL.Path]++
		_, _ = io.WriteString(w, "done")
	}))
	defer service.Close()
	f := New(2, 2)
	f.MaxDelay = 20 * time.Millisecond
	p, err := NewHTTP(service.URL, f, Answer{Status: 400, Header: map[string]string{"X-Why": "y"}, Body: "slow down"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = p.Close() }()
	client := &http.Client{Timeout: time.Minute, Transport: &http.Transport{DisableKeepAlives: true}} // which repeats nothing by itself
	post := func(url string) (r *http.Response, body []byte, err, readErr error) {
		silent := f.Counts()[Silence]
		ctx, leave := context.WithCancel(t.Context())
		defer leave()
		go func() { // leaves after a second of silence, however long another answer takes
			tick := time.NewTicker(time.Millisecond)
			defer tick.Stop()
			for f.Counts()[Silence] == silent {
				select {
				case <-tick.C:
				case <-ctx.Done():
					return
				}
			}
			second := time.NewTimer(time.Second)
			defer second.Stop()
			select {
			case <-second.C:
				leave()
			case <-ctx.Done():
			}
		}()
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader("x"))
		if err != nil {
			t.Fatal(err)
		}
		if r, err = client.Do(request); err == nil {
			body, readErr = io.ReadAll(r.Body)
			_ = r.Body.Close()
		}
		return r, body, err, readErr
	}
	for n := range 80 {
		before := f.Counts()
		path := "/" + strings.Repeat("x", n+1)
		r, body, err, readErr := post(p.URL() + path) //nolint:bodyclose // post closes it
		fault := None
		for kind, count := range f.Counts() {
			if count > before[kind] {
				fault = kind
			}
		}
		want := 1
		if fault == Drop || fault == Refuse {
			want = 0
		}
		// A silence is before the request arrives, or after.
		if n := arrived(path); n != want && (fault != Silence || n > 1) {
			t.Errorf("%s: the request arrived %d times", fault, n)
		}
		switch fault {
		case None, Delay, Reorder, WrongClock:
			if err != nil || string(body) != "done" {
				t.Errorf("%s: %q, %v", fault, body, err)
			}
		case Refuse:
			if err != nil || r.StatusCode != 400 || r.Header.Get("X-Why") != "y" || string(body) != "slow down" {
				t.Errorf("%s: %v, %q, %v", fault, r, body, err)
			}
		case Cut:
			if err == nil && readErr == nil {
				t.Errorf("%s: a whole answer, %q", fault, body)
			}
		case Drop, LoseAnswer, Silence:
			if err == nil {
				t.Errorf("%s: an answer, %q", fault, body)
			}
		}
		if fault == WrongClock {
			if at, err := http.ParseTime(r.Header.Get("Date")); err != nil || time.Since(at).Abs() < wrongBy/2 {
				t.Errorf("%s: %s", fault, r.Header.Get("Date"))
			}
		}
	}
	for _, kind := range []Fault{Delay, Drop, LoseAnswer, Cut, Silence, Refuse, WrongClock, Reorder} {
		if f.Counts()[kind] == 0 {
			t.Errorf("no %s: %s", kind, f)
		}
	}
}

// A broker behind faults loses nothing by itself: what it stores, and what it says of that,
// are apart only if an answer was lost.
func TestBroker(t *testing.T) {
	b := memqueue.New(nil)
	defer func() { _ = b.Close(context.Background()) }()
	f := New(3, 3)
	f.MaxDelay = time.Millisecond
	open := func() driver.Queue {
		for {
			q, err := NewBroker(b.Connect(), f).Open(t.Context(), "q", nil)
			if err == nil {
				return q
			}
			if driver.KindOf(err) != driver.Unavailable {
				t.Fatal(err)
			}
		}
	}
	q := open()
	sent := 0
	for range 30 {
		r := q.Send(t.Context(), []*driver.Message{{ID: "m", Body: []byte("x")}})
		switch {
		case r[0].Err == nil:
			sent++
		case driver.KindOf(r[0].Err) != driver.Unavailable:
			t.Fatal(r[0].Err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range 30 {
		if r := q.Send(ctx, []*driver.Message{{ID: "m", Body: []byte("x")}}); r[0].Err == nil {
			sent++ // the fake does not look at contexts
		}
	}
	f.Calm()
	clean, err := b.Connect().Open(t.Context(), "q", nil)
	if err != nil {
		t.Fatal(err)
	}
	s, err := clean.Stats(t.Context())
	if err != nil || int(s.Ready) < sent || sent == 0 || f.Counts()[Drop] == 0 || f.Counts()[LoseAnswer] == 0 {
		t.Errorf("%d confirmed, %+v, %v; %s", sent, s, err, f)
	}
	got, err := q.Receive(t.Context(), 1, 0)
	if err != nil || len(got) != 1 {
		t.Fatalf("after the faults: %d, %v", len(got), err)
	}
	if errs := q.Settle(t.Context(), []driver.Settlement{{Delivery: got[0], Kind: driver.Complete}}); errs[0] != nil {
		t.Error(errs[0])
	}
}
