"""Every kind of estimator ends in a runtime that is proven to predict the same."""

from __future__ import annotations

import json
import warnings
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone as unfitted
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.ensemble import (
    BaggingRegressor,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
    StackingRegressor,
    VotingClassifier,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import Lasso, LinearRegression, LogisticRegression, Ridge, RidgeClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    OneHotEncoder,
    OrdinalEncoder,
    PolynomialFeatures,
    StandardScaler,
)
from sklearn.svm import SVC, SVR, LinearSVC
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from scoring.score import Scorer
from scoring.settings import Settings
from tests.scripts.packaging.conftest import HELD_OUT, Packager

NUMBERS = ["x0", "x1", "x2", "x3"]
STRINGS = ["colour", "size"]

LIN, SKL = ("linear", "float64"), ("sklearn", "object")
F64, F32 = ("onnx", "float64"), ("onnx", "float32")


def columns(final: Any, *, fill_strings: bool = False, fill: bool = True) -> Any:
    """A usual pipeline: numbers filled in and scaled, categories one-hot, then the estimator."""
    encoder = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    strings = make_pipeline(SimpleImputer(strategy="most_frequent"), encoder)
    numbers = make_pipeline(SimpleImputer(), StandardScaler()) if fill else StandardScaler()
    return make_pipeline(
        ColumnTransformer(
            [("n", numbers, NUMBERS), ("s", strings if fill_strings else encoder, STRINGS)]
        ),
        final,
    )


class Row(NamedTuple):
    estimator: Any
    frame: str
    target: str
    expected: tuple[str, str]


TABLE = {
    "ridge": Row(Ridge(), "numbers", "value", LIN),
    "linear": Row(LinearRegression(), "numbers", "value", LIN),
    "lasso": Row(Lasso(alpha=0.1), "numbers", "value", LIN),
    "scaled ridge": Row(make_pipeline(StandardScaler(), Ridge()), "numbers", "value", LIN),
    "filled ridge": Row(make_pipeline(SimpleImputer(), Ridge()), "numbers with gaps", "value", F32),
    "polynomial": Row(
        make_pipeline(PolynomialFeatures(2), StandardScaler(), Ridge()), "numbers", "value", F32
    ),
    "named columns of numbers": Row(
        make_pipeline(
            ColumnTransformer([("a", StandardScaler(), ["x2", "x0"])], remainder="passthrough"),
            Ridge(),
        ),
        "numbers",
        "value",
        F64,
    ),
    "k neighbours": Row(KNeighborsRegressor(), "numbers", "value", F64),
    "neural network": Row(
        make_pipeline(
            StandardScaler(), MLPRegressor(hidden_layer_sizes=(8,), max_iter=60, random_state=0)
        ),
        "numbers",
        "value",
        F64,
    ),
    "tree": Row(DecisionTreeRegressor(random_state=0), "numbers", "value", F32),
    "forest": Row(RandomForestRegressor(20, random_state=0), "numbers", "value", F32),
    "extra trees": Row(ExtraTreesRegressor(20, random_state=0), "numbers", "value", F32),
    "bagging": Row(BaggingRegressor(n_estimators=5, random_state=0), "numbers", "value", F32),
    "gradient boosting": Row(GradientBoostingRegressor(n_estimators=20), "numbers", "value", F32),
    "histogram boosting": Row(
        HistGradientBoostingRegressor(max_iter=20), "numbers with gaps", "value", F32
    ),
    "support vectors": Row(make_pipeline(StandardScaler(), SVR()), "numbers", "value", F32),
    "stacking": Row(
        StackingRegressor([("a", Ridge()), ("b", DecisionTreeRegressor(random_state=0))]),
        "numbers",
        "value",
        F32,
    ),
    "logarithm of the target": Row(
        TransformedTargetRegressor(Ridge(), func=np.log, inverse_func=np.exp),
        "numbers",
        "positive",
        SKL,
    ),
    "logistic": Row(
        make_pipeline(StandardScaler(), LogisticRegression()), "numbers", "yes or no", F64
    ),
    "logistic of integers": Row(
        make_pipeline(StandardScaler(), LogisticRegression()), "numbers", "level", F64
    ),
    "logistic of truth values": Row(
        make_pipeline(StandardScaler(), LogisticRegression()), "numbers", "flag", F64
    ),
    "naive Bayes": Row(GaussianNB(), "numbers", "yes or no", F64),
    "k neighbours of labels": Row(KNeighborsClassifier(), "numbers", "yes or no", F64),
    "neural network of labels": Row(
        make_pipeline(
            StandardScaler(), MLPClassifier(hidden_layer_sizes=(8,), max_iter=60, random_state=0)
        ),
        "numbers",
        "yes or no",
        F64,
    ),
    "tree of labels": Row(
        DecisionTreeClassifier(max_depth=4, random_state=0), "numbers", "yes or no", F32
    ),
    "forest of labels": Row(
        RandomForestClassifier(20, random_state=0), "numbers", "yes or no", F32
    ),
    "gradient boosting of labels": Row(
        GradientBoostingClassifier(n_estimators=10, random_state=0), "numbers", "yes or no", F32
    ),
    "histogram boosting of labels": Row(
        HistGradientBoostingClassifier(max_iter=10), "numbers with gaps", "yes or no", F32
    ),
    "histogram boosting of levels": Row(
        HistGradientBoostingClassifier(max_iter=10), "numbers", "level", F32
    ),
    "support vectors of labels": Row(
        make_pipeline(StandardScaler(), SVC()), "numbers", "yes or no", F64
    ),
    "linear support vectors": Row(
        make_pipeline(StandardScaler(), LinearSVC()), "numbers", "yes or no", SKL
    ),
    "ridge of labels": Row(RidgeClassifier(), "numbers", "yes or no", F32),
    "calibrated": Row(
        make_pipeline(StandardScaler(), CalibratedClassifierCV(LinearSVC())),
        "numbers",
        "yes or no",
        F64,
    ),
    "voting": Row(
        VotingClassifier(
            [("a", GaussianNB()), ("b", DecisionTreeClassifier(random_state=0))], voting="soft"
        ),
        "numbers",
        "yes or no",
        SKL,
    ),
    "mixed ridge": Row(columns(Ridge(), fill=False), "mixed", "value", F64),
    "mixed ridge with gaps": Row(columns(Ridge()), "mixed with gaps", "value", F32),
    "mixed forest": Row(
        columns(RandomForestRegressor(20, random_state=0)), "mixed with gaps", "value", F32
    ),
    "mixed support vectors": Row(columns(SVR()), "mixed with gaps", "value", F32),
    "mixed gradient boosting": Row(
        columns(GradientBoostingRegressor(n_estimators=20)), "mixed with gaps", "value", F32
    ),
    "mixed histogram boosting": Row(
        columns(HistGradientBoostingRegressor(max_iter=20)), "mixed with gaps", "value", SKL
    ),
    "mixed k neighbours": Row(columns(KNeighborsRegressor()), "mixed with gaps", "value", F32),
    "mixed logistic": Row(columns(LogisticRegression()), "mixed with gaps", "yes or no", F32),
    "mixed forest of labels": Row(
        columns(RandomForestClassifier(20, random_state=0)), "mixed with gaps", "level", F32
    ),
    "missing categories": Row(
        columns(Ridge(), fill_strings=True), "strings with gaps", "value", SKL
    ),
    "missing as a category": Row(columns(Ridge()), "strings with gaps", "value", SKL),
    "ordinal categories": Row(
        make_pipeline(
            ColumnTransformer(
                [
                    (
                        "s",
                        OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1),
                        STRINGS,
                    )
                ],
                remainder="passthrough",
            ),
            HistGradientBoostingRegressor(max_iter=20),
        ),
        "mixed with gaps",
        "value",
        F32,
    ),
    "strings alone": Row(
        make_pipeline(OneHotEncoder(handle_unknown="ignore"), LogisticRegression()),
        "strings",
        "yes or no",
        F32,
    ),
}


