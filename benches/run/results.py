"""What was measured, and the JSON file of it."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

FORMAT = 1


@dataclass(frozen=True)
class Run:
    """One run of a scenario. Latencies are of a request, and are left out where unknown."""

    value: float
    p50_us: float | None = None
    p99_us: float | None = None
    max_us: float | None = None


@dataclass
class Scenario:
    """All runs of one scenario."""

    title: str
    unit: str
    runs: list[Run] = field(default_factory=list)
    # Leaves in the ledger, where the scenario depends on them.
    leaves: int | None = None

    @property
    def values(self) -> list[float]:
        return [run.value for run in self.runs]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    def median_of(self, latency: str) -> float | None:
        """Returns the median over the runs of `p50_us`, `p99_us` or `max_us`."""
        known = [getattr(run, latency) for run in self.runs]
        values = [float(value) for value in known if value is not None]
        return statistics.median(values) if values else None


@dataclass
class Result:
    """One measurement: a machine, a commit, and all scenarios in turns."""

    kind: str
    date: str
    commit: str
    machine: dict[str, str]
    parameters: dict[str, str]
    versions: dict[str, str] = field(default_factory=dict)
    scenarios: dict[str, Scenario] = field(default_factory=dict)
    # Scenarios that could not be measured, and why.
    missing: dict[str, str] = field(default_factory=dict)
    # Statements a second while a ledger was filled, by its size.
    growth: list[tuple[int, float]] = field(default_factory=list)

    def add(self, scenario: str, title: str, unit: str, run: Run) -> None:
        self.scenarios.setdefault(scenario, Scenario(title, unit)).runs.append(run)

    def drop(self, scenario: str, why: str) -> None:
        """Notes that a scenario could not be measured; the runs that it has do not count."""
        self.scenarios.pop(scenario, None)
        self.missing[scenario] = why

    def write(self, directory: Path) -> Path:
        """Writes the result to a file of its own in `directory`, and returns its path."""
        directory.mkdir(parents=True, exist_ok=True)
        stamp = self.date.replace(":", "").replace("-", "")
        path = directory / f"{stamp}-{self.commit}-{self.kind}.json"
        path.write_text(json.dumps({"format": FORMAT, **asdict(self)}, indent=1) + "\n")
        return path


def read(path: Path) -> Result:
    """Reads a file that `Result.write` wrote."""
    data = json.loads(path.read_text())
    if not isinstance(data, dict) or data.pop("format", None) != FORMAT:
        raise ValueError(f"{path} is not a result of format {FORMAT}")
    scenarios = {name: _scenario(one) for name, one in data.pop("scenarios").items()}
    growth = [(int(size), float(rate)) for size, rate in data.pop("growth")]
    return Result(**data, scenarios=scenarios, growth=growth)


def newest(directory: Path, kind: str) -> Result | None:
    """Returns the newest result of a kind in `directory`, or None."""
    paths = sorted(directory.glob(f"*-{kind}.json"))
    return read(paths[-1]) if paths else None


def _scenario(data: Mapping[str, object]) -> Scenario:
    fields = dict(data)
    runs = fields.pop("runs")
    assert isinstance(runs, list)
    return Scenario(**fields, runs=[Run(**run) for run in runs])  # type: ignore[arg-type]
