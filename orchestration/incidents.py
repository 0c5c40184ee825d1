"""What failed in Dagster, as incidents: every ended run's failed steps and failed checks, and what passed again.

No list of names: any step of any job and any asset's check can fail here. A check that failed is one incident, although a
blocking one fails its run too. Not here: what is told of it to whom (``switchyard.alerts``), how it travels (``channels``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

import dagster as dg

from switchyard.alerts import Book, Failure, Message, Pass, load_book, save_book, tell
from switchyard.channels import channels_of
from switchyard.errors import AlertError
from switchyard.lock import alone
from switchyard.settings import Settings

MOST_RUNS = 100
"""Runs that one look takes in; the rest follows at the next."""
SETTLED = timedelta(minutes=1)
"""A run may turn up later than one that ended after it, by at most so much."""
BEFORE_STEPS = "its process"
"""What failed where no step did."""
CHECK_FAILED = "DagsterAssetCheckFailedError"
"""How the step of a blocking check fails; the check says more."""
_TOLD_OF = {
    dg.DagsterEventType.STEP_FAILURE,
    dg.DagsterEventType.STEP_SUCCESS,
    dg.DagsterEventType.ASSET_CHECK_EVALUATION,
}
_ENDED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE]
_OF_STEP = "open the run and read the step's error; once its cause is gone, run the job again"
_OF_BLOCKING = (
    "bad data or a bad model, not broken code: nothing was built on it. Look at the check's figures in the run; correct "
    "the data, or leave what is there as it is"
)
_OF_WATCHING = (
    "nothing was stopped by it. Look at the check's figures and the asset's report in the run, and judge whether they "
    "ask for a retrain, a rollback or a look at the source"
)


def look(settings: Settings, instance: dg.DagsterInstance, now: datetime) -> list[str]:
    """Take in the runs that ended since the last look and tell the channels; what happened, in words.

    The first look of a home begins with what ends after it. Raises SettingsError if a channel is set by half.
    """
    channels = channels_of(settings)
    quiet = timedelta(minutes=settings.alert_quiet_minutes)
    with alone(settings.home / "incidents.lock", wait_s=0) as free:
        if not free:
            return ["another process is looking at the incidents"]
        known = load_book(settings.incidents)
        before = known or Book(now)
        book = _read_on(before, instance, settings.ui_url, quiet).without_old(now)
        if book != known:
            save_book(book, settings.incidents)
        return tell(book, channels, now, quiet, settings.incidents)[1]


def open_incidents(settings: Settings) -> Book | None:
    """What is known, as of the last look; None before the first."""
    return load_book(settings.incidents)


def try_out(settings: Settings, now: datetime) -> dict[str, str]:
    """Send a message through each channel that is set; what became of it, by channel."""
    message = Message(
        f"trial {now.isoformat()}", "trial", "resolved", "[switchyard] a trial of the alerts",
        f"Nothing failed. Somebody ran `switchyard alerts test` in {settings.home} at {now:%Y-%m-%d %H:%M} UTC.",
    )  # fmt: skip
    told = {}
    for channel in channels_of(settings):
        try:
            channel.send(message)
            told[channel.name] = "took it"
        except AlertError as error:
            told[channel.name] = f"failed: {error}"
    return told


# ---------------------------------------------------------------- from Dagster's records


def _read_on(book: Book, instance: dg.DagsterInstance, ui_url: str, quiet: timedelta) -> Book:
    wanted = dg.RunsFilter(statuses=_ENDED, updated_after=book.until - SETTLED)
    records = instance.get_run_records(
        wanted, limit=MOST_RUNS + len(book.seen), order_by="update_timestamp", ascending=True
    )
    fresh = [record for record in records if record.dagster_run.run_id not in book.seen]
    for record in fresh:
        book = book.note(_happened(record, instance, ui_url), quiet)
    until = max((_utc(record.update_timestamp) for record in records), default=book.until)
    until = max(until, book.until)
    seen = tuple(
        record.dagster_run.run_id
        for record in records
        if _utc(record.update_timestamp) > until - SETTLED
    )
    return Book(until, seen, book.incidents)


def _happened(
    record: dg.RunRecord, instance: dg.DagsterInstance, ui_url: str
) -> Iterator[Failure | Pass]:
    """What failed in a run and what did not, in the order of its events."""
    run, ended = record.dagster_run, _utc(record.update_timestamp)
    link = f"{ui_url.rstrip('/')}/runs/{run.run_id}"
    steps_failed = False
    for event in _events(instance, run.run_id):
        at = datetime.fromtimestamp(event.timestamp, UTC)
        told = event.event_log_entry.dagster_event
        assert told is not None, "only Dagster's own events were asked for"
        if told.event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION:
            yield _of_check(told.asset_check_evaluation_data, _where(run), link, at)
        elif told.event_type == dg.DagsterEventType.STEP_SUCCESS:
            yield Pass(_step_key(run.job_name, told.step_key), at)
        else:
            steps_failed = True
            error = told.step_failure_data.error
            if error is None or error.cls_name != CHECK_FAILED:
                reason = (error.cause or error).message.strip() if error else "no reason given"
                yield _of_step(run, str(told.step_key), reason, link, at)
    if run.status == dg.DagsterRunStatus.SUCCESS:
        yield Pass(_step_key(run.job_name, BEFORE_STEPS), ended)
    elif not steps_failed:
        reason = "the run ended without a failed step: its process was killed, or never began"
        yield _of_step(run, BEFORE_STEPS, reason, link, ended)


def _events(instance: dg.DagsterInstance, run_id: str) -> Sequence[dg.EventLogRecord]:
    found: list[dg.EventLogRecord] = []
    cursor, more = None, True
    while more:
        page = instance.get_records_for_run(run_id, cursor=cursor, of_type=_TOLD_OF, limit=1_000)
        found += page.records
        cursor, more = page.cursor, page.has_more
    return found


def _of_check(said: dg.AssetCheckEvaluation, where: str, link: str, at: datetime) -> Failure | Pass:
    name, asset = said.check_name, said.asset_key.to_user_string()
    key = f"check {asset}: {name}"
    if said.passed:
        return Pass(key, at)
    return Failure(
        key=key,
        kind="check",
        what=f"{asset}: {name}",
        reason=_sendable(said.description or "the check gives no reason"),
        where=where,
        link=link,
        remedy=_OF_BLOCKING if said.blocking else _OF_WATCHING,
        at=at,
    )


def _of_step(run: dg.DagsterRun, step: str, reason: str, link: str, at: datetime) -> Failure:
    return Failure(
        key=_step_key(run.job_name, step),
        kind="step",
        what=f"{run.job_name}, {step}",
        reason=_sendable(reason),
        where=_where(run),
        link=link,
        remedy=_OF_STEP,
        at=at,
    )


def _sendable(reason: str) -> str:
    """Of a length that people read, in characters that every channel and the book can hold: the name of a file need
    not be made of such."""
    return reason[:2_000].encode("utf-8", "replace").decode()


def _step_key(job: str, step: str | None) -> str:
    return f"step {job}, {step}"


def _where(run: dg.DagsterRun) -> str:
    tags = run.tags
    first, last = (tags.get(f"dagster/asset_partition_range_{end}") for end in ("start", "end"))
    days = f"{first} to {last}" if first else tags.get("dagster/partition")
    return f"job {run.job_name}, run {run.run_id[:8]}" + (f", days {days}" if days else "")


def _utc(moment: datetime) -> datetime:
    return moment.astimezone(UTC)
