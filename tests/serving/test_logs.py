"""Log lines: JSON with ids, repetition counted instead of written, a slow reader waited for by nobody."""

from __future__ import annotations

import io
import json
import logging
import queue
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from switchyard.serving.logs import (
    DecisionLog,
    Handing,
    JsonLines,
    LogDecisions,
    OncePerWhile,
    write_logs,
)
from tests.replies import make_reply


@pytest.fixture
def own_loggers() -> Iterator[None]:
    """The loggers' handlers and levels, afterwards as they were."""
    loggers = [logging.getLogger(name) for name in (None, "bentoml", "uvicorn.error", "circus")]
    loggers.append(logging.getLogger("switchyard"))
    before = [(each, each.handlers, each.propagate, each.level) for each in loggers]
    yield
    for logger, handlers, propagate, level in before:
        logger.handlers, logger.propagate, logger.level = handlers, propagate, level


def make_record(message: str = "it failed", level: int = logging.ERROR, **more: Any) -> Any:
    record = logging.LogRecord("switchyard.x", level, __file__, 1, message, (), None)
    record.__dict__ |= more
    return record


def test_a_line_is_json_with_what_finds_the_decision_again() -> None:
    record = make_record(decision_id="d1", transaction_id="t1", secret="abc")

    line = json.loads(JsonLines(lambda: "r1").format(record))

    assert line.keys() == {
        "time", "level", "logger", "message", "pid", "release", "decision_id", "transaction_id",
    }  # fmt: skip
    assert line["time"].endswith("+00:00")
    assert (line["level"], line["logger"], line["message"]) == (
        "error", "switchyard.x", "it failed",
    )  # fmt: skip
    assert (line["release"], line["decision_id"], line["transaction_id"]) == ("r1", "d1", "t1")


def test_an_exception_is_in_its_line() -> None:
    try:
        raise ValueError("damaged\nin two lines")
    except ValueError:
        record = make_record(exc_info=sys.exc_info())

    text = JsonLines().format(record)

    assert "\n" not in text
    assert "damaged\nin two lines" in json.loads(text)["exception"]


def test_what_is_repeated_is_written_once_a_while_and_counted() -> None:
    now = 0.0
    seldom = OncePerWhile(pause_s=10.0, clock=lambda: now)
    records = [make_record() for _ in range(3)]
    other = make_record("something else")

    passed = [seldom.filter(record) for record in records]
    passed_other = seldom.filter(other)
    now = 10.0
    later = make_record()
    passed_later = seldom.filter(later)

    assert (passed, passed_other, passed_later) == ([True, False, False], True, True)
    assert json.loads(JsonLines().format(later))["repeated"] == 2


def test_what_is_no_warning_is_written_every_time() -> None:
    seldom = OncePerWhile()

    assert all(seldom.filter(make_record(level=logging.INFO)) for _ in range(3))


def test_nobody_waits_for_a_slow_reader_and_the_next_line_says_how_many_were_dropped() -> None:
    waiting: queue.Queue[Any] = queue.Queue(1)
    handing = Handing(waiting)

    for message in ("kept", "dropped", "dropped"):
        handing.emit(make_record(message))
    first = waiting.get()
    handing.emit(make_record("after"))

    assert first.getMessage() == "kept"
    assert json.loads(JsonLines().format(waiting.get()))["dropped"] == 2


@pytest.mark.parametrize(
    ("which", "logged"),
    [("never", 0), ("degraded", 3), ("always", 6)],
)
def test_decisions_are_logged_as_the_setting_says(
    which: LogDecisions, logged: int, caplog: pytest.LogCaptureFixture
) -> None:
    now = 0.0
    log = DecisionLog(which, clock=lambda: now)
    replies = [make_reply(), make_reply(degraded=["stale_profile"])]
    replies += [make_reply(degraded=["default_features", "stale_profile"])]
    replies += [make_reply(degraded=["stale_profile"])]

    with caplog.at_level(logging.INFO, "switchyard.decisions"):
        for reply in replies:
            log.decided(reply)
        now = 10.0
        for reply in replies[:2]:
            log.decided(reply)

    assert len(caplog.records) == logged
    assert all(record.decision_id == "d" for record in caplog.records)  # type: ignore[attr-defined]


@pytest.mark.usefixtures("own_loggers")
def test_every_logger_of_the_process_writes_lines_of_one_form() -> None:
    stream = io.StringIO()
    for name in ("bentoml", "uvicorn.error"):
        logging.getLogger(name).propagate = False

    end = write_logs("json", release=lambda: "r1", stream=stream)
    logging.getLogger("switchyard.serving.x").info("begun")
    logging.getLogger("bentoml.serve").warning("of %s", "BentoML")
    end()

    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["message"] for line in lines] == ["begun", "of BentoML"]


@pytest.mark.usefixtures("own_loggers")
def test_text_is_there_for_people() -> None:
    stream = io.StringIO()

    end = write_logs("text", stream=stream)
    logging.getLogger("switchyard.serving.x").info("begun")
    end()

    assert stream.getvalue().endswith("INFO switchyard.serving.x begun\n")
