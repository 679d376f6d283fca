"""QRE1 for Python, written from ../qre1.md alone to prove that it is complete.

It needs the standard library only: AES-256-GCM is in gcm.py. Every check of the
specification has a name and can be turned off, so that ../interop_test.go can show
that the test vectors notice when an implementation leaves one out:

    with without("settled"):
        open_message(...)
"""

import contextlib
import hashlib
import hmac
import os

import gcm

MARKER = b"QRE1"
MAX_TIME = 253402300799999  # Section 2.5
MAX_SEQUENCE = 2**53 - 1  # Section 2.6
FLAG_PADDED = 1
ALPHABET = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._:/-")
ZERO_STREAM = bytes(16)

# All checks, by the names that without() takes.
CHECKS = (
    "marker", "version", "flags",
    "encrypted_at", "not_before", "expires_at", "resealed_at",
    "sequence", "settled", "previous",
    "void count", "void from zero", "void backward", "void ascending", "void beyond settled",
    "direct stream", "direct settled", "direct previous", "direct resealed_at", "direct void",
    "key ID empty", "key ID length", "key ID alphabet", "sender ID length", "sender ID alphabet",
    "origin empty", "origin UTF-8",
    "bound count", "bound name empty", "bound order",
    "cut off",
    "key of zeros",
    "use queue", "use app",
    "message ID", "attribute missing", "attribute skipped", "attribute twice",
    "commitment", "tag",
    "padding length", "padding zeros",
)

_off = set()


@contextlib.contextmanager
def without(name):
    """Leaves out the check of that name."""
    if name not in CHECKS:
        raise KeyError(name)
    _off.add(name)
    try:
        yield
    finally:
        _off.discard(name)


class Failure(Exception):
    """One of the four errors of Section 6.1."""

    def __init__(self, code, reason=""):
        super().__init__(f"{code}: {reason}" if reason else code)
        self.code = code


def check(name, fine, code="invalid_envelope"):
    """Fails with code unless fine is true, or the check is left out."""
    if name not in CHECKS:
        raise KeyError(name)
    if not fine and name not in _off:
        # authentication_failed is opaque.
        raise Failure(code, name if code == "invalid_envelope" else "")


def u8(n):
    return n.to_bytes(1, "big")


def u32(n):
    return n.to_bytes(4, "big")


def u64(n):
    return n.to_bytes(8, "big")


def hkdf_expand(key, info, length):
    """RFC 5869, Section 2.3, with SHA-256."""
    out = last = b""
    counter = 1
    while len(out) < length:
        last = hmac.new(key, last + info + u8(counter), hashlib.sha256).digest()
        out += last
        counter += 1
    return out[:length]


def sender_key(master, sender):
    """Section 3.1."""
    return hkdf_expand(master, b"QRE1/sender/v1\0" + u8(len(sender)) + sender, 32)


def check_value(master):
    """Section 3.4."""
    return hkdf_expand(master, b"QRE1/check/v1\0", 16)


def derive(own_key, key_id, salt):
    """Section 3.2: message key and key commitment."""
    info = b"QRE1/A256GCM-HKDF-SHA256-COMMIT/v1\0" + u8(len(key_id)) + key_id + salt
    okm = hkdf_expand(own_key, info, 64)
    return okm[:32], okm[32:]


class Header:
    """The fields of Section 2, in Python's numbers and bytes."""

    padded = False
    encrypted_at = not_before = expires_at = resealed_at = 0
    stream = ZERO_STREAM
    sequence = settled = previous = 0
    void = ()  # of pairs (first, last)
    key_id = sender_id = origin = b""
    bound = ()

    def __init__(self, **fields):
        for name, value in fields.items():
            getattr(self, name)  # no other names
            setattr(self, name, value)


def check_times(h):
    for name in ("encrypted_at", "not_before", "expires_at", "resealed_at"):
        check(name, 0 <= getattr(h, name) <= MAX_TIME)


def check_sequence(h):
    """Sections 2.6 and 2.7."""
    if h.sequence == 0:
        check("direct stream", h.stream == ZERO_STREAM)
        check("direct settled", h.settled == 0)
        check("direct previous", h.previous == 0)
        check("direct resealed_at", h.resealed_at == 0)
        check("direct void", not h.void)
        return
    check("sequence", h.sequence <= MAX_SEQUENCE)
    check("settled", h.settled < h.sequence)
    check("previous", h.previous < h.sequence)
    before = 0
    for first, last in h.void:
        check("void from zero", first >= 1)
        check("void backward", first <= last)
        check("void ascending", first > before or first == 0)
        check("void beyond settled", last <= h.settled)
        before = last


def check_names(h):
    """Sections 2.2 to 2.4 and 2.8."""
    check("key ID empty", len(h.key_id) >= 1)
    check("key ID length", len(h.key_id) <= 64)
    check("key ID alphabet", set(h.key_id) <= ALPHABET)
    check("sender ID length", len(h.sender_id) <= 64)
    check("sender ID alphabet", set(h.sender_id) <= ALPHABET)
    check("origin empty", len(h.origin) >= 1)
    check("origin UTF-8", well_formed(h.origin))
    before = b""
    for name in h.bound:
        check("bound name empty", name)
        check("bound order", name > before or not name)
        before = name


def well_formed(b):
    try:
        b.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


class Reader:
    def __init__(self, body):
        self.body, self.at = body, 0

    def take(self, n):
        check("cut off", len(self.body) - self.at >= n)
        part = self.body[self.at:self.at + n]
        self.at += n
        return part

    def number(self, n):
        return int.from_bytes(self.take(n), "big")

    def short(self):
        return self.take(self.number(1))


