package cli

import (
	"net/url"
	"path/filepath"
)

// sqliteURL is the URL of a queue in a file.
func sqliteURL(path string) string { return pathURL("sqlite", path) }

// fileURL is the URL of a key file.
func fileURL(path string) string { return pathURL("file", path) }

func pathURL(scheme, path string) string {
	u := url.URL{Scheme: scheme, Path: filepath.ToSlash(path)}
	if filepath.IsAbs(path) {
		return u.String()
	}
	return scheme + ":" + url.PathEscape(filepath.ToSlash(path))
}
