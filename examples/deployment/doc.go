// Package deployment checks the manifests, units and container files of docs/deploy:
// their form, that they give the programs of this folder the environment that they
// take, and that they leave these enough time to stop. It holds tests only.
//
// The units are also held against systemd-analyze (Debian's package systemd), which is
// skipped if it is not installed; with QRT_REQUIRE_PEERS=1 that is a failure.
package deployment
