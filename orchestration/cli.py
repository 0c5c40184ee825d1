"""The command line. Each command opens a home, drives a Dagster job or the library, and says what came
out; figures go to ``--json FILE`` too. Not here: any of the work."""

from __future__ import annotations

import getpass
import json
import os
import shlex
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from orchestration import screen
from orchestration.process import settle
from switchyard.errors import ServiceError, SwitchyardError
from switchyard.settings import Settings

console = Console()
Day = click.DateTime(["%Y-%m-%d"])
BENCHES = ("batch", "canary", "demo", "drift", "faults", "features", "history", "hostile", "journal", "labels", "ladder",
           "online-sync", "rollout", "scoring", "serving", "skew", "traffic")  # fmt: skip
"""Modules of ``benchmarks`` that a person runs."""


class _Switchyard(click.Group):
    """Errors raised on purpose end in one line and code 1, without a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except SwitchyardError as error:
            console.print(f"[bold red]{type(error).__name__}[/]: ", end="")
            console.print(str(error), markup=False, highlight=False)
            sys.exit(1)


@click.group(cls=_Switchyard, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Switchyard: from raw card transactions to a served, watched fraud model."""
    settle()


def _open(**overrides: Any) -> Settings:
    """The home made ready, and what a killed process left of its gateway or a promotion put right."""
    from orchestration.gateway import Gateway
    from orchestration.home import open_home

    settings = open_home(**overrides)
    Gateway(settings).keep()
    if (settings.home / "promotion.json").exists():
        from orchestration.promotion import recover

        if done := recover(settings):
            console.print(done, style="yellow")
    return settings


def _source_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option(
            "--column-map", type=click.Path(path_type=Path), help="YAML column map of 'file'."
        ),
        click.option("--seed", type=int, help="Seed of simulator and models."),
        click.option(
            "--data", type=click.Path(path_type=Path), help="Folder or file of the source."
        ),
        click.option("--source", type=click.Choice(["simulator", "handbook", "file"])),
    ):
        command = option(command)
    return command


json_option = click.option(
    "--json", "json_file", type=click.Path(path_type=Path), help="Write the figures to this file."
)


def _write_json(path: Path | None, figures: Any) -> None:
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(figures, indent=1, default=str) + "\n")


@main.command()
@_source_options
@click.option("--days", type=click.IntRange(min=1), help="Days to go through.")
@click.option(
    "--scenario", type=click.Choice(["lifecycle", "rollout", "drift"]), default="lifecycle"
)
@click.option("--bad", is_flag=True, help="rollout: the challenger's scores are too high.")
@click.option("--no-change", is_flag=True, help="drift: the fraudsters go on as before.")
@json_option
def demo(json_file: Path | None, scenario: str, bad: bool, no_change: bool, **options: Any) -> None:
    """The whole lifecycle once, ending with a served decision, a parity replay and batch scores.

    The scenario 'rollout' trains a second model and lets it take the champion's place by itself, or, with
    --bad, be withdrawn. The scenario 'drift' goes through 120 days in which tactics change on day 75: found, retrained,
    promoted by itself.
    """
    if no_change and scenario != "drift":
        raise click.UsageError("--no-change is of the scenario 'drift'")
    if bad and scenario != "rollout":
        raise click.UsageError("--bad is of the scenario 'rollout'")
    if scenario == "rollout":
        _demo_rollout(json_file, bad, options)
    elif scenario == "drift":
        _demo_drift(json_file, not no_change, options)
    else:
        _demo_lifecycle(json_file, options)


def _demo_lifecycle(json_file: Path | None, options: dict[str, Any]) -> None:
    with screen.progress(console) as (begun, done):
        settings = _open(**options)
        from orchestration.worker import Worker

        with Worker(settings) as worker:  # it starts to load while this process does
            from orchestration.demo import run_demo

            stages = run_demo(settings, worker, begun, done)
    console.print(screen.table(stages))
    console.print(screen.decision(stages))
    _write_json(json_file, screen.figures(stages))


