"""The ways a trained estimator can be run in the service."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Runtime = Literal["linear", "onnx", "sklearn"]
DType = Literal["float64", "float32", "object"]
Inputs = Literal["matrix", "columns"]


class CannotConvert(Exception):
    """The estimator cannot be expressed this way; the message says why, in one line."""


@dataclass(frozen=True)
class Way:
    """One way to run a model: where, and in which precision."""

    runtime: Runtime
    dtype: DType

    def __str__(self) -> str:
        return self.runtime if self.dtype == "object" else f"{self.runtime} in {self.dtype}"


@dataclass(frozen=True)
class Converted:
    """A model file's name and content, and how the model takes its rows."""

    file: str
    content: bytes
    inputs: Inputs


LINEAR_WAYS = (Way("linear", "float64"),)
ONNX_WAYS = (Way("onnx", "float64"), Way("onnx", "float32"))
SKLEARN_WAYS = (Way("sklearn", "object"),)


def ways(runtime: str) -> tuple[Way, ...]:
    """The ways to try in order, for `RUNTIME` auto, linear, onnx or sklearn."""
    chosen = {"linear": LINEAR_WAYS, "onnx": ONNX_WAYS, "sklearn": SKLEARN_WAYS}
    return chosen.get(runtime) or LINEAR_WAYS + ONNX_WAYS + SKLEARN_WAYS


def reason(error: BaseException) -> str:
    """An exception's type and the beginning of its message, on one line."""
    text = " ".join(str(error).split())
    return (
        f"{type(error).__name__}: {text[:297]}..."
        if len(text) > 300
        else (f"{type(error).__name__}: {text}" if text else type(error).__name__)
    )
