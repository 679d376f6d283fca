// Package testbed is the root of a module with everything that tests need to run
// the library against a broker: emulators, starters of other programs, and
// attackers that change what a broker stores. The command qrt uses the same for
// its demonstration and its conformance run.
//
//   - sbemulator is an emulator of Azure Service Bus over AMQP 1.0.
//   - fauxqs starts fauxqs, an emulator of AWS SQS that runs in Node.
//   - awspeer starts fauxqs and moto_server for the tests of AWS drivers.
//   - postgres starts PostgreSQL servers.
//   - docpage reads pages of docs/ for tests that hold code against them.
//   - redispeer starts Redis servers, and has a proxy that delays or cuts connections.
//   - sbattack, sqsattack, sqliteattack and postgresattack change stored messages of
//     the emulator, of SQS, of a SQLite file and of a PostgreSQL database without the
//     driver's code.
//
// The module is tagged with each release, because other modules need it to build
// their tests. It promises no compatibility between releases: nothing but this
// project's tests and programs should depend on it.
package testbed
