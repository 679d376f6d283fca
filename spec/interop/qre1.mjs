// QRE1 for Node.js, written from ../qre1.md alone to prove that it is complete.
// Strings of bytes are Buffers throughout; times are BigInts.

import { createCipheriv, createDecipheriv, createHmac, randomBytes, timingSafeEqual } from "node:crypto";

/** Failure is one of the four errors of Section 6.1. */
export class Failure extends Error {
  constructor(code, reason) {
    super(reason ? `${code}: ${reason}` : code);
    this.code = code;
  }
}

const invalid = (reason) => new Failure("invalid_envelope", reason);
const notAuthentic = () => new Failure("authentication_failed");

const ascii = (s) => Buffer.from(s, "latin1");
const MARKER = ascii("QRE1");
const MAX_TIME = 253402300799999n; // Section 2.5
const MAX_SEQUENCE = 2n ** 53n - 1n; // Section 2.6
const MAX_PLAINTEXT = 2 ** 36 - 32; // Section 2.9
const PADDED = 1; // Section 2.1

function u8(n) {
  return Buffer.from([n]);
}

function u32(n) {
  if (n > 0xffffffff) throw new RangeError("longer than 2^32 - 1 bytes");
  const b = Buffer.alloc(4);
  b.writeUInt32BE(n);
  return b;
}

function u64(n) {
  const b = Buffer.alloc(8);
  b.writeBigUInt64BE(n);
  return b;
}

function wellFormed(b) {
  try {
    new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(b);
    return true;
  } catch {
    return false;
  }
}

/** Sections 2.2 and 2.3. */
function checkID(id, least, field) {
  if (id.length < least || id.length > 64) throw invalid(field);
  for (const c of id) {
    if (!/[A-Za-z0-9._:/-]/.test(String.fromCharCode(c))) throw invalid(field);
  }
}

/** Sections 2.6 and 2.7. */
function checkSequence(h) {
  if (h.sequence === 0n) {
    if (h.stream.some((b) => b !== 0)) throw invalid("stream");
    if (h.settled !== 0n) throw invalid("settled");
    if (h.previous !== 0n) throw invalid("previous");
    if (h.resealedAt !== 0n) throw invalid("resealed_at");
    if (h.voidRanges.length > 0) throw invalid("void ranges");
    return;
  }
  if (h.sequence > MAX_SEQUENCE) throw invalid("sequence");
  if (h.settled >= h.sequence) throw invalid("settled");
  if (h.previous >= h.sequence) throw invalid("previous");
  let before = 0n;
  for (const [first, last] of h.voidRanges) {
    if (first <= before || last < first || last > h.settled) throw invalid("void ranges");
    before = last;
  }
}

/** Checks the rules of Sections 2.2 to 2.8, which sealing and parsing share. */
function checkHeader(h) {
  for (const name of ["encryptedAt", "notBefore", "expiresAt", "resealedAt"]) {
    if (h[name] < 0n || h[name] > MAX_TIME) throw invalid(name);
  }
  checkSequence(h);
  checkID(h.keyID, 1, "key ID");
  checkID(h.senderID, 0, "sender ID");
  if (h.origin.length < 1 || h.origin.length > 255 || !wellFormed(h.origin)) throw invalid("origin");
  if (h.bound.length > 64) throw invalid("bound attributes");
  h.bound.forEach((name, i) => {
    if (name.length < 1 || name.length > 255) throw invalid("bound attributes");
    if (i > 0 && Buffer.compare(h.bound[i - 1], name) >= 0) throw invalid("bound attributes");
  });
}

/** Section 6.1, step 1. */
export function parse(body) {
  if (body.length < 4 || !body.subarray(0, 4).equals(MARKER)) throw invalid("marker");
  if (body.length > 4 && body[4] !== 1) throw new Failure("unsupported_version");
  let at = 4;
  const take = (n, field) => {
    if (body.length - at < n) throw invalid(field);
    at += n;
    return body.subarray(at - n, at);
  };
  take(1, "version");
  const flags = take(1, "flags")[0];
  if ((flags & ~PADDED) !== 0) throw invalid("flags");
  const m = { padded: flags === PADDED };
  m.encryptedAt = take(8, "encrypted_at").readBigUInt64BE();
  m.notBefore = take(8, "not_before").readBigUInt64BE();
  m.expiresAt = take(8, "expires_at").readBigUInt64BE();
  m.stream = take(16, "stream");
  m.sequence = take(8, "sequence").readBigUInt64BE();
  m.settled = take(8, "settled").readBigUInt64BE();
  m.previous = take(8, "previous").readBigUInt64BE();
  m.resealedAt = take(8, "resealed_at").readBigUInt64BE();
  const ranges = take(1, "void ranges")[0];
  if (ranges > 8) throw invalid("void ranges");
  m.voidRanges = [];
  for (let i = 0; i < ranges; i++) {
    m.voidRanges.push([take(8, "void ranges").readBigUInt64BE(), take(8, "void ranges").readBigUInt64BE()]);
  }
  m.keyID = take(take(1, "key ID")[0], "key ID");
  m.senderID = take(take(1, "sender ID")[0], "sender ID");
  m.origin = take(take(1, "origin")[0], "origin");
  const count = take(1, "bound attributes")[0];
  if (count > 64) throw invalid("bound attributes");
  m.bound = [];
  for (let i = 0; i < count; i++) m.bound.push(take(take(1, "bound attributes")[0], "bound attributes"));
  m.salt = take(32, "salt");
  m.commitment = take(32, "key commitment");
  m.header = body.subarray(0, at);
  m.nonce = take(12, "nonce");
  if (body.length - at < 16) throw invalid("authentication tag");
  m.ciphertext = body.subarray(at, body.length - 16);
  m.tag = body.subarray(body.length - 16);
  if (m.ciphertext.length > MAX_PLAINTEXT) throw invalid("ciphertext");
  checkHeader(m);
  return m;
}

