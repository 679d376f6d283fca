package main

import (
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// written is what a job wrote to SQLite files, for each message.
type written struct {
	pages        float64 // frames of the write-ahead logs, each a page of 4 KiB
	transactions float64 // commit frames
}

// pageFigures are what the jobs of one system wrote, with that many workers.
type pageFigures struct {
	name    string
	workers int
	jobs    [2]written // insert, and claim + complete
}

// pageSystems are those that keep messages in SQLite files and are driven call by call.
var pageSystems = []string{diskOurs, diskSealed, diskStrict, diskGoqite}

// pageTurn is how many messages a job moves while its pages are counted: too few for
// any of the systems to begin its log anew.
const pageTurn = 48

// measurePages counts what the systems write, with each number of workers.
func measurePages(ctx context.Context, c *corpus, dir string) (all []pageFigures, err error) {
	for _, workers := range workerCounts {
		for _, name := range pageSystems {
			f, err := countPages(ctx, c, dir, name, workers)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
			all = append(all, f)
		}
	}
	return all, nil
}

func countPages(ctx context.Context, c *corpus, dir, name string, workers int) (f pageFigures, err error) {
	folder, err := newFolder(dir, fmt.Sprintf("pages-%s-%d", name, workers))
	if err != nil {
		return f, err
	}
	d, err := openDurable[name](ctx, c, folder)
	if err != nil {
		return f, err
	}
	defer func() { err = errors.Join(err, d.close(ctx)) }()
	send := func() error { return together(workers, pageTurn, func() error { return d.send(ctx) }) }
	handle := func() error { return together(workers, pageTurn, func() error { return d.handle(ctx) }) }
	// Once uncounted: the first messages make rows that later ones change.
	if err := errors.Join(send(), handle()); err != nil {
		return f, err
	}
	f.name, f.workers = name, workers
	for i, job := range []func() error{send, handle} {
		if f.jobs[i], err = writtenBy(ctx, folder, job); err != nil {
			return f, err
		}
	}
	return f, nil
}

// writtenBy counts what do writes to the SQLite files of a folder.
func writtenBy(ctx context.Context, folder string, do func() error) (w written, err error) {
	files, err := filepath.Glob(filepath.Join(folder, "*.db"))
	if err != nil {
		return w, err
	}
	for _, file := range files {
		if err := emptyLog(ctx, file); err != nil {
			return w, err
		}
	}
	if err := do(); err != nil {
		return w, err
	}
	for _, file := range files {
		frames, commits, err := readLog(file + "-wal")
		if err != nil {
			return w, err
		}
		w.pages += float64(frames) / pageTurn
		w.transactions += float64(commits) / pageTurn
	}
	return w, nil
}

// emptyLog moves the log of a file into it, so that the log begins anew.
func emptyLog(ctx context.Context, file string) (err error) {
	db, err := sql.Open("sqlite", "file:"+file)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	var busy, frames, moved int
	if err := db.QueryRowContext(ctx, "PRAGMA wal_checkpoint(TRUNCATE)").Scan(&busy, &frames, &moved); err != nil {
		return err
	}
	if busy != 0 {
		return fmt.Errorf("%s: the log could not be emptied", file)
	}
	return nil
}

// The format of a log (sqlite.org/fileformat2.html, Section 4.1).
const (
	logHeader   = 32
	frameHeader = 24
)

// readLog counts the frames of a log that was empty before, and those of them that end
// a transaction. All frames of a log that never began anew carry its salt.
func readLog(path string) (frames, commits int, err error) {
	log, err := os.ReadFile(path) //nolint:gosec // G304: in the folder of this run
	if err != nil || len(log) == 0 {
		return 0, 0, err
	}
	if len(log) < logHeader {
		return 0, 0, fmt.Errorf("%s: no log", path)
	}
	size := frameHeader + int(binary.BigEndian.Uint32(log[8:]))
	for at := logHeader; at+size <= len(log); at += size {
		frame := log[at : at+frameHeader]
		if string(frame[8:16]) != string(log[16:24]) {
			return 0, 0, fmt.Errorf("%s: the log began anew while it was counted", path)
		}
		frames++
		if binary.BigEndian.Uint32(frame[4:]) != 0 {
			commits++
		}
	}
	return frames, commits, nil
}
