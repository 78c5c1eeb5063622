"""`make report`: one page that tells the whole release, whatever became of it."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts import charts, console, formats
from scripts.errors import SlipwayError
from scripts.platforms import connect
from scripts.platforms.base import ModelVersion
from scripts.records import PREPARING, STAGES, Record, Records, write_atomic
from scripts.settings import SECRETS, Settings
from scripts.verb import Context, Result, now, run_verb

TEMPLATES = Path(__file__).parent / "templates"
MEDIA = {".png": "image/png", ".svg": "image/svg+xml", ".jpg": "image/jpeg"}


@dataclass(frozen=True)
class Stage:
    """A stage as the page shows it.

    `state` is done, kept, failed, refused, interrupted, earlier (its record is of the release before
    this one) or missing.
    """

    name: str
    state: str
    record: Record

    @property
    def ended_badly(self) -> bool:
        return self.state in ("failed", "refused", "interrupted")


@dataclass(frozen=True)
class Verdict:
    """What the page says first."""

    tone: str  # good, kept, bad or open
    title: str
    text: str
    mend: str = ""


def follows(name: str, record: Record, before: Mapping[str, Record]) -> bool:
    """Whether a stage's record continues those before it, rather than an earlier release."""

    def same(mine: Any, stage: str, theirs: str) -> bool:
        return stage not in before or mine == before[stage].get(theirs)

    if name == "evaluate":
        return same((record.get("candidate") or {}).get("run_id"), "train", "run_id")
    if name == "register" and record.get("registered"):
        candidate = before.get("evaluate", {}).get("candidate") or {}
        return bool(record.get("run_id") == candidate.get("run_id"))
    if name == "deploy" and not record.get("rolled_back"):
        return same(record.get("inputs"), "image", "inputs")
    if name in ("smoke", "load"):
        return same(record.get("deployment"), "deploy", "deployment")
    return True


def read_stages(records: Records) -> list[Stage]:
    """Every stage but the report itself, in the order data flows; before them what kept them out."""
    stages: list[Stage] = []
    before: dict[str, Record] = {}
    broken = False
    for name in (*PREPARING, *STAGES[:-1]):
        failed, done = records.find_failed(name), records.find(name)
        if name in PREPARING and failed is None:
            continue
        if failed is not None:
            code = int(failed.get("code", 1))
            state = "refused" if code == 3 else "interrupted" if code > 128 else "failed"
            stages.append(Stage(name, state, failed))
            broken = True
        elif done is None:
            stages.append(Stage(name, "missing", {}))
        else:
            broken = broken or not follows(name, done, before)
            stages.append(Stage(name, "earlier" if broken else str(done["outcome"]), done))
            before[name] = done
    return stages


def judge(stages: Sequence[Stage]) -> Verdict:
    """The release in one sentence."""
    by_name = {stage.name: stage for stage in stages}
    bad = next((stage for stage in stages if stage.ended_badly), None)
    if bad is not None:
        record = bad.record
        return Verdict(
            "bad",
            f"{bad.state.capitalize()} at {bad.name}",
            str(record.get("message", "")),
            str(record.get("mend", "")),
        )
    undone = next((item.name for item in stages if item.state in ("missing", "earlier")), None)
    register, deploy = by_name["register"].record, by_name["deploy"].record
    model = (
        f"{register.get('model_name', 'the model')} version {register.get('version', '')}".strip()
    )
    if undone is not None:
        return Verdict(
            "open",
            "Not finished" if by_name["data"].record else "Nothing has run yet",
            f"The next stage is {undone}.",
            f"run `make {undone}`, or `make all` for everything that is left",
        )
    if deploy.get("rolled_back"):
        return Verdict(
            "kept",
            f"Rolled back to version {deploy.get('version')}",
            f"Deployment {deploy.get('deployment')} serves {deploy.get('model_name')} version"
            f" {deploy.get('version')} again.",
        )
    if deploy.get("version") != register.get("version"):
        return Verdict(
            "kept",
            f"Version {deploy.get('version')} serves",
            f"It was asked for by its number; the champion is {model}.",
            f"`make deploy MODEL_VERSION={register.get('version')}` serves the champion",
        )
    if by_name["evaluate"].state == "kept":
        return Verdict(
            "kept",
            f"Kept {model}",
            "The candidate was not better than the champion, so the champion serves on.",
        )
    return Verdict(
        "good",
        f"Released {model}",
        "Trained, gated, registered, packaged, deployed, and proven under load.",
    )


