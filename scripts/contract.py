"""The model room as the rest of Slipway sees it: `model/` is loaded and checked here and nowhere else."""

from __future__ import annotations

import importlib
import inspect
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from scripts.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd
    import pandera.pandas as pa
    from sklearn.base import BaseEstimator

ColumnType = Literal["number", "string"]
Kind = Literal["regressor", "classifier"]


@dataclass(frozen=True)
class Column:
    """A feature as the service takes it: its name, JSON type and whether null is allowed."""

    name: str
    type: ColumnType
    nullable: bool


@dataclass(frozen=True)
class Description:
    """What must be known of a trained model to judge, package and serve it; kept beside it."""

    kind: Kind
    target: str
    id_column: str | None
    columns: tuple[Column, ...]
    classes: tuple[Any, ...] | None
    primary_metric: str
    greater_is_better: bool
    parameters: Mapping[str, Any]
    holdout_fraction: float
    #: Of the training rows, by column, as the data record has them: what shift is measured against.
    statistics: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Description:
        columns = tuple(Column(**column) for column in found["columns"])
        classes = found["classes"]
        return cls(
            **{**found, "columns": columns, "classes": None if classes is None else tuple(classes)}
        )


@dataclass(frozen=True)
class ModelRoom:
    """What `model/` declares, checked."""

    schema: pa.DataFrameSchema
    target: str
    id_column: str | None
    columns: tuple[Column, ...]
    parameters: Mapping[str, Any]
    build_estimator: Callable[[Mapping[str, Any]], BaseEstimator]
    evaluate: Callable[[BaseEstimator, pd.DataFrame, pd.Series[Any]], Mapping[str, float]]
    primary_metric: str
    greater_is_better: bool

    @property
    def features(self) -> list[str]:
        return [column.name for column in self.columns]


def place_in_model(error: BaseException) -> str | None:
    """The innermost line of the model room that `error` passed through, None if there is none."""
    frames = traceback.extract_tb(error.__traceback__)
    for frame in reversed(frames):
        _, inside, file = frame.filename.rpartition("/model/")
        if inside and "site-packages" not in frame.filename:
            return f"model/{file} line {frame.lineno}"
    return None


def _import(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except Exception as error:  # whatever the user's own code raises while it is imported
        file = name.replace(".", "/") + ".py"
        line = getattr(error, "lineno", None)  # a SyntaxError's own
        where = f"{file} line {line}" if line else place_in_model(error) or file
        raise UsageError(
            f"{where} cannot be loaded: {type(error).__name__}: {error}",
            "correct it (docs/custom-model.md shows what it must hold)",
        ) from error


def _declared(module: Any, name: str, kind: type | tuple[type, ...], what: str) -> Any:
    file = module.__name__.replace(".", "/") + ".py"
    if not hasattr(module, name):
        raise UsageError(
            f"{file} does not define {name}", f"define {name}, {what} (docs/custom-model.md)"
        )
    value = getattr(module, name)
    if not isinstance(value, kind):
        raise UsageError(
            f"{file} defines {name} as {type(value).__name__}", f"{name} should be {what}"
        )
    return value


def _column_type(name: str, column: Any) -> ColumnType:
    """The JSON type of a pandera column; UsageError for what the service does not take."""
    dtype = str(column.dtype).lower()
    if dtype.startswith(("float", "int", "uint")):
        return "number"
    if dtype.startswith(("str", "string", "category", "object")):
        return "string"
    raise UsageError(
        f"model/contract.py declares column {name!r} as {column.dtype}",
        "declare features as float, int or str (encode dates and booleans as numbers or text)",
    )


def load_model_room() -> ModelRoom:
    """Load `model/contract.py` and `model/estimator.py`; UsageError names what is missing or wrong."""
    import pandera.pandas as pa

    contract = _import("model.contract")
    estimator = _import("model.estimator")
    schema = _declared(contract, "SCHEMA", pa.DataFrameSchema, "a pandera DataFrameSchema")
    target = _declared(contract, "TARGET", str, "the name of the column to predict")
    id_column = _declared(
        contract, "ID_COLUMN", (str, type(None)), "the name of the id column, or None"
    )
    for name, value in (("TARGET", target), ("ID_COLUMN", id_column)):
        if value is not None and value not in schema.columns:
            raise UsageError(
                f"model/contract.py: {name} is {value!r}, which SCHEMA does not declare",
                f"declare the column in SCHEMA, or correct {name}",
            )
    columns = tuple(
        Column(name, _column_type(name, column), bool(column.nullable))
        for name, column in schema.columns.items()
        if name not in (target, id_column)
    )
    if not columns:
        raise UsageError(
            "model/contract.py declares no feature", "declare at least one column besides TARGET"
        )
    build = _declared(
        estimator, "build_estimator", object, "a function of parameters giving an estimator"
    )
    evaluate = _declared(
        estimator, "evaluate", object, "a function of (estimator, features, target) giving metrics"
    )
    for name, function, count in (("build_estimator", build, 1), ("evaluate", evaluate, 3)):
        if not callable(function) or len(inspect.signature(function).parameters) != count:
            raise UsageError(
                f"model/estimator.py: {name} should be a function of {count} argument(s)",
                "docs/custom-model.md shows it",
            )
    return ModelRoom(
        schema=schema,
        target=target,
        id_column=id_column,
        columns=columns,
        parameters=_declared(estimator, "PARAMETERS", dict, "the default parameters by name"),
        build_estimator=build,
        evaluate=evaluate,
        primary_metric=_declared(estimator, "PRIMARY_METRIC", str, "the metric the gate compares"),
        greater_is_better=_declared(
            estimator, "GREATER_IS_BETTER", bool, "True if a greater PRIMARY_METRIC is better"
        ),
    )
