//go:build !linux

package sqlitefile

// logNews tells of writes to a file. There is nothing here that does.
type logNews struct{ written chan struct{} }

func openNews(string) *logNews { return nil }

func (*logNews) listen(bool) bool { return false }
func (*logNews) close()           {}
