// Judges test vectors, or seals messages, for the tests in ../interop_test.go.
//
//	node vectors.mjs open FOLDER   a JSON object a line for each vector: what came of it
//	node vectors.mjs seal FOLDER   seals what the vectors that open hold, anew
//
// What a vector expects is not looked at here.

import { readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { Failure, checkValue, open, parse, seal, senderKey } from "./qre1.mjs";

/** Reads a file in the form of Section 9.1: a Map from names to lists of values. */
function read(path) {
  const values = new Map();
  let block = null;
  for (const line of readFileSync(path, "latin1").split("\n").slice(0, -1)) {
    if (line.startsWith(" ")) {
      block.push(line.slice(1));
      continue;
    }
    const [, name, value] = /^([a-z-]+):(?: (.*))?$/.exec(line);
    if (!values.has(name)) values.set(name, []);
    block = [];
    values.get(name).push(value ?? block);
  }
  return values;
}

const hex = (v) => Buffer.from(Array.isArray(v) ? v.join("") : v, "hex");
const text = (s) => Buffer.from(s.replace(/%([0-9A-F]{2})/g, (_, d) => String.fromCharCode(parseInt(d, 16))), "latin1");

/** What arrived beside the envelope. */
function arrived(v) {
  const one = (name) => (v.has(name) ? text(v.get(name)[0]) : undefined);
  if (v.get("domain")[0] === "app") return { associatedData: hex(v.get("associated-data")[0]) };
  return {
    fields: {
      messageID: one("message-id"),
      sessionID: one("session-id"),
      contentType: one("content-type"),
      correlationID: one("correlation-id"),
      attributes: (v.get("attribute") ?? []).map((a) => a.split("=").map(text)),
    },
  };
}

function judge(v) {
  try {
    const m = parse(hex(v.get("envelope")[0]));
    if (!v.has("key")) return { verdict: "parsed" };
    const master = hex(v.get("key")[0]);
    const out = open(m, master, arrived(v));
    return {
      verdict: "open",
      padded: m.padded,
      encryptedAt: String(m.encryptedAt),
      notBefore: String(m.notBefore),
      expiresAt: String(m.expiresAt),
      stream: m.stream.toString("hex"),
      sequence: String(m.sequence),
      settled: String(m.settled),
      previous: String(m.previous),
      resealedAt: String(m.resealedAt),
      void: m.voidRanges.map(([first, last]) => `${first}-${last}`),
      keyID: m.keyID.toString("hex"),
      senderID: m.senderID.toString("hex"),
      origin: m.origin.toString("hex"),
      bound: m.bound.map((b) => b.toString("hex")),
      checkValue: checkValue(master).toString("hex"),
      senderKey: senderKey(master, m.senderID).toString("hex"),
      messageKey: out.messageKey.toString("hex"),
      additionalData: out.additionalData.toString("hex"),
      plaintext: out.plaintext.toString("hex"),
    };
  } catch (e) {
    if (!(e instanceof Failure)) throw e;
    return { verdict: e.code };
  }
}

function sealed(v) {
  const header = {
    encryptedAt: BigInt(v.get("encrypted-at")[0]),
    notBefore: BigInt(v.get("not-before")[0]),
    expiresAt: BigInt(v.get("expires-at")[0]),
    stream: hex(v.get("stream")[0]),
    sequence: BigInt(v.get("sequence")[0]),
    settled: BigInt(v.get("settled")[0]),
    previous: BigInt(v.get("previous")[0]),
    resealedAt: BigInt(v.get("resealed-at")[0]),
    voidRanges: (v.get("void") ?? []).map((r) => r.split("-").map(BigInt)),
    keyID: text(v.get("key-id")[0]),
    senderID: text(v.get("sender-id")?.[0] ?? ""),
    origin: text(v.get("origin")[0]),
  };
  const plaintext = hex(v.get("plaintext")[0]);
  const size = v.has("padded") ? plaintext.length + 4 + (plaintext.length % 5) : undefined;
  const envelope = seal(header, hex(v.get("sender-key")[0]), arrived(v), plaintext, size);
  return { envelope: envelope.toString("hex") };
}

const [command, folder] = process.argv.slice(2);
const names = readdirSync(folder).filter((f) => f.endsWith(".txt")).map((f) => f.slice(0, -".txt".length));
for (const name of names.sort()) {
  const v = read(join(folder, name + ".txt"));
  if (command === "seal" && !v.has("plaintext")) continue;
  const result = command === "seal" ? sealed(v) : judge(v);
  console.log(JSON.stringify({ name, ...result }));
}
