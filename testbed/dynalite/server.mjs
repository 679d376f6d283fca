// Serves DynamoDB on 127.0.0.1 and a free port, and prints the URL as its first
// line. dynalite's own command listens on all addresses unless it is told.
//
// The argument is the folder of the data; without it they are in memory. The process
// ends when its standard input ends, so that it never outlives the process that
// started it. It ignores signals, because a terminal sends an interrupt to both.
import dynalite from "dynalite";

process.on("SIGINT", () => {}).on("SIGTERM", () => {});
const path = process.argv[1];
const server = dynalite({ createTableMs: 20, deleteTableMs: 20, ...(path ? { path } : {}) });
// A client that sends on a connection that is just being closed has no answer. Clients close
// theirs long before this.
server.keepAliveTimeout = 3_600_000;
server.listen(0, "127.0.0.1", () => console.log(`http://127.0.0.1:${server.address().port}`));
process.stdin.on("end", () => process.exit(0)).resume();