class Message(Header):
    """An envelope taken apart."""

    salt = commitment = header = nonce = ciphertext = tag = b""


def parse(body):
    """Section 6.1, step 1."""
    check("marker", body[:4] == MARKER)
    if len(body) > 4:
        check("version", body[4] == 1, "unsupported_version")
    r = Reader(body)
    r.take(5)
    m = Message()
    flags = r.number(1)
    check("flags", flags & ~FLAG_PADDED == 0)
    m.padded = bool(flags & FLAG_PADDED)
    m.encrypted_at, m.not_before, m.expires_at = r.number(8), r.number(8), r.number(8)
    m.stream = r.take(16)
    m.sequence, m.settled, m.previous, m.resealed_at = r.number(8), r.number(8), r.number(8), r.number(8)
    count = r.number(1)
    check("void count", count <= 8)
    m.void = [(r.number(8), r.number(8)) for _ in range(count)]
    m.key_id, m.sender_id, m.origin = r.short(), r.short(), r.short()
    count = r.number(1)
    check("bound count", count <= 64)
    m.bound = [r.short() for _ in range(count)]
    m.salt, m.commitment = r.take(32), r.take(32)
    m.header = body[:r.at]
    m.nonce = r.take(12)
    check("cut off", len(body) - r.at >= 16)
    end = max(len(body) - 16, r.at)
    m.ciphertext, m.tag = body[r.at:end], body[end:]
    check_times(m)
    check_sequence(m)
    check_names(m)
    return m


def context(fields, bound):
    """Section 4.2. fields: message_id, session_id, content_type, correlation_id as
    bytes, and attributes, a list of pairs as they arrived."""
    check("message ID", fields.get("message_id"), "authentication_failed")
    out = b""
    for tag, name in enumerate(("message_id", "session_id", "content_type", "correlation_id"), 1):
        if value := fields.get(name):
            out += u8(tag) + u32(len(value)) + value
    arrived = {}
    for name, value in fields.get("attributes", ()):
        check("attribute twice", name not in arrived, "authentication_failed")
        arrived[name] = value
    present = []
    for name in bound:
        if name not in arrived:
            if "attribute skipped" in _off:
                continue  # an implementation that leaves it out of the context
            check("attribute missing", False, "authentication_failed")
        present.append((name, arrived.get(name, b"")))
    if bound:
        value = u32(len(present)) + b"".join(u32(len(n)) + n + u32(len(v)) + v for n, v in present)
        out += b"\x40" + u32(len(value)) + value
    return out


def additional_data(header, bound, use):
    """Sections 4.1 and 4.3. use: {"fields": ...} for a message of a queue,
    {"associated_data": ...} for direct use."""
    if "fields" in use:
        label, rest = b"QRE1-AAD-v1\0", context(use["fields"], bound)
    else:
        label, rest = b"QRE1-APP-v1\0", use["associated_data"]
    return label + u32(len(header)) + header + rest


def open_message(m, master, use):
    """Section 6.1, steps 2 to 7. Returns plaintext, message key, additional data."""
    check("key of zeros", master != bytes(32), "key_not_found")
    if "fields" in use:
        check("use queue", m.sequence != 0, "authentication_failed")
    else:
        check("use app", m.sequence == 0, "authentication_failed")
    aad = additional_data(m.header, m.bound, use)
    message_key, commitment = derive(sender_key(master, m.sender_id), m.key_id, m.salt)
    check("commitment", hmac.compare_digest(commitment, m.commitment), "authentication_failed")
    plaintext, tag = gcm.decrypt(message_key, m.nonce, m.ciphertext, aad)
    check("tag", hmac.compare_digest(tag, m.tag), "authentication_failed")
    if m.padded:
        plaintext = unpad(plaintext)
    return plaintext, message_key, aad


def unpad(b):
    """Section 5.2."""
    n = int.from_bytes(b[:4], "big")
    check("padding length", n <= len(b) - 4, "authentication_failed")  # refuses less than 4 bytes, too
    check("padding zeros", not any(b[4 + n:]), "authentication_failed")
    return b[4:4 + n]


def pad(plaintext, size):
    """Section 5.2: to size bytes in all."""
    return u32(len(plaintext)) + plaintext + bytes(size - 4 - len(plaintext))


def encode(h, salt, commitment):
    """Section 2, up to the key commitment."""
    short = lambda b: u8(len(b)) + b
    return b"".join((
        MARKER, u8(1), u8(FLAG_PADDED if h.padded else 0), u64(h.encrypted_at), u64(h.not_before), u64(h.expires_at),
        h.stream, u64(h.sequence), u64(h.settled), u64(h.previous), u64(h.resealed_at),
        u8(len(h.void)), *(u64(first) + u64(last) for first, last in h.void),
        short(h.key_id), short(h.sender_id), short(h.origin),
        u8(len(h.bound)), *map(short, h.bound), salt, commitment,
    ))


def seal(h, own_key, use, plaintext, size=None):
    """Section 5, with the sender key of h.sender_id. size: the length with padding,
    None without. Each message begins a salt epoch of its own."""
    h.bound = sorted(name for name, _ in use["fields"].get("attributes", ())) if "fields" in use else ()
    h.padded = size is not None
    check_times(h)
    check_sequence(h)
    check_names(h)
    if ("fields" in use) != (h.sequence != 0):
        raise ValueError("a message of a queue has a sequence, and direct use has none")
    salt, nonce = os.urandom(32), os.urandom(12)
    message_key, commitment = derive(own_key, h.key_id, salt)
    header = encode(h, salt, commitment)
    if h.padded:
        plaintext = pad(plaintext, size)
    return header + nonce + gcm.encrypt(message_key, nonce, plaintext, additional_data(header, h.bound, use))
