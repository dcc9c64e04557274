"""Draws what was measured, as SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from xml.sax.saxutils import escape

from run.results import Result
from run.rows import counted_ratios

WIDTH = 900
TEXT = 470
BAR = 22
STEP = 34
MARGIN = 16
STYLE = (
    "text{font:13px sans-serif;fill:#222}.bar{fill:#3b6ea5}.target{stroke:#c0392b;stroke-width:2}"
    ".axis{stroke:#bbb}.line{fill:none;stroke:#3b6ea5;stroke-width:2}.page{fill:#fff}"
)


def ratios(result: Result) -> str:
    """Returns a bar for each ratio that counts, on a logarithmic scale, with its target.

    The text is empty if there is none.
    """
    bars: list[tuple[str, float, float | None]] = []
    for row, got in counted_ratios(result):
        bars.append((f"{row.what} / {row.against}", got.value, row.target))
    if not bars:
        return ""
    numbers = [number for _, one, target in bars for number in (one, target or one)]
    low, high = min(0.5, *numbers) / 1.2, max(2.0, *numbers) * 1.2

    def x(value: float) -> float:
        part = math.log(value / low) / math.log(high / low)
        return TEXT + part * (WIDTH - TEXT - 70)

    height = MARGIN * 2 + STEP * len(bars) + 20
    lines = [
        f'<line class="axis" x1="{x(1):.0f}" x2="{x(1):.0f}" y1="0" y2="{height - 24}"/>'
    ]
    for place, (title, value, target) in enumerate(bars):
        top = MARGIN + STEP * place
        middle = top + BAR - 6
        lines.append(_text(TEXT - 8, middle, _short(title), "end"))
        lines.append(
            f'<rect class="bar" x="{TEXT}" y="{top}" width="{x(value) - TEXT:.0f}" height="{BAR}"/>'
        )
        lines.append(
            _text(WIDTH - 8, middle, f"{value:.2f}".rstrip("0").rstrip("."), "end")
        )
        if target is not None:
            at = f"{x(target):.0f}"
            lines.append(
                f'<line class="target" x1="{at}" x2="{at}" y1="{top - 4}" y2="{top + BAR + 4}"/>'
            )
    lines.append(_text(x(1), height - 8, "1", "middle"))
    lines.append(
        _text(TEXT - 8, height - 8, "red: the target; logarithmic scale", "end")
    )
    return _svg(height, lines)


def growth(points: Sequence[tuple[int, float]]) -> str:
    """Returns the statements a second by the size of the ledger."""
    height, left, bottom = 320, 90, 280
    most_leaves = max(size for size, _ in points)
    most = max(rate for _, rate in points) * 1.1

    def place(size: float, rate: float) -> tuple[float, float]:
        x = left + size / most_leaves * (WIDTH - left - 40)
        return x, bottom - rate / most * (bottom - MARGIN)

    lines = []
    for rate in steps(most):
        _, y = place(0, rate)
        lines.append(
            f'<line class="axis" x1="{left}" x2="{WIDTH - 40}" y1="{y:.0f}" y2="{y:.0f}"/>'
        )
        lines.append(_text(left - 8, y + 4, f"{rate:,}", "end"))
    for size in steps(most_leaves):
        x, _ = place(size, 0)
        lines.append(_text(x, bottom + 18, f"{size:,}", "middle"))
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in points))
    lines.append(f'<polyline class="line" points="{path}"/>')
    lines.append(
        _text(WIDTH / 2, height - 4, "leaves; upwards: statements a second", "middle")
    )
    return _svg(height, lines)


def steps(most: float) -> range:
    """Returns round numbers from 0 to `most`, five at most besides 0."""
    power = 10 ** max(0, math.floor(math.log10(most)) - 1)
    step = next(power * one for one in (1, 2, 5, 10, 20) if power * one * 5 >= most)
    return range(0, int(most) + 1, step)


def _svg(height: int, lines: Sequence[str]) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}">'
    page = f'<rect class="page" width="{WIDTH}" height="{height}"/>'
    return "\n".join([head, f"<style>{STYLE}</style>", page, *lines, "</svg>"]) + "\n"


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}">{escape(text)}</text>'


def _short(title: str) -> str:
    return title if len(title) <= 66 else f"{title[:65]}…"
