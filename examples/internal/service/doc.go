// Package service is what the example programs have around their work:
// configuration from the environment, log, metrics, traces, health, and an
// orderly end.
//
//   - [Load] reads the environment into a struct, and names every variable that
//     is wrong.
//   - [NewTelemetry] makes the metrics that /metrics serves, and sends traces
//     where OTEL_EXPORTER_OTLP_ENDPOINT says.
//   - [Listen] serves HTTP with a bound on everything a client can make it wait
//     for.
//   - [Admin] is the handler of /healthz, /readyz and /metrics. It belongs on an
//     address of its own: the other one faces the internet.
//   - [Signals] ends a context on SIGINT and SIGTERM.
//
// No error and no log line of it holds the value of a variable.
package service
