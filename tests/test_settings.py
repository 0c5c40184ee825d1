"""Settings: who wins, and what is said of a wrong one."""

from __future__ import annotations

from pathlib import Path

import pytest

from switchyard.errors import SettingsError
from switchyard.settings import default_home, load_settings
from switchyard.storage import place_of


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "switchyard.toml").write_text("seed = 1\ncustomers = 2\nterminals = 3\n")
    return tmp_path


def test_arguments_win_over_environment_over_the_homes_file_over_defaults(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SWITCHYARD_SEED", "10")
    monkeypatch.setenv("SWITCHYARD_CUSTOMERS", "20")

    settings = load_settings(home=home, seed=100, terminals=None)

    assert (settings.seed, settings.customers, settings.terminals) == (100, 20, 3)
    assert settings.transactions_per_day == 5_100


def test_the_home_comes_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SWITCHYARD_HOME", str(tmp_path / "elsewhere"))

    assert default_home() == load_settings().home == tmp_path / "elsewhere"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"seed": -1}, "setting 'seed' is -1: Input should be greater than or equal to 0"),
        ({"review_share": 2}, "setting 'review_share' is 2: Input should be less than 1"),
        ({"currency": "euro"}, "setting 'currency' is 'euro': "),
        ({"executor": "magic"}, "setting 'executor' is 'magic': Input should be 'in_process' or"),
        ({"colour": "red"}, "setting 'colour' is 'red': Extra inputs are not permitted"),
        (
            {"batch_roots": "/srv:batch"},
            "setting 'batch_roots' is .*'batch' must be an absolute path",
        ),
        ({"days": 0, "port": 0}, "setting 'days' is 0: .*; setting 'port' is 0: "),
    ],
)
def test_a_wrong_setting_is_named_with_its_value_and_what_would_be_right(
    home: Path, wrong: dict[str, object], message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        load_settings(home=home, **wrong)


def test_folders_for_batch_jobs_come_from_one_text_or_from_a_list(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert load_settings(home=home).batch_folders == (home / "batch",)

    (home / "switchyard.toml").write_text('batch_roots = ["/srv/in", "/srv/out"]')
    from_file = load_settings(home=home).batch_folders
    monkeypatch.setenv("SWITCHYARD_BATCH_ROOTS", "/mnt/in:s3://bank/batch:/mnt/out")

    assert from_file == (Path("/srv/in"), Path("/srv/out"))
    assert load_settings(home=home).batch_folders == (
        Path("/mnt/in"), place_of("s3://bank/batch"), Path("/mnt/out")
    )  # fmt: skip


def test_credentials_in_a_folder_for_batch_jobs_are_refused_and_not_repeated(home: Path) -> None:
    with pytest.raises(SettingsError, match="must not hold credentials") as caught:
        load_settings(home=home, batch_roots="/mnt/in:s3://key:secret@bank/batch")

    assert "secret" not in str(caught.value)


def test_a_home_file_that_is_no_toml_is_named(home: Path) -> None:
    (home / "switchyard.toml").write_text("seed = = 1")

    with pytest.raises(SettingsError, match=r"switchyard\.toml can't be read: "):
        load_settings(home=home)


def test_settings_are_frozen(home: Path) -> None:
    settings = load_settings(home=home)

    with pytest.raises(ValueError, match="frozen"):
        settings.seed = 2  # type: ignore[misc]