@pytest.mark.parametrize("name", TABLE)
def test_every_estimator_ends_in_a_proven_runtime(
    name: str, frames: dict[str, pd.DataFrame], targets: dict[str, Any], packager: Packager
) -> None:
    row = TABLE[name]
    frame, target = frames[row.frame], targets[row.target]
    estimator = unfitted(row.estimator)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that 60 rounds of training are too few
        estimator.fit(frame[:-HELD_OUT], target[:-HELD_OUT])

    bundle = packager(estimator, frame)

    parity = bundle.proof["parity"]
    print(
        f"{name}: {bundle.proof['runtime']} {bundle.proof['dtype']} {parity['max_difference']:.1e}"
    )
    assert (bundle.proof["runtime"], bundle.proof["dtype"]) == row.expected, bundle.proof[
        "rejected"
    ]
    assert parity["max_difference"] <= parity["tolerance"]
    assert {"holdout", "single_row"} <= set(parity["cases"])
    # The finished bundle loads as the service loads it, and answers its sample as recorded.
    scorer = Scorer.load(Settings(model_dir=bundle.path / "model"))
    sample = bundle.model["sample"]
    assert scorer.score(json.dumps(sample["request"]).encode())["result"] == sample["result"]
    own = estimator.predict(frame[-HELD_OUT:][: len(sample["result"])])
    if bundle.model["kind"] == "regressor":
        assert np.allclose(sample["result"], own, atol=sample["tolerance"])
    else:
        assert sample["result"] == own.tolist()
        assert set(sample["result"]) <= set(bundle.model["classes"])
