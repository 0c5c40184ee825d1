"""The fraud decision service as a Bento: parse, engine, reply.

Here: BentoML's settings, all of them, so that plain ``bentoml serve`` obeys them, and the routes. Not here:
anything that decides; that is ``switchyard``, copied into the Bento beside the release.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import bentoml
import click

from switchyard.errors import SwitchyardError
from switchyard.serving.allocator import tame_allocator
from switchyard.serving.http import Application
from switchyard.serving.keys import ApiKeys
from switchyard.settings import load_settings

SETTINGS = load_settings()
RELEASE = Path(__file__).with_name("release")
ROUTES: dict[str, Application] = {}
"""Filled when the worker's service is there; until then nobody is let in."""


@bentoml.service(
    name="fraud",
    workers=SETTINGS.workers,
    http={"host": SETTINGS.host, "port": SETTINGS.port},
    traffic={"timeout": 5},  # of what BentoML answers itself
    logging={"access": {"enabled": False}},
    metrics={"enabled": False},  # BentoML's label the raw path; the worker adds the project's own
    tracing={"excluded_urls": ["v1/"]},
)
class FraudDecisions:
    """One worker: its service, warmed up, behind the routes."""

    @bentoml.on_deployment
    @staticmethod
    def refuse_what_cannot_be_served() -> None:
        """Runs once, before any worker: a damaged release or an open address ends the server here."""
        from bentos.fraud.supervisor import teach_supervisor
        from switchyard.learning.release import check_release
        from switchyard.serving.workers import open_run_folder

        context = click.get_current_context(silent=True)
        host = (context.params.get("host") if context else None) or SETTINGS.host
        try:
            ApiKeys.parse(SETTINGS.api_keys).refuse_open_address(host)
            open_run_folder(SETTINGS.home, check_release(RELEASE)["id"])
        except SwitchyardError as error:
            sys.exit(f"the fraud service does not start: {error}")
        teach_supervisor()

    def __init__(self) -> None:
        os.environ.setdefault("OMP_NUM_THREADS", "1")  # before xgboost is imported
        tame_allocator()
        from switchyard.fraud.money import minor_units
        from switchyard.fraud.service import care_for, figures, follow_plan, open_service
        from switchyard.serving.collector import Collector
        from switchyard.serving.drain import Drain, on_hangup
        from switchyard.serving.heads import bound_heads
        from switchyard.serving.housekeeping import Housekeeping
        from switchyard.serving.logs import write_logs
        from switchyard.serving.metrics import Metrics
        from switchyard.serving.turnover import Turnover
        from switchyard.serving.uvicorn_server import go_in_front, running_server
        from switchyard.serving.workers import run_folder

        folder = run_folder(SETTINGS.home, os.getppid())
        self.metrics = Metrics(folder, minor_units(SETTINGS.currency))
        self.service = open_service(SETTINGS, RELEASE, self.metrics)
        lineup = self.service.engine.lineup
        self.end_logs = write_logs(SETTINGS.log_format, release=lambda: lineup.champion.id)
        self.open_routes(folder, figures(SETTINGS, self.service, folder))
        server = running_server()
        go_in_front(server, ROUTES)
        bound_heads(server)
        self.drain = Drain(server, SETTINGS.drain_s)
        self.drain.install()
        reloader = follow_plan(SETTINGS, self.service, folder, self.metrics.reloaded)
        on_hangup(reloader.call)
        self.caretaker = care_for(SETTINGS, self.service)
        self.journal_fits = True
        self.turnover = Turnover(SETTINGS.journal)
        self.collector = Collector(self.metrics.paused)
        self.housekeeping = Housekeeping()
        self.housekeeping.watch(reloader.watch())
        self.housekeeping.every(1.0, self.metrics.tick)
        self.housekeeping.every(1.0, self.tell_state)
        self.housekeeping.every(1.0, self.tend_journal)
        self.housekeeping.every(1.0, self.collector.relieve)
        self.housekeeping.every(1.0, self.drain.begin_if_orphaned)
        self.collector.begin()

    def tell_state(self) -> None:
        for breaker in self.service.breakers():
            self.metrics.breaker(breaker.name, breaker.code)
        for of_view in self.service.engine.ladder.profiles():
            self.metrics.profiles(*of_view)

    def tend_journal(self) -> None:
        journal = self.service.engine.journal
        if self.turnover.is_asked() and self.service.engine.turn_over():
            self.turnover.followed()
        journal.close_aged()
        self.journal_fits = journal.writable()

    def open_routes(self, folder: Path, scrape: Callable[[], bytes]) -> None:
        """From now on requests are let in."""
        from switchyard.fraud.routes import routes_of

        routes = routes_of(SETTINGS, self.service, RELEASE, folder, scrape, self.metrics.answered)
        ROUTES.update(routes)

    def __is_ready__(self) -> bool:
        return not self.drain.begun and self.caretaker.filled and self.journal_fits

    @bentoml.on_shutdown
    def close(self) -> None:
        self.housekeeping.close()
        self.caretaker.close()
        self.service.close()
        self.collector.close()
        self.metrics.tick()
        self.end_logs()
