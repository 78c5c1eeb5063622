"""The data contract: the columns of the data file, what may stand in them, and which is the target.

Features are numbers (`float`, `int`) or strings (`str`); their order here is the order of a row in
a scoring request. A feature with `nullable=True` may be missing, in the data and in a request.
"""

from __future__ import annotations

from pandera.pandas import Check, Column, DataFrameSchema

SCHEMA = DataFrameSchema(
    {
        "age": Column(float, Check.in_range(0, 120)),
        "sex": Column(float, Check.isin([1, 2])),
        "bmi": Column(float, Check.in_range(10, 80)),
        "bp": Column(float, Check.in_range(30, 200)),
        "tc": Column(float, Check.in_range(50, 500)),
        "ldl": Column(float, Check.in_range(10, 400)),
        "hdl": Column(float, Check.in_range(5, 150)),
        "tch": Column(float, Check.in_range(1, 20)),
        "ltg": Column(float, Check.in_range(2, 8)),
        "glu": Column(float, Check.in_range(30, 300)),
        "progression": Column(float, Check.ge(0)),
    }
)

TARGET = "progression"

# The column that names a row, if there is one: the holdout is drawn from it, else from the row.
ID_COLUMN = None
