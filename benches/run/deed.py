"""Starts deed-server, and drives it with `deed bench`."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from run.process import Child, Unavailable, run, started
from run.results import Run

LEDGER = "bench"
PAYLOAD_BYTES = 256

# The options of `deed bench append`, by scenario.
APPEND: dict[str, tuple[str, list[str]]] = {
    "deed.batches": (
        "Deed, unsigned, batches of 256",
        ["--producers=4", "--batch=256", "--in-flight=8"],
    ),
    "deed.batch-signed": (
        "Deed, batches of 256 under one signature",
        ["--producers=4", "--batch=256", "--in-flight=8", "--signed=batch"],
    ),
    "deed.signed-each": (
        "Deed, each statement signed, batches of 256",
        ["--producers=4", "--batch=256", "--in-flight=8", "--signed=each"],
    ),
    "deed.one": (
        "Deed, one statement at a time",
        ["--producers=1", "--batch=1", "--in-flight=1"],
    ),
    "deed.many": (
        "Deed, one statement a request, 1,024 in flight",
        ["--producers=4", "--batch=1", "--in-flight=256"],
    ),
}


@dataclass(frozen=True)
class Programs:
    """The two programs that are measured."""

    deed: Path
    server: Path

    @classmethod
    def find(cls, root: Path) -> Programs:
        """Returns those of DEED_BIN_DIR, or else of cargo's target directory."""
        target = Path(os.environ.get("CARGO_TARGET_DIR") or root / "target")
        directory = Path(os.environ.get("DEED_BIN_DIR") or target / "release")
        programs = cls(directory / "deed", directory / "deed-server")
        for program in (programs.deed, programs.server):
            if not os.access(program, os.X_OK):
                raise Unavailable(
                    f"{program} is missing: run make build, or set DEED_BIN_DIR"
                )
        return programs

    def version(self) -> str:
        return run([str(self.server), "--version"]).strip()


class Deed:
    """A running server, with one ledger."""

    def __init__(self, programs: Programs, directory: Path, child: Child) -> None:
        self.programs = programs
        self.directory = directory
        self.child = child
        log = child.log
        child.wait_for(lambda: address(log.read_text(), "listening on ") is not None)
        text = log.read_text()
        self.server = f"http://{address(text, 'listening on ')}"
        self.admin = f"{address(text, 'metrics and health on ')}"

    def run(self, *arguments: str, seconds: float = 600) -> str:
        """Runs `deed` against this server."""
        self.child.check()
        env = {
            "DEED_SERVER": self.server,
            "DEED_LEDGER": LEDGER,
            "DEED_STATE": str(self.directory / "state"),
        }
        command = [str(self.programs.deed), *arguments]
        return run(command, env=env, seconds=seconds)

    def bench_append(self, *options: str, seconds: float = 600) -> Run:
        """Runs `deed bench append`, which has to end within `seconds`."""
        size = f"--payload-bytes={PAYLOAD_BYTES}"
        arguments = ["bench", "append", "--json", size, *options]
        return parse_bench(self.run(*arguments, seconds=seconds))

    def append(self, options: Sequence[str], seconds: int, warmup_seconds: int) -> Run:
        """Appends for some time, as fast as it goes; the client verifies each answer."""
        return self.bench_append(
            f"--seconds={seconds}", f"--warmup-seconds={warmup_seconds}", *options
        )

    def fill(self, statements: int) -> Run:
        """Appends so many unsigned statements in batches."""
        return self.bench_append(
            f"--statements={statements}",
            "--warmup-seconds=0",
            *APPEND["deed.batches"][1],
            seconds=24 * 3600,
        )

    def contents(self, count: int) -> Run:
        """Stores so many contents of 8 KiB, each with its statement."""
        options = ["--json", "--size=8KiB", f"--count={count}"]
        return parse_bench(self.run("bench", "content", *options))

    def first_receipt(self) -> None:
        """Appends one statement, and returns when its receipt was verified."""
        options = ["--statements=1", "--warmup-seconds=0", *APPEND["deed.one"][1]]
        self.run("bench", "append", "--json", *options)

    def leaves(self) -> int:
        return int(metric(self.metrics(), "deed_leaves"))

    def metrics(self) -> str:
        with urllib.request.urlopen(f"{self.admin}/metrics", timeout=30) as answer:
            return str(answer.read().decode())

    def disk_bytes(self) -> int:
        """Returns the bytes that the data directory takes on the disk."""
        total = 0
        for path in (self.directory / "data").rglob("*"):
            try:
                total += path.lstat().st_blocks * 512
            except FileNotFoundError:
                continue  # removed by a compaction meanwhile
        return total


@contextmanager
def serving(programs: Programs, directory: Path) -> Iterator[Deed]:
    """Runs a server on `directory`, which is made with a ledger if it is not there."""
    new = not directory.exists()
    directory.mkdir(exist_ok=True)
    command = [
        str(programs.server),
        "run",
        f"--data-dir={directory / 'data'}",
        "--listen=127.0.0.1:0",
        "--admin=127.0.0.1:0",
    ]
    # Without a file of settings: what is measured are the defaults.
    with started("deed-server", command, directory / "log", cwd=directory) as child:
        deed = Deed(programs, directory, child)
        if new:
            deed.run("ledger", "create", LEDGER)
        yield deed


def restart_seconds(programs: Programs, directory: Path) -> float:
    """Starts a server on what it holds, and returns the time to the first verified receipt."""
    start = time.monotonic()
    with serving(programs, directory) as deed:
        deed.first_receipt()
        return time.monotonic() - start


def parse_bench(output: str) -> Run:
    """Returns the figures of what `deed bench --json` prints."""
    data = json.loads(output.strip().splitlines()[-1])
    if data["rejected"]:
        raise Unavailable(f"deed bench: {data['rejected']} statements were rejected")
    if not data["verification"]:
        raise Unavailable("deed bench did not verify the answers")
    latency = data["latency_us"]
    value = data.get("statements_per_s", data.get("contents_per_s"))
    return Run(float(value), latency["p50"], latency["p99"], latency["max"])


def metric(text: str, name: str) -> float:
    """Returns the value of a metric without labels."""
    found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
    if found is None:
        raise Unavailable(f"the server has no metric {name}")
    return float(found[1])


def address(log: str, after: str) -> str | None:
    """Returns what a line of the log names after the words `after`."""
    found = re.search(rf"^{re.escape(after)}(\S+)\n", log, re.MULTILINE)
    return found[1] if found else None


def free_bytes(directory: Path) -> int:
    return shutil.disk_usage(directory).free
