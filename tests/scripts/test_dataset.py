"""The data file: what is read, what is refused and how it is said, and how rows are held out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

from tests import rooms

if TYPE_CHECKING:
    from tests.scripts.conftest import Workspace


def write(workspace: Workspace, text: str | bytes) -> None:
    data = workspace.folder / "data" / "wood.csv"
    data.write_bytes(text.encode() if isinstance(text, str) else text)


def broken(change: dict[str, Any], rows: int = 30) -> str:
    """A CSV with some values replaced: {(row, column): value}."""
    frame = rooms.wood(rows).astype(object)
    for (row, column), value in change.items():
        frame.loc[row, column] = value
    return frame.to_csv(index=False)


ONE_ROW = "girth,height,volume\n10,70,20\n"

CASES = {
    "empty file": ("", "is empty"),
    "header only": ("girth,height,volume\n", "has 0 row(s)"),
    "one row": (ONE_ROW, "has 1 row(s)"),
    "missing column": ("girth,volume\n1,2\n", "lacks height"),
    "ten columns too many": (
        rooms.wood(20).assign(**{f"x{n}": 1 for n in range(10)}).to_csv(index=False),
        "has x0, x1, x2, x3, x4 and 5 more, which the contract does not declare",
    ),
    "strings among numbers": (
        broken({(3, "girth"): "wide"}),
        "line 5, column girth: 'wide' is not a finite number (1 such value(s))",
    ),
    "infinity": (broken({(0, "height"): "inf"}), "line 2, column height: 'inf' is not a finite"),
    "missing value": (broken({(4, "height"): ""}), "line 6, column height: the value is missing"),
    "NaN": (broken({(4, "volume"): "NaN"}), "column volume: the value is missing"),
    "out of range": (broken({(1, "girth"): 1000}), "girth 1000.0 fails in_range(0, 100) at line 3"),
    "not UTF-8": (b"girth,height,volume\n10,70,20\xe9\n", "is not UTF-8: b'"),
    "ragged": (rooms.wood(12).to_csv(index=False) + "1,2,3,4,5\n", "cannot be read"),
    "rows wider than the header": (
        "girth,height,volume\n" + "9,10,70,20\n" * 12,
        "its rows have more values than its header",
    ),
    "binary": (bytes(range(1, 128)) * 40, "wood.csv"),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_data_names_the_place_and_the_mend(
    workspace: Workspace, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    text, said = CASES[case]
    write(workspace, text)
    assert workspace.run("data") == 2
    error = capsys.readouterr().err
    assert said in error
    assert "mend:" in error
    assert "Traceback" not in error
    assert workspace.record("data.failed")["code"] == 2
    assert "data" not in workspace.records


def test_missing_file_names_the_setting(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    assert workspace.run("data", DATA_PATH="data/none.csv") == 2
    assert "DATA_PATH=data/none.csv: there is no such file" in capsys.readouterr().err


def test_other_file_types_are_refused(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    (workspace.folder / "data" / "x.xlsx").write_text("x")
    assert workspace.run("data", DATA_PATH="data/x.xlsx") == 2
    assert "neither .csv nor .parquet" in capsys.readouterr().err


def test_parquet_and_csv_of_the_same_rows_agree(workspace: Workspace) -> None:
    rooms.wood().to_parquet(workspace.folder / "data" / "wood.parquet")
    assert workspace.run("data") == 0
    csv = workspace.record("data")
    assert workspace.run("data", DATA_PATH="data/wood.parquet") == 0
    parquet = workspace.record("data")
    for name in ("rows", "columns", "holdout", "target"):
        assert csv[name] == parquet[name]
    assert (csv["format"], parquet["format"]) == ("csv", "parquet")


def test_broken_parquet_is_named(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    (workspace.folder / "data" / "x.parquet").write_bytes(b"PAR1 not really")
    assert workspace.run("data", DATA_PATH="data/x.parquet") == 2
    assert "x.parquet cannot be read" in capsys.readouterr().err


def test_record_describes_the_columns(workspace: Workspace) -> None:
    rooms.weather_room(workspace.folder)
    frame = rooms.weather()
    assert workspace.run("data") == 0
    record: Any = workspace.record("data")
    columns = {column["name"]: column for column in record["columns"]}
    assert {name: column["role"] for name, column in columns.items()} == {
        "station": "id",
        "sky": "feature",
        "pressure": "feature",
        "wind": "feature",
        "rain": "target",
    }
    assert columns["sky"]["missing"] == int(frame["sky"].isna().sum())
    assert columns["sky"]["categories"] == frame["sky"].value_counts().to_dict()
    assert columns["pressure"]["mean"] == pytest.approx(frame["pressure"].mean())
    assert columns["pressure"]["std"] == pytest.approx(frame["pressure"].std(ddof=0))
    assert sum(columns["wind"]["counts"]) == len(frame)


def test_text_named_na_is_a_category_not_a_missing_value(workspace: Workspace) -> None:
    rooms.weather_room(workspace.folder)
    contract = workspace.folder / "model" / "contract.py"
    contract.write_text(contract.read_text().replace('"fog"', '"NA"'))
    frame = rooms.weather().replace({"sky": {"fog": "NA"}})
    frame.to_csv(workspace.folder / "data" / "weather.csv", index=False)
    assert workspace.run("data") == 0
    columns: Any = workspace.record("data")["columns"]
    assert columns[1]["categories"]["NA"] == int((frame["sky"] == "NA").sum())


def test_a_held_out_row_stays_held_out_as_data_grows(workspace: Workspace) -> None:
    from scripts.contract import load_model_room
    from scripts.dataset import split

    room = load_model_room()
    frame = rooms.wood(400)
    _, before = split(frame, room, 0.2)
    grown = pd.concat([rooms.wood(300, seed=1), frame.sample(frac=1, random_state=0)])
    train, after = split(grown, room, 0.2)
    held, held_now, learned = (set(map(tuple, rows.to_numpy())) for rows in (before, after, train))
    assert held <= held_now
    assert not held & learned
    assert 0.13 < len(before) / len(frame) < 0.27


def test_an_id_column_decides_who_is_held_out(workspace: Workspace) -> None:
    from scripts.contract import load_model_room
    from scripts.dataset import split

    rooms.weather_room(workspace.folder)
    room = load_model_room()
    frame = rooms.weather()
    _, before = split(frame, room, 0.25)
    _, after = split(frame.assign(wind=frame["wind"] + 1), room, 0.25)
    assert list(before["station"]) == list(after["station"])


def test_a_smaller_fraction_holds_out_some_of_the_same_rows(workspace: Workspace) -> None:
    from scripts.contract import load_model_room
    from scripts.dataset import split

    room, frame = load_model_room(), rooms.wood(300)
    _, small = split(frame, room, 0.1)
    _, large = split(frame, room, 0.3)
    assert set(small.index) < set(large.index)


def test_population_stability_sees_a_shift_and_not_chance() -> None:
    from scripts.dataset import _statistics, population_stability

    rng = np.random.default_rng(3)
    reference = _statistics(pd.Series(rng.normal(size=500)), text=False)
    same = population_stability(reference, pd.Series(rng.normal(size=500)))
    moved = population_stability(reference, pd.Series(rng.normal(1.0, 1, size=500)))
    few = population_stability(reference, pd.Series(rng.normal(size=12)))
    assert same is not None
    assert moved is not None
    assert few is not None
    assert (same[1], moved[1], few[1]) == (False, True, False)
    assert moved[0] > 0.2 > same[0]
    words = _statistics(pd.Series(["a"] * 80 + ["b"] * 20), text=True)
    unseen = population_stability(words, pd.Series(["c"] * 100))
    assert unseen is not None
    assert unseen[1]


def test_shift_warns_or_refuses(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    for verb in ("data", "train", "evaluate", "register"):
        assert workspace.run(verb) == 0
    frame = rooms.wood().assign(girth=lambda f: f["girth"] + 15)
    frame.to_csv(workspace.folder / "data" / "wood.csv", index=False)
    assert workspace.run("data") == 0
    shift: Any = workspace.record("data")["shift"]
    assert (shift["against"], shift["shifted"]) == (1, ["girth"])
    assert "warning: shifted against the champion's training data: girth" in capsys.readouterr().err
    assert workspace.run("data", DATA_SHIFT="fail") == 3
    failed: Any = workspace.record("data.failed")
    assert failed["shift"]["shifted"] == ["girth"]


def test_paths_outside_are_taken_too(workspace: Workspace, tmp_path: Path) -> None:
    elsewhere = tmp_path / "with space #1.csv"
    rooms.wood().to_csv(elsewhere, index=False)
    assert workspace.run("data", DATA_PATH=str(elsewhere)) == 0
