"""Batch scoring: the same predictions as the service's, order, rejects, whole outputs, resuming."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scoring import batch_output
from scoring.batch import Summary, score_files
from scoring.batch_errors import BatchError
from scoring.batch_input import find_files
from scoring.batch_rows import Job
from scoring.contract import load_contract
from scoring.runtime import load_runtime
from scoring.score import Scorer
from tests.scoring import bundles

Bundle = Callable[[Path], Path]


def linear(folder: Path) -> Path:
    """price = 2 width + 3 height + 5 depth + 1, as coefficients."""
    model = {"coefficients": [2.0, 3.0, 5.0], "intercept": 1.0}
    return bundles.write_bundle(
        folder,
        json.dumps(model).encode(),
        "linear.json",
        kind="regressor",
        columns=bundles.NUMBERS,
        runtime="linear",
        sample={"request": {"data": [[1, 2, 3]]}, "result": [24]},
    )


def tree(folder: Path) -> Path:
    """Labels that are whole numbers, from scikit-learn."""
    return bundles.sklearn_classifier(folder, [1, 2])


def table(model_dir: Path, rows: int, seed: int = 0) -> pd.DataFrame:
    """Rows that the model takes, with what is missing where it may be, and an id."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({"id": np.arange(rows)})
    for column in load_contract(model_dir).columns:
        if column.type == "number":
            frame[column.name] = rng.normal(size=rows) * 10
        else:
            frame[column.name] = rng.choice(["red", "green", "blue", "round", "teal, dark"], rows)
        if column.nullable:
            frame.loc[rng.random(rows) < 0.2, column.name] = None
    return frame


def served(model_dir: Path, frame: pd.DataFrame) -> dict[str, Any]:
    """The service's answer for the rows, with probabilities where it has them."""
    contract = load_contract(model_dir)
    scorer = Scorer(contract, load_runtime(contract, model_dir), 10_000_000)
    rows = frame[contract.names].astype(object)
    body: dict[str, Any] = {"data": rows.where(rows.notna(), None).to_numpy().tolist()}
    if contract.probabilities:
        body["probabilities"] = True
    return scorer.score(json.dumps(body).encode())


def write(frame: pd.DataFrame, path: Path, **options: Any) -> Path:
    if path.suffix == ".csv":
        frame.to_csv(path, index=False)
    else:
        frame.to_parquet(path, **options)
    return path


def read(path: Path) -> pd.DataFrame:
    return pd.read_csv(path) if path.suffix == ".csv" else pd.read_parquet(path)


def rejects(output: Path) -> list[list[str]]:
    """Row, column and reason of every reject."""
    frame = pd.read_csv(batch_output.rejects_path(output), dtype=str, keep_default_na=False)
    assert list(frame) == ["file", "row", "column", "reason", "value"]
    return frame[["row", "column", "reason"]].to_numpy().tolist()


def score(model_dir: Path, files: Path | Sequence[Path], output: Path, **more: Any) -> Summary:
    return score_files(
        Job(model_dir, [files] if isinstance(files, Path) else files, output, **more)
    )


@pytest.mark.parametrize("end", ["csv", "parquet"])
@pytest.mark.parametrize("begin", ["csv", "parquet"])
@pytest.mark.parametrize(
    "bundle",
    [
        linear,
        bundles.numbers_regressor,
        bundles.float32_regressor,
        bundles.mixed_classifier,
        tree,
    ],
)
def test_every_runtime_predicts_what_the_service_does(
    tmp_path: Path, bundle: Bundle, begin: str, end: str
) -> None:
    model_dir = bundle(tmp_path / "bundle")
    frame = table(model_dir, 20_000)
    contract = load_contract(model_dir)
    probabilities = contract.probabilities
    # How many rows are predicted together decides the last digit.
    near = {"rtol": 1e-12 if contract.dtype != "float32" else 1e-6}
    output = tmp_path / f"out.{end}"

    summary = score(
        model_dir,
        write(frame, tmp_path / f"in.{begin}"),
        output,
        keep=["id"],
        probabilities=probabilities,
    )

    assert (summary.written, summary.rejected) == (20_000, 0)
    scored, answer = read(output), served(model_dir, frame)
    assert scored["id"].astype(int).tolist() == list(range(20_000))
    if isinstance(answer["result"][0], float):
        np.testing.assert_allclose(scored["prediction"], answer["result"], **near)
    else:
        assert scored["prediction"].tolist() == answer["result"]
    if probabilities:
        names = [f"probability_{label}" for label in answer["classes"]]
        np.testing.assert_allclose(scored[names], answer["probabilities"], **near)


