"""`make bench`, `make bench-peers`, `make bench-full` and `make bench-report`."""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path

from run import long, machine, report
from run.deed import Programs
from run.process import (
    Unavailable,
    end_in_order,
    raise_open_files,
    run,
    workspace,
)
from run.results import Result
from run.session import Lengths, opened, say

ROOT = Path(__file__).resolve().parents[2]


def main() -> int:
    parser = argparse.ArgumentParser(prog="run", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("bench", help="Deed alone, short")
    commands.add_parser("peers", help="Deed beside PostgreSQL, Tessera and NATS, short")
    commands.add_parser("full", help="all of it, and what takes long")
    tables = commands.add_parser("report", help="write the tables of the documentation")
    tables.add_argument(
        "--check", action="store_true", help="only say what is not up to date"
    )
    arguments = parser.parse_args()
    end_in_order()
    try:
        if arguments.command == "report":
            return write_report(arguments.check)
        return measure(arguments.command)
    except Unavailable as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("bench: interrupted", file=sys.stderr)
        return 130


def measure(kind: str) -> int:
    """Measures, prints the tables, and writes the result to benches/results/."""
    raise_open_files()
    lengths = Lengths.of(kind)
    programs = Programs.find(ROOT)
    with workspace() as space:
        say("looking at the machine")
        result = Result(
            kind=kind,
            date=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            commit=commit(),
            machine=machine.describe(space),
            parameters={
                "runs": f"{lengths.rounds} of {lengths.seconds} s each, in turns, "
                f"after {lengths.warmup_seconds} s of warm-up",
            },
        )
        with opened(kind, result, lengths, programs, space, ROOT) as session:
            session.take_turns()
        if kind == "full":
            long.read_criterion(result, ROOT)
            long.measure(result, lengths, programs, space)
    print(report.terminal(result))
    path = result.write(ROOT / "benches/results")
    say(f"written to {path.relative_to(ROOT)}")
    if kind == "full":
        write_report(check=False)
    failed = [why for name, why in result.missing.items() if name.startswith("deed.")]
    if failed:
        raise Unavailable(f"Deed itself was not measured: {failed[0]}")
    return 0


def write_report(check: bool) -> int:
    """Writes the generated files, or says which of them are not up to date."""
    stale = [
        path for path, text in report.files(ROOT).items() if not is_same(path, text)
    ]
    for path in stale:
        name = path.relative_to(ROOT)
        if check:
            print(
                f"{name} is not what benches/results/ says: make bench-report",
                file=sys.stderr,
            )
        else:
            path.write_text(report.files(ROOT)[path])
            say(f"wrote {name}")
    return 1 if check and stale else 0


def is_same(path: Path, text: str) -> bool:
    return path.exists() and path.read_text() == text


def commit() -> str:
    """Returns the commit of the checkout, with a mark if files of it were changed."""
    try:
        changed = run(
            ["git", "status", "--porcelain", "--untracked-files=no"], cwd=ROOT
        )
        name = run(["git", "rev-parse", "--short=10", "HEAD"], cwd=ROOT).strip()
    except (Unavailable, FileNotFoundError):
        return "unknown"
    return f"{name}-changed" if changed.strip() else name


if __name__ == "__main__":
    sys.exit(main())
