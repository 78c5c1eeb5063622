"""The figures for a person: tables on the terminal, and bars in a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.figures import (
    TARGET_CONNECTIONS,
    THROUGHPUT,
    Figure,
    Footprint,
    Ratio,
    Target,
)

_COLOURS = ("#2563eb", "#d97706", "#059669", "#7c3aed")
_INK = "#1f2937"


def show(
    console: Console,
    found: Sequence[Figure],
    sizes: Sequence[Footprint],
    compared: Sequence[Ratio],
    batch: Mapping[str, Any],
    judged: Sequence[Target],
) -> None:
    """Print the tables; `console` knows the terminal's width, and whether it has colours."""
    speed = _table("Medians", "server", "rows", "conns", "requests/s", "p50 ms", "p99 ms", "CPU us")
    for each in found:
        speed.add_row(
            *(each.server, f"{each.rows:,}", str(each.connections)),
            *(f"{each.requests_per_second:,.0f}", f"{each.p50_ms:.2f}", f"{each.p99_ms:.2f}"),
            f"{each.processor_us:,.0f}",
        )
    console.print(speed)
    start = _table("Start and memory", "server", "cold start s", "PSS MB", "RSS MB")
    for size in sizes:
        start.add_row(
            size.server, f"{size.cold_start:.2f}", f"{size.pss_mb:.0f}", f"{size.rss_mb:.0f}"
        )
    console.print(start)
    if compared:
        times = _table("Ratios", "server", "over", "rows", "conns", "requests/s", "p99", "CPU")
        for ratio in compared:
            times.add_row(
                *(ratio.server, ratio.peer, f"{ratio.rows:,}", str(ratio.connections)),
                *(f"{ratio.throughput:.1f} x", f"{ratio.p99:.3f} x", f"{ratio.processor:.1f} x"),
            )
        console.print(times)
    files = _table("Batch scoring", "program", "rows/s", "peak MB")
    for side, speed_of in batch["median_rows_per_second"].items():
        files.add_row(side, f"{speed_of:,.0f}", f"{batch['peak_bytes'][side] / 1e6:.0f}")
    console.print(files)
    if judged:
        goals = _table("Targets", "target", "is", "should be", "met")
        for goal in judged:
            mark = "[green]yes[/]" if goal.met else "[red]no[/]"
            limit = f"{goal.bound} {goal.limit:g} {goal.unit}"
            goals.add_row(goal.name, f"{goal.value:.3g} {goal.unit}", limit, mark)
        console.print(goals)


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    words = {"server", "over", "target", "should be", "met"}
    for column in columns:
        table.add_column(column, justify="left" if column in words else "right")
    return table


def draw(path: Path, compared: Sequence[Ratio]) -> None:
    """Draw how many times each peer's throughput ours is, on 8 connections, targets as lines."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Picture

    shown = [ratio for ratio in compared if ratio.connections == TARGET_CONNECTIONS]
    peers = list(dict.fromkeys(ratio.peer for ratio in shown))
    servers = list(dict.fromkeys(ratio.server for ratio in shown))
    counts = list(dict.fromkeys(ratio.rows for ratio in shown))
    picture = Picture(figsize=(4.6 * max(len(peers), 1), 4.2), layout="constrained")
    FigureCanvasAgg(picture)
    width = 0.8 / max(len(servers), 1)
    for number, peer in enumerate(peers):
        axes = picture.add_subplot(1, len(peers), number + 1)
        for index, server in enumerate(servers):
            mine = {each.rows: each for each in shown if (each.peer, each.server) == (peer, server)}
            places = [
                place + (index - (len(servers) - 1) / 2) * width for place in range(len(counts))
            ]
            heights = [mine[rows].throughput for rows in counts]
            bars = axes.bar(
                places, heights, width * 0.92, label=server, color=_COLOURS[index % len(_COLOURS)]
            )
            axes.bar_label(bars, fmt="%.1f", fontsize=8, color=_INK)
            goals = THROUGHPUT.get(server.removeprefix("slipway "), {})
            for place, rows in zip(places, counts, strict=True):
                if peer == "azureml" and rows in goals:
                    ends = (place - width / 2, place + width / 2)
                    axes.hlines(goals[rows], *ends, color=_INK, linewidth=1.6)
        axes.set_xticks(range(len(counts)), [f"{rows:,} row{'s' * (rows > 1)}" for rows in counts])
        axes.set_title(f"times the requests per second of {peer}", color=_INK, fontsize=10)
        axes.grid(alpha=0.25, axis="y")
        axes.set_axisbelow(True)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        if peer == "azureml":
            axes.plot([], [], color=_INK, linewidth=1.6, label="target")
        axes.legend(frameon=False, fontsize=8)
    picture.savefig(path, dpi=130)
