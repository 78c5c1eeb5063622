"""`make audit`: real pip-audit, and databases that answer on this machine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scripts import audit
from tests.scripts.databases import Databases, serving

HASH = " \\\n    --hash=sha256:" + "0" * 64 + "\n"

LOCKS = {
    "scoring.txt": f"kiln==1.0{HASH}oak-bark==2.1{HASH}",
    "toolbox.txt": f"kiln==1.0{HASH}sawmill==3.0{HASH}oak-bark==2.1{HASH}",
    "az.txt": f"kiln==1.4{HASH}",
}

VULNERABLE: dict[str, Any] = {
    "id": "PYSEC-2025-7",
    "aliases": ["CVE-2025-777", "GHSA-xxxx-yyyy-zzzz"],
    "fixed_in": ["1.3", "1.2.1"],
    "summary": "It overheats.",
}


def pypi(path: str, body: bytes) -> tuple[int, Any]:
    """Of kiln 1.0 a vulnerability is known, of sawmill nothing at all."""
    _, _, name, version, _ = path.split("/")
    if name == "sawmill":
        return 404, {"message": "Not Found"}
    return 200, {"vulnerabilities": [VULNERABLE] if (name, version) == ("kiln", "1.0") else []}


def osv(path: str, body: bytes) -> tuple[int, Any]:
    """The same in the words of OSV, without a version that mends it."""
    asked = json.loads(body)
    if (asked["package"]["name"], asked["version"]) != ("kiln", "1.0"):
        return 200, {}
    return 200, {"vulns": [{"id": "GHSA-1111-2222-3333", "summary": "Hot.", "affected": []}]}


def packages_alone(path: str, body: bytes) -> tuple[int, Any]:
    """As a mirror of packages answers."""
    return 404, {}


def broken(path: str, body: bytes) -> tuple[int, Any]:
    return 503, {}


@pytest.fixture
def locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The locks of a clone of its own."""
    folder = tmp_path / "clone" / "docker" / "locks"
    folder.mkdir(parents=True)
    for name, text in LOCKS.items():
        (folder / name).write_text(text)
    monkeypatch.setenv("SLIPWAY_ROOT", str(tmp_path / "clone"))
    monkeypatch.setenv("COLUMNS", "120")
    return folder


@pytest.fixture
def databases(tmp_path: Path, locks: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Databases]:
    with serving(tmp_path) as found:
        for name in ("HTTPS_PROXY", "https_proxy"):
            monkeypatch.setenv(name, found.url)
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(found.certificate))
        yield found


def accept(locks: Path, until: str, name: str = "CVE-2025-777") -> None:
    (locks / "accepted.toml").write_text(
        f'[[accepted]]\nid = "{name}"\npackage = "kiln"\nreason = "it is never lit"\nuntil = {until}\n'
    )


def test_findings_are_refused_with_what_mends_them(
    databases: Databases, locks: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    databases.answers["PyPI"] = pypi

    assert audit.main() == 3

    printed = capsys.readouterr()
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in printed.out.splitlines()]
    assert [row for row in rows if row and row[1] == "kiln"] == [
        [lock, "kiln", "1.0", "PYSEC-2025-7 CVE-2025-777", "1.2.1"]
        for lock in ("scoring", "toolbox")
    ]
    assert "1 known vulnerability in kiln" in printed.err
    assert "PyPI does not know sawmill" in printed.err
    # What two locks share is asked for once a lock at most, and nothing but the locks' packages.
    assert {each.split("/")[2] for each in databases.asked} == {"kiln", "oak-bark", "sawmill"}


