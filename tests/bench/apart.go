package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/queue-runtime/queue/sqlite/sqlitequeue"
)

// This file sends from a process of its own: the program starts itself again with
// senderVariable set to the name of a system. The process reads numbers of messages, a line
// each, and answers with the time at which each send returned, in Unix nanoseconds.

const (
	senderVariable = "QUEUE_BENCH_SENDER"
	folderVariable = "QUEUE_BENCH_FOLDER"
)

// senders open the sender of a system whose handlers are at work on a folder.
var senders = map[string]func(ctx context.Context, c *corpus, dir string) (sendFunc, func() error, error){
	"sqlitequeue": func(ctx context.Context, c *corpus, dir string) (sendFunc, func() error, error) {
		b, err := sqlitequeue.Open(ctx, filepath.Join(dir, "queue.db"), nil)
		if err != nil {
			return nil, nil, err
		}
		w, err := openOurs(ctx, c, b, protection{})
		if err != nil {
			return nil, nil, err
		}
		return (&poolAtWork{ours: w, corpus: c}).send, func() error { return w.close(ctx) }, nil
	},
	"goqite": func(_ context.Context, c *corpus, dir string) (sendFunc, func() error, error) {
		g, err := connectGoqite(c, dir)
		if err != nil {
			return nil, nil, err
		}
		return (&goqiteAtWork{goqiteQueue: g}).send, g.db.Close, nil
	},
}

// sendFunc sends the message of a number.
type sendFunc func(ctx context.Context, number int) error

// serveSender is the process that sends. It ends with its input.
func serveSender(ctx context.Context, name string, in io.Reader, out io.Writer) (err error) {
	open, ok := senders[name]
	if !ok {
		return fmt.Errorf("bench: no sender is named %q", name)
	}
	c, err := loadCorpus(ctx)
	if err != nil {
		return err
	}
	send, end, err := open(ctx, c, os.Getenv(folderVariable))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, end()) }()
	for lines := bufio.NewScanner(in); lines.Scan(); {
		number, err := strconv.Atoi(lines.Text())
		if err == nil {
			err = send(ctx, number)
		}
		if err != nil {
			return err
		}
		fmt.Fprintln(out, time.Now().UnixNano())
	}
	return nil
}

// senderProcess is one such process.
type senderProcess struct {
	cmd   *exec.Cmd
	in    io.WriteCloser
	times *bufio.Scanner
}

func startSender(ctx context.Context, name, dir string) (*senderProcess, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &senderProcess{cmd: exec.CommandContext(ctx, program)} //nolint:gosec // G204: this program
	p.cmd.Env = append(os.Environ(), senderVariable+"="+name, folderVariable+"="+dir)
	p.cmd.Stderr = os.Stderr
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.times = bufio.NewScanner(out)
	return p, p.cmd.Start()
}

// send returns when the send of the other process returned.
func (p *senderProcess) send(number int) (time.Time, error) {
	if _, err := fmt.Fprintln(p.in, number); err != nil {
		return time.Time{}, err
	}
	if !p.times.Scan() {
		return time.Time{}, errors.Join(errors.New("the process that sends has ended"), p.times.Err())
	}
	nanos, err := strconv.ParseInt(strings.TrimSpace(p.times.Text()), 10, 64)
	return time.Unix(0, nanos), err
}

func (p *senderProcess) stop() error { return errors.Join(p.in.Close(), p.cmd.Wait()) }
