from __future__ import annotations

import tempfile
import unittest
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

from peers import nats, postgres, tessera
from run import deed, plot, report
from run.results import Result, Run, newest, read
from run.rows import ROWS, Measured, Row, Unmeasured, evaluate, rows
from run.session import ORDER, sign_and_verify


def result(**values: list[float]) -> Result:
    """Returns a result with these scenarios, in whose names `__` stands for a dot."""
    made = Result(
        "full", "2026-12-01T03:59:46Z", "0123456789", {"processor": "2 cores"}, {}
    )
    for name, runs in values.items():
        for one in runs:
            made.add(
                name.replace("__", ".").replace("_", "-"), name, "a second", Run(one)
            )
    return made


def row(id: str) -> Row:
    return next(row for row in ROWS if row.id == id)


class RowsTest(unittest.TestCase):
    def test_medians_are_compared_and_the_better_peer_counts(self) -> None:
        made = result(
            deed__batches=[300, 500, 400],
            postgres__batches_4=[100, 100, 100],
            postgres__batches_16=[200, 160, 100],
        )
        got = evaluate(row("batches-postgres"), made)
        assert isinstance(got, Measured)
        self.assertEqual((got.value, got.low, got.high), (2.5, 1.5, 4.0))
        self.assertTrue(got.reached)

    def test_less_can_be_better(self) -> None:
        made = result(long__new=[110], long__grown=[98])
        made.scenarios["long.grown"].leaves = 100_000_000
        got = evaluate(row("append-cost"), made)
        assert isinstance(got, Measured)
        self.assertEqual((got.reached, round(got.value, 3)), (False, 1.122))

    def test_a_shorter_ledger_does_not_count(self) -> None:
        made = result(long__restart=[0.5])
        made.scenarios["long.restart"].leaves = 1_000
        got = evaluate(row("restart"), made)
        assert isinstance(got, Measured)
        self.assertIsNone(got.reached)
        self.assertIn("1,000 leaves", got.note)

    def test_a_stand_in_does_not_count(self) -> None:
        made = result(deed__signed_each=[100], openssl__ed25519=[50])
        got = evaluate(row("signed-each"), made)
        assert isinstance(got, Measured)
        self.assertIsNone(got.reached)
        self.assertIn("does not count", got.note)

    def test_a_missing_peer_costs_its_rows_only(self) -> None:
        made = result(deed__many=[80], postgres__many=[10])
        made.drop("tessera.many", "Go is missing")
        self.assertEqual(evaluate(row("many-tessera"), made), "Go is missing")
        self.assertIsInstance(evaluate(row("many-postgres"), made), Measured)

    def test_what_nothing_measures_says_why(self) -> None:
        unmeasured = [row for row in ROWS if isinstance(row.measure, Unmeasured)]
        self.assertTrue(unmeasured)
        for one in unmeasured:
            self.assertIsInstance(evaluate(one, result()), str)

    def test_every_scenario_has_its_place(self) -> None:
        named = [*deed.APPEND, *postgres.SCENARIOS, *tessera.SCENARIOS, *nats.SCENARIOS]
        self.assertLessEqual(set(named), set(ORDER))
        self.assertEqual(len(ORDER), len(set(ORDER)))
        self.assertEqual(rows("full"), list(ROWS))

    def test_signing_and_verifying_one_after_the_other(self) -> None:
        self.assertAlmostEqual(sign_and_verify(30, 60), 20)


class ResultsTest(unittest.TestCase):
    def test_what_is_written_is_read(self) -> None:
        made = result(deed__one=[1, 2])
        made.scenarios["deed.one"].runs.append(Run(3, 1, 2, 3))
        made.growth = [(10, 1.5)]
        made.drop("nats.one", "Go is missing")
        with tempfile.TemporaryDirectory() as directory:
            path = made.write(Path(directory))
            self.assertEqual(path.name, "20261201T035946Z-0123456789-full.json")
            self.assertEqual(read(path), made)
            later = replace(made, date="2026-12-02T00:00:00Z", commit="0")
            later.write(Path(directory))
            self.assertEqual(newest(Path(directory), "full"), later)
            self.assertIsNone(newest(Path(directory), "peers"))
            path.write_text('{"format": 0}')
            with self.assertRaises(ValueError):
                read(path)


class ReportTest(unittest.TestCase):
    def test_without_a_result_each_row_says_why(self) -> None:
        lines = report.document(None)
        self.assertEqual(len(lines), 2 + len(ROWS))
        for line in lines[2:]:
            self.assertIn("not measured yet: ", line)
        self.assertEqual(report.summary(None), [])

    def test_tables_have_the_figures(self) -> None:
        made = result(deed__one=[110, 100, 120], postgres__one=[100, 100, 100])
        made.growth = [(1_000, 5.0), (2_000, 4.0)]
        text = "\n".join(report.document(made))
        self.assertIn("| at least 1 times | yes | 1.1 times (1 to 1.2) |", text)
        self.assertIn("performance-ratios.svg", text)
        self.assertIn("performance-growth.svg", text)
        self.assertIn("2026-12-01T03:59:46Z, 0123456789", text)
        self.assertIn(
            "| one at a time | PostgreSQL, one client | 1.1 |", report.summary(made)
        )
        self.assertIn("| on 2 cores | median | unit |", report.summary(made))
        self.assertIn("1.1 times", report.terminal(made))

    def test_only_what_is_between_the_markers_changes(self) -> None:
        text = f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n"
        new = report.replaced(text, ["a", "b"])
        self.assertEqual(new, f"before\n{report.BEGIN}\na\nb\n{report.END}\nafter\n")
        self.assertEqual(report.replaced(new, ["a", "b"]), new)
        with self.assertRaises(ValueError):
            report.replaced("no markers", ["a"])

    def test_figures_have_three_digits_that_count(self) -> None:
        for number, text in (
            (142_080, "142,000"),
            (999.6, "1,000"),
            (12.34, "12.3"),
            (2.0, "2"),
            (0.8421, "0.842"),
            (0.0123, "0.0123"),
            (0, "0"),
            (40_000, "40,000"),
        ):
            self.assertEqual(report.figure(number), text)

    def test_plots_are_xml(self) -> None:
        made = result(deed__one=[110], postgres__one=[100])
        svg = ElementTree.fromstring(plot.ratios(made))
        self.assertTrue(svg.tag.endswith("svg"))
        self.assertEqual(plot.ratios(result()), "")
        ElementTree.fromstring(plot.growth([(100, 3.0), (200, 2.0)]))

    def test_axes_have_round_numbers(self) -> None:
        self.assertEqual(list(plot.steps(179_482)), [0, 50_000, 100_000, 150_000])
        self.assertEqual(list(plot.steps(100_000_000))[1], 20_000_000)
        self.assertEqual(list(plot.steps(3.3)), [0, 1, 2, 3])


if __name__ == "__main__":
    unittest.main()
