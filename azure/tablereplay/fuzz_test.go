package tablereplay

import (
	"bytes"
	"io"
	"net/http"
	"testing"
)

// FuzzDecode: an entity that this package did not write is an error, never a panic, and
// what decodes encodes to the same item.
func FuzzDecode(f *testing.F) {
	sound, err := encode("x.p.g.rest.", "id", bytes.Repeat([]byte("v"), 70_000))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(sound, "etag")
	f.Add([]byte(`{"PartitionKey":"a","RowKey":"-","w":"","v0":"","odata.etag":"e"}`), "")
	f.Add([]byte(`{"PartitionKey":1}`), "")
	f.Fuzz(func(t *testing.T, data []byte, etag string) {
		e, err := decode(data, etag)
		if err != nil {
			return
		}
		if e.item.Version == "" || etag != "" && e.item.Version != etag {
			t.Errorf("version %q of ETag %q", e.item.Version, etag)
		}
		if len(e.item.Value) > maxParts*maxPart {
			return
		}
		again, err := encode(e.item.Key, e.write, e.item.Value)
		if err != nil {
			t.Fatal(err)
		}
		if d, err := decode(again, "x"); err != nil || d.write != e.write || !bytes.Equal(d.item.Value, e.item.Value) {
			t.Errorf("encoded and decoded: %v", err)
		}
	})
}

// FuzzOperations: an answer to a transaction that is not one is an error, never a panic.
func FuzzOperations(f *testing.F) {
	const body = "--b\r\nContent-Type: multipart/mixed; boundary=c\r\n\r\n" +
		"--c\r\nContent-Type: application/http\r\n\r\nHTTP/1.1 204 No Content\r\nETag: W/\"1\"\r\n\r\n\r\n--c--\r\n--b--\r\n"
	f.Add("multipart/mixed; boundary=b", []byte(body))
	f.Add("multipart/mixed; boundary=b", []byte(body[:len(body)-20]))
	f.Add("multipart/mixed", []byte(body))
	f.Fuzz(func(t *testing.T, contentType string, body []byte) {
		answer := &http.Response{Header: http.Header{"Content-Type": {contentType}}, Body: io.NopCloser(bytes.NewReader(body))}
		all, err := operations(answer)
		if err == nil && len(all) > maxOperations {
			t.Errorf("%d operations", len(all))
		}
	})
}

// TestOperations: the ETags of a transaction are found in their order.
func TestOperations(t *testing.T) {
	const body = "--b\r\nContent-Type: multipart/mixed; boundary=c\r\n\r\n" +
		"--c\r\nContent-Type: application/http\r\n\r\nHTTP/1.1 204 No Content\r\nETag: W/\"1\"\r\n\r\n\r\n" +
		"--c\r\nContent-Type: application/http\r\n\r\nHTTP/1.1 412 Precondition Failed\r\nContent-Length: 2\r\n\r\n{}\r\n--c--\r\n--b--\r\n"
	answer := &http.Response{Header: http.Header{"Content-Type": {"multipart/mixed; boundary=b"}}, Body: io.NopCloser(bytes.NewReader([]byte(body)))}
	all, err := operations(answer)
	if err != nil || len(all) != 2 || all[0].etag != `W/"1"` || all[1].status != http.StatusPreconditionFailed {
		t.Errorf("operations %v, %v; want one with an ETag and one that failed its precondition", all, err)
	}
}
