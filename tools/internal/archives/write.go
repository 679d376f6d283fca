package archives

import (
	"archive/tar"
	"archive/zip"
	"compress/gzip"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// entry is a file of an archive.
type entry struct {
	name string // in the archive, slash-separated
	file string
	mode fs.FileMode
}

// archive writes an archive with one folder of its own name: a zip file for
// Windows, otherwise a compressed tar file. It depends on names, modes and bytes of
// the entries and on day, and on nothing else.
func (p Platform) archive(name string, day time.Time, entries []entry) error {
	entries = slices.SortedFunc(slices.Values(entries), func(a, b entry) int { return strings.Compare(a.name, b.name) })
	write, suffix := writeTar, ".tar.gz"
	if p.OS == "windows" {
		write, suffix = writeZip, ".zip"
	}
	f, err := os.Create(name + suffix)
	if err != nil {
		return err
	}
	folder := filepath.Base(name)
	for i := range entries {
		entries[i].name = path.Join(folder, entries[i].name)
	}
	if err := write(f, day.UTC().Truncate(time.Second), entries); err != nil {
		_ = f.Close()
		return err
	}
	return f.Close()
}

func writeTar(w io.Writer, day time.Time, entries []entry) error {
	z, err := gzip.NewWriterLevel(w, gzip.BestCompression)
	if err != nil {
		return err
	}
	t := tar.NewWriter(z)
	for _, e := range entries {
		data, err := os.ReadFile(e.file)
		if err != nil {
			return err
		}
		h := &tar.Header{Name: e.name, Mode: int64(e.mode), Size: int64(len(data)), ModTime: day, Format: tar.FormatUSTAR}
		if err := t.WriteHeader(h); err != nil {
			return err
		}
		if _, err := t.Write(data); err != nil {
			return err
		}
	}
	if err := t.Close(); err != nil {
		return err
	}
	return z.Close()
}

func writeZip(w io.Writer, day time.Time, entries []entry) error {
	z := zip.NewWriter(w)
	for _, e := range entries {
		data, err := os.ReadFile(e.file)
		if err != nil {
			return err
		}
		h := &zip.FileHeader{Name: e.name, Method: zip.Deflate, Modified: day}
		h.SetMode(e.mode)
		f, err := z.CreateHeader(h)
		if err != nil {
			return err
		}
		if _, err := f.Write(data); err != nil {
			return err
		}
	}
	return z.Close()
}
