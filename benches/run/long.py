"""What only shows in a long ledger: memory, disk, the cost of a late append, and a restart."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from run import deed
from run.process import Unavailable, settle
from run.results import Result, Run
from run.rows import LEAVES_TARGET
from run.session import Lengths, number, say

CHUNKS = 50
# With what compactions need besides.
BYTES_A_LEAF = 500
# Results of Criterion that are older than this are of another measurement.
CRITERION_SECONDS = 2 * 3600
IDS = {
    "long.memory": ("memory of the server, at most", "GiB"),
    "long.disk": ("disk for each statement of 256 bytes", "bytes"),
    "long.new": ("Deed, unsigned, batches of 256, a new ledger", "statements/s"),
    "long.grown": ("Deed, unsigned, batches of 256, the long ledger", "statements/s"),
    "long.restart": ("start of the long ledger, to the first receipt", "s"),
}


def measure(
    result: Result, lengths: Lengths, programs: deed.Programs, space: Path
) -> None:
    """Fills a ledger, and measures it. If that is not possible, notes why."""
    try:
        _measure(result, lengths, programs, space)
    except Unavailable as error:
        say(f"  not measured: {error}")
        for id in IDS:
            if id not in result.scenarios:
                result.drop(id, str(error))


def _measure(
    result: Result, lengths: Lengths, programs: deed.Programs, space: Path
) -> None:
    leaves = number("DEED_BENCH_LEAVES", LEAVES_TARGET)
    result.parameters["leaves of the long ledger"] = f"{leaves:,}"
    wanted, free = leaves * BYTES_A_LEAF, deed.free_bytes(space)
    if wanted > free:
        raise Unavailable(
            f"{leaves:,} leaves take {wanted >> 30} GiB, and {free >> 30} GiB are free: "
            "set DEED_BENCH_DIR to another disk, or DEED_BENCH_LEAVES to less"
        )
    with deed.serving(programs, space / "long") as grown:
        result.growth = fill(grown, leaves)
        settle([grown.child], 120)
        size = grown.leaves()
        _add(result, "long.disk", Run(grown.disk_bytes() / size), size)
        with deed.serving(programs, space / "new") as new:
            options = deed.APPEND["deed.batches"][1]
            for _ in range(lengths.rounds):
                for id, server in (("long.new", new), ("long.grown", grown)):
                    settle([new.child, grown.child])
                    run = server.append(
                        options, lengths.seconds, lengths.warmup_seconds
                    )
                    _add(result, id, run, server.leaves())
        size = grown.leaves()
        _add(
            result,
            "long.memory",
            Run(grown.child.peak_memory_bytes() / (1 << 30)),
            size,
        )
    for _ in range(lengths.rounds):
        seconds = deed.restart_seconds(programs, space / "long")
        _add(result, "long.restart", Run(seconds), size)


def fill(server: deed.Deed, leaves: int) -> list[tuple[int, float]]:
    """Fills a ledger in parts; returns the size after each and its statements a second."""
    growth = []
    for part in range(1, CHUNKS + 1):
        missing = leaves * part // CHUNKS - server.leaves()
        if missing <= 0:
            continue
        run = server.fill(missing)
        growth.append((server.leaves(), run.value))
        say(f"  {growth[-1][0]:,} leaves, {run.value:,.0f} statements/s")
    return growth


def _add(result: Result, id: str, run: Run, leaves: int) -> None:
    title, unit = IDS[id]
    result.add(id, title, unit, run)
    # With several runs, the smallest ledger counts.
    scenario = result.scenarios[id]
    scenario.leaves = min(scenario.leaves or leaves, leaves)
    say(f"  {title}: {run.value:,.2f} {unit}")


def read_criterion(result: Result, root: Path) -> None:
    """Takes what Criterion measured just before, in cargo's target directory."""
    target = Path(os.environ.get("CARGO_TARGET_DIR") or root / "target")
    path = target / "criterion/policy/waits/new/estimates.json"
    id = "criterion.policy-waits"
    try:
        if time.time() - path.stat().st_mtime > CRITERION_SECONDS:
            raise FileNotFoundError
        run = Run(criterion_us(path.read_text()))
    except FileNotFoundError:
        result.drop(
            id,
            "its Criterion bench did not run (`make bench-full` without DEED_BIN_DIR)",
        )
        return
    result.add(id, "Cedar for an Intent that waits (Criterion)", "us", run)


def criterion_us(estimates: str) -> float:
    """Returns the median of Criterion's estimates, which are in nanoseconds."""
    return float(json.loads(estimates)["median"]["point_estimate"]) / 1000
