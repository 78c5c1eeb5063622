"""What runs on a node: `python -m scripts.platforms.azure.job STAGE ...`, a run of its own or a step.

It is the verb itself, in a run that Azure ML began: the tracking is that run, the data comes from the
workspace, and the records it leaves go back as the run's artifacts under `records/`. In a pipeline the
steps find each other through the tags of the pipeline's run, which also say how it ended.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from scripts import console
from scripts.errors import Refused, SlipwayError
from scripts.platforms import open_records
from scripts.platforms.azure import AzurePlatform
from scripts.platforms.azure.az import Az
from scripts.platforms.azure.tracking import AzureTracking
from scripts.platforms.azure.workspace import explained, quiet, silenced
from scripts.records import Records
from scripts.settings import Settings
from scripts.verb import Context, Result, clone_root, run_verb

#: A pipeline's parameters are never empty.
NONE = "none"
#: Tags of a pipeline's run: which step trained and which judged, how it ended and why.
TRAINED, JUDGED, OUTCOME, REASON = (
    "slipway.train_run",
    "slipway.evaluate_run",
    "slipway.outcome",
    "slipway.reason",
)
VERSION = "slipway.model_version"


class PresentRun(AzureTracking):
    """`Tracking` within a run: the run that is begun is the one we are in."""

    def __init__(self, root: Path, settings: Settings, present: Any) -> None:
        super().__init__(root, settings, Az(settings))
        self.present = present

    @cached_property
    def workspace(self) -> Any:
        return self.present.experiment.workspace

    def run(self, run_id: str) -> Any:
        return self.present if run_id == self.present.id else super().run(run_id)

    def start_run(self, experiment: str, tags: Mapping[str, str]) -> str:
        with explained(f"run {self.present.id}"):
            self.present.set_tags(dict(tags))
        return str(self.present.id)

    def finish_run(self, run_id: str, *, succeeded: bool) -> None:
        # Azure ML ends it, with this process.
        with explained(f"run {run_id}"):
            self.present.flush()


class NodePlatform(AzurePlatform):
    """Azure as it is seen from inside a run: the login is the run's own."""

    def __init__(self, root: Path, settings: Settings, present: Any) -> None:
        super().__init__(root, settings)
        self._tracking = PresentRun(root, settings, present)

    @property
    def tracking(self) -> PresentRun:
        return self._tracking