def _demo_rollout(json_file: Path | None, bad: bool, options: dict[str, Any]) -> None:
    from orchestration.rollout_demo import POLICY

    with screen.progress(console, screen.ROLLOUT_STAGES) as (begun, done):
        settings = _open(**POLICY | options)
        from orchestration.worker import Worker

        with Worker(settings) as worker:
            from orchestration.rollout_demo import PICTURE, run_rollout, what_it_shows

            stages, moments = run_rollout(settings, worker, begun, done, bad=bad)
    console.print(screen.table(stages))
    console.print(screen.timeline(moments))
    console.print(what_it_shows(settings, moments))
    console.print(f"drawn in {settings.home / PICTURE}")
    told = [moment.as_dict() for moment in moments]
    _write_json(json_file, screen.figures(stages) | {"timeline": told})


def _demo_drift(json_file: Path | None, change: bool, options: dict[str, Any]) -> None:
    from orchestration.drift_demo import settings_of

    with screen.progress(console, screen.DRIFT_STAGES) as (begun, done):
        settings = _open(
            **settings_of(change) | {k: v for k, v in options.items() if v is not None}
        )
        from orchestration.worker import Worker

        with Worker(settings) as worker:
            from orchestration.drift_demo import PICTURE, run_drift

            stages, events, figures = run_drift(settings, worker, begun, done)
    console.print(screen.table(stages))
    console.print(screen.events(events))
    console.print(screen.key_values(figures))
    console.print(f"drawn in {settings.home / PICTURE}")
    told = [event.as_dict() for event in events]
    _write_json(json_file, screen.figures(stages) | {"events": told, "regime": figures})


@main.command()
@_source_options
@click.option("--train-start", type=Day, required=True, help="First day of the training week.")
@click.option("--train-days", type=int, default=7, show_default=True)
@click.option("--delay-days", type=int, default=7, show_default=True)
@click.option("--test-days", type=int, default=7, show_default=True)
@click.option("--history-days", type=int, help="Train on so many days ending with it; 0: all.")
@click.option("--predictions", type=click.Path(path_type=Path), required=True)
@json_option
def backtest(
    predictions: Path, json_file: Path | None, train_start: datetime, **options: Any
) -> None:
    """What this pipeline would have scored on that test week, with the labels known at each moment."""
    from switchyard.fraud.backtest import BacktestPlan, run_backtest
    from switchyard.lake import write_parquet

    given = {name: options.pop(name) for name in ("source", "data", "column_map", "seed")}
    settings = _settings_only(**given)
    plan = BacktestPlan(train_start=train_start.date(), **options)
    with screen.bar(console) as advance:
        result = run_backtest(settings, plan, advance)
    write_parquet(result.predictions, predictions)
    console.print(screen.key_values(result.figures))
    _write_json(json_file, result.figures)


def _settings_only(**overrides: Any) -> Settings:
    from switchyard.settings import load_settings

    return load_settings(**overrides)


@main.command()
def up() -> None:
    """Start the online store, prepare the home, and have what was deployed last answer again."""
    settings = _open()
    from orchestration import deployment
    from orchestration.home import prepare_mlflow
    from switchyard.serving.wire import shown

    prepare_mlflow(settings)
    answers = deployment.up(settings)
    console.print(
        f"home     {settings.home}\nstore    {shown(os.environ['SWITCHYARD_REDIS_URL'])}\n"
        f"service  {f'{answers.release} at {answers.url}' if answers else 'none was deployed yet'}"
    )


@main.command()
def down() -> None:
    """Stop the gateway, the decision service, batch jobs and the store of this home; data stays."""
    from orchestration import promotion
    from switchyard.fraud.batch_job import jobs_of
    from switchyard.serving import valkey

    settings = _settings_only()
    service = promotion.down(settings)
    jobs = jobs_of(settings).interrupt()
    store = valkey.stop(settings.home)
    console.print(f"service {'stopped' if service else 'was not running'}; "
                  f"store {'stopped' if store else 'was not running'}"
                  + (f"; {jobs} batch jobs wait for the next service" if jobs else ""))  # fmt: skip


@main.command()
def env() -> None:
    """Print the exports that feast, bentoml, dagster and mlflow need: eval "$(switchyard env)"."""
    from orchestration.home import exports

    for name, value in exports(_open()).items():
        click.echo(f"export {name}={shlex.quote(value)}")


@main.command()
@json_option
def status(json_file: Path | None) -> None:
    """What is champion, how fresh every asset is, and whether the parts are healthy."""
    from orchestration.status import status_of

    figures = status_of(_settings_only())
    console.print(screen.status(figures))
    _write_json(json_file, figures)


