"""The data file: read, held against the model room's contract, described, and split.

A frame read here has the contract's columns in its order: numbers as float64 (missing: NaN),
strings as object (missing: NaN), the target as the contract types it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from scripts.contract import ModelRoom
from scripts.errors import UsageError

if TYPE_CHECKING:
    from pandera.errors import SchemaErrors

#: Fewer rows can be neither split nor judged.
MIN_ROWS = 10
#: Bins of a number's histogram, which the distribution shift is computed from.
BINS = 10
#: Categories kept with their counts; the rest are summed up as one.
MAX_CATEGORIES = 50
OTHERS = "(others)"

_MISSING = ["", "NA", "N/A", "NaN", "nan", "null", "NULL", "None"]


def file_sha256(path: Path) -> str:
    """The file's SHA-256 in hex digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def data_path(root: Path, configured: str) -> Path:
    """The data file `DATA_PATH` names; UsageError if it is not there."""
    path = root / configured
    if not path.is_file():
        problem = "it is a folder" if path.is_dir() else "there is no such file"
        raise UsageError(
            f"DATA_PATH={configured}: {problem}",
            "set DATA_PATH in model/defaults.env or .env to a CSV or Parquet file",
        )
    return path


def read_frame(path: Path, room: ModelRoom) -> pd.DataFrame:
    """Read a CSV or Parquet file and hold it against the contract; UsageError names what is wrong."""
    raw = _read(path, room)
    expected = list(room.schema.columns)
    missing = [name for name in expected if name not in raw.columns]
    unknown = [str(name) for name in raw.columns if name not in expected]
    if missing or unknown:
        parts = [f"lacks {_some(missing)}"] if missing else []
        parts += [f"has {_some(unknown)}, which the contract does not declare"] if unknown else []
        raise UsageError(
            f"{path.name} {' and '.join(parts)}",
            "make the file's columns and SCHEMA in model/contract.py agree",
        )
    if len(raw) < MIN_ROWS:
        raise UsageError(
            f"{path.name} has {len(raw)} row(s)",
            f"at least {MIN_ROWS} are needed to train and judge",
        )
    frame = pd.DataFrame({name: _typed(raw[name], name, path, room) for name in expected})
    _validate(frame, path, room)
    for column in room.columns:
        frame[column.name] = (
            frame[column.name].astype("float64")
            if column.type == "number"
            else _object_strings(frame[column.name])
        )
    return frame


def _read(path: Path, room: ModelRoom) -> pd.DataFrame:
    suffix = path.suffix.lower()
    if suffix not in (".csv", ".parquet"):
        raise UsageError(
            f"{path.name} is neither .csv nor .parquet", "DATA_PATH takes a CSV or Parquet file"
        )
    if path.stat().st_size == 0:
        raise UsageError(f"{path.name} is empty", "DATA_PATH should name a file with rows in it")
    try:
        if suffix == ".parquet":
            return pd.read_parquet(path)
        # In a text column only nothing at all is missing: "NA" may be a country.
        missing = {
            name: [""] if _is_text(column) else _MISSING
            for name, column in room.schema.columns.items()
        }
        frame = pd.read_csv(path, dtype=str, keep_default_na=False, na_values=missing)
    except UnicodeDecodeError as error:
        shown = bytes(error.object[max(error.start - 20, 0) : error.start + 20])
        raise UsageError(f"{path.name} is not UTF-8: {shown!r}", "save it as UTF-8") from None
    except (ValueError, OSError) as error:  # pandas' and pyarrow's own errors are ValueErrors
        raise UsageError(
            f"{path.name} cannot be read: {str(error).strip().splitlines()[0]}",
            "DATA_PATH should name a well-formed CSV (with a header) or Parquet file",
        ) from None
    if not isinstance(frame.index, pd.RangeIndex):
        # pandas would take the first values of each row for row names, and shift the rest.
        raise UsageError(
            f"{path.name}: its rows have more values than its header has names",
            "make the header and the rows agree",
        )
    return frame


