// Package consumer is a bot: it receives the webhooks of one queue with the one
// key of that queue, and does what each asks for.
//
// Messages are opened and checked before a handler sees them: what was altered,
// moved from another queue, replayed, or was never sealed, ends among the dead
// letters, with a metric, and reaches no handler.
//
// Webhooks of one pull request or issue are handled in order, one at a time;
// others beside them. A webhook comes at least once: again after a crash, and
// where GitHub sends it anew beyond the broker's memory of repeats. So what a bot
// does must be the same when it is done twice; [Task].ID is the identity to tell
// it by.
package consumer
