"""The contract between packaging and service: `model.json` beside the model file.

It names the columns a request must have, how the model was packaged, the sha256 of the model file
and a sample request. Fields unknown here (lineage, say) are ignored.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Literal

import msgspec

from scoring.errors import StartError

FILE_NAME = "model.json"


class Column(msgspec.Struct, frozen=True):
    """One feature. A `nullable` one may be null in a request."""

    name: str
    type: Literal["number", "string"]
    nullable: bool = False


class Sample(msgspec.Struct, frozen=True):
    """A request the model was proven with, and its predictions, equal within `tolerance`."""

    request: dict[str, Any]
    result: list[Any]
    tolerance: float = 1e-6


class Contract(msgspec.Struct, frozen=True):
    """What `model.json` says.

    `inputs` is how an ONNX model takes its rows: one matrix of shape (rows, columns), or one input
    of shape (rows, 1) for each column, named as the column. `classes` is the order of the
    probabilities.
    """

    name: str
    version: int | str
    kind: Literal["regressor", "classifier"]
    target: str
    columns: list[Column]
    runtime: Literal["linear", "onnx", "sklearn"]
    file: str
    sha256: str
    sample: Sample
    dtype: Literal["float64", "float32", "object"] = "float64"
    inputs: Literal["matrix", "columns"] = "matrix"
    classes: list[bool | int | float | str] | None = None
    probabilities: bool = False
    reference: dict[str, Any] = {}

    @property
    def names(self) -> list[str]:
        """The columns' names in order."""
        return [column.name for column in self.columns]


def load_contract(model_dir: Path) -> Contract:
    """Read `model.json`. Raises StartError if it is missing or does not hold together."""
    path = model_dir / FILE_NAME
    try:
        contract = msgspec.json.decode(path.read_bytes(), type=Contract)
    except OSError as error:
        raise StartError(
            f"cannot read {path}: {error.strerror}; SCORING_MODEL_DIR must name the folder of a "
            f"packaged model"
        ) from error
    except (ValueError, RecursionError) as error:
        raise StartError(f"{path} is not a model's contract: {error}", exit_code=1) from error
    if problem := _problem(contract):
        raise StartError(f"{path} is not a model's contract: {problem}", exit_code=1)
    return contract


def _problem(contract: Contract) -> str | None:
    names = contract.names
    if not names:
        return "it has no columns"
    if len(set(names)) != len(names):
        return "two columns have the same name"
    if Path(contract.file).name != contract.file:
        return f"file {contract.file!r} is not a plain file name"
    takes_matrix = contract.runtime != "sklearn" and contract.inputs == "matrix"
    if takes_matrix and any(column.type != "number" for column in contract.columns):
        return "a matrix input takes number columns only"
    if contract.kind == "classifier" and not contract.classes:
        return "a classifier without classes"
    if contract.kind == "regressor" and contract.probabilities:
        return "a regressor has no probabilities"
    return None


def read_model(contract: Contract, model_dir: Path) -> bytes:
    """The model file's bytes, whose sha256 is the contract's. Raises StartError otherwise.

    The caller loads the model from these bytes, so what was verified is what runs.
    """
    path = model_dir / contract.file
    try:
        content = path.read_bytes()
    except OSError as error:
        raise StartError(f"cannot read the model {path}: {error.strerror}", exit_code=1) from error
    digest = hashlib.sha256(content).hexdigest()
    if digest != contract.sha256:
        raise StartError(
            f"{path} is not the model {FILE_NAME} describes: sha256 {digest[:12]}…, expected "
            f"{contract.sha256[:12]}…; package the model again",
            exit_code=1,
        )
    return content