def test_nothing_found_is_said_with_who_was_asked(
    databases: Databases, locks: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("scoring.txt", "toolbox.txt"):
        (locks / name).unlink()
    databases.answers["PyPI"] = pypi

    assert audit.main() == 0

    assert "no known vulnerability in 1 locks, by PyPI" in capsys.readouterr().out


@pytest.mark.parametrize("first", [packages_alone, broken, None])
def test_where_pypi_cannot_say_osv_is_asked(
    first: Any, databases: Databases, capsys: pytest.CaptureFixture[str]
) -> None:
    if first:
        databases.answers["PyPI"] = first
    databases.answers["OSV"] = osv

    assert audit.main() == 3

    assert "GHSA-1111-2222-3333" in capsys.readouterr().out


def test_where_no_database_answers_it_fails_and_names_them(
    databases: Databases, locks: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    databases.answers["PyPI"] = packages_alone
    databases.answers["OSV"] = broken

    assert audit.main() == 1

    printed = capsys.readouterr()
    assert "no database of vulnerabilities can be reached" in printed.err
    assert "PyPI: it knows no package of az.txt, as a mirror without" in printed.err
    assert "OSV: 503" in printed.err
    assert "https_proxy" in printed.err
    assert "Traceback" not in printed.err + printed.out
    # Seen at the first question.
    assert len(databases.asked) == 2


@pytest.mark.parametrize("trusted", [True, False])
def test_a_network_that_is_shut_is_named(
    trusted: bool,
    databases: Databases,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if trusted:
        for name in ("HTTPS_PROXY", "https_proxy"):
            monkeypatch.setenv(name, "http://127.0.0.1:9")
    else:
        monkeypatch.delenv("REQUESTS_CA_BUNDLE")
        databases.answers = {"PyPI": pypi, "OSV": osv}

    assert audit.main() == 1

    why = "Connection refused" if trusted else "certificate verify failed"
    assert f"PyPI: {why}" in capsys.readouterr().err


def test_what_is_accepted_with_a_reason_is_told_and_passes(
    databases: Databases, locks: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    databases.answers["PyPI"] = pypi
    accept(locks, "2999-01-01")

    assert audit.main() == 0

    said = capsys.readouterr().out
    assert "scoring: kiln CVE-2025-777 accepted until 2999-01-01: it is never lit" in said


def test_from_its_day_on_it_counts_again(databases: Databases, locks: Path) -> None:
    databases.answers["PyPI"] = pypi
    accept(locks, "2020-01-01")

    assert audit.main() == 3


def test_what_is_accepted_and_gone_is_told(
    databases: Databases, locks: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    databases.answers["PyPI"] = pypi
    accept(locks, "2999-01-01", "CVE-2024-1")

    assert audit.main() == 3

    assert "accepts CVE-2024-1, which is not found any more" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('[[accepted]]\nid = "CVE-1"\npackage = "kiln"\nuntil = 2999-01-01\n', "reason: Field"),
        ('[[accepted]]\nid = "C"\npackage = "k"\nreason = ""\nuntil = 2999-01-01\n', "reason: "),
        ('[[accepted]]\nid = "C"\npackage = "k"\nreason = "r"\nuntil = "soon"\n', "until: "),
        ("[accepts]\n", "accepts: Extra inputs"),
        ("accepted = 3\n", "accepted: Input should be"),
        ("accepted = [\n", "not valid TOML"),
    ],
)
def test_a_wrong_list_is_a_mistake_of_use(
    text: str, problem: str, locks: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (locks / "accepted.toml").write_text(text)

    assert audit.main() == 2

    said = capsys.readouterr().err
    assert "docker/locks/accepted.toml" in said
    assert problem in said


def test_a_lock_without_hashes_is_named(
    databases: Databases, locks: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    databases.answers["PyPI"] = pypi
    (locks / "az.txt").write_text("kiln==1.4\n")

    assert audit.main() == 1

    said = capsys.readouterr().err
    assert "docker/locks/az.txt cannot be audited" in said
    assert "does not contain a hash" in said


def test_the_list_of_this_clone_is_valid() -> None:
    root = Path(__file__).resolve().parents[2]

    assert audit.read_accepted(root / audit.ACCEPTED) == ()
