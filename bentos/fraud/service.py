"""The fraud decision service as a Bento: parse, engine, reply.

Here: BentoML's settings, all of them, so that plain ``bentoml serve`` obeys them, and the routes. Not here:
anything that decides; that is ``switchyard``, copied into the Bento beside the release.
"""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path

import bentoml
import click
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from switchyard.errors import RequestError, SwitchyardError
from switchyard.serving.front import Front, Guarded
from switchyard.serving.http import Application
from switchyard.serving.keys import ApiKeys
from switchyard.serving.replies import error_answer
from switchyard.settings import load_settings

SETTINGS = load_settings()
RELEASE = Path(__file__).with_name("release")
ROUTES: dict[str, Application] = {}
"""Filled when the worker's service is there; until then nobody is let in."""


def in_error_shape(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    answer = error_answer(RequestError(error.detail, status=error.status_code))
    return Response(answer.body, answer.status, error.headers, "application/json")


def metrics(_request: Request) -> Response:
    from bentoml._internal.configuration.containers import BentoMLContainer

    client = BentoMLContainer.metrics_client.get()
    return Response(client.generate_latest(), media_type=client.CONTENT_TYPE_LATEST)


APP = Starlette(
    routes=[Route("/metrics", metrics)],
    exception_handlers={HTTPException: in_error_shape},
)


@bentoml.service(
    name="fraud",
    workers=SETTINGS.workers,
    http={"host": SETTINGS.host, "port": SETTINGS.port},
    traffic={"timeout": 5},  # each request leaves a timer behind for that long
    logging={"access": {"enabled": False}},
    metrics={
        "enabled": False
    },  # BentoML's label the raw path; /metrics above has the project's own
    tracing={"excluded_urls": ["v1/"]},
)
class FraudDecisions:
    """One worker: its service, warmed up, behind the routes."""

    @bentoml.on_deployment
    @staticmethod
    def refuse_what_cannot_be_served() -> None:
        """Runs once, before any worker: a damaged release or an open address ends the server here."""
        from switchyard.learning.release import check_release

        context = click.get_current_context(silent=True)
        host = (context.params.get("host") if context else None) or SETTINGS.host
        try:
            ApiKeys.parse(SETTINGS.api_keys).refuse_open_address(host)
            check_release(RELEASE)
        except SwitchyardError as error:
            sys.exit(f"the fraud service does not start: {error}")

    def __init__(self) -> None:
        os.environ.setdefault("OMP_NUM_THREADS", "1")  # before xgboost is imported
        from switchyard.fraud.routes import routes_of
        from switchyard.fraud.service import open_service
        from switchyard.serving.metrics import Metrics

        counted = Metrics()
        self.service = open_service(SETTINGS, RELEASE, counted)
        ROUTES["/metrics"] = Guarded(APP, ApiKeys.parse(SETTINGS.api_keys))
        ROUTES.update(routes_of(SETTINGS, self.service, RELEASE, counted.answered))
        gc.collect()
        gc.freeze()

    @bentoml.on_shutdown
    def close(self) -> None:
        self.service.close()


FraudDecisions.add_asgi_middleware(Front, routes=ROUTES)
