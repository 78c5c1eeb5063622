"""A trained estimator as a file the service loads: coefficients, ONNX, or joblib for all else.

In ONNX a model of numbers alone takes one matrix of shape (rows, columns); one with strings takes an input of
shape (rows, 1) for each column, named as the column. The same estimator gives the same bytes.
"""

from __future__ import annotations

import io
import logging
import pickle
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from scripts.contract import Column, Description
from scripts.packaging import linear
from scripts.packaging.ways import CannotConvert, Converted, DType, Way, reason

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto
    from sklearn.base import BaseEstimator


def convert(estimator: BaseEstimator, description: Description, way: Way) -> Converted:
    """The estimator as a file for `way`. Raises CannotConvert."""
    try:
        if way.runtime == "sklearn":
            return Converted("model.joblib", _joblib(estimator), "columns")
        if way.runtime == "linear":
            return Converted("linear.json", linear.compose(estimator, description), "matrix")
        matrix = all(column.type == "number" for column in description.columns)
        model = _onnx(estimator, description, way.dtype, matrix)
        content = model.SerializeToString(deterministic=True)
    except CannotConvert:
        raise
    except Exception as error:  # converters raise whatever comes; MemoryError is none of them
        raise CannotConvert(reason(error)) from error
    return Converted("model.onnx", content, "matrix" if matrix else "columns")


def _joblib(estimator: BaseEstimator) -> bytes:
    """The estimator pickled; functions without a name, as lambdas are, need cloudpickle for it."""
    import cloudpickle
    import joblib

    stream = io.BytesIO()
    try:
        joblib.dump(estimator, stream, protocol=5)
    except (pickle.PicklingError, AttributeError):
        content: bytes = cloudpickle.dumps(estimator, protocol=5)
        return content
    return stream.getvalue()


def _onnx(
    estimator: BaseEstimator, description: Description, dtype: DType, matrix: bool
) -> ModelProto:
    columns = description.columns
    if not matrix:
        return _by_column(estimator, columns, dtype)
    try:
        return _convert_types(estimator, [("input", _tensors()[dtype]([None, len(columns)]))])
    except Exception as error:
        # A step that picks its columns by name finds them only as inputs of their own.
        try:
            named = _by_column(estimator, columns, dtype)
        except Exception:
            raise error from None
        return _joined(named, columns)


def _tensors() -> dict[str, Any]:
    from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType

    return {"float64": DoubleTensorType, "float32": FloatTensorType}


def _column_types(columns: tuple[Column, ...], dtype: DType) -> list[tuple[str, Any]]:
    from skl2onnx.common.data_types import StringTensorType

    number = _tensors()[dtype]
    return [
        (column.name, (number if column.type == "number" else StringTensorType)([None, 1]))
        for column in columns
    ]


def _convert_types(estimator: BaseEstimator, types: list[tuple[str, Any]]) -> ModelProto:
    from skl2onnx import to_onnx
    from sklearn.base import is_classifier

    # Probabilities as one matrix; skl2onnx would give a list of dictionaries.
    options = {"zipmap": False} if is_classifier(estimator) else None
    logging.getLogger("skl2onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), _whole_numbers():
        warnings.simplefilter("ignore")
        model: ModelProto = to_onnx(estimator, initial_types=types, name="slipway", options=options)
    # skl2onnx 1.20 takes them from a set of strings, whose order is another in each process.
    model.opset_import.sort(key=lambda opset: opset.domain)
    return model


def _by_column(estimator: BaseEstimator, columns: tuple[Column, ...], dtype: DType) -> ModelProto:
    """The model with an input for each column, under the column's own name.

    skl2onnx keeps the inputs' order and makes identifiers of their names.
    """
    model = _convert_types(estimator, _column_types(columns, dtype))
    given = [each.name for each in model.graph.input]
    wanted = [column.name for column in columns]
    if len(given) != len(wanted):
        raise CannotConvert(f"of {len(wanted)} columns {len(given)} became inputs")
    taken = _names(model.graph) | set(wanted)
    renamed = {name: _fresh(name, taken) for name in sorted(_names(model.graph) & set(wanted))}
    _rename(model.graph, {**renamed, **dict(zip(given, wanted, strict=True))})
    return model


def _joined(model: ModelProto, columns: tuple[Column, ...]) -> ModelProto:
    """The model with one matrix input, split into the inputs it had."""
    from onnx import TensorProto, helper

    graph, count = model.graph, len(columns)
    taken = _names(graph)
    matrix, widths = _fresh("input", taken), _fresh("widths", taken)
    kind = graph.input[0].type.tensor_type.elem_type
    outputs = [column.name for column in columns]
    split = helper.make_node("Split", [matrix, widths], outputs, name="columns", axis=1)
    graph.node.insert(0, split)
    graph.initializer.append(helper.make_tensor(widths, TensorProto.INT64, [count], [1] * count))
    del graph.input[:]
    graph.input.append(helper.make_tensor_value_info(matrix, kind, [None, count]))
    return model


def _names(graph: GraphProto) -> set[str]:
    """The names of all values in a graph and in the bodies of its loops."""
    names = {each.name for each in (*graph.input, *graph.output, *graph.initializer)}
    for node in graph.node:
        names |= {*node.input, *node.output}
        for attribute in node.attribute:
            if attribute.HasField("g"):
                names |= _names(attribute.g)
    return names


def _rename(graph: GraphProto, names: Mapping[str, str]) -> None:
    for each in (*graph.input, *graph.output, *graph.initializer, *graph.value_info):
        each.name = names.get(each.name, each.name)
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _rename(attribute.g, names)


def _fresh(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    taken.add(name)
    return name


@contextmanager
def _whole_numbers() -> Iterator[None]:
    """Let histogram gradient boosting convert.

    skl2onnx 1.20 gives False among the integers of a tree's attribute, which onnx since 1.20 refuses.
    """
    from skl2onnx.operator_converters import random_forest

    name = "add_tree_to_attribute_pairs_hist_gradient_boosting"
    original = getattr(random_forest, name)

    def corrected(attributes: dict[str, Any], *arguments: Any, **named: Any) -> None:
        original(attributes, *arguments, **named)
        tracks = attributes["nodes_missing_value_tracks_true"]
        attributes["nodes_missing_value_tracks_true"] = [int(value) for value in tracks]

    setattr(random_forest, name, corrected)
    try:
        yield
    finally:
        setattr(random_forest, name, original)