@main.command()
@click.option("--port", type=int, help="Default: the setting 'port' (3000).")
@click.option("--workers", type=int, help="Default: the setting 'workers' (1).")
def serve(**options: Any) -> None:
    """Serve the champion's Bento in the foreground, without the gateway: plain `bentoml serve`."""
    from assets.fraud.registry import release_of
    from orchestration import deployment
    from orchestration.gateway import Gateway

    settings = _open(**options)
    champion = release_of(settings.mlflow_tracking_uri, "champion")
    if champion is None:
        raise ServiceError(
            "there is no champion yet: run `switchyard demo`, or the job 'run_lifecycle'"
        )
    if Gateway(settings).running():
        raise ServiceError(
            "the deployed service answers behind this home's gateway: `switchyard down` ends both"
        )
    command = deployment.command(champion, settings.host, settings.port)
    os.execvpe(command[0], command, os.environ | deployment.environment(settings))


@main.command()
@click.option("--port", type=int, default=3001, show_default=True)
def ui(port: int) -> None:
    """The Dagster UI of this home (daemon included)."""
    import dagster as dg

    from orchestration.home import prepare_mlflow
    from orchestration.runs import fail_orphaned_runs

    settings = _open()
    prepare_mlflow(settings)
    with dg.DagsterInstance.get() as instance:
        for run in fail_orphaned_runs(instance, no_daemon_runs=True):
            console.print(f"run {run} was left by a killed process: marked failed")
    workspace = Path(__file__).resolve().parents[1] / "workspace.yaml"
    dagster = str(Path(sys.executable).with_name("dagster"))
    os.execvpe(dagster, [dagster, "dev", "-w", str(workspace), "-p", str(port)], os.environ)


@main.command()
@click.option("--from", "start", type=Day, required=True)
@click.option("--to", "end", type=Day, required=True)
@click.option("--rate", type=float, help="Transactions per second; default: as fast as it goes.")
@click.option("--connections", type=int, default=16, show_default=True)
@click.option("--repeat", type=float, default=0.0, help="Share sent a second time.")
@click.option("--late", type=float, default=0.0, help="Share sent up to 10 minutes late.")
@click.option("--limit", type=int, help="Stop after so many transactions.")
@json_option
def replay(json_file: Path | None, start: datetime, end: datetime, **options: Any) -> None:
    """Send those days' transactions to the running service, then recompute every journalled vector."""
    from orchestration import deployment
    from orchestration.demo import land_days, store_of
    from orchestration.gateway import Gateway
    from switchyard.fraud.replay import ReplayPlan
    from switchyard.fraud.replay import replay as run_replay

    settings = _open()
    running = deployment.current(settings)
    if running is None:
        raise ServiceError("no service is running in this home: run `switchyard demo` first")
    plan = ReplayPlan(start=start.date(), end=end.date(), **options)
    with console.status("landing the days and building their profiles"):
        land_days(settings, plan.start, plan.end)
    with screen.bar(console) as advance:
        trust = Gateway(settings).trust
        result = run_replay(settings, running.url, plan, store_of(settings), advance, trust)
    console.print(screen.key_values(result.as_dict()))
    _write_json(json_file, result.as_dict())
    sys.exit(1 if result.differences else 0)


@main.command()
@click.argument("release", required=False)
@click.option("--who", default=getpass.getuser, help="Default: the user of this shell.")
@click.option("--why", required=True, help="Kept with the run and in the record.")
@json_option
def deploy(json_file: Path | None, release: str | None, who: str, why: str) -> None:
    """Let RELEASE decide (default: the champion, with this code), its Bento replacing the one that answers."""
    settings = _open()
    from assets.fraud.registry import release_of
    from orchestration import promotion
    from orchestration.manual import run_promotion

    release = release or release_of(settings.mlflow_tracking_uri, "champion")
    if release is None:
        raise ServiceError("there is no champion yet: run `switchyard demo`, or name a RELEASE")
    started = time.monotonic()
    with console.status(f"deploying {release}"):
        run_promotion(settings, release, who=who, why=why)
    figures = promotion.agreement(settings) | {"seconds": round(time.monotonic() - started, 2)}
    console.print(screen.key_values(figures))
    _write_json(json_file, figures)


