"""What the command line shows: progress on long work, tables, one decision. No work, no figures made."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.panel import Panel
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

if TYPE_CHECKING:
    from orchestration.demo import Stage
    from orchestration.drift_demo import Event
    from orchestration.rollout_demo import Moment
    from switchyard.learning.day_reports import DayReport

STAGES = 8
ROLLOUT_STAGES = 7
DRIFT_STAGES = 5
Advance = Callable[[str, int, int], None]
"""Told of progress: what is being done, how much of it, of how much."""


@contextmanager
def progress(
    console: Console, count: int = STAGES
) -> Iterator[tuple[Callable[[Stage], None], Callable[[Stage], None]]]:
    """A bar over the demo's stages; yields what to call when a stage begins and when it is done."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
               TimeElapsedColumn())  # fmt: skip
    with Progress(*columns, console=console) as bars:
        task = bars.add_task("starting", total=count)

        def begun(stage: Stage) -> None:
            bars.update(task, description=stage.name)

        def done(stage: Stage) -> None:
            bars.advance(task)
            bars.console.print(f"  [green]done[/] {stage.name} in {stage.seconds:.1f} s")
            for finding in stage.findings:
                bars.console.print(f"  [yellow]{finding.severity}[/] {finding.asset}: "
                                   f"{finding.check}: {finding.description}")  # fmt: skip

        yield begun, done


@contextmanager
def bar(console: Console) -> Iterator[Advance]:
    """One bar for one long piece of work, with the time that is left at this run's pace."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
               TimeElapsedColumn(), TimeRemainingColumn())  # fmt: skip
    with Progress(*columns, console=console) as bars:
        task = bars.add_task("starting", total=None)

        def advance(what: str, position: int, total: int) -> None:
            if (
                bars.tasks[task].total is None
            ):  # what an earlier run has done says nothing of the pace
                bars.reset(task, completed=position)
            bars.update(task, description=what, completed=position, total=total)

        yield advance


def table(stages: Sequence[Stage]) -> Table:
    """The demo's stages with seconds and figures."""
    shown = Table(title="The lifecycle, once", title_justify="left")
    shown.add_column("stage", no_wrap=True)
    shown.add_column("seconds", justify="right")
    shown.add_column("figures")
    for stage in stages:
        figures = ", ".join(f"{k} {_plain(v)}" for k, v in stage.figures.items() if _is_short(v))
        shown.add_row(stage.name, f"{stage.seconds:.1f}", figures)
    shown.add_section()
    shown.add_row("in all", f"{sum(s.seconds for s in stages):.1f}", "")
    return shown


def guardrails(figures: Mapping[str, Any]) -> Table:
    """What the judge of a rollout weighs: one row per guardrail, the strongest evidence first."""
    needed = figures["log_e_needed"]
    shown = Table(title="Guardrails", title_justify="left")
    for column in ("guardrail", "challenger", "must not be", "limit", "evidence"):
        left = column in ("guardrail", "must not be")
        shown.add_column(column, justify="left" if left else "right")
    for rail in sorted(figures["guardrails"], key=lambda each: -each["log_e"]):
        side = "above" if rail["above"] else "below"
        shown.add_row(rail["name"], _plain(rail["mean"]), f"{side} {rail['limit_is']}",
                      _plain(rail["limit"]), f"{rail['log_e'] / needed:.2f}")  # fmt: skip
    shown.caption = "evidence: natural logarithm of the e-value, as a share of what lets it fall"
    return shown


def timeline(moments: Sequence[Moment]) -> Table:
    """The changes of a rollout in event time, and why."""
    shown = Table(title="The rollout, event time", title_justify="left")
    for column in ("when (UTC)", "does", "share", "decisions", "matured", "why"):
        right = column in ("share", "decisions", "matured")
        shown.add_column(column, justify="right" if right else "left", overflow="fold")
    for moment in moments:
        if moment.look.changes:
            share = "" if moment.look.share is None else f"{moment.look.share:g}"
            shown.add_row(f"{moment.when:%m-%d %H:%M}", moment.look.action, share,
                          _plain(moment.decisions), _plain(moment.matured),
                          "\n".join(moment.look.reasons))  # fmt: skip
    return shown


def events(told: Sequence[Event]) -> Table:
    """What happened by itself, in event time, and why."""
    shown = Table(title="What happened, event time", title_justify="left")
    for column in ("when (UTC)", "what", "why"):
        shown.add_column(column, overflow="fold")
    for event in told:
        shown.add_row(f"{event.when:%m-%d %H:%M}", event.what, event.why)
    return shown


def decision(stages: Sequence[Stage]) -> Panel:
    """The served decision, as the service answered it."""
    import json

    answer = next(s.figures for s in stages if "decision_id" in s.figures)
    return Panel(json.dumps(answer, indent=1), title="POST /v1/predict answered", expand=False)


def figures(stages: Sequence[Stage]) -> dict[str, Any]:
    """What ``--json`` writes: seconds by stage, then each stage's figures under its name."""
    return {
        "seconds": {s.name: s.seconds for s in stages},
        "seconds_in_all": round(sum(s.seconds for s in stages), 2),
        **{s.name.replace(" ", "_"): s.figures for s in stages},
        "findings": [f.__repr__() for s in stages for f in s.findings],
    }


def reports(found: Sequence[DayReport]) -> Table:
    """One row per day and level of monitoring."""
    shown = Table(title="Monitoring", title_justify="left")
    for column in ("day", "level", "verdict", "why"):
        shown.add_column(column, overflow="fold")
    for report in found:
        verdict = "well" if report.verdict.passed else "look at it"
        shown.add_row(str(report.day), report.level, verdict, "\n".join(report.verdict.reasons))
    return shown


def key_values(values: Mapping[str, Any]) -> Table:
    """Two columns: name and value; nested mappings are indented."""
    shown = Table(show_header=False, box=None)
    for name, value in values.items():
        shown.add_row(name, key_values(value) if isinstance(value, Mapping) else _plain(value))
    return shown


def lines(title: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    """A table of equal rows, numbers to the right."""
    shown = Table(title=title, title_justify="left")
    for name, value in (rows[0] if rows else {"nothing": ""}).items():
        shown.add_column(name, justify="right" if isinstance(value, int) else "left")
    for row in rows:
        shown.add_row(*map(_plain, row.values()))
    return shown


def status(values: Mapping[str, Any]) -> Table:
    return key_values(values)


def explanation(values: Mapping[str, Any]) -> Table:
    """One row per feature, largest push first."""
    shown = Table(title=f"decision {values['decision_id']}: {values['decision']} at score "
                        f"{values['score']:.6f}", title_justify="left")  # fmt: skip
    for column in ("feature", "value", "log-odds", "reason"):
        shown.add_column(column, justify="right" if column in ("value", "log-odds") else "left")
    for c in values["contributions"]:
        shown.add_row(c["feature"], _plain(c["value"]), f"{c['contribution']:+.4f}", c["code"])
    shown.caption = (
        f"base {values['base']:+.4f}, sum {values['margin']:+.4f} log-odds; release "
        f"{values['release']}; recomputed score equals the journalled one: {values['equal']}"
    )
    return shown


def _is_short(value: object) -> bool:
    return not isinstance(value, Mapping | list)


def _plain(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return "" if value is None else str(value)
