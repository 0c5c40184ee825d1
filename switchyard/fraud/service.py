"""The fraud decision service, put together from a home's settings and one release.

Here: construction and what must hold before the first request. Not here: any part's own work.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from itertools import chain
from pathlib import Path

from switchyard.fraud.caretaking import Caretaker
from switchyard.fraud.compaction import compacted_names
from switchyard.fraud.compatible import computable
from switchyard.fraud.explain import Explainer
from switchyard.fraud.online import (
    PROJECT,
    VIEWS,
    FraudDomain,
    FraudReader,
    cold_store_of,
    hot_store_of,
    traffic_of,
)
from switchyard.fraud.requests import Parser
from switchyard.learning.release import Release, load_release
from switchyard.serving import observed, valkey
from switchyard.serving.engine import Engine
from switchyard.serving.exploration import exploration_of
from switchyard.serving.exposition import exposition
from switchyard.serving.journal import journal_of, wall_clock_us
from switchyard.serving.ladder import FeatureLadder
from switchyard.serving.ledger import note_what_the_dead_left
from switchyard.serving.logs import DecisionLog
from switchyard.serving.metrics import Sink, total_of
from switchyard.serving.recent import Recent
from switchyard.serving.reload import Outcome, Reloader
from switchyard.serving.service import DecisionService
from switchyard.serving.traffic import plan_key
from switchyard.settings import Settings


def open_service(
    settings: Settings, release_folder: Path, metrics: Sink | None = None
) -> DecisionService:
    """The service, warmed up: its next decision is as quick as any.

    Raises ReleaseError if the release is damaged or needs columns that this code does not compute. A
    store that does not answer degrades decisions, no more.
    """
    note_what_the_dead_left(settings.journal)
    parser = Parser(settings.currency, future_limit=timedelta(seconds=settings.future_limit_s))
    domain = FraudDomain(parser.minor_units)
    cold = cold_store_of(settings.cold_store_url, settings.cold_store)
    engine = Engine(
        domain,
        hot_store_of(valkey.address_of(settings).url),
        journal_of(settings),
        load_release(release_folder, computes=computable()),
        ladder=FeatureLadder(VIEWS, Recent(VIEWS, settings.recent_bytes), cold),
        exploration=exploration_of(settings),
        metrics=metrics,
        decided=DecisionLog(settings.log_decisions).decided,
    )
    engine.warm_up(engine.lineup.champion)
    explainer = Explainer(settings.journal, settings.releases)
    reader = FraudReader(parser, domain)
    return DecisionService(engine, reader, wall_clock_us, explainer.answer, metrics)


def care_for(settings: Settings, service: DecisionService) -> Caretaker:
    """The caretaker of the service's online store, at work; once it is ``filled`` the service is ready."""
    engine = service.engine
    caretaker = Caretaker(settings, engine.store.url, engine.domain, lambda: engine.newest)
    caretaker.start()
    return caretaker


def follow_plan(
    settings: Settings,
    service: DecisionService,
    folder: Path,
    reloaded: Callable[[Outcome], None] = lambda _outcome: None,
) -> Reloader:
    """What keeps the service at the releases that the traffic plan names; it has followed it once.

    ``folder`` is shared by the workers of one service.
    """
    engine = service.engine

    def load(release_id: str) -> Release:
        release = load_release(settings.releases / release_id, computes=computable())
        engine.warm_up(release)
        return release

    reloader = Reloader(
        traffic_of(settings.home, engine.store.url),
        lambda: engine.store.last(plan_key(PROJECT)),
        engine.lineup,
        load,
        folder,
        reloaded=reloaded,
    )
    reloader.begin()
    return reloader


def figures(settings: Settings, service: DecisionService, folder: Path) -> Callable[[], bytes]:
    """What answers a scrape, in a thread of its own: all that the workers of ``folder`` counted, and what
    is looked up for it."""
    sources = (
        observed.releases(service.engine.lineup),
        observed.journal(settings.journal, lambda: compacted_names(settings.journal)),
        observed.store(service.engine.store.url),
        observed.profiles(),
        observed.cost(settings.price_per_hour),
    )

    def scrape() -> bytes:
        counted = total_of(folder)
        return exposition(counted, chain.from_iterable(look(counted) for look in sources))

    return scrape
