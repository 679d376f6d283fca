"""Judges test vectors, or seals messages, for the tests in ../interop_test.go.

    python3 vectors.py open FOLDER     a JSON object a line for each vector: what came of it
    python3 vectors.py seal FOLDER     seals what the vectors that open hold, anew
    python3 vectors.py without FOLDER  a JSON object a line for each check: the vectors that
                                       notice when it is left out

Only the last looks at what a vector expects.
"""

import json
import pathlib
import re
import sys

import qre1


def read(path):
    """Reads a file in the form of Section 9.1: a dict from names to lists of values."""
    values, block = {}, None
    for line in path.read_text("ascii").split("\n")[:-1]:
        if line.startswith(" "):
            block.append(line[1:])
            continue
        name, value = re.fullmatch(r"([a-z-]+):(?: (.*))?", line).groups()
        block = []
        values.setdefault(name, []).append(block if value is None else value)
    return values


def hexadecimal(v):
    return bytes.fromhex("".join(v) if isinstance(v, list) else v)


def text(s):
    return re.sub(rb"%([0-9A-F]{2})", lambda m: bytes.fromhex(m[1].decode()), s.encode("ascii"))


def arrived(v):
    """What arrived beside the envelope."""
    if v["domain"][0] == "app":
        return {"associated_data": hexadecimal(v["associated-data"][0])}
    fields = {name.replace("-", "_"): text(v[name][0]) for name in ("message-id", "session-id", "content-type", "correlation-id") if name in v}
    fields["attributes"] = [tuple(map(text, a.split("="))) for a in v.get("attribute", ())]
    return {"fields": fields}


def judge(v):
    try:
        m = qre1.parse(hexadecimal(v["envelope"][0]))
        if "key" not in v:
            return {"verdict": "parsed"}
        master = hexadecimal(v["key"][0])
        plaintext, message_key, aad = qre1.open_message(m, master, arrived(v))
    except qre1.Failure as e:
        return {"verdict": e.code}
    return {
        "verdict": "open",
        "padded": m.padded,
        "encryptedAt": str(m.encrypted_at), "notBefore": str(m.not_before), "expiresAt": str(m.expires_at),
        "stream": m.stream.hex(), "sequence": str(m.sequence), "settled": str(m.settled), "previous": str(m.previous),
        "resealedAt": str(m.resealed_at), "void": [f"{first}-{last}" for first, last in m.void],
        "keyID": m.key_id.hex(), "senderID": m.sender_id.hex(), "origin": m.origin.hex(), "bound": [b.hex() for b in m.bound],
        "checkValue": qre1.check_value(master).hex(), "senderKey": qre1.sender_key(master, m.sender_id).hex(),
        "messageKey": message_key.hex(), "additionalData": aad.hex(), "plaintext": plaintext.hex(),
    }


def sealed(v):
    number = lambda name: int(v[name][0])
    header = qre1.Header(
        encrypted_at=number("encrypted-at"), not_before=number("not-before"), expires_at=number("expires-at"),
        stream=hexadecimal(v["stream"][0]), sequence=number("sequence"), settled=number("settled"), previous=number("previous"),
        resealed_at=number("resealed-at"), void=[tuple(map(int, r.split("-"))) for r in v.get("void", ())],
        key_id=text(v["key-id"][0]), sender_id=text(v.get("sender-id", [""])[0]), origin=text(v["origin"][0]),
    )
    plaintext = hexadecimal(v["plaintext"][0])
    size = len(plaintext) + 4 + len(plaintext) % 5 if "padded" in v else None
    return {"envelope": qre1.seal(header, hexadecimal(v["sender-key"][0]), arrived(v), plaintext, size).hex()}


def noticed(v):
    """Whether what comes of a vector is not what it expects. An implementation that
    breaks in another way than by an error of the specification is noticed, too."""
    try:
        return judge(v)["verdict"] != v["expect"][0]
    except Exception:  # whatever breaks when a check is missing
        return True


def main(command, folder):
    vectors = {p.stem: read(p) for p in sorted(pathlib.Path(folder).glob("*.txt"), key=lambda p: p.stem)}
    if command == "without":
        for name in qre1.CHECKS:
            with qre1.without(name):
                print(json.dumps({"check": name, "vectors": [n for n, v in vectors.items() if noticed(v)]}))
        return
    for name, v in vectors.items():
        if command == "seal" and "plaintext" not in v:
            continue
        print(json.dumps({"name": name, **(sealed(v) if command == "seal" else judge(v))}))


if __name__ == "__main__":
    main(*sys.argv[1:])