class Job:
    """One stage on this node."""

    def __init__(self, stage: str, options: argparse.Namespace) -> None:
        self.stage = stage
        self.options = options
        with explained("the run this is part of"), silenced():
            from azureml.core import Run

            self.present = Run.get_context(allow_offline=False)
            self.parent = self.present.parent

    def body(self, context: Context) -> Result:
        """The stage on what it needs: data, the records before it, this run as tracking."""
        from scripts import evaluate, register, train

        platform = NodePlatform(context.root, self._settings(context.settings), self.present)
        if self.stage == "register":
            settings = platform.settings
            self._fetch_records(platform, context.records)
        else:
            settings = self._with_data(platform, context)
        call = dict(context.call)
        if self.options.params != NONE:
            call["PARAMS"] = unquote(self.options.params)
        inner = Context(context.root, settings, context.records, call, platform)
        if self.stage == "train":
            self._know_data(inner)
            return train.fit_candidate(inner)
        if self.stage == "evaluate":
            return self._judge(evaluate.run, inner)
        return register.run(inner)

    def _settings(self, settings: Settings) -> Settings:
        changes: dict[str, Any] = {"EXPERIMENT_NAME": self.present.experiment.name}
        if self.options.model_name != NONE:
            changes["MODEL_NAME"] = self.options.model_name
        if self.parent is not None:
            # The build that ran the pipeline, which need not be the one that published it.
            tags = self.parent.get_tags()
            changes |= {
                setting: tags[tag]
                for setting, tag in (("BUILD_BUILDID", "BuildId"), ("BUILD_URI", "BuildUri"))
                if tags.get(tag)
            }
        if self.stage == "register" and self.options.unjudged:
            changes["CHAMPION"] = "none"  # there was no judgement that could be out of date
        return Settings.model_validate(
            {**settings.model_dump(exclude_none=True), **changes}  # checked like any other
        )

    def _with_data(self, platform: NodePlatform, context: Context) -> Settings:
        """The settings with DATA_PATH naming the data fetched for this stage."""
        from scripts.platforms.azure.data import dataset_name, dataset_version, fetch, register_path

        workspace, settings, options = platform.tracking.workspace, platform.settings, self.options
        name = dataset_name(settings) if options.dataset_name == NONE else options.dataset_name
        version: int | None = None
        if self.stage == "evaluate":
            tags = self._fetch_records(platform, context.records).get_tags()
            name, version = tags["dataset"], int(tags["dataset_version"])
        elif options.data_file_path != NONE:
            known = register_path(workspace, settings, options.data_file_path)
            name, version = known.name, known.version
        elif options.dataset_version != NONE:
            version = dataset_version(
                settings.model_copy(update={"DATASET_VERSION": options.dataset_version})
            )
        file, known = fetch(workspace, name, version, context.root / "build" / "fetched")
        if self.stage == "train":
            tags = {"dataset": known.name, "dataset_version": str(known.version)}
            if options.caller_run_id != NONE:
                tags["caller_run_id"] = options.caller_run_id
            self.present.set_tags(tags)
        return settings.model_copy(update={"DATA_PATH": str(file)})

    def _know_data(self, context: Context) -> None:
        """The data record: what the caller checked already, or the check made here."""
        from scripts import data

        if self.options.checked != NONE:
            context.records.write("data", {"sha256": self.options.checked})
            return
        result = data.run(context)
        console.step(result.message)
        context.records.write("data", {"verb": "data", **(result.record or {})})

    def _fetch_records(self, platform: NodePlatform, records: Records) -> Any:
        """Put the records of the steps before in place; returns the run that trained."""
        tags = self.parent.get_tags() if self.parent is not None else {}
        if TRAINED not in tags:
            raise SlipwayError(
                "this run is no step of a pipeline whose first step trained",
                "run the pipeline (`make run-pipeline`), not its steps",
            )
        tracking = platform.tracking
        wanted = [("train", tags[TRAINED])]
        if self.stage == "register" and not self.options.unjudged:
            wanted.append(("evaluate", tags[JUDGED]))
        for verb, run_id in wanted:
            found = Records(tracking.download(run_id, "records")).read(verb)
            records.write(verb, found)
        if self.stage == "register" and self.options.unjudged:
            records.write("evaluate", unjudged(records.read("train")))
        return tracking.run(tags[TRAINED])

    def _judge(self, judge: Any, context: Context) -> Result:
        try:
            result: Result = judge(context)
        except Refused as refused:
            self._tell("refused", refused.message)
            raise
        return result

    def finish(self, records: Records, code: int) -> None:
        """Upload what the stage left; in a pipeline say so to the steps after it."""
        left = records.path(self.stage) if not code else records.failed_path(self.stage)
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            for path in (left, *([records.path("data")] if self.stage == "train" else [])):
                if path.exists():
                    (folder / path.name).write_bytes(path.read_bytes())
            tracking = PresentRun(clone_root(), Settings(), self.present)
            tracking.log_folder(str(self.present.id), folder, "records")
        if self.parent is None:
            return
        if code:
            failed = records.find_failed(self.stage) or {}
            self._tell("failed", f"{self.stage}: {failed.get('message', 'failed')}")
            return
        record = records.read(self.stage)
        if self.stage == "train":
            self.parent.tag(TRAINED, str(self.present.id))
        elif self.stage == "evaluate":
            self.parent.tag(JUDGED, str(self.present.id))
            if record["outcome"] == "kept":
                self._keep(record["message"])
        else:
            self._tell(record["outcome"], record["message"])
            self.parent.tag(VERSION, str(record["version"]))

    def _keep(self, why: str) -> None:
        """The candidate is not better: nothing of the pipeline is left to do."""
        self._tell("kept", why)
        if self.options.allow_run_cancel == "true":
            console.step("cancelling the pipeline's run: there is nothing to register")
            self.parent.cancel()

    def _tell(self, outcome: str, why: str) -> None:
        """Say in the tags of the pipeline's run, and of this step, how it ends."""
        if self.parent is None:
            return
        if outcome == "failed" and self.parent.get_tags().get(OUTCOME) == "refused":
            return
        tags = {OUTCOME: outcome, REASON: why[:1000]}
        self.parent.set_tags(tags)
        self.present.set_tags(tags)


def unjudged(train: Mapping[str, Any]) -> dict[str, Any]:
    """The evaluate record where RUN_EVALUATION=false left the gate out."""
    return {
        "decision": "unjudged",
        "candidate": {"run_id": train["run_id"], "metrics": train["metrics"]["holdout"]},
        "champion": None,
    }


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    """The command line of a node; `none` stands for what is not given."""
    parser = argparse.ArgumentParser(prog="scripts.platforms.azure.job")
    parser.add_argument("stage", choices=("train", "evaluate", "register"))
    names = ("model-name", "dataset-name", "dataset-version", "data-file-path", "caller-run-id")
    for name in (*names, "params"):
        parser.add_argument(f"--{name}", default=NONE)
    parser.add_argument("--checked", default=NONE, metavar="SHA256")
    parser.add_argument("--allow-run-cancel", choices=("true", "false"), default="false")
    parser.add_argument("--unjudged", action="store_true")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    options = arguments(sys.argv[1:] if argv is None else argv)
    os.environ["PLATFORM"] = "azure"
    quiet()
    job: list[Job] = []
    context: list[Context] = []

    def body(given: Context) -> Result:
        context.append(given)
        job.append(Job(options.stage, options))
        return job[0].body(given)

    code = run_verb(options.stage, body, outcome=False)
    if job:
        try:
            with explained("what the stage left"):
                job[0].finish(open_records(clone_root(), context[0].settings), code)
        except SlipwayError as error:
            console.error(str(error))
            return code or error.exit_code
    return code


if __name__ == "__main__":
    sys.exit(main())
