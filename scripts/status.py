"""`make status`: what is registered, what is deployed and healthy, and how the last load test went."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from scripts import formats
from scripts.errors import SlipwayError
from scripts.platforms import connect
from scripts.platforms.base import Deployment, ModelVersion
from scripts.records import Records
from scripts.verb import Context, Result, run_verb

if TYPE_CHECKING:
    from rich.table import Table

T = TypeVar("T")

#: Versions named before the rest is only counted.
SHOWN = 8


def attempt(read: Callable[[], T]) -> T | str:
    """What `read` gives, or why it cannot: one broken part must not hide the others."""
    try:
        return read()
    except SlipwayError as error:
        return f"[red]cannot be read:[/red] {_plain(error.message)}"


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def champion_line(versions: Sequence[ModelVersion] | str) -> str:
    """The newest version and the run it came from."""
    if isinstance(versions, str):
        return versions
    if not versions:
        return "[dim]none yet: `make all` trains and registers the first[/dim]"
    newest = versions[0]
    return f"[bold]{_plain(newest.name)} version {newest.version}[/bold], run {newest.run_id}"


def versions_line(versions: Sequence[ModelVersion] | str) -> str:
    """All versions, the newest first."""
    if isinstance(versions, str) or not versions:
        return "[dim]–[/dim]"
    named = ", ".join(str(item.version) for item in versions[:SHOWN])
    rest = len(versions) - SHOWN
    return f"{named} and {rest} before them" if rest > 0 else named


def deployment_lines(history: Sequence[Deployment] | str) -> list[tuple[str, str]]:
    """A line for each deployment still here, the serving one first."""
    if isinstance(history, str):
        return [("deployed", history)]
    if not any(item.serving for item in history):
        lines = [("deployed", "[dim]nothing serves: `make deploy`[/dim]")]
    else:
        lines = []
    for item in sorted(history, key=lambda item: (not item.serving, -item.number)):
        model = f"{_plain(item.model_name)} version {item.version}"
        began = formats.moment(item.started)
        if item.serving:
            health = "[green]healthy[/green]" if item.healthy else "[red]not healthy[/red]"
            text = f"[bold]{model}[/bold] at {item.url}, {health}, {item.kind} {item.number}, since {began}"
            lines.append(("deployed", text))
        else:
            lines.append(("kept", f"[dim]{model}, {item.kind} {item.number} of {began}[/dim]"))
    return lines


def load_line(records: Records) -> str:
    """The last load test, passed or not."""
    failed, record = records.find_failed("load"), records.find("load")
    if failed is not None:
        return f"[red]failed:[/red] {_plain(str(failed.get('message', '')))} ({formats.moment(failed.get('time'))})"
    if record is None:
        return "[dim]not run: `make load`[/dim]"
    return f"[green]passed:[/green] {_plain(str(record['message']))} ({formats.moment(record['time'])})"


def table(context: Context) -> Table:
    """Everything in one table; parts that cannot be read say so."""
    from rich import box
    from rich.table import Table

    platform = connect(context.root, context.settings)
    name = context.settings.MODEL_NAME
    versions: Sequence[ModelVersion] | str = "[red]MODEL_NAME is not set[/red]"
    if name is not None:
        versions = attempt(lambda: platform.tracking.versions(name))
    rows = [("champion", champion_line(versions)), ("versions", versions_line(versions))]
    rows += deployment_lines(attempt(lambda: platform.service.history()))
    rows.append(("load test", str(attempt(lambda: load_line(context.records)))))
    shown = Table(box=box.ROUNDED, show_header=False, border_style="dim")
    shown.add_column(style="cyan", no_wrap=True)
    shown.add_column(overflow="fold")
    before = None
    for label, text in rows:
        if before is not None and label != before:
            shown.add_section()
        shown.add_row("" if label == before else label, text)
        before = label
    return shown


def run(context: Context) -> Result:
    """Print the table."""
    from rich.console import Console

    # Where no terminal tells its width, lines are not broken: they are read by a program.
    width = None if sys.stdout.isatty() else int(os.environ.get("COLUMNS") or 160)
    # NO_COLOR alone leaves rich its bold and dim.
    plain: dict[str, Any] = {"color_system": None} if os.environ.get("NO_COLOR") else {}
    Console(width=width, highlight=False, **plain).print(table(context))
    return Result(f"platform {context.settings.PLATFORM}, records in {context.records.folder}")


def main() -> int:
    return run_verb("status", run)


if __name__ == "__main__":
    sys.exit(main())
