"""NATS JetStream on disk with `sync_interval: always`: each message is synced before its answer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from peers import go
from run.process import Child, run, started
from run.results import Run

MODULE = "github.com/nats-io/nats-server/v2"
VERSION = "v2.15.3"
# Messages or batches in flight, messages in a batch, and the title, by scenario.
SCENARIOS: dict[str, tuple[int, int, str]] = {
    "nats.batches": (16, 256, "NATS JetStream, atomic batches of 256, 16 in flight"),
    "nats.one": (1, 1, "NATS JetStream, one message at a time"),
    "nats.many": (1024, 1, "NATS JetStream, 1,024 messages in flight"),
}


class Nats:
    """A running server."""

    def __init__(self, programs: Path, url: str, child: Child) -> None:
        self.programs = programs
        self.url = url
        self.child = child

    def measure(self, scenario: str, seconds: int, warmup_seconds: int) -> Run:
        """Measures on a new stream."""
        in_flight, batch, _ = SCENARIOS[scenario]
        command = [
            str(self.programs / "nats-bench"),
            f"-url={self.url}",
            f"-in-flight={in_flight}",
            f"-batch={batch}",
            "-bytes=256",
            f"-warmup={warmup_seconds}s",
            f"-duration={seconds}s",
        ]
        self.child.check()
        return parse_driver(run(command))


@contextmanager
def serving(directory: Path, root: Path) -> Iterator[Nats]:
    """Runs a NATS server on an empty directory, on a free port of 127.0.0.1."""
    programs = go.tools(root) / f"nats-{VERSION}"
    go.install(programs, VERSION, {"nats-server": MODULE})
    go.build(root / "benches/peers/nats-driver", programs / "nats-bench")
    directory.mkdir()
    config = directory / "nats.conf"
    config.write_text(configuration(directory))
    command = [str(programs / "nats-server"), f"--config={config}"]
    with started("nats-server", command, directory.with_name("nats.log")) as child:
        child.wait_for(lambda: client_url(directory) is not None)
        yield Nats(programs, client_url(directory) or "", child)


def client_url(directory: Path) -> str | None:
    """Returns the address for clients of the file of ports, or None while it is not whole."""
    for path in directory.glob("*.ports"):
        try:
            return str(json.loads(path.read_text())["nats"][0])
        except ValueError:
            continue
    return None


def configuration(directory: Path) -> str:
    """Returns the settings: a port that is free, and everything synced at once."""
    return f"""host: "127.0.0.1"
port: -1
ports_file_dir: {json.dumps(str(directory))}
jetstream {{
  store_dir: {json.dumps(str(directory / "store"))}
  sync_interval: always
  max_file_store: 64GB
}}
"""


def parse_driver(output: str) -> Run:
    """Returns the figures of what the driver prints."""
    data = json.loads(output)
    latency = data["latency_us"]
    return Run(float(data["per_s"]), latency["p50"], latency["p99"], latency["max"])
