// Package connect chooses the broker, the keys and the replay store of a
// program at run time, by URL:
//
//	set, err := connect.Open(ctx, connect.Config{
//		Broker:      "sqlite:///var/lib/router/queue.db",
//		Keys:        "file:///etc/router/keys.json",
//		ReplayStore: "sqlite:///var/lib/router-replay/replay.db",
//	})
//	client, err := queue.New(set.Broker, queue.Strict(set.Keys, set.ReplayStore))
//
// [BrokerSchemes], [KeySchemes] and [ReplayStoreSchemes] list the schemes with
// their parameters.
//
// The package has no defaults, reads no environment variable but those that a URL
// names, and registers nothing in init. A program that uses one broker imports
// that broker's package and does not need this one.
//
// # Secrets
//
// No URL contains a secret: credentials come from the SDK's own chain, or from an
// environment variable that the URL names. A connection string of Service Bus is
// accepted in place of a URL, and does contain one. Errors never quote a whole
// URL; [Redact] removes secrets from one before it is printed.
//
// # Concurrency
//
// Everything that this package opens is safe for concurrent use. Close it when
// nothing uses it any more.
package connect