def test_the_types_of_kept_columns_and_of_labels_last(tmp_path: Path) -> None:
    model_dir = bundles.mixed_classifier(tmp_path / "bundle")
    frame = table(model_dir, 100)
    frame["day"] = pd.Timestamp("2024-02-29")
    frame["shape"] = frame["shape"].astype("category")
    source = write(frame, tmp_path / "in.parquet")
    score(model_dir, source, tmp_path / "out.parquet", keep=["day", "shape", "id"])
    schema = pq.read_schema(tmp_path / "out.parquet")
    assert schema.names == ["day", "shape", "id", "prediction"]
    assert pa.types.is_timestamp(schema.field("day").type)
    assert schema.field("id").type == pa.int64()
    assert schema.field("prediction").type == pa.string()


def test_what_fails_the_schema_goes_to_the_rejects_with_its_line(tmp_path: Path) -> None:
    model_dir = bundles.mixed_classifier(tmp_path / "bundle")
    source = tmp_path / "in.csv"
    source.write_bytes(
        b"id,size,colour,shape\r\n"
        b'2,1.5,re"d,round\r\n'
        b"3,wide,red,round\r\n"
        b'4, +2e0 ,"red",\r\n'
        b"\r\n"
        b"6,1,,round\r\n"
        b"7,inf,red,round\r\n"
        b"8,1,red\r\n"
        b'9,NA,"green\nor so","a ""b"""\r\n'
        b'11,1,"blue,round\r\n'
        b"12,1,\xff,round\r\n"
        b"13,1e999,red,round\r\n"
        b"14,,green,round"
    )
    output = tmp_path / "out.csv"

    summary = score(model_dir, source, output, keep=["id", "colour"])

    assert (summary.written, summary.rejected) == (4, 7)
    scored = pd.read_csv(output)
    assert scored["id"].tolist() == [2, 4, 9, 14]
    assert scored["colour"].tolist() == ['re"d', "red", "green\nor so", "green"]
    assert rejects(output) == [
        ["3", "size", "expected a number"],
        ["6", "colour", "missing, and every row must have a string here"],
        ["7", "size", "not a finite number"],
        ["8", "", "expected 4 values, got 3"],
        ["11", "", "a quote is not closed"],
        ["12", "", "not UTF-8 text, or a value of over 128 kB"],
        ["13", "size", "not a finite number"],
    ]

    # The next output has no rejects, and theirs are gone.
    source.write_text("id,size,colour,shape\n1,1,red,round\n")
    score(model_dir, source, output)
    assert [path.name for path in tmp_path.glob("out*")] == ["out.csv"]


def test_rejects_of_parquet_are_counted_in_rows(tmp_path: Path) -> None:
    model_dir = linear(tmp_path / "bundle")
    frame = table(model_dir, 1000)
    frame.loc[2, "width"] = np.nan
    frame.loc[998, 'depth "outer"'] = -np.inf
    source = write(frame, tmp_path / "in.parquet", row_group_size=300)
    score(model_dir, source, tmp_path / "out.parquet", keep=["id"])
    assert read(tmp_path / "out.parquet")["id"].tolist() == [
        number for number in range(1000) if number not in (2, 998)
    ]
    assert [row[:2] for row in rejects(tmp_path / "out.parquet")] == [
        ["3", "width"],
        ["999", 'depth "outer"'],
    ]


def test_rows_the_model_refuses_are_rejects_and_the_others_are_not(tmp_path: Path) -> None:
    model_dir = bundles.float32_regressor(tmp_path / "bundle")
    frame = table(model_dir, 50_000)
    frame.loc[[7, 20_000, 20_001], "width"] = 1e300
    source = write(frame, tmp_path / "in.csv")
    score(model_dir, source, tmp_path / "out.csv", keep=["id"])
    assert len(read(tmp_path / "out.csv")) == 49_997
    reason = "the number does not fit this model's type"
    assert rejects(tmp_path / "out.csv") == [
        [str(row + 2), "width", reason] for row in (7, 20_000, 20_001)
    ]


def test_a_model_that_breaks_ends_the_job(tmp_path: Path) -> None:
    model_dir = bundles.drill(tmp_path / "bundle")
    frame = table(model_dir, 10)
    for column in load_contract(model_dir).columns:
        frame[column.name] = 0.0 if column.type == "number" else "crash"
    source = write(frame, tmp_path / "in.csv")
    with pytest.raises(
        BatchError, match=r"the model failed on .*in\.csv near row 2: KeyError"
    ) as e:
        score(model_dir, source, tmp_path / "out.csv")
    assert e.value.exit_code == 1
    assert not list(tmp_path.glob("*out*"))