def _is_text(column: Any) -> bool:
    return not str(column.dtype).lower().startswith(("float", "int", "uint"))


def _object_strings(values: pd.Series[Any]) -> pd.Series[Any]:
    return values.astype("object").where(values.notna(), np.nan)


def _typed(values: pd.Series[Any], name: str, path: Path, room: ModelRoom) -> pd.Series[Any]:
    """The column as the contract types it; UsageError names the first value that is not."""
    column = room.schema.columns[name]
    if _is_text(column):
        return _object_strings(values.astype("object").map(str, na_action="ignore"))
    numbers = pd.to_numeric(values, errors="coerce").astype("float64")
    broken = (numbers.isna() & values.notna()) | np.isinf(numbers)
    whole = not str(column.dtype).lower().startswith("float")
    if whole:
        broken |= numbers.notna() & (numbers != np.floor(numbers))
    if broken.any():
        at = int(np.flatnonzero(broken)[0])
        raise UsageError(
            f"{path.name} {_row(at, path)}, column {name}: {values.iloc[at]!r} is not a "
            f"{'whole' if whole else 'finite'} number ({int(broken.sum())} such value(s))",
            "correct or remove the row"
            + ("; leave a missing value empty" if column.nullable else ""),
        )
    absent = numbers.isna()
    if absent.any() and not column.nullable:
        raise UsageError(
            f"{path.name} {_row(int(np.flatnonzero(absent)[0]), path)}, column {name}: "
            f"the value is missing ({int(absent.sum())} such row(s))",
            "fill it in, remove the rows, or declare the column nullable in model/contract.py",
        )
    return numbers if absent.any() else numbers.astype(str(column.dtype))


def _row(index: int, path: Path) -> str:
    # A CSV's first row stands on line 2, under the header.
    return f"line {index + 2}" if path.suffix.lower() == ".csv" else f"row {index + 1}"


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:5])
    return f"{shown} and {len(names) - 5} more" if len(names) > 5 else shown


def _validate(frame: pd.DataFrame, path: Path, room: ModelRoom) -> None:
    from pandera.errors import SchemaErrors

    relaxed = room.schema.update_columns(
        # Types were settled value by value above; a nullable int holds NaN as a float here.
        {name: {"dtype": None} for name in room.schema.columns}
    )
    try:
        relaxed.validate(frame, lazy=True)
    except SchemaErrors as errors:
        raise UsageError(
            f"{path.name} breaks the contract: {_failures(errors, path)}",
            "correct the rows, or the checks in model/contract.py",
        ) from None


def _failures(errors: SchemaErrors, path: Path) -> str:
    found = []
    for (column, check), cases in errors.failure_cases.groupby(["column", "check"], sort=False):
        value, index = cases.iloc[0][["failure_case", "index"]]
        # A NumPy number would show its type along with itself.
        value = value.item() if isinstance(value, np.generic) else value
        where = "" if pd.isna(index) else f" at {_row(int(index), path)}"
        found.append(f"{column} {value!r} fails {check}{where} ({len(cases)} in all)")
    return "; ".join(found[:5]) + (f"; and {len(found) - 5} more" if len(found) > 5 else "")


def row_shares(frame: pd.DataFrame, id_column: str | None) -> np.ndarray[Any, np.dtype[np.float64]]:
    """For each row a number in [0, 1) that is a hash of the row (or of its id), shape (rows,).

    A row keeps its number as data grows or is reordered, so the rows below a fraction stay held
    out for good; rows that are equal stay on one side.
    """
    keys = frame[[id_column]] if id_column else frame
    hashes = pd.util.hash_pandas_object(keys, index=False).to_numpy()
    return np.asarray(hashes >> np.uint64(11), dtype=np.float64) / float(1 << 53)


