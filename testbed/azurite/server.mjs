// Serves Azure Tables on 127.0.0.1 and a free port, and prints the URL as its first
// line. azurite's own commands report usage to Microsoft unless they are told not to.
//
// The argument is the file of the data. They are written when the process ends by the
// end of its standard input, and every 5 seconds: killing it loses the last writes.
// It ignores signals, because a terminal sends an interrupt to both.
import { createRequire } from "node:module";

process.on("SIGINT", () => {}).on("SIGTERM", () => {});
const require = createRequire(process.cwd() + "/");
const Configuration = require("azurite/dist/src/table/TableConfiguration").default;
const Server = require("azurite/dist/src/table/TableServer").default;
// A client that sends on a connection that is just being closed has no answer. Clients close
// theirs long before an hour has passed.
const configuration = new Configuration("127.0.0.1", 0, 3600, process.argv[1], false, false, undefined, undefined, false, true);
const server = new Server(configuration);
await server.start();
console.log(`http://127.0.0.1:${server.httpServer.address().port}`);

// What was answered must be in the file. azurite's own close waits neither for requests under
// way nor for a write of the file that has begun.
process.stdin.on("end", () => server.httpServer.stop(() => {
  server.metadataStore.db.saveDatabase((error) => {
    if (error) console.error(error);
    process.exit(error ? 1 : 0);
  });
})).resume();
