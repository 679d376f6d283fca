// Package connect chooses the broker, the keys and the replay store of a
// program at run time, by URL:
//
//	set, err := connect.Open(ctx, connect.Config{
//		Broker:  "sqlite:///var/lib/router/queue.db",
//		Keys:   "file:///etc/router/keys.json",
//		ReplayStore: "sqlite:///var/lib/router/nonces.db",
//	})
//	client, err := queue.New(set.Broker, queue.Strict(set.Keys, set.ReplayStore))
//
// [BrokerSchemes], [KeySchemes] and [ReplayStoreSchemes] list what there is; each URL's
// parameters are those of the package that it leads to.
//
// It does no more than open: it knows no default, reads no environment but what
// a URL names, and registers nothing in init. A program that uses one broker
// imports that broker's package and leaves this one out.
//
// # Secrets
//
// A URL is for program arguments, environment variables and configuration
// files, and can be shown: credentials come from the SDK's own chain, or from
// an environment variable that the URL names. Errors never hold a URL as a
// whole; [Redact] makes one fit to print.
//
// # Concurrency
//
// What is opened here is safe for concurrent use. Close what was opened once
// nothing uses it any more.
package connect
