"""Settings: layers, types, and what a person is told when one is wrong."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from scripts.errors import UsageError
from scripts.settings import EXPECTED, SECRETS, Settings, load_settings, one_edit_apart


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "defaults.env").write_text("MODEL_NAME=oak\nLOAD_USERS=3\n")
    return tmp_path


def test_environment_over_env_file_over_the_room_over_defaults(clone: Path) -> None:
    assert load_settings(clone, {}).LOAD_DURATION == 10
    assert load_settings(clone, {}).LOAD_USERS == 3
    (clone / ".env").write_text("LOAD_USERS=4\n")
    assert load_settings(clone, {}).LOAD_USERS == 4
    assert load_settings(clone, {"LOAD_USERS": "5"}).LOAD_USERS == 5


def test_empty_counts_as_unset_and_falls_through(clone: Path) -> None:
    (clone / ".env").write_text("LOAD_USERS=\nMODEL_NAME=''\n")
    settings = load_settings(clone, {"LOAD_USERS": ""})
    assert (settings.LOAD_USERS, settings.MODEL_NAME) == (3, "oak")


def test_a_pattern_is_told_in_words() -> None:
    """No person should have to read a regular expression."""
    schema = Settings.model_json_schema()["properties"]
    patterned = {
        name
        for name, entry in schema.items()
        if any("pattern" in one for one in [entry, *entry.get("anyOf", [])])
    }
    assert patterned - set(EXPECTED) == set()


def test_required_and_unset_names_the_variable(clone: Path) -> None:
    with pytest.raises(UsageError, match="BASE_NAME is not set"):
        load_settings(clone, {}).require("BASE_NAME")


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("DATA_PATH = a b.csv ", "a b.csv"),
        ('DATA_PATH="a#b.csv" # why', "a#b.csv"),
        ("DATA_PATH='$HOME/${X}.csv'", "$HOME/${X}.csv"),
        ("DATA_PATH=$HOME/x.csv", "$HOME/x.csv"),
        ("DATA_PATH=one.csv\r\nDATA_PATH=two.csv\r\n", "two.csv"),
        ("export DATA_PATH=x.csv # c", "x.csv"),
    ],
)
def test_env_file_keeps_what_stands_there(clone: Path, line: str, value: str) -> None:
    (clone / ".env").write_bytes(line.encode() + b"\n")
    assert value == load_settings(clone, {}).DATA_PATH


@pytest.mark.parametrize(
    ("name", "value", "should"),
    [
        ("LOAD_USERS", "0", "greater than or equal to 1"),
        ("LOAD_USERS", "many", "integer"),
        ("WORKSPACE_NAME", "w", "3 to 33 letters, digits, _ and -"),
        ("PLATFORM", "aws", "'local' or 'azure'"),
        ("BASE_NAME", "elevenchars", "1 to 10 letters and digits"),
        ("BASE_NAME", "my-ml", "1 to 10 letters and digits"),
        ("SCORING_PORT", "80", "1024"),
        ("LOAD_ERROR_RATE", "nan", "finite"),
        ("GATE_MARGIN", "inf", "finite"),
    ],
)
def test_wrong_value_names_variable_value_origin_and_range(
    clone: Path, name: str, value: str, should: str
) -> None:
    (clone / ".env").write_text(f"{name}={value}\n")
    with pytest.raises(UsageError) as caught:
        load_settings(clone, {})
    assert caught.value.exit_code == 2
    assert f"{name}={value} (from .env) should be" in caught.value.message
    assert should in caught.value.message


def test_every_wrong_value_is_named_once(clone: Path) -> None:
    with pytest.raises(UsageError) as caught:
        load_settings(clone, {"SCORING_PORT": "x", "LOAD_USERS": "y"})
    assert caught.value.message.count("SCORING_PORT=x") == 1
    assert caught.value.message.count("LOAD_USERS=y") == 1


def test_a_wrong_secret_is_not_shown(clone: Path) -> None:
    with pytest.raises(
        UsageError, match=r"SCORING_KEY=\(secret\) .* should be printable"
    ) as caught:
        load_settings(clone, {"SCORING_KEY": "hunter 2é"})
    assert "hunter" not in str(caught.value)
    settings = load_settings(clone, {"SCORING_KEY": "hunter2"})
    assert "hunter2" not in repr(settings)
    assert {
        "APPLICATIONINSIGHTS_CONNECTION_STRING",
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "OTEL_EXPORTER_OTLP_HEADERS",
        "SCORING_KEY",
        "SP_APP_SECRET",
    } == SECRETS


def test_credentials_in_an_address_are_not_shown(clone: Path) -> None:
    with pytest.raises(UsageError, match=r"OTEL_EXPORTER_OTLP_ENDPOINT=\(secret\) ") as caught:
        load_settings(clone, {"OTEL_EXPORTER_OTLP_ENDPOINT": "https://user:hunter2@collector"})
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "typo", ["LOAD_USER", "LAOD_USERS", "LOAD_USERZ", "LOADD_USERS", "load_users"]
)
def test_one_edit_from_a_setting_is_refused(clone: Path, typo: str) -> None:
    (clone / ".env").write_text(f"{typo}=5\n")
    with pytest.raises(UsageError, match=f"sets {typo}, which is no setting") as caught:
        load_settings(clone, {})
    assert "write LOAD_USERS" in caught.value.mend


def test_any_other_unknown_name_only_warns(clone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (clone / ".env").write_text("MY_OWN_THING=5\n")
    load_settings(clone, {})
    assert "MY_OWN_THING" in capsys.readouterr().err


def test_a_line_that_is_no_assignment_is_named(clone: Path) -> None:
    (clone / ".env").write_text('LOAD_USERS=3\nDATA_PATH="open\n')
    with pytest.raises(UsageError, match=r"\.env line 2"):
        load_settings(clone, {})


def test_env_that_is_not_utf8_is_named(clone: Path) -> None:
    (clone / ".env").write_bytes(b"DATA_PATH=\xff\xfe\n")
    with pytest.raises(UsageError, match=r"\.env cannot be read"):
        load_settings(clone, {})


def test_one_edit() -> None:
    assert one_edit_apart("abc", "abcd")
    assert one_edit_apart("abcd", "bcd")
    assert one_edit_apart("abc", "axc")
    assert one_edit_apart("abc", "acb")
    assert not one_edit_apart("abc", "abc")
    assert not one_edit_apart("abc", "cab")
    assert not one_edit_apart("abcd", "ab")


def test_env_example_and_the_typed_list_are_one(root: Path) -> None:
    """Same names, same defaults, the same secrets, and a comment above each."""
    listed: dict[str, tuple[str, str]] = {}
    comment = ""
    for line in (root / ".env.example").read_text("utf-8").splitlines():
        if line.startswith("#"):
            comment = line if comment.startswith("\0") else f"{comment} {line}"
        elif match := re.match(r"([A-Z][A-Z0-9_]*)=(.*)", line):
            # Settings that stand together share the comment above them.
            comment = "\0" + comment.removeprefix("\0")
            listed[match[1]] = (match[2], comment)
        else:
            comment = ""
    assert set(listed) == set(Settings.model_fields)
    defaults = Settings()
    for name, (value, comment) in listed.items():
        assert "#" in comment, f"{name} has no comment"
        assert ("Secret." in comment) == (name in SECRETS), name
        typed = getattr(Settings.model_validate({name: value}), name) if value else None
        assert typed == getattr(defaults, name), name