def split(
    frame: pd.DataFrame, room: ModelRoom, fraction: float
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The training rows and the holdout; about `fraction` of the rows are held out."""
    held = row_shares(frame, room.id_column) < fraction
    train, holdout = frame[~held], frame[held]
    if len(train) < 2 or len(holdout) < 2:
        raise UsageError(
            f"of {len(frame)} rows {len(holdout)} fall into the holdout and {len(train)} remain",
            "give more rows, or another HOLDOUT_FRACTION",
        )
    return train, holdout


def describe(frame: pd.DataFrame, room: ModelRoom) -> list[dict[str, Any]]:
    """The frame's columns with their roles and statistics, as records hold them."""
    nullable = {name: bool(column.nullable) for name, column in room.schema.columns.items()}
    return [
        {
            "name": name,
            "role": (
                "target" if name == room.target else "id" if name == room.id_column else "feature"
            ),
            "nullable": nullable[name],
            **_statistics(frame[name], _is_text(room.schema.columns[name])),
        }
        for name in room.schema.columns
    ]


def _statistics(values: pd.Series[Any], text: bool) -> dict[str, Any]:
    present = values.dropna()
    found: dict[str, Any] = {"missing": int(len(values) - len(present))}
    if text:
        counts = present.value_counts()
        kept = {str(key): int(count) for key, count in counts.head(MAX_CATEGORIES).items()}
        if len(counts) > MAX_CATEGORIES:
            kept[OTHERS] = int(counts.iloc[MAX_CATEGORIES:].sum())
        return {"type": "string", **found, "categories": kept}
    numbers = present.astype("float64")
    if numbers.empty:
        return {"type": "number", **found}
    edges = np.unique(np.quantile(numbers, np.linspace(0, 1, BINS + 1)))
    return {
        "type": "number",
        **found,
        "min": float(numbers.min()),
        "max": float(numbers.max()),
        "mean": float(numbers.mean()),
        "std": float(numbers.std(ddof=0)),
        # Inner edges of quantile bins, and how many rows fall into each bin.
        "edges": edges[1:-1].tolist(),
        "counts": _binned(numbers, edges[1:-1]).tolist(),
    }


def _binned(numbers: pd.Series[Any], inner: Any) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.bincount(np.searchsorted(inner, numbers, side="right"), minlength=len(inner) + 1)


def population_stability(
    reference: Mapping[str, Any], values: pd.Series[Any]
) -> tuple[float, bool] | None:
    """How far a column has moved from its reference statistics, and whether that is a shift.

    The population stability index over the reference's own bins. It counts as a shift above 0.2,
    the usual threshold, and only if chance alone would give as much once in a thousand times: under
    no shift PSI / (1/n + 1/m) follows a chi-square with bins - 1 degrees of freedom (B. Yurdakul,
    *Statistical Properties of Population Stability Index*, 2018). None where nothing can be said.
    """
    from scipy.stats import chi2

    present = values.dropna()
    if reference["type"] == "string":
        categories = [name for name in reference["categories"] if name != OTHERS]
        before = [reference["categories"][name] for name in categories]
        now = [int((present == name).sum()) for name in categories]
        before.append(reference["categories"].get(OTHERS, 0))
        now.append(len(present) - sum(now))
    elif "counts" in reference:
        before = list(reference["counts"])
        now = _binned(present.astype("float64"), np.asarray(reference["edges"])).tolist()
    else:
        return None
    before.append(reference["missing"])
    now.append(int(values.isna().sum()))
    kept = [(b, n) for b, n in zip(before, now, strict=True) if b or n]
    if len(kept) < 2:
        return 0.0, False
    old, new = np.asarray(kept, dtype=np.float64).T
    # Half a row in an empty bin keeps the logarithm finite.
    p, q = (np.maximum(share, 0.5) / share.sum() for share in (old, new))
    psi = float(((q - p) * np.log(q / p)).sum())
    chance = chi2.ppf(0.999, len(kept) - 1) * (1 / old.sum() + 1 / new.sum())
    return psi, bool(psi > max(0.2, chance))