def hidden(value: Any, secrets: Sequence[str]) -> Any:
    """`value` with every secret in its texts replaced, and user names taken out of URLs."""
    if isinstance(value, str):
        for secret in secrets:
            value = value.replace(secret, "(secret)")
        return formats.without_credentials(value)
    if isinstance(value, Mapping):
        return {key: hidden(item, secrets) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [hidden(item, secrets) for item in value]
    return value


def secret_values(settings: Settings) -> list[str]:
    """The secrets in force, the longest first, so that none is left in part."""
    found = [getattr(settings, name) for name in SECRETS]
    values = [item.get_secret_value() for item in found if item is not None]
    # Shorter ones hide nothing, and replacing every letter of the page by them would.
    return sorted((value for value in values if len(value) > 3), key=len, reverse=True)


def read_json(root: Path, path: Any) -> dict[str, Any]:
    """A file that a record names; {} if it is not there any more or is not JSON."""
    try:
        found = json.loads((root / str(path)).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def inline_plots(root: Path, paths: Sequence[Any]) -> list[dict[str, str]]:
    """Plots as data URIs, with a caption from their names; missing ones left out."""
    plots = []
    for path in (root / str(path) for path in paths):
        if path.suffix in MEDIA and path.is_file():
            data = base64.b64encode(path.read_bytes()).decode()
            caption = path.stem.replace("_", " ").replace("-", " ").capitalize()
            plots.append({"uri": f"data:{MEDIA[path.suffix]};base64,{data}", "caption": caption})
    return plots


def version_rows(versions: Sequence[ModelVersion]) -> list[dict[str, Any]]:
    """Versions as the page shows them, with what was kept as JSON in their tags read again."""
    rows = []
    for item in versions:
        row: dict[str, Any] = {**item.tags, "version": item.version, "run_id": item.run_id}
        for name in ("metrics", "parameters"):
            try:
                found = json.loads(item.tags.get(name, ""))
            except ValueError:
                found = None
            row[name] = found if isinstance(found, dict) else {}
        rows.append(row)
    return rows


def registry(context: Context, model_name: str | None) -> list[ModelVersion] | None:
    """All versions of the model, the newest first; None if the registry cannot be read."""
    if model_name is None:
        return []
    try:
        return list(connect(context.root, context.settings).tracking.versions(model_name))
    except SlipwayError as error:
        console.warning(f"the page goes without the registry: {error.message}")
        return None


def render(
    root: Path,
    stages: Sequence[Stage],
    versions: Sequence[ModelVersion] | None,
    settings: Settings,
) -> str:
    """The page, complete in itself: styles, plots and charts are in it, and nothing is fetched."""
    from jinja2 import ChainableUndefined, Environment, FileSystemLoader

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=ChainableUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(formats.FILTERS)
    secrets = secret_values(settings)
    shown = [Stage(item.name, item.state, hidden(item.record, secrets)) for item in stages]
    of = {stage.name: stage.record for stage in shown}
    found = {stage.name: stage.record for stage in stages}
    stats = read_json(root, found["load"].get("stats"))
    model = read_json(root, f"{found['image'].get('bundle')}/model/model.json")
    objective = (found["load"].get("objectives") or {}).get("p95_ms")
    history = stats.get("history") or []
    return environment.get_template("report.html").render(
        stages=shown,
        state={stage.name: stage.state for stage in shown},
        **of,
        verdict=judge(shown),
        plots=inline_plots(root, found["train"].get("plots") or []),
        scale=charts.gate_scale(of["evaluate"]),
        rate=charts.line(history, "requests_per_second"),
        latency=charts.line(history, "p95_ms", objective=objective),
        latencies=charts.bars(stats.get("histogram") or []),
        histogram=stats.get("histogram") or [],
        versions=None if versions is None else hidden(version_rows(versions), secrets),
        sample=hidden(model.get("sample") or {}, secrets),
        keyed=settings.SCORING_KEY is not None,
        settings=settings,
        made=now(),
        css=(TEMPLATES / "report.css").read_text("utf-8"),
    )


def run(context: Context) -> Result:
    """Write the page from whatever records there are."""
    stages = read_stages(context.records)
    verdict = judge(stages)
    name = context.settings.MODEL_NAME
    page = render(context.root, stages, registry(context, name), context.settings)
    path = context.records.folder / "report.html"
    write_atomic(path, page.encode())
    return Result(
        f"{verdict.title}: {path.as_uri()}",
        {"path": context.relative(path), "verdict": verdict.title},
    )


def main() -> int:
    # After a failed `make all` the outcome is the failure, not that there is a page about it.
    return run_verb("report", run, outcome="after-failure" not in sys.argv)


if __name__ == "__main__":
    sys.exit(main())