def test_a_folder_is_read_by_name_and_a_glob_by_us(tmp_path: Path) -> None:
    model_dir = linear(tmp_path / "bundle")
    folder = tmp_path / "a [1] b"
    (folder / "deeper").mkdir(parents=True)
    frame = table(model_dir, 400)
    for number, name in enumerate(["c.parquet", "a.parquet", "b.parquet", "deeper/d.parquet"]):
        write(frame[number * 100 : number * 100 + 100], folder / name)
    (folder / "_SUCCESS").touch()
    (folder / ".hidden.parquet").write_text("no Parquet")
    (folder / "notes.txt").touch()
    order = [*range(100, 300), *range(100), *range(300, 400)]

    score(model_dir, find_files("a [1] b", tmp_path), tmp_path / "out.parquet", keep=["id"])
    assert read(tmp_path / "out.parquet")["id"].tolist() == order

    files = find_files(f"{tmp_path}/a*b/?.parquet", tmp_path / "elsewhere")
    score(model_dir, files, tmp_path / "out.csv", keep=["id"])
    assert read(tmp_path / "out.csv")["id"].tolist() == order[:300]


def spoiled(frame: pd.DataFrame, folder: Path, how: str) -> list[Path]:
    """Two files, one of which is wrong."""
    end = "csv" if how.startswith("csv") else "parquet"
    files = [write(frame, folder / f"{name}.{end}") for name in "ab"]
    match how:
        case "csv and parquet":
            files[1] = write(frame, folder / "b.parquet")
        case "csv without a column" | "without a column":
            write(frame.drop(columns="width"), files[1])
        case "text for a number":
            write(frame.assign(width="1"), files[1])
        case "another type to keep":
            write(frame.assign(id="1"), files[1])
        case "cut off":
            files[1].write_bytes(files[1].read_bytes()[:-100])
        case "csv empty":
            files[1].write_bytes(b"")
        case "csv twice the column":
            text = files[1].read_text()
            files[1].write_text(text.replace("id,width", "width,width"))
        case "no rows":
            files = [write(frame[:0], path) for path in files]
    return files


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("csv without a column", "b.csv has no column width"),
        ("without a column", "b.parquet has no column width"),
        (
            "text for a number",
            r"b.parquet: column width is (large_)?string, the model takes a number",
        ),
        (
            "another type to keep",
            r"b.parquet: column id is (large_)?string, in a.parquet it is int64",
        ),
        ("cut off", "b.parquet is not a whole Parquet file"),
        ("csv empty", "b.csv is empty"),
        ("csv twice the column", "b.csv has more than one column width"),
        ("no rows", "INPUT has no rows"),
    ],
)
def test_files_that_do_not_fit_end_the_job_and_are_named(
    tmp_path: Path, how: str, message: str
) -> None:
    model_dir = linear(tmp_path / "bundle")
    files = spoiled(table(model_dir, 100), tmp_path, how)
    with pytest.raises(BatchError, match=message) as error:
        score(model_dir, files, tmp_path / "out.parquet", keep=["id"] if "twice" not in how else [])
    assert error.value.exit_code == 2
    assert not list(tmp_path.glob("*out*"))


def test_csv_and_parquet_are_not_mixed(tmp_path: Path) -> None:
    spoiled(table(linear(tmp_path / "bundle"), 10), tmp_path, "csv and parquet")
    with pytest.raises(BatchError, match="both CSV and Parquet"):
        find_files("*.*", tmp_path)


class Stopped(Exception):
    """Stands for whatever ends a job half-way."""


