"""The rows that Deed is held to: what is compared with what, and the target."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from run.results import Result, Scenario

LEAVES_TARGET = 100_000_000
POSTGRES_BATCHES = ("postgres.batches-4", "postgres.batches-16")


@dataclass(frozen=True)
class Ratio:
    """The median of one scenario divided by that of another: of the best one, if several."""

    of: str
    to: tuple[str, ...]


@dataclass(frozen=True)
class Value:
    """The median of a scenario."""

    of: str


@dataclass(frozen=True)
class Unmeasured:
    """Nothing measures it yet."""

    why: str


@dataclass(frozen=True)
class Row:
    """A line of the table."""

    id: str
    what: str
    against: str
    # None: shown, and not held to anything.
    target: float | None
    unit: str
    measure: Ratio | Value | Unmeasured
    # True if more is better.
    more: bool = True
    # The measurements that show it.
    kinds: tuple[str, ...] = ("full",)
    # The row only counts from this many leaves on.
    leaves_min: int = 0
    # What makes the value one that does not count.
    stand_in: str = ""


@dataclass(frozen=True)
class Measured:
    """A row with its value. `low` and `high` are over the runs."""

    value: float
    low: float
    high: float
    # None if the row has no target, or its value does not count.
    reached: bool | None
    note: str = ""


NO_RATE = "`deed bench append` cannot keep a fixed rate"
PEERS = ("peers", "full")
DEED = ("bench", "full")

ROWS: tuple[Row, ...] = (
    Row(
        "batches-postgres",
        "unsigned, batches of 256",
        "PostgreSQL, batches of 256, the better of 4 and 16 clients",
        2.5,
        "times",
        Ratio("deed.batches", POSTGRES_BATCHES),
        kinds=PEERS,
    ),
    Row(
        "one-postgres",
        "one at a time",
        "PostgreSQL, one client",
        1,
        "times",
        Ratio("deed.one", ("postgres.one",)),
        kinds=PEERS,
    ),
    Row(
        "many-postgres",
        "one a request, 1,024 in flight",
        "PostgreSQL, 64 clients",
        8,
        "times",
        Ratio("deed.many", ("postgres.many",)),
        kinds=PEERS,
    ),
    Row(
        "many-tessera",
        "one a request, 1,024 in flight",
        "Tessera's hammer, 1,024 writers",
        10,
        "times",
        Ratio("deed.many", ("tessera.many",)),
        kinds=PEERS,
    ),
    Row(
        "batches-tessera",
        "unsigned, batches of 256",
        "Tessera's hammer, 1,024 writers",
        60,
        "times",
        Ratio("deed.batches", ("tessera.many",)),
        kinds=PEERS,
    ),
    Row(
        "batches-nats",
        "unsigned, batches of 256",
        "NATS JetStream, atomic batches of 256",
        None,
        "times",
        Ratio("deed.batches", ("nats.batches",)),
        kinds=PEERS,
    ),
    Row(
        "one-nats",
        "one at a time",
        "NATS JetStream, one in flight",
        None,
        "times",
        Ratio("deed.one", ("nats.one",)),
        kinds=PEERS,
    ),
    Row(
        "many-nats",
        "one a request, 1,024 in flight",
        "NATS JetStream, 1,024 in flight",
        None,
        "times",
        Ratio("deed.many", ("nats.many",)),
        kinds=PEERS,
    ),
    Row(
        "batch-signed",
        "batches of 256 under one signature",
        "the same, unsigned",
        0.8,
        "times",
        Ratio("deed.batch-signed", ("deed.batches",)),
        kinds=DEED,
    ),
    Row(
        "signed-each",
        "each statement signed",
        "all cores doing nothing but sign and verify",
        0.7,
        "times",
        Ratio("deed.signed-each", ("openssl.ed25519",)),
        kinds=DEED,
        stand_in="does not count: nothing measures signing and `verify_strict` of "
        "ed25519-dalek, which Deed uses; OpenSSL stands in for it, and is slower",
    ),
    Row(
        "p99",
        "99th percentile at half of the highest rate, for 10 minutes",
        "one fdatasync",
        10,
        "fdatasyncs",
        Unmeasured(NO_RATE),
        more=False,
    ),
    Row(
        "stall",
        "the longest answer in the same run",
        "",
        100,
        "ms",
        Unmeasured(NO_RATE),
        more=False,
    ),
    Row(
        "proofs",
        "inclusion proofs of random leaves, 10,000,000 leaves",
        "",
        40_000,
        "a second",
        Unmeasured("`deed bench` asks for no proofs of leaves that are there already"),
    ),
    Row(
        "gated",
        "99th percentile of a gated act over loopback, 1,000 a second",
        "",
        3,
        "ms",
        Unmeasured("`deed bench` gates no acts, and cannot keep a fixed rate"),
        more=False,
    ),
    Row(
        "cedar",
        "Cedar for an Intent that waits",
        "",
        40,
        "us",
        Value("criterion.policy-waits"),
        more=False,
    ),
    Row(
        "memory",
        "memory of the server, 100,000,000 leaves",
        "",
        1,
        "GiB",
        Value("long.memory"),
        more=False,
        leaves_min=LEAVES_TARGET,
    ),
    Row(
        "disk",
        "disk for each statement of 256 bytes",
        "",
        400,
        "bytes",
        Value("long.disk"),
        more=False,
        leaves_min=LEAVES_TARGET,
    ),
    Row(
        "append-cost",
        "cost of the 100,000,000th append",
        "an append to a new ledger",
        1.1,
        "times",
        Ratio("long.new", ("long.grown",)),
        more=False,
        leaves_min=LEAVES_TARGET,
    ),
    Row(
        "restart",
        "start with 100,000,000 leaves, to the first receipt",
        "",
        2,
        "s",
        Value("long.restart"),
        more=False,
        leaves_min=LEAVES_TARGET,
    ),
)


def rows(kind: str) -> list[Row]:
    """Returns the rows that a measurement of this kind shows."""
    return [row for row in ROWS if kind in row.kinds]


def evaluate(row: Row, result: Result | None) -> Measured | str:
    """Returns the row's value in `result`, or why there is none."""
    if isinstance(row.measure, Unmeasured):
        return row.measure.why
    if result is None:
        why = "`make bench-full` did not run on a quiet machine yet"
        return f"{why}; {row.stand_in}" if row.stand_in else why
    names = [row.measure.of]
    if isinstance(row.measure, Ratio):
        names += row.measure.to
    for name in names:
        if name not in result.scenarios:
            return result.missing.get(name, f"this measurement has no {name}")
    return _judge(row, *[result.scenarios[name] for name in names])


def _judge(row: Row, scenario: Scenario, *others: Scenario) -> Measured:
    if others:
        other = max(others, key=lambda one: one.median)
        value = scenario.median / other.median
        # The runs were taken in turns: each is compared with the one that stood beside it.
        each = _turns(scenario.values, other.values)
    else:
        value, each = scenario.median, scenario.values
    notes = [row.stand_in] if row.stand_in else []
    leaves = scenario.leaves if not others else others[0].leaves
    if row.leaves_min and (leaves or 0) < row.leaves_min:
        notes.append(f"does not count: {leaves or 0:,} leaves")
    reached: bool | None = None
    if row.target is not None and not notes:
        reached = value >= row.target if row.more else value <= row.target
    return Measured(value, min(each), max(each), reached, "; ".join(notes))


def _turns(values: Sequence[float], others: Sequence[float]) -> list[float]:
    return [one / other for one, other in zip(values, others, strict=False)]


def counted_ratios(result: Result | None) -> Iterator[tuple[Row, Measured]]:
    """Yields the ratios to others that were measured and count."""
    for row in rows("full"):
        got = evaluate(row, result)
        if (
            isinstance(row.measure, Ratio)
            and isinstance(got, Measured)
            and not got.note
        ):
            yield row, got
