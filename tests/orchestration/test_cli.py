"""The command line: every command is there, errors are one line, and exports can be evaluated by a shell."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from orchestration.cli import main
from orchestration.status import store_health
from switchyard.serving import valkey
from switchyard.settings import load_settings
from tests.homes import own_environment
from tests.releases import SUSPICIOUS_AMOUNT, make_release
from tests.streams import land, make_transaction

COMMANDS = ["alerts", "approve", "backtest", "bench", "demo", "deploy", "down", "env", "explain",
            "forget", "labels", "monitor", "reload", "replay", "retention", "rollout", "score", "serve", "status",
            "traffic", "ui", "up"]  # fmt: skip
MAP = """\
columns: {transaction_id: id, customer_id: card, terminal_id: shop, amount: paid, event_timestamp: at}
constants: {currency: EUR}
"""


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "home"
    valkey.stop(tmp_path / "home")


@pytest.fixture
def switchyard(home: Path) -> Callable[..., Result]:
    """Runs the command line in a home of the test's own."""

    def run(*arguments: str, **variables: str) -> Result:
        with own_environment(SWITCHYARD_HOME=str(home), COLUMNS="1000", **variables):
            return CliRunner().invoke(main, list(arguments))

    return run


def test_help_lists_every_command_with_what_it_does(switchyard: Callable[..., Result]) -> None:
    result = switchyard("--help")

    listed = result.output.partition("Commands:\n")[2].splitlines()
    assert [line.split()[0] for line in listed] == COMMANDS
    assert all(len(line.split()) > 3 for line in listed)


def test_an_error_made_on_purpose_ends_in_one_line_and_code_1(
    switchyard: Callable[..., Result], home: Path
) -> None:
    result = switchyard("replay", "--from", "2026-01-02", "--to", "2026-01-03")

    assert result.exit_code == 1
    assert result.output == (
        "ServiceError: no service is running in this home: run `switchyard demo` first\n"
    )


def test_a_wrong_setting_is_named_with_its_value(switchyard: Callable[..., Result]) -> None:
    result = switchyard("status", SWITCHYARD_WORKERS="none")

    assert result.exit_code == 1
    assert result.output.startswith("SettingsError: setting 'workers' is 'none': ")


def test_a_file_of_verdicts_is_added_and_its_bad_rows_are_named(
    switchyard: Callable[..., Result], home: Path, tmp_path: Path
) -> None:
    land(home / "lake", [make_transaction()])
    file, told = tmp_path / "chargebacks.csv", tmp_path / "told.json"
    head = "transaction_id,is_fraud,label_available_at\n"
    file.write_text(f"{head}t1,1,2026-04-01T00:00:00Z\nnobody,1,2026-04-01T00:00:00Z\n")

    result = switchyard("labels", "add", str(file), "--json", str(told))

    assert result.exit_code == 0, result.output
    assert "row 2: the lake has no such transaction" in result.output
    figures = json.loads(told.read_text())
    assert (figures["rows"], figures["added"], figures["refused"]) == (2, 1, 1)


def test_what_the_command_line_does_not_know_is_a_usage_error(
    switchyard: Callable[..., Result],
) -> None:
    result = switchyard("demo", "--source", "oracle")

    assert result.exit_code == 2
    assert "'oracle' is not one of 'simulator', 'handbook', 'file'" in result.output


def test_a_file_is_scored_in_batch_by_a_named_release(
    switchyard: Callable[..., Result], home: Path, tmp_path: Path
) -> None:
    release = make_release(home / "releases")
    X = np.zeros((2, len(release.columns)))
    X[1, release.columns.index("amount")] = 2 * SUSPICIOUS_AMOUNT
    rows = dict(zip(release.columns, X.T, strict=True))
    pq.write_table(pa.table(rows | {"transaction_id": ["a", "b"]}), tmp_path / "in.parquet")
    paths = [str(tmp_path / "in.parquet"), str(tmp_path / "out.parquet")]

    result = switchyard("score", *paths, "--release", release.id)

    assert result.exit_code == 0, result.output
    scores = pq.read_table(tmp_path / "out.parquet")["score"].to_pylist()
    assert scores == release.score(X).tolist()


def test_a_folder_is_scored_into_a_folder_and_the_figures_say_so(
    switchyard: Callable[..., Result], home: Path, tmp_path: Path
) -> None:
    release = make_release(home / "releases")
    (tmp_path / "in").mkdir()
    rows = {name: [1.0, 2.0] for name in release.columns}
    for name in ("a", "b"):
        table = pa.table(rows | {"transaction_id": [f"{name}1", f"{name}2"]})
        pq.write_table(table, tmp_path / "in" / f"{name}.parquet")
    told = tmp_path / "told.json"

    result = switchyard(
        "score", str(tmp_path / "in"), str(tmp_path / "out"), "--release", release.id,
        "--threads", "1", "--json", str(told),
    )  # fmt: skip

    assert result.exit_code == 0, result.output
    assert pq.read_table(tmp_path / "out" / "b.parquet")["transaction_id"].to_pylist() == [
        "b1",
        "b2",
    ]
    figures = json.loads(told.read_text())
    assert (figures["rows"], figures["output"]) == (4, str(tmp_path / "out"))