@main.command()
@click.argument("release")
@click.option("--who", default=getpass.getuser, help="Default: the user of this shell.")
@click.option("--why", required=True, help="What it rests on; kept with the approval.")
def approve(release: str, who: str, why: str) -> None:
    """Say that RELEASE may be promoted; needed of a second person where 'four_eyes' is set."""
    from switchyard.serving.approval import approve

    approve(_settings_only(), release, who=who, why=why)
    console.print(f"{who} approves of {release}: {why}")


@main.group()
def labels() -> None:
    """Verdicts that come otherwise than with the transactions."""


@labels.command("add")
@click.argument("file", type=click.Path(path_type=Path))
@json_option
def add_labels(file: Path, json_file: Path | None) -> None:
    """Add the verdicts of FILE (CSV or Parquet: transaction_id, is_fraud, label_available_at) to the label ledger.

    Bad rows are named and set aside (table 'refused_labels' of the lake), the others count.
    """
    from switchyard.fraud.label_files import add_labels as add

    done = add(file, _settings_only(), datetime.now(UTC))
    for row in done.refused.slice(0, 10).to_pylist():
        console.print(f"row {row['source_row']}: {row['reason']}", markup=False, highlight=False)
    console.print(screen.key_values(done.as_dict()))
    _write_json(json_file, done.as_dict())


@main.group()
def traffic() -> None:
    """The traffic plan: which release decides, which one is on trial, for which share of the customers."""


def _user() -> str:
    """Who runs this shell; in a container that may be a number alone."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"user {os.getuid()}"


def _told(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of every change of the plan."""
    for option in (
        json_option,
        click.option("--number", type=int, help="Only if the plan has still this number."),
        click.option("--who", default=_user, help="Default: the user of this shell."),
        click.option("--why", required=True, help="Kept in the history, with who and when."),
    ):
        command = option(command)
    return command


def _change(json_file: Path | None = None, **fields: Any) -> None:
    from orchestration.traffic import asked, change_traffic
    from switchyard.serving.traffic import move_of

    settings = _settings_only()
    if move_of(settings.home).exists():
        settings = _open()  # what a killed process left comes first
    done = change_traffic(settings, asked(fields))
    if done.before.champion != done.after.champion:
        from orchestration.promotion import recover

        recover(_open())
    console.print(screen.key_values(done.as_dict()))
    _write_json(json_file, done.as_dict())


@traffic.command()
@click.option("--history", type=int, default=5, show_default=True, help="So many plans before.")
@json_option
def show(json_file: Path | None, history: int) -> None:
    """The plan that holds, and those before it."""
    from orchestration.traffic import described, history_of

    plans = [described(plan) for plan in history_of(_settings_only())]
    if not plans:
        raise ServiceError("there is no traffic plan yet: the Bento's own release decides")
    console.print(screen.key_values(plans[-1]))
    for plan in plans[-2 : -2 - history : -1]:
        console.print(screen.key_values(plan))
    _write_json(json_file, plans)


@traffic.command()
@click.argument("release", required=False)
@_told
def shadow(**options: Any) -> None:
    """RELEASE (default: the present challenger) scores beside the champion, which decides."""
    _change(action="shadow", **options)


@traffic.command()
@click.argument("release", required=False)
@click.option("--share", type=float, required=True, help="Of the customers, above 0 up to 0.5.")
@_told
def canary(**options: Any) -> None:
    """RELEASE (default: the present challenger) decides for a share of the customers."""
    _change(action="canary", **options)


@traffic.command()
@click.argument("release", required=False)
@_told
def promote(**options: Any) -> None:
    """RELEASE (default: the challenger) decides for all; no verdict is asked for, so say why."""
    _change(action="promote", **options)


@traffic.command()
@click.argument("release", required=False)
@_told
def rollback(**options: Any) -> None:
    """Withdraw RELEASE (default: the challenger, without one the champion)."""
    _change(action="rollback", **options)


@main.group()
def rollout() -> None:
    """The rollout that runs by itself: what the release on trial has come to, and the next step."""


@rollout.command("status")
@json_option
def rollout_status(json_file: Path | None) -> None:
    """What the judge says of the release on trial, guardrail by guardrail; changes nothing."""
    from orchestration.rollout import look

    _tell_rollout(look, json_file)


