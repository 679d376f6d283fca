package tablereplay

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"sync"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/data/aztables"

	"github.com/queue-runtime/queue/replay/cas"
)

// The bounds of a transaction (Performing entity group transactions). Of the 4 MiB a
// part is left for the headers of its operations.
const (
	maxOperations = 100
	maxBytes      = 3 << 20
)

// parallel is how many entities are written alone at once, after a transaction failed.
const parallel = 16

// SwapAll implements cas.Batcher by entity group transactions, which do all or nothing.
// What such a one could not do is done entity by entity.
func (b *backend) SwapAll(ctx context.Context, changes []cas.Change) ([]cas.Changed, error) {
	writes := make([]*write, len(changes))
	for i, c := range changes {
		var err error
		if writes[i], err = newWrite(c.Key, c.Version, c.Value); err != nil {
			return nil, err
		}
	}
	out := make([]cas.Changed, 0, len(changes))
	for len(writes) > 0 {
		n, size := 0, 0
		for n < min(len(writes), maxOperations) && (n == 0 || size+len(writes[n].body) <= maxBytes) {
			size += len(writes[n].body)
			n++
		}
		done, err := b.transact(ctx, writes[:n])
		if err != nil {
			return nil, err
		}
		out, writes = append(out, done...), writes[n:]
	}
	return out, nil
}

func (b *backend) transact(ctx context.Context, writes []*write) ([]cas.Changed, error) {
	if len(writes) == 1 {
		return b.alone(ctx, writes)
	}
	actions := make([]aztables.TransactionAction, len(writes))
	for i, w := range writes {
		actions[i] = aztables.TransactionAction{ActionType: aztables.TransactionTypeUpdateReplace, Entity: w.body, IfMatch: to.Ptr(azcore.ETag(w.version))}
	}
	within, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	var answer *http.Response
	_, err := b.client.SubmitTransaction(policy.WithCaptureResponse(within, &answer), actions, nil)
	if answer == nil || answer.StatusCode != http.StatusAccepted {
		return nil, b.classify(ctx, "transaction", err)
	}
	// The SDK hides the statuses and the ETags of the operations.
	results, perr := operations(answer)
	switch {
	case perr != nil:
		return nil, b.classify(ctx, "transaction", perr)
	case err != nil && len(results) > 0 && isConflictStatus(results[len(results)-1].status):
		return b.alone(ctx, writes)
	case err != nil:
		return nil, b.classify(ctx, "transaction", err)
	case len(results) != len(writes):
		return nil, b.classify(ctx, "transaction", errNoETag)
	}
	out := make([]cas.Changed, len(writes))
	for i, w := range writes {
		if out[i].Current, out[i].Swapped, err = w.done(results[i].etag); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// alone makes each write alone, side by side.
func (b *backend) alone(ctx context.Context, writes []*write) ([]cas.Changed, error) {
	out, errs := make([]cas.Changed, len(writes)), make([]error, len(writes))
	permits := make(chan struct{}, parallel)
	var wg sync.WaitGroup
	for i, w := range writes {
		permits <- struct{}{}
		wg.Go(func() {
			out[i].Current, out[i].Swapped, errs[i] = b.replace(ctx, w)
			<-permits
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

// errAnswer: nothing is known of what a transaction did.
var errAnswer = errors.New("the answer to a transaction could not be read")

// operation is the answer to one operation of a transaction.
type operation struct {
	status int
	etag   string
}

// operations returns the answers to the operations of a transaction. If it failed there
// is one, which says why.
func operations(answer *http.Response) ([]operation, error) {
	body, err := runtime.Payload(answer)
	if err != nil {
		return nil, err
	}
	outer, err := parts(answer.Header.Get("Content-Type"), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	set, err := outer.NextPart()
	if err != nil {
		return nil, errors.Join(errAnswer, err)
	}
	inner, err := parts(set.Header.Get("Content-Type"), set)
	if err != nil {
		return nil, err
	}
	var all []operation
	for len(all) < maxOperations {
		part, err := inner.NextPart()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, errors.Join(errAnswer, err)
		}
		r, err := http.ReadResponse(bufio.NewReader(part), nil)
		if err != nil {
			return nil, errors.Join(errAnswer, err)
		}
		_ = r.Body.Close() // of a part in memory
		all = append(all, operation{r.StatusCode, r.Header.Get("ETag")})
	}
	return all, nil
}

func parts(contentType string, body io.Reader) (*multipart.Reader, error) {
	_, parameters, err := mime.ParseMediaType(contentType)
	if err != nil || parameters["boundary"] == "" {
		return nil, errors.Join(errAnswer, err)
	}
	return multipart.NewReader(body, parameters["boundary"]), nil
}
