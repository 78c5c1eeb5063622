"""Programs timed in turns."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks.race import Finish, race, speedup
from scripts.errors import SlipwayError

FILL = "import time; held = bytearray(80_000_000); held[::4096] = b'x' * len(held[::4096]); time.sleep(0.4)"
NOTE = "import sys; open('order', 'a').write(sys.argv[1])"


def test_commands_take_turns_back_and_forth(tmp_path: Path) -> None:
    commands = {name: [sys.executable, "-c", NOTE, name] for name in "ab"}
    cleared: list[None] = []
    finishes = race(commands, 3, tmp_path, lambda: cleared.append(None))
    assert (tmp_path / "order").read_text() == "abbaab"
    assert len(cleared) == len(finishes) == 6
    assert all(each.seconds > 0 for each in finishes)


def test_the_peak_is_that_of_all_it_started(tmp_path: Path) -> None:
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {FILL!r}], check=True)"
    (finish,) = race({"parent": [sys.executable, "-c", child]}, 1, tmp_path)
    assert 80 < finish.peak_mb < 200


def test_a_command_that_fails_is_an_error_with_its_last_word(tmp_path: Path) -> None:
    with pytest.raises(SlipwayError, match="worse failed with code 1: no such file"):
        race({"worse": [sys.executable, "-c", "raise SystemExit('no such file')"]}, 1, tmp_path)


def test_the_speedup_is_the_median_of_the_rounds_own() -> None:
    seconds = {"ours": (1.0, 2.0, 1.0), "theirs": (4.0, 8.0, 3.0)}
    finishes = [
        Finish(name, number, each, 0.0)
        for name, rounds in seconds.items()
        for number, each in enumerate(rounds, 1)
    ]
    assert speedup(finishes, "ours", "theirs") == 4
