#!/usr/bin/env python3
"""Makes the golden files' claims again with other people's code; see README.md.

usage: check.py <FileDescriptorSet of deed.v1> (needs `pip install protobuf blake3 cryptography`)
"""

import base64
import hashlib
import pathlib
import sys

import blake3
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

FOLDER = pathlib.Path(__file__).parent


def read(name):
    return bytes.fromhex((FOLDER / name).read_text())


def messages(descriptor_set):
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(descriptor_set).file:
        pool.Add(file)
    find = pool.FindMessageTypeByName
    get = message_factory.GetMessageClass
    names = ["Statement", "BatchManifest", "Entry"]
    return [get(find(f"deed.v1.{name}")) for name in names]


def pae(kind, payload):
    """DSSE v1.0.0."""
    kind = f"application/vnd.deed.{kind}.v1+protobuf".encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def signatures(statement, manifest, entry):
    """Inputs, key ids and signatures of the manifest, the trust statement and the possession."""
    for name, kind, payload, seed in [
        ("manifest", "batch", "manifest.hex", 5),
        ("trust", "statement", "statement-key_registered.hex", 2),
    ]:
        found = entry.FromString(read(f"entry-{name}.hex"))
        public = Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32).public_key()
        assert found.payload == read(payload)
        pae_file = "manifest.pae.hex" if name == "manifest" else "statement.pae.hex"
        assert pae(kind, found.payload) == read(pae_file)
        assert found.key_id == hashlib.sha256(public.public_bytes_raw()).digest()[:16]
        public.verify(found.signature, read(pae_file))
    key = statement.FromString(read("statement-key_registered.hex"))
    registered = key.key_registered
    lines = [
        "deed/key-possession/v1",
        key.ledger_id.hex(),
        registered.public_key.hex(),
        str(registered.role),
        registered.producer,
        registered.controller,
    ]
    message = "".join(line + "\n" for line in lines).encode()
    assert message == read("possession.message.hex")
    Ed25519PublicKey.from_public_bytes(registered.public_key).verify(registered.possession, message)
    revoked = statement.FromString(read("statement-key_revoked.hex")).key_revoked
    assert revoked.key_id == hashlib.sha256(registered.public_key).digest()[:16]
    assert manifest.FromString(read("manifest.hex")).count == 3


def commitment(slot):
    """The fixtures' commitment in this slot: secret 42.., session 55.., sequence 7."""
    key, place = b"\x42" * 32, b"\x55" * 16 + (7).to_bytes(8, "big")
    salt = blake3.blake3(place + slot.encode(), key=key).digest()
    context = "deed.v1 content commitment"
    return blake3.blake3(salt + slot.encode(), derive_key_context=context).digest()


def main():
    statement, manifest, entry = messages(pathlib.Path(sys.argv[1]).read_bytes())
    payloads = {path.name: statement for path in FOLDER.glob("statement-*.hex")}
    entries = [path.name for path in FOLDER.glob("*entry*.hex") if path.name.count(".") == 1]
    assert len(payloads) == 34 and len(entries) == 8
    kinds = payloads | {name: entry for name in entries} | {"manifest.hex": manifest}
    for name, kind in kinds.items():
        data = read(name)
        parsed = kind.FromString(data)
        again = parsed.SerializeToString(deterministic=True)
        assert again == data, name
        print(f"{name}: {len(data)} bytes, decoded and encoded to the same")

    for name in entries:
        digest = name.replace(".hex", ".leaf-hash.hex")
        if name.startswith("genesis-entry"):
            digest = name.replace(".hex", ".ledger-id.hex")
        assert hashlib.sha256(b"\x00" + read(name)).digest() == read(digest), name

    intent = statement.FromString(read("statement-intent.hex")).intent
    outcome = statement.FromString(read("statement-outcome.hex")).outcome
    repeated = statement.FromString(read("statement-outcome-arguments.hex")).outcome
    approval = statement.FromString(read("statement-approval.hex")).approval
    opened = statement.FromString(read("statement-task_opened-commitment.hex")).task_opened
    slots = {
        "intent.arguments": intent.arguments,
        "intent.prompt": intent.prompt,
        "outcome.tool_call": outcome.tool_call,
        "outcome.response": outcome.response,
        "outcome.result": outcome.result,
        "approval.shown": approval.shown,
        "task_opened.objective_commitment": opened.objective_commitment,
    }
    for slot, found in slots.items():
        assert found.digest == commitment(slot), slot
    assert repeated.arguments == intent.arguments

    certified = statement.FromString(read("statement-task_opened-nonce.hex"))
    for domain, nonce, found in [
        (b"deed/session-id/v1", certified.nonce, certified.session),
        (b"deed/task-id/v1", certified.task_opened.nonce, certified.task),
    ]:
        parts = domain + b"\0" + certified.ledger_id + nonce + certified.producer.encode()
        assert hashlib.sha256(parts).digest()[:16] == found, domain

    rotated = statement.FromString(read("statement-log_key_rotated.hex")).log_key_rotated
    vkeys = [rotated.log_key.vkey]
    for suffix, rules_version in [("", 1), ("-rules-2", 2)]:
        first = entry.FromString(read(f"genesis-entry{suffix}.hex"))
        assert first.payload == read(f"statement-genesis{suffix}.hex")
        genesis = statement.FromString(first.payload).genesis
        assert genesis.rules_version == rules_version
        vkeys.append(genesis.log_keys[0].vkey)
    for vkey in vkeys:
        name, key_id, material = vkey.split("+", 2)
        assert name == genesis.origin
        wanted = hashlib.sha256(name.encode() + b"\n" + base64.b64decode(material)).digest()[:4]
        assert wanted.hex() == key_id

    policies = statement.FromString(read("statement-policy_set.hex")).policy_set
    texts = [policies.policies.encode(), policies.schema.encode()]
    length = len(texts[0]).to_bytes(8, "big")
    assert policies.digest == hashlib.sha256(length + b"".join(texts)).digest()
    signatures(statement, manifest, entry)
    print("leaf hashes, commitments, ids, digests, key ids and signatures hold")


main()