def test_a_url_with_credentials_is_refused_and_not_repeated(
    switchyard: Callable[..., Result], tmp_path: Path
) -> None:
    result = switchyard("score", "s3://key:secret@bank/in", str(tmp_path / "out.parquet"))

    assert result.exit_code == 1
    assert "must not hold credentials" in result.output
    assert "secret" not in result.output


def test_the_exports_of_env_can_be_evaluated_by_a_shell(
    switchyard: Callable[..., Result], home: Path
) -> None:
    result = switchyard("env")

    shell = subprocess.run(
        ["bash", "-c", f'{result.output}echo "$SWITCHYARD_HOME|$DAGSTER_HOME|$SWITCHYARD_REDIS_URL"'],
        env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert shell.stdout == f"{home}|{home}/dagster|unix://{valkey.socket_path(home)}\n"
    assert valkey.running(home)


def test_the_password_of_a_store_that_is_ready_is_not_shown(home: Path) -> None:
    valkey.start(home)
    url = f"unix://default:secret@{valkey.socket_path(home)}"

    assert store_health(load_settings(home=home, redis_url=url)) == (
        f"ready at unix://{valkey.socket_path(home)}"
    )


def test_down_says_what_it_stopped_and_what_was_not_running(
    switchyard: Callable[..., Result], home: Path
) -> None:
    valkey.start(home)

    first, second = switchyard("down"), switchyard("down")

    assert first.output == "service was not running; store stopped\n"
    assert second.output == "service was not running; store was not running\n"


def test_a_reload_without_a_service_says_how_to_start_one(
    switchyard: Callable[..., Result],
) -> None:
    result = switchyard("reload")

    assert result.exit_code == 1
    assert "no service is running" in result.output
    assert "switchyard serve" in " ".join(result.output.split())


def test_an_unknown_decision_is_said_to_be_unknown(switchyard: Callable[..., Result]) -> None:
    result = switchyard("explain", "no-such-decision")

    assert result.exit_code == 1
    assert result.output.startswith(
        "RequestError: no decision is in the journal for the decision 'no-such"
    )


# ---------------------------------------------------------------- bad input


def csv_of(*lines: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        path = folder / "sales.csv"
        path.write_text("".join(f"{line}\n" for line in lines))
        return path

    return write


def truncated(folder: Path) -> Path:
    path = folder / "sales.parquet"
    pq.write_table(pa.table({name: ["1"] for name in ("id", "card", "shop", "paid", "at")}), path)
    path.write_bytes(path.read_bytes()[:-20])
    return path


def missing(folder: Path) -> Path:
    return folder / "sales.csv"


HEADER = "id,card,shop,paid,at"


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (csv_of("id,card,shop,price,at", "1,2,3,4.00,2026-01-01T10:00:00Z"),
         "sales.csv: column 'paid' (our amount) is missing; the file has id, card, shop, price, at"),
        (csv_of(HEADER, "1,2,3,4.00,2026-01-01 10:00"),
         "sales.csv: column 'at'"),
        (csv_of(HEADER, "1,2,3,4.00"), "sales.csv: row 1 has 4 columns; the header has 5"),
        (csv_of(), "sales.csv: is empty; it must hold at least one transaction"),
        (csv_of(HEADER), "sales.csv: holds no rows; it must hold at least one transaction"),
        (truncated, "sales.parquet: is no whole Parquet file (cut off or damaged): "),
        (missing, "{folder}/sales.csv does not exist; --data must name a file or a folder of them"),
    ],
)  # fmt: skip
def test_a_bad_file_ends_the_demo_with_one_message_before_anything_runs(
    switchyard: Callable[..., Result],
    tmp_path: Path,
    write: Callable[[Path], Path],
    message: str,
) -> None:
    column_map = tmp_path / "map.yaml"
    column_map.write_text(MAP)
    file = write(tmp_path)

    result = switchyard(
        "demo", "--source", "file", "--data", str(file), "--column-map", str(column_map)
    )

    said = [line for line in result.output.splitlines() if "Error" in line]
    assert result.exit_code == 1
    assert len(said) == 1
    assert said[0].startswith(f"SourceError: {message.format(folder=tmp_path)}")


def test_a_source_without_its_folder_asks_for_it(switchyard: Callable[..., Result]) -> None:
    result = switchyard("demo", "--source", "handbook")

    assert "SourceError: source 'handbook' needs its folder or file: --data" in result.output
