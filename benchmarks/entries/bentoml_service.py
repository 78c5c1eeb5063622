"""What a user of BentoML writes."""

import os
from pathlib import Path

import bentoml
import joblib
import numpy as np


@bentoml.service(traffic={"timeout": 60})
class Scorer:
    """One model."""

    def __init__(self) -> None:
        self.model = joblib.load(Path(os.environ["BENCH_MODEL_DIR"], "model.joblib"))

    @bentoml.api  # type: ignore[untyped-decorator]
    def score(self, data: np.ndarray) -> np.ndarray:
        """Predict rows."""
        return np.asarray(self.model.predict(data))
