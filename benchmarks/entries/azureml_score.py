"""What a user of Azure ML writes for azureml-inference-server-http: Microsoft's own example."""

import json
import os
from typing import Any

import joblib
import numpy as np
import pandas as pd

model: Any = None


def init() -> None:
    """Load the model, once."""
    global model
    model = joblib.load(os.path.join(os.environ["AZUREML_MODEL_DIR"], "model.joblib"))


def run(raw_data: str) -> list[Any]:
    """Predict rows; strings need a frame, numbers are faster in an array."""
    data = json.loads(raw_data)["data"]
    rows = np.array(data)
    if rows.dtype.kind not in "fi":
        rows = pd.DataFrame(data, columns=model.feature_names_in_)
    result: list[Any] = model.predict(rows).tolist()
    return result
