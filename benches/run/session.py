"""Takes the runs of all scenarios in turns, so that each comparison is of the same minutes."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from peers import nats, postgres, tessera
from run import deed, machine
from run.process import Child, Unavailable, settle
from run.results import Result, Run

CONTENTS = 4000
SIGNED = ("deed.batch-signed", "deed.signed-each")
# What is compared stands side by side, so that it is measured within the same seconds.
ORDER = (
    "postgres.batches-4",
    "deed.batches",
    "postgres.batches-16",
    "nats.batches",
    "deed.batch-signed",
    "deed.signed-each",
    "openssl.ed25519",
    "postgres.one",
    "deed.one",
    "nats.one",
    "postgres.many",
    "deed.many",
    "tessera.many",
    "nats.many",
    "deed.contents",
)


@dataclass(frozen=True)
class Lengths:
    """How often and how long is measured."""

    rounds: int
    seconds: int
    warmup_seconds: int

    @classmethod
    def of(cls, kind: str) -> Lengths:
        """Returns the lengths for a kind of measurement, or those of the environment."""
        rounds, seconds, warmup = (5, 8, 4) if kind == "full" else (3, 4, 1)
        return cls(
            number("DEED_BENCH_ROUNDS", rounds),
            number("DEED_BENCH_SECONDS", seconds),
            number("DEED_BENCH_WARMUP_SECONDS", warmup, least=0),
        )


@dataclass(frozen=True)
class Scenario:
    """Something that can be measured again and again."""

    id: str
    title: str
    unit: str
    measure: Callable[[], Run]


@dataclass
class Session:
    """All servers that run, and the scenarios on them in their order."""

    result: Result
    lengths: Lengths
    scenarios: list[Scenario] = field(default_factory=list)
    children: list[Child] = field(default_factory=list)

    def add(self, id: str, title: str, unit: str, measure: Callable[[], Run]) -> None:
        self.scenarios.append(Scenario(id, title, unit, measure))

    def take_turns(self) -> None:
        """Measures each scenario once, in turn, and that as often as there are rounds."""
        for turn in range(1, self.lengths.rounds + 1):
            say(f"round {turn} of {self.lengths.rounds}")
            for scenario in self.scenarios:
                if scenario.id not in self.result.missing:
                    self._take(scenario)

    def _take(self, scenario: Scenario) -> None:
        settle(self.children)
        try:
            run = scenario.measure()
        except Unavailable as error:
            self.result.drop(scenario.id, str(error))
            say(f"  {scenario.title}: not measured: {error}")
            return
        self.result.add(scenario.id, scenario.title, scenario.unit, run)
        say(f"  {scenario.title}: {run.value:,.0f} {scenario.unit}")


@contextmanager
def opened(
    kind: str,
    result: Result,
    lengths: Lengths,
    programs: deed.Programs,
    space: Path,
    root: Path,
) -> Iterator[Session]:
    """Starts Deed, and for a comparison the peers that are here; ends them after the block."""
    session = Session(result, lengths)
    with ExitStack() as stack:
        result.versions["Deed"] = programs.version()
        server = stack.enter_context(deed.serving(programs, space / "deed"))
        session.children.append(server.child)
        for id in deed.APPEND:
            if kind != "peers" or id not in SIGNED:
                session.add(
                    id, deed.APPEND[id][0], "statements/s", _append(session, server, id)
                )
        if kind in ("bench", "full"):
            _add_alone(session, server)
        if kind in ("peers", "full"):
            _add_peers(session, stack, space, root)
        session.scenarios.sort(key=lambda scenario: ORDER.index(scenario.id))
        yield session


def _add_alone(session: Session, server: deed.Deed) -> None:
    """Adds what is not held against a peer."""
    session.add(
        "openssl.ed25519",
        "OpenSSL's Ed25519 on all cores, to sign and verify",
        "statements/s",
        lambda: Run(sign_and_verify(*machine.ed25519_rates(os.cpu_count() or 1))),
    )
    session.add(
        "deed.contents",
        "Deed, contents of 8 KiB, attached",
        "contents/s",
        lambda: server.contents(CONTENTS),
    )


def _add_peers(session: Session, stack: ExitStack, space: Path, root: Path) -> None:
    """Starts the peers that are here, and adds their scenarios."""
    lengths = session.lengths
    with _optional(session, "PostgreSQL", list(postgres.SCENARIOS)):
        rows = stack.enter_context(postgres.serving(space / "postgres"))
        session.result.versions["PostgreSQL"] = rows.version()
        session.children.append(rows.child)
        for id, (_, _, title) in postgres.SCENARIOS.items():
            session.add(id, title, "rows/s", _postgres(session, rows, id))
    with _optional(session, "Tessera", list(tessera.SCENARIOS)):
        log = stack.enter_context(tessera.serving(space / "tessera", root))
        session.result.versions["Tessera"] = tessera.VERSION
        session.children.append(log.child)
        for id, title in tessera.SCENARIOS.items():
            session.add(
                id,
                title,
                "entries/s",
                lambda: log.measure(lengths.seconds, lengths.warmup_seconds),
            )
    with _optional(session, "NATS", list(nats.SCENARIOS)):
        stream = stack.enter_context(nats.serving(space / "nats", root))
        session.result.versions["NATS"] = nats.VERSION
        session.children.append(stream.child)
        for id, (_, _, title) in nats.SCENARIOS.items():
            session.add(id, title, "messages/s", _nats(session, stream, id))


def _append(session: Session, server: deed.Deed, id: str) -> Callable[[], Run]:
    lengths, options = session.lengths, deed.APPEND[id][1]
    return lambda: server.append(options, lengths.seconds, lengths.warmup_seconds)


def _postgres(session: Session, peer: postgres.Postgres, id: str) -> Callable[[], Run]:
    lengths = session.lengths
    return lambda: peer.measure(id, lengths.seconds, lengths.warmup_seconds)


def _nats(session: Session, peer: nats.Nats, id: str) -> Callable[[], Run]:
    lengths = session.lengths
    return lambda: peer.measure(id, lengths.seconds, lengths.warmup_seconds)


@contextmanager
def _optional(session: Session, name: str, scenarios: list[str]) -> Iterator[None]:
    """Notes why the scenarios of a peer cannot be measured, and goes on without them."""
    say(f"starting {name} (the first time it may have to be built)")
    try:
        yield
    except Unavailable as error:
        say(f"  not measured: {error}")
        for scenario in scenarios:
            session.result.drop(scenario, str(error))


def sign_and_verify(sign: float, verify: float) -> float:
    """Returns how often a second something can be signed and verified, one after the other."""
    return 1 / (1 / sign + 1 / verify)


def number(name: str, default: int, least: int = 1) -> int:
    """Returns a whole number of the environment."""
    text = os.environ.get(name) or str(default)
    if not text.isdigit() or int(text) < least:
        raise Unavailable(
            f"{name} is {text!r}: it takes a whole number from {least} on"
        )
    return int(text)


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)