@rollout.command("step")
@json_option
def rollout_step(json_file: Path | None) -> None:
    """The same, and do what it has come to: another share, the champion's place, or out."""
    from orchestration.rollout import step

    _tell_rollout(step, json_file)


def _tell_rollout(way: Callable[[Settings, datetime], Any], json_file: Path | None) -> None:
    from orchestration.rollout import wall_clock

    seen = way(_open(), wall_clock())
    console.print(screen.key_values(seen.as_dict()))
    if seen.figures:
        console.print(screen.guardrails(seen.figures))
    _write_json(json_file, seen.as_dict() | {"figures": seen.figures})


@main.group()
def alerts() -> None:
    """What failed and goes on, and the channels that are told of it."""


@alerts.command("show")
@json_option
def alerts_show(json_file: Path | None) -> None:
    """The incidents that are open, the oldest first, as of the last look of the sensor 'on_incident'."""
    from orchestration.incidents import open_incidents

    book = open_incidents(_settings_only())
    if book is None:
        raise ServiceError(
            "nobody has looked for incidents yet: the sensor 'on_incident' does, where `switchyard ui` runs"
        )
    shown = [one.as_dict() for one in book.open()]
    for one in shown:
        console.print(screen.key_values(one))
    console.print(f"{len(shown)} open, looked at up to {book.until:%Y-%m-%d %H:%M} UTC")
    _write_json(json_file, shown)


@alerts.command("test")
@json_option
def alerts_test(json_file: Path | None) -> None:
    """Send a message through each channel that is set; fails if one does not take it."""
    from datetime import UTC

    from orchestration.incidents import try_out

    told = try_out(_settings_only(), datetime.now(UTC))
    if not told:
        raise ServiceError(
            "no channel is set: set 'alert_webhook_url', or 'alert_smtp_host' with 'alert_email_from' and "
            "'alert_email_to'"
        )
    console.print(screen.key_values(told))
    _write_json(json_file, told)
    sys.exit(1 if any(said != "took it" for said in told.values()) else 0)


@main.command()
@click.option("--why", default="read again", help="Kept in the history.")
@json_option
def reload(json_file: Path | None, why: str) -> None:
    """Have the workers load what the traffic plan names, no request failing."""
    _change(json_file, action="reload", who=_user(), why=why)


@main.command()
@click.argument("source", metavar="INPUT")
@click.argument("output")
@click.option("--release", "release_id", help="Which release scores; default: the champion.")
@click.option("--threads", type=click.IntRange(min=1), help="Default: one for each processor.")
@json_option
def score(
    source: str, output: str, release_id: str | None, threads: int | None, json_file: Path | None
) -> None:
    """Score INPUT, a Parquet file or a folder of them, into OUTPUT; started again, it goes on.

    OUTPUT is one file if it is named *.parquet, else a folder with a file for each of INPUT's. Both may be
    s3:// URLs.
    """
    from assets.fraud.registry import release_of
    from switchyard.fraud.batch import score_rows
    from switchyard.lake import Lake
    from switchyard.learning.release import load_release
    from switchyard.storage import place_of

    settings = _open()
    places = place_of(source), place_of(output)
    chosen = release_id or release_of(settings.mlflow_tracking_uri, "champion")
    if chosen is None:
        raise ServiceError("there is no champion yet: run `switchyard demo`, or name a --release")
    release = load_release(settings.releases / chosen, threads=threads or os.cpu_count() or 1)
    started = time.monotonic()
    with screen.bar(console) as advance:
        rows = score_rows(Lake(settings.lake), release, *places, advance)
    seconds = round(time.monotonic() - started, 2)
    figures = {"rows": rows, "seconds": seconds, "release": release.id, "output": str(places[1])}
    console.print(screen.key_values(figures))
    _write_json(json_file, figures)


@main.command()
@click.argument("decision_id")
@json_option
def explain(decision_id: str, json_file: Path | None) -> None:
    """The full attribution of a past decision, recomputed from the journal."""
    import msgspec

    from switchyard.fraud.explain import Explainer

    settings = _open()
    found = Explainer(settings.journal, settings.releases).explain(decision_id)
    explanation = msgspec.to_builtins(found)
    console.print(screen.explanation(explanation))
    _write_json(json_file, explanation)


