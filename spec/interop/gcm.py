"""AES-256-GCM in pure Python (FIPS 197, NIST SP 800-38D), for tests.

It is slow and takes time that depends on the key: never use it for secrets.
"""

import functools


def _sbox():
    """FIPS 197, Section 5.1.1: the inverse in GF(2^8) and an affine transformation,
    by walking the powers of a generator and its inverse."""
    box = [0] * 256
    p = q = 1
    while True:
        p ^= (p << 1) ^ (0x11B if p & 0x80 else 0)  # times 3
        p &= 0xFF
        q ^= q << 1  # divided by 3
        q ^= q << 2
        q ^= q << 4
        q &= 0xFF
        if q & 0x80:
            q ^= 0x09
        x = q ^ _rotl8(q, 1) ^ _rotl8(q, 2) ^ _rotl8(q, 3) ^ _rotl8(q, 4)
        box[p] = x ^ 0x63
        if p == 1:
            break
    box[0] = 0x63
    return box


def _rotl8(x, n):
    return (x << n | x >> (8 - n)) & 0xFF


SBOX = _sbox()


def _xtime(a):
    return (a << 1) ^ (0x11B if a & 0x80 else 0)


# The columns that MixColumns makes of SubBytes of each byte, as 32-bit words.
T0 = [_xtime(s) << 24 | s << 16 | s << 8 | _xtime(s) ^ s for s in SBOX]
T1 = [t >> 8 | (t & 0xFF) << 24 for t in T0]
T2 = [t >> 8 | (t & 0xFF) << 24 for t in T1]
T3 = [t >> 8 | (t & 0xFF) << 24 for t in T2]


def _sub_word(w):
    return SBOX[w >> 24] << 24 | SBOX[w >> 16 & 255] << 16 | SBOX[w >> 8 & 255] << 8 | SBOX[w & 255]


@functools.lru_cache(maxsize=1024)
def _expand_key(key):
    """FIPS 197, Section 5.2, for 256 bits: 60 words."""
    w = [int.from_bytes(key[4 * i:4 * i + 4], "big") for i in range(8)]
    rcon = 1
    for i in range(8, 60):
        t = w[i - 1]
        if i % 8 == 0:
            t = _sub_word((t << 8 | t >> 24) & 0xFFFFFFFF) ^ rcon << 24
            rcon = _xtime(rcon)
        elif i % 8 == 4:
            t = _sub_word(t)
        w.append(w[i - 8] ^ t)
    return w


def aes(key, block):
    """One block of AES-256: FIPS 197, Section 5.1."""
    w = _expand_key(key)
    a, b, c, d = (int.from_bytes(block[4 * i:4 * i + 4], "big") ^ w[i] for i in range(4))
    for r in range(4, 56, 4):
        a, b, c, d = (
            T0[a >> 24] ^ T1[b >> 16 & 255] ^ T2[c >> 8 & 255] ^ T3[d & 255] ^ w[r],
            T0[b >> 24] ^ T1[c >> 16 & 255] ^ T2[d >> 8 & 255] ^ T3[a & 255] ^ w[r + 1],
            T0[c >> 24] ^ T1[d >> 16 & 255] ^ T2[a >> 8 & 255] ^ T3[b & 255] ^ w[r + 2],
            T0[d >> 24] ^ T1[a >> 16 & 255] ^ T2[b >> 8 & 255] ^ T3[c & 255] ^ w[r + 3],
        )
    out = b""
    for i, (p, q, r, s) in enumerate(((a, b, c, d), (b, c, d, a), (c, d, a, b), (d, a, b, c))):
        word = SBOX[p >> 24] << 24 | SBOX[q >> 16 & 255] << 16 | SBOX[r >> 8 & 255] << 8 | SBOX[s & 255]
        out += (word ^ w[56 + i]).to_bytes(4, "big")
    return out


R = 0xE1 << 120  # SP 800-38D, Section 6.3


@functools.lru_cache(maxsize=1024)
def _table(h):
    """The products of h with each bit of a block, the first bit first."""
    table = []
    for _ in range(128):
        table.append(h)
        h = h >> 1 ^ (R if h & 1 else 0)
    return table


def _ghash(h, *parts):
    """SP 800-38D, Section 6.4."""
    table, y = _table(h), 0
    for part in parts:
        for i in range(0, len(part), 16):
            y ^= int.from_bytes(part[i:i + 16].ljust(16, b"\0"), "big")
            z = 0
            while y:
                top = y.bit_length() - 1
                z ^= table[127 - top]
                y ^= 1 << top
            y = z
    return y


@functools.lru_cache(maxsize=4096)
def _run(key, nonce, text, aad, decrypting):
    """SP 800-38D, Algorithms 4 and 5, with a nonce of 12 bytes: the other text, and
    the tag."""
    counter = lambda n: nonce + n.to_bytes(4, "big")
    stream = b"".join(aes(key, counter(2 + i)) for i in range((len(text) + 15) // 16))
    other = bytes(a ^ b for a, b in zip(text, stream))
    ciphertext = text if decrypting else other
    lengths = (8 * len(aad)).to_bytes(8, "big") + (8 * len(ciphertext)).to_bytes(8, "big")
    s = _ghash(int.from_bytes(aes(key, bytes(16)), "big"), aad, ciphertext, lengths)
    return other, (s ^ int.from_bytes(aes(key, counter(1)), "big")).to_bytes(16, "big")


def encrypt(key, nonce, plaintext, aad):
    """Returns ciphertext and tag, joined."""
    ciphertext, tag = _run(key, nonce, plaintext, aad, False)
    return ciphertext + tag


def decrypt(key, nonce, ciphertext, aad):
    """Returns the plaintext and the tag that it must have: the caller compares."""
    return _run(key, nonce.ljust(12, b"\0"), ciphertext, aad, True)
