"""make's reader of .env against python-dotenv, and .env.example against the typed settings."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from urllib.parse import unquote_to_bytes

import pytest
from dotenv import dotenv_values
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from scripts.settings import SECRETS, Settings
from tests.make.conftest import ROOT, STAGES, Clone

AWKS = ["awk", "mawk", "gawk", "gawk --posix", "busybox awk", "original-awk"]
HERE = [awk for awk in AWKS if shutil.which(awk.split()[0])]

NASTY = [
    "A=1",
    "A=1\r\nB=2\r\n",
    "A=1\rB=2",
    "A=1\nA=2",
    "A=1\nA",
    "A=1\nA=",
    "A",
    "A B=1",
    "=1",
    "= 1\nA=2",
    "export A=1",
    "export\tA=1",
    "export A",
    "export=1",
    "exportA=1",
    "export export A=1",
    "export =1\nA=2",
    "  A = 1  ",
    "A= # comment",
    "A=#no comment",
    "A=1 # comment",
    "A=1# no comment",
    "A=1\t#c",
    "A=a b  c   # d # e",
    "# A=1",
    "  # A=1\nB=2",
    "A='x' # comment",
    "A='x'# comment",
    "A='x' junk\nB=2",
    "A='x\nB=2",
    'A="x\nB=2',
    "A='x\ny'\nB=2",
    'A="x\r\ny"\r\nB=2',
    'A="x\ny" junk\nB=2',
    "A='it\\'s'",
    "A='a\\\\'\nB='b'",
    "A='a\\nb\\tc\\\"'",
    'A="a\\nb\\tc\\rd\\ae\\bf\\fg\\vh\\\'i\\"j\\\\k"',
    'A="a\\xb\\u00e9\\0\\$"',
    'A="a\\\nb"',
    'A="a\\',
    "A='",
    'A="',
    "A=''",
    'A=""\nB=x',
    "A=it's",
    "A=x'y'",
    'A=x"y#z"',
    "'A'=1",
    "'A B'=1",
    "'A\nB' = 1",
    "''=1\nB=2",
    "'A=1",
    '"A"=1',
    "A==1",
    "A=1=2",
    "A=$B",
    "A=${B:-c}\nC=$(d)`e`",
    "A=a\\nb",
    "A=\\",
    "A=%41%",
    "A=é😀\u3000",
    "A=\u00a0x\u00a0#y",
    "A=x\u00a0#y\u2003",
    "A\u2003=\u2003'x'\u2003# y",
    "A=x\u0085y\u2028z",
    "\ufeffA=1",
    "\ufeff\ufeffA=1",
    "A=1\n\ufeffB=2",
    "A=\x0bx\x0c\x1c",
    "A:1\nB=2",
    "A.b-c=1",
    "A=;rm -rf / & | > < * ? [ ] ( ) { } ! ~ ,",
    "\n\n\nA=1\n\n",
    "",
    " ",
]

PIECES = st.sampled_from(
    [
        "A",
        "B",
        "export ",
        "=",
        "=",
        "=",
        "\n",
        "\n",
        "\r\n",
        "\r",
        " ",
        "\t",
        "#",
        " #",
        "'",
        '"',
        "\\",
        "\\n",
        "\\'",
        '\\"',
        "\\\\",
        "x y",
        "é",
        "\u3000",
        "\xa0",
        "\x85",
        "\u2028",
        "\x0b",
        "\x1c",
        "$",
        "${A}",
        "%",
        "`",
        "'K L'",
        "\ufeff",
    ]
)
TEXT = st.characters(codec="utf-8", exclude_characters="\0")
FILES = st.lists(PIECES | st.text(TEXT, max_size=3), max_size=40).map("".join)


def read(awk: str, files: list[Path]) -> list[dict[str, str]]:
    """What the reader takes each file for."""
    programs = ["-f", "make/env.awk", "-f", "tests/make/dump.awk"]
    dumped = subprocess.run(
        [*awk.split(), *programs, *map(str, files)],
        cwd=ROOT,
        env={**os.environ, "LC_ALL": "C"},
        capture_output=True,
        check=True,
    )
    assert dumped.stderr == b""
    found = []
    for part in dumped.stdout.split(b"file\n")[1:]:
        pairs = (line.split(b"=") for line in part.splitlines())
        found.append(
            {
                unquote_to_bytes(key).decode(): unquote_to_bytes(value).decode()
                for key, value in pairs
            }
        )
    return found


def meant(file: Path) -> dict[str, str]:
    """What python-dotenv takes it for; a key without a value is unset, as an empty one is."""
    values = dotenv_values(file, interpolate=False, encoding="utf-8")
    return {key: value or "" for key, value in values.items()}


@pytest.mark.parametrize("awk", HERE)
def test_the_reader_agrees_with_python_dotenv(tmp_path: Path, awk: str) -> None:
    files = []
    for number, text in enumerate(NASTY):
        files.append(tmp_path / str(number))
        files[-1].write_bytes(text.encode())
    for file, found in zip(files, read(awk, files), strict=True):
        assert found == meant(file), file.read_text()


@pytest.mark.parametrize("awk", HERE)
def test_the_reader_agrees_on_whatever_hypothesis_thinks_of(tmp_path: Path, awk: str) -> None:
    # Many files a call: starting awk costs more than reading.
    @hypothesis_settings(
        max_examples=20,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(st.lists(FILES, min_size=20, max_size=20))
    def agree(texts: list[str]) -> None:
        files = []
        for number, text in enumerate(texts):
            files.append(tmp_path / str(number))
            files[-1].write_bytes(text.encode())
        for file, found in zip(files, read(awk, files), strict=True):
            assert found == meant(file), file.read_bytes()

    agree()


@pytest.mark.parametrize("awk", HERE)
def test_any_awk_will_do(clone: Clone, awk: str) -> None:
    clone.write(
        "bin/awk",
        f'#!/bin/sh\nexec {shutil.which(awk.split()[0])}{awk[len(awk.split()[0]):]} "$@"\n',
    )
    (clone.path / "bin/awk").chmod(0o755)
    path = f"{clone.path}/bin:{os.environ['PATH']}"
    clone.write("model/some table.csv", "1")
    assert clone.run("all", PATH=path) == STAGES
    assert clone.run("all", PATH=path) == []
    clone.write("model/some table.csv", "2")
    assert clone.run("all", PATH=path) == ["data", "train"]
    clone.write(".env", 'SCORING_KEY="it\'s # a $key"\nGATE_MARGIN=1\n')
    assert clone.run("all", PATH=path) == ["evaluate", "deploy", "smoke", "load", "report"]
    assert clone.run("all", PATH=path) == []
    clone.touch("data/rows.csv")
    assert "scripts.data" in clone.make("-n", "all", PATH=path).stdout
    assert "did you mean train" in clone.make("trian", ok=False, PATH=path).stderr
    assert "GATE_MARGIN                  1  (.env)" in clone.make("help", PATH=path).stdout
    assert "PLATFORM=x y" not in clone.make("all", "PLATFORM=x y", ok=False, PATH=path).stdout


def test_settings_come_out_as_sh_assignments() -> None:
    value = 'it\'s $HOME `x` \\ "q"\nnew line'
    script = 'eval "$(make/env.sh get BASE_IMAGE LOCK_WAIT)"; printf %s "$BASE_IMAGE|$LOCK_WAIT"'
    shown = subprocess.run(
        ["sh", "-c", script],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "BASE_IMAGE": value, "LOCK_WAIT": "5"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout == f"{value}|5"


def test_env_example_is_what_python_dotenv_reads_too() -> None:
    awk_lines = {
        name: value
        for line in (ROOT / ".env.example").read_text().splitlines()
        if line and not line.startswith("#")
        for name, value in [line.split("=", 1)]
    }
    assert awk_lines == meant(ROOT / ".env.example")


def test_env_example_and_the_typed_settings_are_one_list() -> None:
    example = meant(ROOT / ".env.example")
    assert list(example) == list(Settings.model_fields)
    given_values = {name: value for name, value in example.items() if value}
    assert Settings.model_validate(given_values) == Settings()


def test_secrets_are_marked() -> None:
    marked, about = set(), ""
    for line in (ROOT / ".env.example").read_text().splitlines():
        if line.startswith("# "):
            about += line
        elif "=" in line:
            if "Secret." in about:
                marked.add(line.split("=")[0])
            about = ""
    assert marked == SECRETS