const hmac = (key, ...parts) => createHmac("sha256", key).update(Buffer.concat(parts)).digest();

/** Section 3.1. */
export function senderKey(master, senderID) {
  return hmac(master, ascii("QRE1/sender/v1\0"), u8(senderID.length), senderID, u8(1));
}

/** Section 3.4. */
export function checkValue(master) {
  return hmac(master, ascii("QRE1/check/v1\0"), u8(1)).subarray(0, 16);
}

/** Section 3.2. */
function derive(own, keyID, salt) {
  const info = Buffer.concat([ascii("QRE1/A256GCM-HKDF-SHA256-COMMIT/v1\0"), u8(keyID.length), keyID, salt]);
  const t1 = hmac(own, info, u8(1));
  const t2 = hmac(own, t1, info, u8(2));
  return { messageKey: t1, commitment: t2 };
}

/**
 * Section 4.2. fields: messageID, sessionID, contentType, correlationID, and
 * attributes, a list of pairs [name, value] as they arrived.
 */
function context(fields, bound) {
  const out = [];
  const entry = (tag, value) => out.push(u8(tag), u32(value.length), value);
  if (!fields.messageID?.length) throw notAuthentic();
  [fields.messageID, fields.sessionID, fields.contentType, fields.correlationID].forEach((value, i) => {
    if (value?.length) entry(i + 1, value);
  });
  const arrived = new Map();
  for (const [name, value] of fields.attributes ?? []) {
    const key = name.toString("latin1");
    if (arrived.has(key)) throw notAuthentic();
    arrived.set(key, value);
  }
  if (bound.length > 0) {
    const list = [u32(bound.length)];
    for (const name of bound) {
      const value = arrived.get(name.toString("latin1"));
      if (value === undefined) throw notAuthentic();
      list.push(u32(name.length), name, u32(value.length), value);
    }
    entry(0x40, Buffer.concat(list));
  }
  return Buffer.concat(out);
}

/** Sections 4.1 and 4.3. what: {fields} for a queue, {associatedData} for direct use. */
function additionalData(header, bound, what) {
  const [label, rest] = what.fields
    ? ["QRE1-AAD-v1\0", context(what.fields, bound)]
    : ["QRE1-APP-v1\0", what.associatedData];
  return Buffer.concat([ascii(label), u32(header.length), header, rest]);
}

/** Section 5.2. */
function unpad(b) {
  if (b.length < 4) throw notAuthentic();
  const n = b.readUInt32BE();
  if (n > b.length - 4 || b.subarray(4 + n).some((c) => c !== 0)) throw notAuthentic();
  return b.subarray(4, 4 + n);
}

/** Section 6.1, steps 2 to 7. */
export function open(m, master, what) {
  if (master.length !== 32 || master.every((b) => b === 0)) throw new Failure("key_not_found");
  if ((m.sequence !== 0n) !== (what.fields !== undefined)) throw notAuthentic();
  const aad = additionalData(m.header, m.bound, what);
  const { messageKey, commitment } = derive(senderKey(master, m.senderID), m.keyID, m.salt);
  if (!timingSafeEqual(commitment, m.commitment)) throw notAuthentic();
  const gcm = createDecipheriv("aes-256-gcm", messageKey, m.nonce, { authTagLength: 16 });
  gcm.setAAD(aad);
  gcm.setAuthTag(m.tag);
  const plaintext = gcm.update(m.ciphertext);
  try {
    gcm.final();
  } catch {
    throw notAuthentic();
  }
  return { plaintext: m.padded ? unpad(plaintext) : plaintext, messageKey, additionalData: aad };
}

/**
 * Section 5, with the sender key of h.senderID. size: the length with padding,
 * undefined without. Each message begins a salt epoch of its own.
 */
export function seal(h, own, what, plaintext, size) {
  const bound = (what.fields?.attributes ?? []).map(([name]) => name).sort(Buffer.compare);
  const salt = randomBytes(32);
  const nonce = randomBytes(12);
  checkHeader({ ...h, bound });
  const { messageKey, commitment } = derive(own, h.keyID, salt);
  const short = (b) => Buffer.concat([u8(b.length), b]);
  const header = Buffer.concat([
    MARKER, u8(1), u8(size === undefined ? 0 : PADDED), u64(h.encryptedAt), u64(h.notBefore), u64(h.expiresAt),
    h.stream, u64(h.sequence), u64(h.settled), u64(h.previous), u64(h.resealedAt),
    u8(h.voidRanges.length), ...h.voidRanges.flat().map(u64), short(h.keyID), short(h.senderID), short(h.origin), u8(bound.length), ...bound.map(short), salt, commitment,
  ]);
  if (size !== undefined) plaintext = Buffer.concat([u32(plaintext.length), plaintext, Buffer.alloc(size - 4 - plaintext.length)]);
  const gcm = createCipheriv("aes-256-gcm", messageKey, nonce, { authTagLength: 16 });
  gcm.setAAD(additionalData(header, bound, what));
  const ciphertext = Buffer.concat([gcm.update(plaintext), gcm.final()]);
  return Buffer.concat([header, nonce, ciphertext, gcm.getAuthTag()]);
}
