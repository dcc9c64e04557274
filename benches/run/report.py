"""Writes what was measured as tables, for the terminal and for the documentation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from run import plot
from run.results import Result, Scenario, newest
from run.rows import Measured, Row, counted_ratios, evaluate, rows

BEGIN = "<!-- bench:begin: written by make bench-report from benches/results/; do not edit -->"
END = "<!-- bench:end -->"
LATENCIES = ("p50_us", "p99_us", "max_us")

Table = list[list[str]]


def row_table(result: Result | None, kind: str) -> Table:
    """Returns the rows with their targets."""
    table = [
        ["what", "against", "target", "reached", "measured: median (lowest to highest)"]
    ]
    for row in rows(kind):
        table.append([row.what, row.against, target(row), *measured(row, result)])
    return table


def target(row: Row) -> str:
    if row.target is None:
        return ""
    return f"{'at least' if row.more else 'at most'} {figure(row.target)} {row.unit}"


def measured(row: Row, result: Result | None) -> list[str]:
    """Returns the cells of a row's verdict and value."""
    got = evaluate(row, result)
    if isinstance(got, str):
        return ["", f"not measured yet: {got}"]
    return [{True: "yes", False: "no", None: ""}[got.reached], value(row, got)]


def value(row: Row, got: Measured) -> str:
    text = f"{figure(got.value)} {row.unit}"
    if got.low != got.high:
        text += f" ({figure(got.low)} to {figure(got.high)})"
    return f"{text}; {got.note}" if got.note else text


def scenario_table(result: Result) -> Table:
    """Returns the absolute figures."""
    table = [
        [
            "scenario",
            "unit",
            "lowest",
            "median",
            "highest",
            "median of p50, p99 and longest, ms",
        ]
    ]
    for scenario in result.scenarios.values():
        values = scenario.values
        lowest, highest = figure(min(values)), figure(max(values))
        cells = [lowest, figure(scenario.median), highest, latencies(scenario)]
        table.append([scenario.title, scenario.unit, *cells])
    return table


def latencies(scenario: Scenario) -> str:
    known = [scenario.median_of(latency) for latency in LATENCIES]
    return ", ".join(figure(one / 1000) for one in known if one is not None)


def machine_table(result: Result) -> Table:
    table = [["", ""]]
    table += [[name, text] for name, text in result.machine.items()]
    table += [[name, text] for name, text in result.parameters.items()]
    table += [[name, version] for name, version in result.versions.items()]
    table.append(["date and commit", f"{result.date}, {result.commit}"])
    return table


def figure(number: float) -> str:
    """Returns a number with three digits that count, and not more."""
    if abs(number) >= 100:
        return f"{round(number, 2 - len(str(int(abs(number)))) + 1):,.0f}"
    for digits, least in ((1, 10), (2, 1), (3, 0.1)):
        if abs(number) >= least:
            text = f"{number:.{digits}f}"
            return text.rstrip("0").rstrip(".")
    return f"{number:.3g}"


def plain(table: Table) -> str:
    """Returns a table for the terminal."""
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    # The last columns may be long sentences, which nothing has to line up behind.
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip()
        for row in table
    ]
    return "\n".join(lines)


def markdown(table: Table) -> list[str]:
    head, *body = table
    rule = ["---"] * len(head)
    return [f"| {' | '.join(row)} |".replace("  ", " ") for row in (head, rule, *body)]


def terminal(result: Result) -> str:
    """Returns all that a measurement shows at the terminal."""
    parts = [
        row_table(result, result.kind),
        scenario_table(result),
        machine_table(result),
    ]
    return "\n\n".join(plain(part).strip("\n") for part in parts)


def document(result: Result | None) -> list[str]:
    """Returns the generated part of docs/performance.md."""
    lines = markdown(row_table(result, "full"))
    if result is None:
        return lines
    if plot.ratios(result):
        lines += ["", "![Ratios and their targets](performance-ratios.svg)"]
    if result.growth:
        lines += [
            "",
            "![Statements a second by the size of the ledger](performance-growth.svg)",
        ]
    lines += [
        "",
        "Absolute figures of the same run:",
        "",
        *markdown(scenario_table(result)),
    ]
    lines += ["", "The machine:", "", *markdown(machine_table(result))]
    return lines


def summary(result: Result | None) -> list[str]:
    """Returns the generated part of README.md: ratios first, then figures with their machine."""
    if result is None:
        return []
    table = [["Deed", "against", "ratio"]]
    for row, got in counted_ratios(result):
        table.append([row.what, row.against, figure(got.value)])
    machine = result.machine.get("processor", "an unknown machine")
    figures = [[f"on {machine}", "median", "unit"]]
    for name, scenario in result.scenarios.items():
        if name.startswith("deed."):
            title = scenario.title.removeprefix("Deed, ")
            figures.append([title, figure(scenario.median), scenario.unit])
    return [*markdown(table), "", *markdown(figures)]


def replaced(text: str, lines: Sequence[str]) -> str:
    """Returns `text` with other lines between the markers."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"there is no {BEGIN} with {END} behind it")
    body = "".join(f"{line}\n" for line in lines)
    return f"{before}{begin}\n{body}{end}{after}"


def files(root: Path) -> dict[Path, str]:
    """Returns each generated file with its text, from the newest full measurement."""
    result = newest(root / "benches/results", "full")
    docs = root / "docs"
    wanted = {
        docs / "performance.md": document(result),
        root / "README.md": summary(result),
    }
    texts = {path: replaced(path.read_text(), lines) for path, lines in wanted.items()}
    if result is not None and (ratios := plot.ratios(result)):
        texts[docs / "performance-ratios.svg"] = ratios
    if result is not None and result.growth:
        texts[docs / "performance-growth.svg"] = plot.growth(result.growth)
    return texts