@main.command()
@click.argument("customer_id")
@click.option("--who", default=_user, help="Default: the user of this shell.")
@click.option("--why", help="Kept for ever, so without the customer's id or name.")
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@json_option
def forget(
    customer_id: str, who: str, why: str | None, dry_run: bool, json_file: Path | None
) -> None:
    """Forget CUSTOMER_ID everywhere in this home; killed half-way, run it again. The service may run."""
    import msgspec

    from orchestration.keeping import Progress, run_forgetting
    from switchyard.fraud.forget import NOT_FORGOTTEN, would_forget
    from switchyard.fraud.forget_requests import ask
    from switchyard.fraud.online import cold_store_of, online_store_of

    if not (why or dry_run):
        raise click.UsageError("say --why: it is kept in the record")
    settings = _open()
    with screen.bar(console) as advance:
        if dry_run:
            store = online_store_of(os.environ["SWITCHYARD_REDIS_URL"])
            cold = cold_store_of(settings.cold_store_url, settings.cold_store)
            removed = would_forget(settings, customer_id, store, cold, advance=advance)
            figures: dict[str, Any] = {"removed": msgspec.to_builtins(removed)}
        else:
            name = ask(settings, customer_id, who=who, why=why or "", now=datetime.now(UTC))
            figures = msgspec.to_builtins(run_forgetting(settings, name, Progress(advance)))
    title = "Would be removed" if dry_run else "Removed; nothing of the home names the customer"
    console.print(screen.lines(title, figures["removed"]))
    for said in figures.get("said", ()):
        console.print(said)
    console.print("Not reached by this:")
    for place in NOT_FORGOTTEN:
        console.print(f"  {place}", highlight=False)
    _write_json(json_file, figures)


@main.command()
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@json_option
def retention(dry_run: bool, json_file: Path | None) -> None:
    """Remove from this home what is older than the settings keep_*_days say."""
    import msgspec

    from orchestration.keeping import apply_retention

    gone = msgspec.to_builtins(apply_retention(_open(), datetime.now(UTC), dry_run=dry_run))
    console.print(screen.lines("Would be removed" if dry_run else "Removed", gone))
    _write_json(json_file, {"removed": gone})


@main.command()
@click.option("--from", "start", type=Day, help="First day; default: the last.")
@click.option("--to", "end", type=Day, help="Last day; default: the newest that has landed.")
@click.option(
    "--level", "levels", multiple=True, type=click.Choice(["data", "model", "system", "skew"]),
    help="Default: all.",
)  # fmt: skip
@json_option
def monitor(
    json_file: Path | None, start: datetime | None, end: datetime | None, levels: tuple[Any, ...]
) -> None:
    """What the days say of data, model, system and skew: verdicts with reasons, and a page of each day."""
    from orchestration.monitoring import LEVELS
    from orchestration.monitoring import monitor as measure

    settings = _open()
    days = (moment.date() if moment else None for moment in (start, end))
    with console.status("measuring"):
        done = measure(settings, levels or [*LEVELS], *days)
    console.print(screen.reports(done.reports))
    console.print(f"page {done.page}" if done.page else "no day of these has anything to measure")
    told = [
        {
            "level": r.level,
            "day": str(r.day),
            "passed": r.verdict.passed,
            "reasons": r.verdict.reasons,
        }
        for r in done.reports
    ]
    _write_json(json_file, told)


@main.command()
@click.argument(
    "what",
    type=click.Choice(BENCHES),
)
@_source_options
@click.option("--only", help="serving, faults: these parts alone, comma-separated.")
@click.option("--quick", is_flag=True, help="Little of it, for work in progress; ladder: one week.")
@click.option("--rows", type=click.IntRange(min=1), help="batch: so many rows.")
@click.option("--soak", is_flag=True, help="serving: ten minutes of load, too.")
@click.option(
    "--folder",
    type=click.Path(path_type=Path),
    help="batch, canary, serving, faults, hostile: keep their home for next time.",
)
@json_option
def bench(what: str, json_file: Path | None, **options: Any) -> None:
    """Measure: the figures of the README's results table, each beside its peer."""
    import importlib

    module = importlib.import_module(f"benchmarks.{what.replace('-', '_')}")
    given = {name: value for name, value in options.items() if value not in (None, False)}
    figures = module.run(console=console, **given)
    console.print(screen.key_values(figures))
    _write_json(json_file, figures)
    sys.exit(1 if figures.get("failed") else 0)


if __name__ == "__main__":
    main()
