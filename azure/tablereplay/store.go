package tablereplay

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/data/aztables"

	"github.com/queue-runtime/queue/internal/httpclient"
	"github.com/queue-runtime/queue/replay"
	"github.com/queue-runtime/queue/replay/cas"
)

// Options configure a [Store]. Nil and the zero value are the defaults; negative
// values are refused.
type Options struct {
	// Bounds says how much the store holds, and for how long.
	Bounds replay.Bounds
	// Prefix stands before every key, so that several stores can share a table.
	// At most 50 letters, digits, '-' and '_'.
	Prefix string
	// SweepInterval is how often this Store reads all of a group that it works
	// for, to fold pages, drop old streams and count. 0 means 5 minutes.
	SweepInterval time.Duration
	// ChangeInterval is how often the change number grows at most. What a
	// restored backup or a failover lost is noticed if it is more than what was
	// written in two of them. 0 means 10 seconds.
	ChangeInterval time.Duration
	// Client configures the SDK's client. Nil, and a zero Retry, mean three
	// retries within two seconds.
	Client *aztables.ClientOptions
}

// Store is a replay.Store in a table. It is safe for concurrent use and owns a
// goroutine for each sweep, which ends with Close.
type Store struct{ *cas.Store }

// retries repeat what passes in a moment.
var retries = policy.RetryOptions{MaxRetries: 3, RetryDelay: 100 * time.Millisecond, MaxRetryDelay: 500 * time.Millisecond, TryTimeout: 5 * time.Second}

// maxPrefix keeps a partition key below 512 characters, with a group of 255 bytes in
// base64 (Understanding the Table service data model, system properties).
const maxPrefix = 50

// tableName is what Table storage takes (Understanding the Table service data model,
// table names).
var tableName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9]{2,62}$`)

// New opens the replay store in a table of the account at accountURL, such as
// https://ACCOUNT.table.core.windows.net. o may be nil. Its errors are of package driver:
// NotFound if there is no such table, which [Create] makes.
func New(ctx context.Context, accountURL string, credential azcore.TokenCredential, table string, o *Options) (*Store, error) {
	return open(ctx, account{url: accountURL, token: credential}, table, o)
}

// NewSharedKey is New with a key of the account. A key may do everything with the
// account: use an identity with the role of docs/replay/aztable.md if you can.
func NewSharedKey(ctx context.Context, accountURL string, credential *aztables.SharedKeyCredential, table string, o *Options) (*Store, error) {
	return open(ctx, account{url: accountURL, key: credential}, table, o)
}

// Create makes a table, if there is none of that name. It needs the action
// Microsoft.Storage/storageAccounts/tableServices/tables/write on the account. o may be
// nil. Its errors are of package driver.
func Create(ctx context.Context, accountURL string, credential azcore.TokenCredential, table string, o *Options) error {
	return create(ctx, account{url: accountURL, token: credential}, table, o)
}

// CreateSharedKey is Create with a key of the account.
func CreateSharedKey(ctx context.Context, accountURL string, credential *aztables.SharedKeyCredential, table string, o *Options) error {
	return create(ctx, account{url: accountURL, key: credential}, table, o)
}

// account is a storage account with one of two kinds of credentials.
type account struct {
	url   string
	token azcore.TokenCredential
	key   *aztables.SharedKeyCredential
}

// service returns the SDK's client.
func (a *account) service(o *Options) (*aztables.ServiceClient, error) {
	u, err := url.Parse(a.url)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, errors.New("tablereplay: the account's URL is not of the form https://ACCOUNT.table.core.windows.net")
	}
	if strings.Contains(u.Hostname(), ".table.cosmos.") {
		return nil, errors.New("tablereplay: Azure Cosmos DB cannot hold a replay store, because it may keep the later of two writes: use a storage account")
	}
	var co aztables.ClientOptions
	if o.Client != nil {
		co = *o.Client
	}
	if r := &co.Retry; r.MaxRetries == 0 && r.RetryDelay == 0 && r.MaxRetryDelay == 0 && r.TryTimeout == 0 && r.StatusCodes == nil && r.ShouldRetry == nil {
		*r = retries
	}
	co.Transport = httpclient.New(co.Transport, httpclient.AttemptTime)
	var client *aztables.ServiceClient
	switch {
	case a.key != nil:
		client, err = aztables.NewServiceClientWithSharedKey(a.url, a.key, &co)
	case a.token != nil:
		client, err = aztables.NewServiceClient(a.url, a.token, &co)
	default:
		return nil, errors.New("tablereplay: no credential: use one of package azidentity")
	}
	if err != nil {
		return nil, fmt.Errorf("tablereplay: %w", err)
	}
	return client, nil
}

func (a *account) backend(table string, o *Options) (*backend, error) {
	if !tableName.MatchString(table) {
		return nil, errors.New("tablereplay: the table's name has other characters, or another length: use 3 to 63 letters and digits, a letter first")
	}
	client, err := a.service(o)
	if err != nil {
		return nil, err
	}
	u, _ := url.Parse(a.url) // service has parsed it
	return &backend{client: client.NewClient(table), name: fmt.Sprintf("table %s of %s", table, u.Host)}, nil
}

func open(ctx context.Context, a account, table string, o *Options) (*Store, error) {
	if o == nil {
		o = &Options{}
	}
	if len(o.Prefix) > maxPrefix {
		return nil, fmt.Errorf("tablereplay: Options.Prefix has %d characters: use at most %d", len(o.Prefix), maxPrefix)
	}
	b, err := a.backend(table, o)
	if err != nil {
		return nil, err
	}
	s, err := cas.Open(ctx, b, &cas.Options{
		Bounds: o.Bounds, Prefix: o.Prefix, SweepInterval: o.SweepInterval, ChangeInterval: o.ChangeInterval,
	})
	if err != nil {
		return nil, fmt.Errorf("tablereplay: %w", err)
	}
	return &Store{s}, nil
}

func create(ctx context.Context, a account, table string, o *Options) error {
	if o == nil {
		o = &Options{}
	}
	b, err := a.backend(table, o)
	if err != nil {
		return err
	}
	within, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	_, err = b.client.CreateTable(within, nil)
	if isCode(err, aztables.TableAlreadyExists) {
		return nil
	}
	return b.classify(ctx, "create the table", err)
}
