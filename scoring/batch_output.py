"""The output of a batch job: made in a folder beside it, kept part by part, and published whole.

The folder `.<name>.partial` holds what the job is made from, a journal with a line for each finished
part, and the files so far. A line says how long the files were and their checksum, so that a job
that was killed goes on behind the last part whose files are whole. One job at a time has the folder.
"""

from __future__ import annotations

import csv
import fcntl
import io
import json
import os
import shutil
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from scoring.batch_errors import BatchError
from scoring.batch_rows import Position, Reject

_REJECT_COLUMNS = ("file", "row", "column", "reason", "value")

#: What makes quotes necessary in CSV.
_QUOTED = r"""[,"\r\n]"""

#: A row group of the output has at most about so many rows, or bytes before they are encoded.
_GROUP_ROWS = 500_000
_GROUP_BYTES = 16 << 20


def rejects_path(output: Path) -> Path:
    """Where the rejects of `output` go."""
    return output.with_name(f"{output.name}.rejects.csv")


def reject_lines(file: str, rejects: Iterable[Reject]) -> bytes:
    """Rejects of a file as lines of the rejects file."""
    return _csv_lines([(file, *reject) for reject in rejects])


def _csv_lines(rows: Iterable[Iterable[Any]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


class _Spool:
    """A file that only grows; its length and checksum are known at any time."""

    EMPTY: ClassVar = (0, 0)

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stream = path.open("ab")
        self.state = [0, 0]

    def restore(self, state: Sequence[int]) -> bool:
        """Cut the file to the `state` it had; False if it does not have that content any more."""
        size, checksum, left = 0, 0, state[0]
        with self.path.open("rb") as stream:
            while left and (block := stream.read(min(left, 1 << 20))):
                checksum = zlib.crc32(block, checksum)
                size, left = size + len(block), left - len(block)
        if [size, checksum] != list(state):
            return False
        self._stream.truncate(size)
        self.state = [size, checksum]
        return True

    def append(self, content: bytes | pa.Buffer) -> None:
        self._stream.write(content)
        self._stream.flush()
        self.state = [self.state[0] + len(content), zlib.crc32(content, self.state[1])]

    def close(self) -> None:
        self._stream.close()


class _CsvFile:
    """A CSV output: the spool is the file."""

    def __init__(self, schema: pa.Schema, folder: Path) -> None:
        self.header = _csv_lines([schema.names])

    def encode(self, table: pa.Table) -> pa.Buffer:
        sink = pa.BufferOutputStream()
        texts = [column for column in table.columns if column.type == pa.string()]
        quotes = any(pc.any(pc.match_substring_regex(each, _QUOTED)).as_py() for each in texts)
        # pyarrow's "needed" quotes every text.
        options = pyarrow.csv.WriteOptions(
            include_header=False, quoting_style="needed" if quotes else "none"
        )
        pyarrow.csv.write_csv(table, sink, options)
        return sink.getvalue()

    def replay(self, spool: Path) -> None:
        pass

    def add(self, table: pa.Table) -> None:
        pass

    def finish(self, spool: Path) -> Path:
        return spool

    def abandon(self) -> None:
        pass


class _ParquetFile:
    """A Parquet output, written beside the spool: without its end it cannot be gone on with.

    The spool holds the same rows as Arrow streams, which are taken up again in no time.
    """

    header = b""

    def __init__(self, schema: pa.Schema, folder: Path) -> None:
        self._schema = schema
        self._path = folder / "rows.parquet"
        self._stream = self._path.open("wb")
        texts = [field.name for field in schema if pa.types.is_string(field.type)]
        self._writer = pq.ParquetWriter(self._stream, schema, use_dictionary=texts)
        self._group: list[pa.Table] = []

    def encode(self, table: pa.Table) -> pa.Buffer:
        sink = pa.BufferOutputStream()
        options = pa.ipc.IpcWriteOptions(compression="lz4", use_threads=False)
        with pa.ipc.new_stream(sink, self._schema, options=options) as stream:
            stream.write_table(table)
        return sink.getvalue()

    def replay(self, spool: Path) -> None:
        size = spool.stat().st_size
        with pa.OSFile(str(spool)) as stream:
            while stream.tell() < size:
                self.add(pa.ipc.open_stream(stream).read_all())

    def add(self, table: pa.Table) -> None:
        self._group.append(table)
        rows = sum(each.num_rows for each in self._group)
        if rows >= _GROUP_ROWS or sum(each.nbytes for each in self._group) >= _GROUP_BYTES:
            self._write_group()

    def _write_group(self) -> None:
        table, self._group = pa.concat_tables(self._group), []
        self._writer.write_table(table)

    def finish(self, spool: Path) -> Path:
        if self._group:
            self._write_group()
        self._writer.close()
        self._stream.close()
        return self._path

    def abandon(self) -> None:
        # Nothing more is written, not even when the writer is collected.
        self._writer.is_open = False
        self._stream.close()


class Output:
    """An output being made. `position`, `written` and `rejected` are as of the last finished part."""

    def __init__(self, output: Path, folder: Path, schema: pa.Schema) -> None:
        self._output = output
        self._folder = folder
        self._rows = _Spool(folder / "rows.spool")
        self._rejects = _Spool(folder / "rejects.spool")
        self._journal = folder / "journal"
        kind: type[_CsvFile | _ParquetFile]
        kind = _CsvFile if output.suffix.lower() == ".csv" else _ParquetFile
        self._file = kind(schema, folder)
        self.position = Position()
        self.written = self.rejected = 0
        self.published = False
        if not self._resume():
            self._journal.write_bytes(b"")
            self._rows.restore(_Spool.EMPTY)
            self._rejects.restore(_Spool.EMPTY)
            self._rows.append(self._file.header)
            self._rejects.append(_csv_lines([_REJECT_COLUMNS]))

    def _resume(self) -> bool:
        """Go on behind the last finished part; False if there is none, or its files are damaged."""
        try:
            lines = self._journal.read_bytes().splitlines(keepends=True)
        except FileNotFoundError:
            return False
        whole = [line for line in lines if line.endswith(b"\n")]
        if not whole:
            return False
        try:
            part = json.loads(whole[-1])
            if not (self._rows.restore(part["rows"]) and self._rejects.restore(part["rejects"])):
                return False
            self._file.replay(self._rows.path)
        except (ValueError, KeyError, pa.ArrowException):
            return False
        self._journal.write_bytes(whole[-1])
        self.position = Position(*part["position"])
        self.written, self.rejected = part["written"], part["rejected"]
        return True

    def encode(self, table: pa.Table) -> pa.Buffer:
        """Rows as `add` takes them; any thread may ask."""
        return self._file.encode(table)

    def add(
        self, table: pa.Table, encoded: pa.Buffer, rejects: bytes, count: int, position: Position
    ) -> None:
        """Keep a part: its rows, its `count` rejects, and that the input is done up to `position`."""
        self._rows.append(encoded)
        self._rejects.append(rejects)
        self._file.add(table)
        self.position = position
        self.written += table.num_rows
        self.rejected += count
        part = {
            "position": position,
            "written": self.written,
            "rejected": self.rejected,
            "rows": self._rows.state,
            "rejects": self._rejects.state,
        }
        with self._journal.open("a") as stream:
            stream.write(json.dumps(part) + "\n")

    def publish(self) -> None:
        """Put the rejects, if there are any, and the output in their places, whole."""
        path = self._file.finish(self._rows.path)
        _sync(path)
        rejects = rejects_path(self._output)
        if self.rejected:
            _sync(self._rejects.path)
            os.replace(self._rejects.path, rejects)
        else:
            rejects.unlink(missing_ok=True)
        os.replace(path, self._output)
        self.published = True

    def close(self) -> None:
        """Let go of the files; what is finished stays for the next call."""
        self._file.abandon()
        self._rows.close()
        self._rejects.close()


@contextmanager
def making(output: Path, origin: Mapping[str, Any], schema: pa.Schema) -> Iterator[Output]:
    """An output made from `origin`, going on with what was made from the same.

    Raises BatchError if another job is making it.
    """
    folder = output.with_name(f".{output.name}.partial")
    with _locked(folder, output):
        manifest, text = folder / "made-from.json", json.dumps(origin, indent=1)
        try:
            same = manifest.read_text() == text
        except (FileNotFoundError, UnicodeDecodeError):
            same = False
        if not same:
            for old in folder.iterdir():
                old.unlink()
            manifest.write_text(text)
        made = Output(output, folder, schema)
        try:
            yield made
        finally:
            made.close()
            if made.published or made.position == Position():
                shutil.rmtree(folder)


@contextmanager
def _locked(folder: Path, output: Path) -> Iterator[None]:
    """Have the folder for oneself; the lock goes with the process."""
    while True:
        folder.mkdir(exist_ok=True)
        try:
            descriptor = os.open(folder, os.O_RDONLY)
        except FileNotFoundError:  # the job that had it has just finished
            continue
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise BatchError(
                    f"another job is writing {output}",
                    "wait for it, end it, or give this one another OUTPUT",
                    exit_code=1,
                ) from None
            if folder.is_dir() and os.path.samestat(os.fstat(descriptor), folder.stat()):
                yield
                return
        finally:
            os.close(descriptor)


def _sync(path: Path) -> None:
    with path.open("rb") as stream:
        os.fsync(stream.fileno())
