package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"strings"

	queue "github.com/queue-runtime/queue"
	"github.com/queue-runtime/queue/cmd/qrt/internal/display"
	"github.com/queue-runtime/queue/sessionkey"
)

// sending is one run of send.
type sending struct {
	report   *sendReport
	template *queue.Message
	next     func() (source, error, bool)
	pending  []source // read and not sent
}

// errNoneValid ends a rehearsal without a message that could be sent; the report says why.
var errNoneValid = errors.New("no message is valid")

// run sends what there is. Sending makes the queue, and a mistake must not: so the broker is
// not opened before a message was read that could be sent.
func (w *sending) run(ctx context.Context, a *app, o *sendOptions, name string, strategy sessionkey.Strategy, total int) error {
	if more, err := w.fill(1); err != nil {
		return err
	} else if !more {
		return nothingf("nothing to send")
	}
	options := func(c *connection) *queue.SenderOptions {
		so := &queue.SenderOptions{SessionKey: strategy}
		if !o.plain && c.provider(name) == nil {
			so.Crypto = &queue.CryptoConfig{Loosen: true} // other queues have keys, this one has not
		}
		return so
	}
	n := access{queues: []string{name}, plain: o.plain, rehearse: func(c *connection, client *queue.Client) error {
		s, err := client.Sender(ctx, name, options(c))
		if err != nil {
			return err
		}
		return w.rehearse(ctx, s)
	}}
	err := a.with(ctx, n, func(c *connection) error {
		s, err := c.sender(ctx, name, options(c))
		if err != nil {
			return err
		}
		batch := o.batch
		if batch <= 0 {
			batch = max(1, min(maxBatch, s.Capabilities().MaxBatch))
		}
		bar := a.errors.Bar("sending", max(total, 0))
		if a.settings.json || total >= 0 && total <= batch {
			bar.Done()
		}
		defer bar.Done()
		for {
			more, err := w.fill(batch)
			if err != nil || !more {
				return err
			}
			now := w.pending[:min(batch, len(w.pending))]
			w.pending = w.pending[len(now):]
			err = w.report.send(ctx, s, w.template, now)
			bar.Set(w.report.Sent)
			if err != nil {
				return err
			}
		}
	})
	if errors.Is(err, errNoneValid) {
		return nil
	}
	return err
}

// maxBatch bounds the messages of a call that --batch does not say.
const maxBatch = 100

// fill reads until n messages are pending. It returns false if none is.
func (w *sending) fill(n int) (bool, error) {
	for len(w.pending) < n {
		x, err, more := w.next()
		if err != nil {
			return false, err
		}
		if !more {
			break
		}
		w.pending = append(w.pending, x)
	}
	return len(w.pending) > 0, nil
}

// rehearse returns nil when it has found a message that s sends, over a broker in memory.
// The failed ones before it stay pending, up to a batch: later ones of their sessions must
// not be sent without them.
func (w *sending) rehearse(ctx context.Context, s *queue.Sender) error {
	var failed []queue.SendResult // of the first that are pending
	for {
		if len(failed) == maxBatch {
			w.fail(failed)
			failed = nil
		}
		if more, err := w.fill(len(failed) + 1); err != nil {
			return err
		} else if !more || len(failed) == len(w.pending) {
			w.fail(failed)
			return errNoneValid
		}
		results, err := s.SendBatch(ctx, []*queue.Message{w.pending[len(failed)].message(w.template)})
		if len(results) == 0 {
			return err
		}
		if results[0].Err == nil {
			return nil
		}
		failed = append(failed, results[0])
	}
}

// fail notes that the first messages that are pending are not sent.
func (w *sending) fail(results []queue.SendResult) {
	for i, x := range results {
		w.report.add(x, &w.pending[i])
	}
	w.pending = w.pending[len(results):]
}

// source is one body to send.
type source struct {
	name string
	body []byte
}

// message is the message that a source becomes.
func (x *source) message(template *queue.Message) *queue.Message {
	m := *template
	m.Body = x.body
	if m.ContentType == "" {
		m.ContentType = contentType(x.name)
	}
	return &m
}

// sources returns the bodies, which end with the first error, and how many there are, -1 if
// that is not known.
func (a *app) sources(paths []string, o *sendOptions) (iter.Seq2[source, error], int, error) {
	if len(paths) == 0 {
		paths = []string{"-"}
	}
	var files []string
	own := a.settings.ownFiles()
	for _, path := range paths {
		info, err := os.Stat(path)
		switch {
		case path == "-":
			files = append(files, path)
		case err != nil:
			return nil, 0, err
		case info.IsDir():
			list, err := own.listed(path)
			if err != nil {
				return nil, 0, err
			}
			files = append(files, list...)
		case own.has(info):
			return nil, 0, usagef("%s holds the keys or the queue of this command: it is not sent", display.Safe(path))
		default:
			files = append(files, path)
		}
	}
	total := len(files)
	if o.lines {
		total = -1
	}
	return func(yield func(source, error) bool) {
		for _, path := range files {
			if more, err := a.readSource(path, o, func(s source) bool { return yield(s, nil) }); err != nil {
				yield(source{}, err)
				return
			} else if !more {
				return
			}
		}
	}, total, nil
}

// maxLine bounds a message of --lines in bytes.
const maxLine = 64 << 20

// readSource reads one file as one message, or each of its lines, until add returns false.
func (a *app) readSource(path string, o *sendOptions, add func(source) bool) (more bool, err error) {
	r := a.In
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return false, err
		}
		defer func() { _ = f.Close() }() // only read
		r = f
	}
	if !o.lines {
		body, err := io.ReadAll(r)
		if err != nil {
			return false, err
		}
		if path == "-" && len(body) == 0 && !o.allowEmpty {
			return false, usagef("standard input is empty: nothing was sent (--allow-empty sends a message without a body)")
		}
		return add(source{strings.TrimPrefix(path, "-"), body}), nil
	}
	s := bufio.NewScanner(r)
	s.Buffer(nil, maxLine)
	for s.Scan() {
		if len(s.Bytes()) == 0 {
			continue
		}
		if !add(source{body: []byte(s.Text())}) {
			return false, nil
		}
	}
	if errors.Is(s.Err(), bufio.ErrTooLong) {
		return false, fmt.Errorf("a line has more than %s", display.Bytes(maxLine))
	}
	var pe *fs.PathError
	if errors.As(s.Err(), &pe) {
		return false, pe
	}
	return true, s.Err()
}
