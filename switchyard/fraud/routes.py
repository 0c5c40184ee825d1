"""Every path of the fraud decision service, with who may call it, as one table of ASGI applications.

Here: paths, roles and bounds, from a home's settings. Not here: what a path does, the OpenAPI document's words
(``openapi``), the server that carries it (``bentos.fraud``).
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TypeVar

from switchyard.errors import RequestError
from switchyard.fraud.batch_job import job_api_of
from switchyard.fraud.compatible import computable
from switchyard.fraud.online import traffic_of
from switchyard.fraud.openapi import document
from switchyard.learning.release import check_release, read_manifest
from switchyard.serving.approval import approver
from switchyard.serving.deadlines import BodyDeadline
from switchyard.serving.deploy_api import DeployApi, launch
from switchyard.serving.exposition import CONTENT_TYPE
from switchyard.serving.http import (
    Answered,
    Application,
    Bounds,
    ByMethod,
    Endpoint,
    Get,
    Lookup,
    Post,
)
from switchyard.serving.job_api import JobApi
from switchyard.serving.jobs import Jobs
from switchyard.serving.keys import ApiKeys
from switchyard.serving.limits import RateLimit, Room, rate_for
from switchyard.serving.replies import Answer, encode
from switchyard.serving.service import DecisionService
from switchyard.serving.traffic_api import TrafficApi
from switchyard.serving.workers import workers
from switchyard.settings import Settings

T = TypeVar("T")
TRAFFIC = "/v1/traffic"
METRICS = CONTENT_TYPE.encode()


def routes_of(
    settings: Settings,
    service: DecisionService,
    release_folder: Path,
    run: Path,
    scrape: Callable[[], bytes],
    answered: Answered,
) -> dict[str, Application]:
    """Applications by path (``front.Front`` says what a path is). Takes up batch jobs that were left.

    ``release_folder`` is the release that the service came with, ``run`` where its workers tell what they
    serve, ``scrape`` gives its figures.
    """
    keys = ApiKeys.parse(settings.api_keys)
    jobs = job_api_of(settings, release_folder, lambda: service.engine.lineup.champion.id)
    jobs.wake()
    deployments = DeployApi(
        Jobs(settings.deployments, time.time), settings.releases, lambda: launch(settings.home)
    )
    posts = (
        *service.routes(),
        Post("/v1/batch_predict", _threaded(jobs.submit), "score"),
        Post("/v1/models/fraud/deploy", _threaded(deployments.submit), "admin"),
    )
    gets = (
        Get("/v1/jobs/", _threaded(lambda job_id: _status(job_id, jobs, deployments)), "score"),
        Get("/metrics", _threaded(lambda _part: Answer(200, scrape(), media=METRICS))),
        Get("/openapi.json", _always(Answer(200, encode(document()))), secret=False),
    )
    traffic = _traffic_api(settings, service, release_folder, run)
    bounds = Bounds(Room(settings.max_waiting), BodyDeadline(time.monotonic), _rate(settings, keys))

    def taking(post: Post) -> Endpoint:
        return Endpoint(post, keys, answered, bounds=bounds)

    def giving(get: Get) -> Lookup:
        return Lookup(get, keys, answered, bounds.rate)

    return {
        **{post.path: taking(post) for post in posts},
        **{get.path: giving(get) for get in gets},
        TRAFFIC: ByMethod(
            giving(Get(TRAFFIC, _threaded(traffic.show), "admin")),
            taking(Post(TRAFFIC, _threaded(traffic.change), "admin", method="PUT")),
        ),
    }


def _status(job_id: str, jobs: JobApi, deployments: DeployApi) -> Answer:
    """Of whichever kind of job has that id."""
    try:
        return jobs.status(job_id)
    except RequestError:
        return deployments.status(job_id)


def _traffic_api(
    settings: Settings, service: DecisionService, release_folder: Path, run: Path
) -> TrafficApi:
    return TrafficApi(
        traffic_of(settings.home, service.engine.store.url),
        read_manifest(release_folder)["id"],
        check=lambda release: check_release(settings.releases / release, computes=computable()),
        may_decide=partial(approver, settings),
        told=lambda: workers(run),
        now=lambda: datetime.now(UTC),
    )


def _rate(settings: Settings, keys: ApiKeys) -> RateLimit | None:
    rate = rate_for(settings.rate_limit_per_s, len(keys.hashed))
    if not rate:
        return None
    same = hashlib.sha256((settings.api_keys or "").encode()).hexdigest()[:16]
    folder = settings.home / "limits" / same  # who has the same keys counts them together
    return RateLimit(folder, rate, max(1, len(keys.hashed)), time.time)


def _threaded(answer: Callable[[T], Answer]) -> Callable[[T], Awaitable[Answer]]:
    """What waits for files, beside the event loop."""
    return lambda asked: asyncio.to_thread(answer, asked)


def _always(answer: Answer) -> Callable[[str], Awaitable[Answer]]:
    async def give(_part: str) -> Answer:
        return answer

    return give
