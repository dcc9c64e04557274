"""Tessera on POSIX files with its own load generator, the hammer.

Tessera answers when the entry is in the tree. The signed checkpoint that covers it follows up to a
second later. What is counted are the entries under a checkpoint.
"""

from __future__ import annotations

import base64
import hashlib
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from peers import go
from run.process import Child, Unavailable, can_connect, free_port, started
from run.results import Run

MODULE = "github.com/transparency-dev/tessera"
VERSION = "v1.0.4"
PACKAGES = {
    "posix": f"{MODULE}/cmd/conformance/posix",
    "hammer": f"{MODULE}/internal/hammer",
}
WRITERS = 1024
SCENARIOS = {"tessera.many": f"Tessera's hammer, {WRITERS:,} writers"}
# More than any machine does. The hammer gives out this many permits in each second.
WRITES_MAX = 1_000_000
# The hammer writes the number of the leaf behind these: 256 bytes with one of 7 digits.
LEAF_BYTES_MIN = 248

# The key pair of RFC 8032, section 7.1, test 1. It protects nothing: the log is thrown away.
SEED = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
PUBLIC = bytes.fromhex(
    "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
)
ORIGIN = "deed.example/bench"


class Tessera:
    """A running log."""

    def __init__(
        self, programs: Path, port: int, directory: Path, child: Child
    ) -> None:
        self.programs = programs
        self.url = f"http://127.0.0.1:{port}/"
        self.directory = directory
        self.child = child

    def measure(self, seconds: int, warmup_seconds: int) -> Run:
        """Lets the hammer write, and counts by how much the signed checkpoint grows."""
        command = [
            str(self.programs / "hammer"),
            f"--log_url={self.url}",
            f"--log_public_key={verifier_key()}",
            f"--num_writers={WRITERS}",
            f"--max_write_ops={WRITES_MAX}",
            "--num_readers_random=0",
            "--num_readers_full=0",
            f"--leaf_min_size={LEAF_BYTES_MIN}",
            "--dup_chance=0",
            "--show_ui=false",
        ]
        log = self.directory.with_name("hammer.log")
        with started("hammer", command, log) as hammer:
            # Its first writes are a second after it starts.
            self._watch(hammer, 1 + warmup_seconds)
            return Run(growth_per_s(self._watch(hammer, seconds + 1)))

    def _watch(self, hammer: Child, seconds: float) -> list[tuple[float, int]]:
        """Returns the time and the size of each new checkpoint."""
        seen: list[tuple[float, int]] = []
        until = time.monotonic() + seconds
        while (now := time.monotonic()) < until:
            hammer.check()
            self.child.check()
            size = self.size()
            if not seen or size != seen[-1][1]:
                seen.append((now, size))
            time.sleep(0.02)
        return seen

    def size(self) -> int:
        with urllib.request.urlopen(f"{self.url}checkpoint", timeout=30) as answer:
            return parse_checkpoint(answer.read().decode())


@contextmanager
def serving(directory: Path, root: Path) -> Iterator[Tessera]:
    """Runs Tessera's server for POSIX files on a new log, on a free port of 127.0.0.1."""
    programs = go.tools(root) / f"tessera-{VERSION}"
    go.install(programs, VERSION, PACKAGES)
    directory.mkdir()
    port = free_port()
    command = [
        str(programs / "posix"),
        f"--storage_dir={directory}",
        f"--listen=127.0.0.1:{port}",
    ]
    env = {"LOG_PRIVATE_KEY": signer_key()}
    log = directory.with_name("tessera.log")
    with started("Tessera", command, log, env=env) as child:
        child.wait_for(
            lambda: can_connect(port) and (directory / "checkpoint").exists()
        )
        yield Tessera(programs, port, directory, child)


def growth_per_s(seen: Sequence[tuple[float, int]]) -> float:
    """Returns the entries a second between the first and the last change of the size.

    The first size was there before, nobody knows for how long, so it does not count.
    """
    changes = seen[1:]
    if len(changes) < 2:
        raise Unavailable("Tessera published too few checkpoints: measure for longer")
    (start, first), (end, last) = changes[0], changes[-1]
    return (last - first) / (end - start)


def parse_checkpoint(text: str) -> int:
    """Returns the tree size of a checkpoint."""
    lines = text.split("\n")
    if len(lines) < 3 or not lines[1].isdigit():
        raise Unavailable("Tessera's checkpoint has no size")
    return int(lines[1])


def verifier_key() -> str:
    return f"{ORIGIN}+{_key_hash()}+{_encoded(PUBLIC)}"


def signer_key() -> str:
    return f"PRIVATE+KEY+{ORIGIN}+{_key_hash()}+{_encoded(SEED)}"


def _key_hash() -> str:
    return hashlib.sha256(ORIGIN.encode() + b"\n\x01" + PUBLIC).digest()[:4].hex()


def _encoded(key: bytes) -> str:
    # 1 is Ed25519 in signed notes.
    return base64.b64encode(b"\x01" + key).decode()
