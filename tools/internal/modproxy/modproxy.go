// Package modproxy writes modules of a git repository into a folder that the go
// command reads as a module proxy, with GOPROXY=file://FOLDER
// (https://go.dev/ref/mod#goproxy-protocol).
//
// The zip files hold what a proxy makes of a tag of the same content: the hashes
// in go.sum files that are made from this folder are those that every user gets.
package modproxy

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/mod/module"
	"golang.org/x/mod/sumdb/dirhash"
	"golang.org/x/mod/zip"
)

// Proxy is a folder. It is not safe for concurrent use.
type Proxy struct{ Dir string }

// Source is where a module is taken from.
type Source struct {
	Repository string    // folder of a git repository
	Tree       string    // commit or tree
	Dir        string    // folder of the module in the tree; "" is the root
	Time       time.Time // when the version was made
}

// URL is what GOPROXY names the proxy by.
func (p Proxy) URL() string { return "file://" + filepath.ToSlash(p.Dir) }

// Add writes one version: the zip file, the go.mod, the info file and a line in
// the list. It returns the hash of the zip file as go.sum writes it.
func (p Proxy) Add(m module.Version, s Source) (hash string, err error) {
	escaped, err := module.EscapePath(m.Path)
	if err != nil {
		return "", err
	}
	version, err := module.EscapeVersion(m.Version)
	if err != nil {
		return "", err
	}
	folder := filepath.Join(p.Dir, filepath.FromSlash(escaped), "@v")
	if err := os.MkdirAll(folder, 0o750); err != nil {
		return "", err
	}
	base := filepath.Join(folder, version)
	if err := writeZip(base+".zip", m, s); err != nil {
		return "", err
	}
	gomod, err := os.ReadFile(filepath.Join(s.Repository, s.Dir, "go.mod"))
	if err != nil {
		return "", err
	}
	info, err := json.Marshal(struct {
		Version string
		Time    time.Time
	}{m.Version, s.Time.UTC()})
	if err != nil {
		return "", err
	}
	for name, data := range map[string][]byte{base + ".mod": gomod, base + ".info": info} {
		if err := os.WriteFile(name, data, 0o600); err != nil {
			return "", err
		}
	}
	if err := appendLine(filepath.Join(folder, "list"), m.Version); err != nil {
		return "", err
	}
	return dirhash.HashZip(base+".zip", dirhash.Hash1)
}

// writeZip makes the zip file. It checks the size limits and the file names that
// the go command would refuse (https://go.dev/ref/mod#zip-files).
func writeZip(name string, m module.Version, s Source) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	if err := zip.CreateFromVCS(f, m, s.Repository, s.Tree, s.Dir); err != nil {
		_ = f.Close()
		return fmt.Errorf("zip of %s: %w", m, err)
	}
	return f.Close()
}

func appendLine(name, line string) error {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if _, err := f.WriteString(line + "\n"); err != nil {
		_ = f.Close()
		return err
	}
	return f.Close()
}
