#!/usr/bin/env python3
"""Computes the golden files of deed-tlog, and the seeds of its fuzz targets.

Independent of the crate: Python's hashlib and `cryptography`, and the definitions of
RFC 6962 and C2SP taken literally. The results are committed; run it again only to add some:

    python3 tlog/tests/golden/generate.py
"""

import base64
import hashlib
import pathlib
import struct

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

HERE = pathlib.Path(__file__).resolve().parent
SEEDS = HERE.parent.parent / "fuzz" / "seeds"


def sha256(data):
    return hashlib.sha256(data).digest()


def b64(data):
    return base64.b64encode(data).decode()


# RFC 6962 section 2.1


def split(n):
    k = 1
    while 2 * k < n:
        k *= 2
    return k


def mth(d, leaf=b"\x00", node=b"\x01"):
    if not d:
        return sha256(b"")
    if len(d) == 1:
        return sha256(leaf + d[0])
    k = split(len(d))
    return sha256(node + mth(d[:k], leaf, node) + mth(d[k:], leaf, node))


def path(m, d, leaf=b"\x00", node=b"\x01"):
    if len(d) == 1:
        return []
    k = split(len(d))
    if m < k:
        return path(m, d[:k], leaf, node) + [mth(d[k:], leaf, node)]
    return path(m - k, d[k:], leaf, node) + [mth(d[:k], leaf, node)]


def subproof(m, d, b):
    if m == len(d):
        return [] if b else [mth(d)]
    k = split(len(d))
    if m <= k:
        return subproof(m, d[:k], b) + [mth(d[k:])]
    return subproof(m - k, d[k:], False) + [mth(d[:k])]


# c2sp.org/signed-note


class Key:
    def __init__(self, name, kind, seed):
        self.name, self.kind, self.seed = name, kind, seed
        self.private = Ed25519PrivateKey.from_private_bytes(seed)
        self.public = self.private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        self.id = sha256(name.encode() + b"\n" + bytes([kind]) + self.public)[:4]

    def vkey(self):
        return f"{self.name}+{self.id.hex()}+{b64(bytes([self.kind]) + self.public)}"

    def skey(self):
        return f"PRIVATE+KEY+{self.name}+{self.id.hex()}+{b64(bytes([self.kind]) + self.seed)}"

    def line(self, signature):
        return f"\u2014 {self.name} {b64(self.id + signature)}\n"

    def sign(self, text):
        return self.line(self.private.sign(text.encode()))

    def cosign(self, text, seconds):
        message = f"cosignature/v1\ntime {seconds}\n{text}".encode()
        return self.line(struct.pack(">Q", seconds) + self.private.sign(message))


ORIGIN = "deed.example/logs/golden"
LOG = Key(ORIGIN, 1, bytes(range(32)))
W1 = Key("witness.example/w1", 4, bytes(range(32, 64)))
W2 = Key("witness.example/w2", 4, bytes(range(64, 96)))
W3 = Key("zeuge.example/\u00e4", 4, bytes(range(96, 128)))
ENTRIES = [f"entry {i}".encode() for i in range(300)]


def checkpoint(size):
    return f"{ORIGIN}\n{size}\n{b64(mth(ENTRIES[:size]))}\n"


def tlog_proof(index, size, note, extra=None):
    lines = ["c2sp.org/tlog-proof@v1"]
    if extra is not None:
        lines.append("extra " + b64(extra))
    lines.append(f"index {index}")
    lines += [b64(h) for h in path(index, ENTRIES[:size])]
    return "\n".join(lines) + "\n\n" + note


def write(folder, name, data):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data.encode() if isinstance(data, str) else data)


