"""The fraud decision service, put together from a home's settings and one release.

Here: construction and what must hold before the first request. Not here: any part's own work.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from switchyard.fraud.explain import Explainer
from switchyard.fraud.features import code_hash
from switchyard.fraud.online import VIEWS, FraudDomain, FraudReader, cold_store_of, hot_store_of
from switchyard.fraud.requests import Parser
from switchyard.learning.release import load_release
from switchyard.serving import valkey
from switchyard.serving.engine import Engine
from switchyard.serving.journal import Journal, wall_clock_us
from switchyard.serving.ladder import FeatureLadder
from switchyard.serving.metrics import Metrics
from switchyard.serving.recent import Recent
from switchyard.serving.service import DecisionService
from switchyard.settings import Settings


def open_service(settings: Settings, release_folder: Path, metrics: Metrics) -> DecisionService:
    """The service, warmed up: its next decision is as quick as any.

    Raises ReleaseError if the release is damaged or needs columns that this code does not compute. A
    store that does not answer degrades decisions, no more.
    """
    parser = Parser(settings.currency, future_limit=timedelta(seconds=settings.future_limit_s))
    domain = FraudDomain(parser.minor_units)
    cold = cold_store_of(settings.cold_store_url, settings.cold_store)
    engine = Engine(
        domain,
        hot_store_of(valkey.address_of(settings).url),
        Journal(settings.journal, fsync=settings.journal_fsync == "always"),
        load_release(release_folder, code_hash=code_hash()),
        ladder=FeatureLadder(VIEWS, Recent(VIEWS, settings.recent_entities), cold),
        decided=metrics.decided,
    )
    engine.warm_up()
    explainer = Explainer(settings.journal, settings.releases)
    return DecisionService(engine, FraudReader(parser, domain), wall_clock_us, explainer.answer)
