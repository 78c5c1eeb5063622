"""Package a registered version: the first way of running it that is proven to predict the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from scripts import console
from scripts.contract import Description
from scripts.errors import SlipwayError
from scripts.packaging.alone import prove_alone
from scripts.packaging.bundle import PROOF, Bundle, Bundles, Draft
from scripts.packaging.convert import convert
from scripts.packaging.parity import (
    Cases,
    NotProven,
    Parity,
    load_scorer,
    make_cases,
    plain_rows,
    prove,
)
from scripts.packaging.ways import CannotConvert, Converted, Way, reason, ways

if TYPE_CHECKING:
    import pandas as pd
    from sklearn.base import BaseEstimator

#: Rows of the sample request.
SAMPLE_ROWS = 3

#: How far a served value may lie from the recorded one, in the units of parity's differences. The
#: same model runs on both sides, so this only allows for another processor's rounding.
SAMPLE_TOLERANCES = {"float64": 1e-6, "float32": 1e-4, "object": 1e-6}

#: What a column's record says besides its statistics.
_ROLE = frozenset({"name", "role", "nullable"})


def package(
    bundles: Bundles,
    inputs: str,
    runtime: str,
    identity: Mapping[str, Any],
    estimator: BaseEstimator,
    description: Description,
    holdout: pd.DataFrame,
) -> Bundle:
    """Make and keep the bundle of these inputs.

    `runtime` is the setting RUNTIME; `identity` holds name, version and lineage. Raises SlipwayError
    naming every way that was tried and why it was rejected.
    """
    try:
        cases = make_cases(estimator, description, holdout)
    except Exception as error:
        raise SlipwayError(
            f"{identity['name']} {identity['version']} does not predict the holdout: {reason(error)}",
            "check that DATA_PATH holds data of the kind this version was trained on",
        ) from error
    rejected: list[dict[str, str]] = []
    with bundles.draft() as draft:
        for way in ways(runtime):
            console.step(f"packaging for {way}")
            try:
                converted = convert(estimator, description, way)
                parity = _prove(draft, converted, way, identity, description, cases, holdout)
            except (CannotConvert, NotProven) as error:
                console.step(f"not {way}: {str(error)[:160]}")
                rejected.append({**asdict(way), "reason": str(error)})
                continue
            proof = {
                "inputs": inputs,
                "runtime": way.runtime,
                "dtype": way.dtype,
                "parity": parity.to_json(),
                "rejected": rejected,
            }
            draft.put_json(PROOF, proof)
            return bundles.keep(draft, inputs)
    tried = "; ".join(f"{each['runtime']} {each['dtype']}: {each['reason']}" for each in rejected)
    raise SlipwayError(
        f"{identity['name']} {identity['version']} cannot be packaged ({tried})",
        (
            "set RUNTIME=auto, which falls back to scikit-learn"
            if runtime in ("linear", "onnx")
            else "make the estimator one that can be pickled and loaded again"
        ),
        figures={"rejected": rejected},
    )


def _reference(description: Description) -> dict[str, dict[str, Any]]:
    """The training rows' statistics by feature: what the service measures drift against."""
    known = description.statistics
    return {
        column.name: {key: value for key, value in known[column.name].items() if key not in _ROLE}
        for column in description.columns
        if column.name in known
    }


def _prove(
    draft: Draft,
    converted: Converted,
    way: Way,
    identity: Mapping[str, Any],
    description: Description,
    cases: Cases,
    holdout: pd.DataFrame,
) -> Parity:
    """Put the model into the draft, prove it there, and record what it answers to the sample."""
    request = {"data": plain_rows(holdout.iloc[:SAMPLE_ROWS], description.columns)}
    model: dict[str, Any] = {
        "name": identity["name"],
        "version": identity["version"],
        "kind": description.kind,
        "target": description.target,
        "columns": [asdict(column) for column in description.columns],
        "classes": None if description.classes is None else list(description.classes),
        "probabilities": cases.cases[0].probabilities is not None,
        "runtime": way.runtime,
        "dtype": way.dtype,
        "file": converted.file,
        "sha256": hashlib.sha256(converted.content).hexdigest(),
        "inputs": converted.inputs,
        "reference": _reference(description),
        "sample": {"request": request, "result": []},
        "lineage": identity["lineage"],
    }
    draft.put_model(converted, way.runtime, model)
    scorer = load_scorer(draft.model_dir)
    parity = prove(scorer, cases, way.dtype)
    result = scorer.score(json.dumps(request).encode())["result"]
    # A sample is compared relative to values that are over 1.
    numbers = [abs(value) for value in result if isinstance(value, float)]
    tolerance = SAMPLE_TOLERANCES[way.dtype] * cases.scale / max([1.0, *numbers])
    model["sample"] = {"request": request, "result": result, "tolerance": tolerance}
    draft.put_json("model/model.json", model)
    if way.runtime == "sklearn":
        prove_alone(draft.folder)
    return parity
