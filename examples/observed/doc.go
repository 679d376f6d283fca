// Package observed holds what is said in folder observability and in
// docs/operations.md to what programs really report: it is tests alone.
//
// Every query of the dashboard, the alerts and the recording rules is parsed, and
// may name only metrics, labels and values that a scrape has; every alert fires and
// does not fire in a unit test of promtool, and has its section among the runbooks;
// and a Prometheus process scrapes the router and the bots while somebody edits
// their messages at the broker.
//
// The tests that need promtool or prometheus (Debian's package prometheus) are
// skipped where they are not installed, and fail there with QRT_REQUIRE_PEERS=1.
package observed
