"""Azure ML's entry script: `init()` once, then `run(raw_data)` for each request.

The service of this package uses the same `Scorer`; under azureml-inference-server-http this file is
the `--entry_script`, started from the folder that holds the `scoring` package.
"""

from __future__ import annotations

import math
import os
import sys
from time import perf_counter
from typing import Any, NamedTuple

import orjson

from scoring.contract import Contract, load_contract
from scoring.errors import NotJson, RequestError, StartError
from scoring.parse import Features, RequestParser
from scoring.runtime import Runtime, load_runtime
from scoring.settings import Settings

_QUICK_SECONDS = 0.001
_MANY_ROWS = 200
_MOST_INLINE = 256 * 1024


class Answer(NamedTuple):
    """A JSON body, how many predictions are in it, and what they were made from."""

    content: bytes
    predictions: int
    features: Features


class Scorer:
    """A model ready to answer request bodies."""

    def __init__(self, contract: Contract, runtime: Runtime, max_rows: int) -> None:
        self.contract = contract
        self._runtime = runtime
        self._parser = RequestParser(contract, max_rows)

    @classmethod
    def load(cls, settings: Settings) -> Scorer:
        """Load the model and let it answer its own sample request once.

        Raises StartError if the model is missing, wrong or does not run.
        """
        contract = load_contract(settings.model_dir)
        scorer = cls(contract, load_runtime(contract, settings.model_dir), settings.max_rows)
        try:
            scorer.score(orjson.dumps(contract.sample.request))
        except Exception as error:
            raise StartError(
                f"the model {contract.name} version {contract.version} does not answer its own "
                f"sample request: {error}",
                exit_code=1,
            ) from error
        return scorer

    def answer(self, body: bytes) -> Answer:
        """The answer to a request body. Raises NotJson or InvalidData."""
        request = self._parser.parse(body)
        predictions = self._runtime.predict(request.features, request.probabilities)
        answer: dict[str, Any] = {"result": predictions.result}
        if request.probabilities:
            answer["probabilities"] = predictions.probabilities
            answer["classes"] = self.contract.classes
        # What is not finite becomes null: JSON has no other way to say it.
        content = orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)
        return Answer(content, request.rows, request.features)

    def score(self, body: bytes) -> dict[str, Any]:
        """The answer as a client decodes it. Raises NotJson or InvalidData."""
        decoded: dict[str, Any] = orjson.loads(self.answer(body).content)
        return decoded


def inline_limit(scorer: Scorer, max_rows: int) -> int:
    """The size in bytes of a request that takes this model about a millisecond; 0 if none is so quick.

    Measured with the sample request, and the same with many rows. A model in scikit-learn never is:
    it may not bear to be called by two threads.
    """
    contract = scorer.contract
    if contract.runtime == "sklearn":
        return 0
    one = orjson.dumps(contract.sample.request)
    quick = _fastest(scorer, one)
    data = contract.sample.request.get("data") or []
    repeat = min(_MANY_ROWS, max_rows) // max(1, len(data))
    if quick >= _QUICK_SECONDS or repeat < 2:
        return 0 if quick >= _QUICK_SECONDS else len(one)
    many = orjson.dumps(contract.sample.request | {"data": data * repeat})
    per_byte = (_fastest(scorer, many) - quick) / (len(many) - len(one))
    if per_byte * _MOST_INLINE <= _QUICK_SECONDS - quick:
        return _MOST_INLINE
    return len(one) + int((_QUICK_SECONDS - quick) / per_byte)


def _fastest(scorer: Scorer, body: bytes) -> float:
    """Seconds that a request takes at best; one that is slow is tried only once."""
    fastest = math.inf
    for _ in range(5):
        began = perf_counter()
        scorer.answer(body)
        fastest = min(fastest, perf_counter() - began)
        if fastest > 10 * _QUICK_SECONDS:
            break
    return fastest


_scorer: Scorer | None = None


def init() -> None:
    """Load the model from SCORING_MODEL_DIR or AZUREML_MODEL_DIR. Raises StartError."""
    global _scorer
    _scorer = Scorer.load(Settings.from_environ(os.environ))


def run(raw_data: str | bytes | dict[str, Any]) -> Any:
    """Score one request body, as JSON text or already decoded.

    Returns {"result": [...]}. A bad request raises RequestError; under Azure ML's inference server,
    which would answer 500 to that, it returns that server's own response with the right status.
    """
    if _scorer is None:
        raise RuntimeError("init() has not been called")
    try:
        return _scorer.score(_as_bytes(raw_data))
    except RequestError as error:
        server = sys.modules.get("azureml_inference_server_http.api.aml_response")
        if server is None:
            raise
        return server.AMLResponse(error.as_dict(), error.status, json_str=True)


def _as_bytes(raw_data: str | bytes | dict[str, Any]) -> bytes:
    if isinstance(raw_data, bytes):
        return raw_data
    try:
        return raw_data.encode() if isinstance(raw_data, str) else orjson.dumps(raw_data)
    except (UnicodeEncodeError, orjson.JSONEncodeError) as error:
        raise NotJson(f"the body is not JSON in UTF-8: {error}") from None