text = checkpoint(300)
signed = text + "\n" + LOG.sign(text)
cosigned = signed + W1.cosign(text, 1_700_000_000) + W2.cosign(text, 1_700_000_001)
cosigned += W3.cosign(text, 0)
policy = f"""# Golden policy: two of three witnesses.
log {LOG.vkey()} https://deed.example/logs/golden

witness one {W1.vkey()}
\twitness  two\t{W2.vkey()} https://witness.example/w2
witness \u00e4 {W3.vkey()}
group pair all one two
group both any pair \u00e4
quorum both
"""
proof = tlog_proof(137, 300, cosigned, b"opaque")
note = "Erste Zeile\n\nnach einer Leerzeile \u2014 mit Strich\n"
poem = note + "\n" + LOG.sign(note) + Key("other", 1, bytes(32)).sign(note)

write(HERE, "log.vkey", LOG.vkey())
write(HERE, "log.skey", LOG.skey())
write(HERE, "w1.vkey", W1.vkey())
write(HERE, "w1.skey", W1.skey())
write(HERE, "w2.vkey", W2.vkey())
write(HERE, "w3.vkey", W3.vkey())
write(HERE, "note.txt", poem)
write(HERE, "checkpoint.txt", signed)
write(HERE, "cosigned.txt", cosigned)
write(HERE, "policy.txt", policy)
write(HERE, "proof.tlog-proof", proof)
write(HERE, "root-300.hex", mth(ENTRIES).hex())
write(HERE, "batch-5.hex", mth(ENTRIES[:5], b"\x10", b"\x11").hex())
write(
    HERE, "batch-5-path-2.hex", "".join(h.hex() for h in path(2, ENTRIES[:5], b"\x10", b"\x11"))
)

write(SEEDS / "note", "checkpoint", cosigned)
write(SEEDS / "note", "blank-lines", poem)
write(SEEDS / "note", "many", note + "\n" + W1.cosign(note, 7) * 16)
write(SEEDS / "checkpoint", "golden", text)
write(SEEDS / "checkpoint", "empty-tree", f"o\n0\n{b64(sha256(b''))}\n")
write(SEEDS / "checkpoint", "extension", text + "extension\n")
write(SEEDS / "checkpoint", "largest", f"o\n{2**64 - 1}\n{b64(bytes(32))}\n")
for i, p in enumerate(
    [
        "tile/0/000",
        "tile/63/x001/x234/067.p/255",
        "tile/entries/x018/x446/x744/x073/x709/x551/615",
        "tile/entries/001.p/1",
        "tile/0/x000/x001/234",
        "tile/8/x001/000.p/256",
    ]
):
    write(SEEDS / "tile_path", str(i), p)
bundle = b"".join(struct.pack(">H", len(e)) + e for e in ENTRIES[:5])
write(SEEDS / "entry_bundle", "five", bundle)
write(SEEDS / "entry_bundle", "full", bytes(2 * 256))
write(SEEDS / "entry_bundle", "truncated", bundle[:-1])
write(SEEDS / "policy", "golden", policy)
write(SEEDS / "policy", "none", "quorum none")
write(SEEDS / "policy", "threshold", policy.replace("any pair", "2 pair"))
write(SEEDS / "tlog_proof", "golden", proof)
write(SEEDS / "tlog_proof", "no-extra", tlog_proof(299, 300, signed))
write(SEEDS / "tlog_proof", "no-hashes", tlog_proof(0, 1, checkpoint(1) + "\n" + LOG.sign(text)))
for index, size in [(0, 1), (0, 8), (5, 8), (136, 137), (6, 7), (42, 300)]:
    d = ENTRIES[:size]
    data = struct.pack(">QQ", index, size) + sha256(b"\x00" + d[index]) + mth(d)
    write(SEEDS / "inclusion_verify", f"{index}-{size}", data + b"".join(path(index, d)))
for old, new in [(0, 0), (0, 5), (1, 1), (1, 8), (6, 8), (4, 7), (137, 300), (256, 300)]:
    d = ENTRIES[:new]
    data = struct.pack(">QQ", old, new) + mth(d[:old]) + mth(d)
    hashes = subproof(old, d, True) if 0 < old < new else []
    write(SEEDS / "consistency_verify", f"{old}-{new}", data + b"".join(hashes))
