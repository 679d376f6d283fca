package cli

import (
	"net/url"
	"os"
	"path/filepath"
	"strings"
)

// ownFiles are the files that the command itself works with. It sends none of them as
// a message: a key file would disclose the keys to the readers of the queue, and to
// open a queue's database again drops the locks of this process on it (fcntl(2)).
type ownFiles []os.FileInfo

// ownFiles finds the files of the settings that are there.
func (s *settings) ownFiles() ownFiles {
	var own ownFiles
	add := func(path string) {
		if info, err := os.Stat(path); err == nil {
			own = append(own, info)
		}
	}
	urls := []string{s.broker.value, s.nonces.value, s.keys.value}
	for _, q := range s.queues {
		urls = append(urls, q.Keys)
	}
	for _, raw := range urls {
		scheme, path := urlPath(raw)
		switch scheme {
		case "file":
			add(path)
		case "folder":
			entries, err := os.ReadDir(path)
			if err != nil {
				continue // opening it tells what is wrong
			}
			for _, e := range entries {
				add(filepath.Join(path, e.Name()))
			}
		case "sqlite":
			add(path)
			add(path + "-wal")
			add(path + "-shm")
			add(path + "-turn") // by which processes take turns
		}
	}
	return own
}

// urlPath is the inverse of pathURL.
func urlPath(raw string) (scheme, path string) {
	u, err := url.Parse(raw)
	if err != nil {
		return "", ""
	}
	if u.Opaque == "" {
		return u.Scheme, u.Path
	}
	if path, err = url.PathUnescape(u.Opaque); err != nil {
		return "", ""
	}
	return u.Scheme, path
}

// has reports whether a file is one of them, by whatever path or link.
func (o ownFiles) has(info os.FileInfo) bool {
	for _, own := range o {
		if os.SameFile(own, info) {
			return true
		}
	}
	return false
}

// listed returns the files of a folder that can be sent: regular ones, not hidden
// and not the command's own.
func (o ownFiles) listed(folder string) ([]string, error) {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return nil, err
	}
	var files []string
	for _, e := range entries {
		if !e.Type().IsRegular() || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		info, err := e.Info()
		if os.IsNotExist(err) {
			continue // it has gone meanwhile
		}
		if err != nil {
			return nil, err
		}
		if !o.has(info) {
			files = append(files, filepath.Join(folder, e.Name()))
		}
	}
	return files, nil
}
