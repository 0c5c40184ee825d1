"""The table of paths and the OpenAPI document tell of the same paths, methods and bodies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from switchyard.fraud.openapi import document
from switchyard.fraud.routes import routes_of
from switchyard.fraud.service import open_service
from switchyard.serving.front import PROBES
from switchyard.serving.http import Application, Endpoint
from switchyard.settings import load_settings
from tests.releases import make_release

ALWAYS = (400, 401, 403, 405, 408, 413, 415, 422, 429, 500, 503)


@pytest.fixture(scope="module")
def routes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Application]:
    home: Path = tmp_path_factory.mktemp("home")
    release = make_release(home / "releases")
    settings = load_settings(home=home, redis_url="redis://127.0.0.1:4499/0")
    service = open_service(settings, release.folder)
    made = routes_of(
        settings, service, release.folder, home / "run", lambda: b"", lambda *_answer: None
    )
    service.close()
    return made


def told() -> dict[str, Any]:
    return dict(document()["paths"])


def test_every_route_is_told_of_with_its_method(routes: dict[str, Application]) -> None:
    found = {
        (path + ("{job_id}" if path.endswith("/") else ""), method.lower())
        for path, application in routes.items()
        for method in application.methods  # type: ignore[attr-defined]
    }

    probes = {(path, "get") for path in PROBES & told().keys()}
    assert found | probes == {(path, method) for path, of in told().items() for method in of}


def test_every_post_may_refuse_with_what_any_endpoint_refuses_with(
    routes: dict[str, Application],
) -> None:
    for path in (path for path, route in routes.items() if isinstance(route, Endpoint)):
        statuses = set(told()[path]["post"]["responses"])
        assert statuses >= {str(status) for status in ALWAYS}
        assert len(statuses & {"200", "202"}) == 1


def test_paths_that_need_no_key_say_so() -> None:
    free = {
        path for path, of in told().items() for told in of.values() if told.get("security") == []
    }

    assert free == {"/openapi.json", "/livez", "/readyz"}