def stop_after(parts: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the writer end the job once so many parts are kept."""
    add, left = batch_output.Output.add, [parts]

    def stopping(self: Any, *arguments: Any) -> None:
        if not left[0]:
            raise Stopped
        left[0] -= 1
        add(self, *arguments)

    monkeypatch.setattr(batch_output.Output, "add", stopping)


def interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begin: str, end: str
) -> tuple[Path, Path, Path, str]:
    """A job of several parts with rejects that was stopped after two, and what it would have made."""
    model_dir = linear(tmp_path / "bundle")
    frame = table(model_dir, 300_000)
    frame.loc[::1000, "width"] = np.inf
    source = write(
        frame, tmp_path / f"in.{begin}", **({} if begin == "csv" else {"row_group_size": 90_000})
    )
    output = tmp_path / f"out.{end}"
    score(model_dir, source, output, keep=["id"])
    whole = read(output).to_csv() + batch_output.rejects_path(output).read_text()
    output.unlink()
    batch_output.rejects_path(output).unlink()
    with monkeypatch.context() as patch:
        stop_after(2, patch)
        with pytest.raises(Stopped):
            score(model_dir, source, output, keep=["id"])
    assert sorted(path.name for path in tmp_path.glob("*out*")) == [f".out.{end}.partial"]
    return model_dir, source, output, whole


@pytest.mark.parametrize("end", ["csv", "parquet"])
@pytest.mark.parametrize("begin", ["csv", "parquet"])
def test_it_goes_on_at_the_last_finished_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begin: str, end: str
) -> None:
    model_dir, source, output, whole = interrupted(tmp_path, monkeypatch, begin, end)
    # What a kill in the middle of a write leaves.
    for name in ("rows.spool", "rejects.spool", "journal"):
        with (tmp_path / f".out.{end}.partial" / name).open("ab") as stream:
            stream.write(b'{"half')

    summary = score(model_dir, source, output, keep=["id"])

    assert 0 < summary.resumed < 300_000
    assert read(output).to_csv() + batch_output.rejects_path(output).read_text() == whole
    assert not (tmp_path / f".out.{end}.partial").exists()


def test_outputs_that_differ_in_their_suffix_alone_are_two(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model_dir, source, output, _ = interrupted(tmp_path, monkeypatch, "csv", "csv")
    score(model_dir, source, tmp_path / "out.parquet")
    assert score(model_dir, source, output, keep=["id"]).resumed > 0
    assert rejects(output) == rejects(tmp_path / "out.parquet")


@pytest.mark.parametrize("what", ["input", "model", "keep", "damaged"])
def test_a_changed_job_starts_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    model_dir, source, output, whole = interrupted(tmp_path, monkeypatch, "parquet", "parquet")
    keep = ["id"]
    match what:
        case "input":
            os.utime(source, (1, 1))
        case "model":
            path = model_dir / "model.json"
            path.write_text(path.read_text().replace('"version": 7', '"version": 8'))
        case "keep":
            keep = ["id", "width"]
        case "damaged":
            spool = tmp_path / ".out.parquet.partial" / "rows.spool"
            content = bytearray(spool.read_bytes())
            content[len(content) // 2] ^= 1
            spool.write_bytes(content)
    assert score(model_dir, source, output, keep=keep).resumed == 0
    if what != "keep":
        assert read(output).to_csv() + batch_output.rejects_path(output).read_text() == whole


def test_two_jobs_do_not_write_one_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model_dir, source, output, whole = interrupted(tmp_path, monkeypatch, "csv", "csv")
    origin = json.loads((tmp_path / ".out.csv.partial" / "made-from.json").read_text())
    schema = pa.schema([("id", pa.string()), ("prediction", pa.float64())])
    with batch_output.making(output, origin, schema):
        with pytest.raises(BatchError, match=r"another job is writing .*out\.csv"):
            score(model_dir, source, output)
        score(model_dir, source, tmp_path / "other.csv")
    assert score(model_dir, source, output, keep=["id"]).resumed > 0
    assert read(output).to_csv() + batch_output.rejects_path(output).read_text() == whole


def test_a_full_disk_is_said_and_what_is_done_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model_dir, source, output, whole = interrupted(tmp_path, monkeypatch, "csv", "parquet")
    output.write_text("of yesterday")

    def full(path: Path) -> None:
        raise OSError(28, "No space left on device", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(batch_output, "_sync", full)
        with pytest.raises(
            BatchError, match=r"no space is left on the disk of .*out\.parquet"
        ) as e:
            score(model_dir, source, output, keep=["id"])
    assert e.value.exit_code == 1
    assert output.read_text() == "of yesterday"
    assert score(model_dir, source, output, keep=["id"]).resumed == 300_000
    assert read(output).to_csv() + batch_output.rejects_path(output).read_text() == whole


SCORE = """
import sys
from pathlib import Path
from scoring.batch import score_files
from scoring.batch_rows import Job
model, output, *files = map(Path, sys.argv[1:])
print(score_files(Job(model, files, output, ["id"])).peak_bytes)
"""


@pytest.mark.slow
@pytest.mark.parametrize("end", ["csv", "parquet"])
def test_memory_does_not_grow_with_the_input(tmp_path: Path, root: Path, end: str) -> None:
    model_dir = linear(tmp_path / "bundle")
    frame = table(model_dir, 3_000_000)
    # One row group: what is read at once must not depend on how the file was written.
    source = write(
        frame, tmp_path / f"in.{end}", **({} if end == "csv" else {"row_group_size": 3_000_000})
    )
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            SCORE,
            model_dir,
            tmp_path / f"out.{end}",
            source,
        ],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stdout) < 400e6
    assert len(read(tmp_path / f"out.{end}")) == 3_000_000
