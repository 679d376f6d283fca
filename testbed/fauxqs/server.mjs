// Serves SQS on 127.0.0.1 and a free port, and prints the URL as its first line.
// fauxqs's own command listens on all addresses.
//
// GET /counts answers how often each action was called, POST /counts/reset starts
// again. The process ends when its standard input ends, so that it never outlives
// the process that started it. It ignores signals, because a terminal sends an
// interrupt to both.
import { buildApp } from "fauxqs";

process.on("SIGINT", () => {}).on("SIGTERM", () => {});
const counts = new Map();
const app = buildApp({ logger: false, defaultRegion: "us-east-1" });
app.addHook("onRequest", async (request) => {
  const target = request.headers["x-amz-target"];
  if (target) {
    const action = target.slice(target.indexOf(".") + 1);
    counts.set(action, (counts.get(action) ?? 0) + 1);
  }
});
app.get("/counts", async () => Object.fromEntries(counts));
app.post("/counts/reset", async () => {
  counts.clear();
  return {};
});
// A client that sends on a connection that is just being closed has no answer. Clients close
// theirs long before this.
app.server.keepAliveTimeout = 3_600_000;
console.log(await app.listen({ host: "127.0.0.1", port: 0 }));
process.stdin.on("end", () => process.exit(0)).resume();
