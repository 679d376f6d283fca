// Package observed compares folder observability, docs/metrics.md and
// docs/runbooks with what programs report. It holds tests only.
//
// Every query of the dashboard, the alerts and the recording rules is parsed, and
// may name only metrics, labels and values that a scrape has. Every alert fires in one
// unit test of promtool and does not fire in another, and has a runbook. A Prometheus
// process scrapes the router and the bots while an attacker edits their messages at
// the broker.
//
// The tests that need promtool or prometheus (Debian's package prometheus) are
// skipped if these are not installed; with QRT_REQUIRE_PEERS=1 they fail instead.
package observed
