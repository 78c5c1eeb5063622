"""The error of the batch scorer."""

from __future__ import annotations


class BatchError(Exception):
    """The job cannot be done: what is wrong, and the mend.

    `exit_code` is 2 for what the caller gave (paths, columns, a file's content), 1 for what failed on
    the way (the model, the disk).
    """

    def __init__(self, message: str, mend: str = "", exit_code: int = 2) -> None:
        super().__init__(message)
        self.message = message
        self.mend = mend
        self.exit_code = exit_code
