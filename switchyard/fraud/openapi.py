"""The OpenAPI 3.1 document of the decision service: every path, body, answer and status.

Schemas come from the very types that bodies are read with and answers are written from. Not here: serving
it (``routes``), the meaning of a path (``serving.service``).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Literal

import msgspec

from switchyard.fraud.explain import ExplainBody, Explanation
from switchyard.fraud.requests import LabelBody, TransactionBody
from switchyard.serving.bulk import BulkBody, BulkReply
from switchyard.serving.deploy_api import DeployBody
from switchyard.serving.job_api import JobAccepted, JobBody
from switchyard.serving.jobs import JOB_ID, JobStatus
from switchyard.serving.plan import Change
from switchyard.serving.releases import RELEASE_ID
from switchyard.serving.replies import Accepted, ErrorReply, Reply
from switchyard.serving.traffic_api import TrafficReply

Json = dict[str, Any]
_REF = "#/components/schemas/{name}"
_POST_REFUSES = (400, 401, 403, 405, 408, 413, 415, 422, 429, 500, 503)
_GET_REFUSES = (401, 403, 405, 429, 500)


@dataclass(frozen=True, slots=True)
class _Path:
    """One path: what it says of itself, takes and gives; ``refuses`` with what beside its method's usual.

    ``gives`` is a type, or the media type of what is no JSON of ours. ``open``: nobody needs a key;
    ``changes``: the body says how what is there is to be.
    """

    says: str
    gives: type | str
    takes: type | None = None
    refuses: tuple[int, ...] = ()
    status: int = 200
    parameters: tuple[Json, ...] = field(default=())
    open: bool = False
    changes: bool = False

    @property
    def method(self) -> Literal["get", "post", "put"]:
        if self.changes:
            return "put"
        return "post" if self.takes else "get"

    @property
    def statuses(self) -> list[int]:
        """What it may refuse with."""
        if self.open:
            return sorted({405, *self.refuses})
        return sorted({*(_POST_REFUSES if self.takes else _GET_REFUSES), *self.refuses})


def _parameter(name: str, where: str, pattern: str, says: str) -> Json:
    return {"name": name, "in": where, "required": where == "path", "description": says,
            "schema": {"type": "string", "pattern": f"^{pattern}$"}}  # fmt: skip


_RELEASE = _parameter(
    "release", "query", RELEASE_ID.pattern, "Decide by this release, if it is loaded"
)
_JOB = _parameter("job_id", "path", JOB_ID.pattern, "As the answer 202 gave it")

_PATHS: dict[str, tuple[_Path, ...]] = {
    "/v1/predict": (
        _Path("Decide a transaction", Reply, TransactionBody, (404, 409), parameters=(_RELEASE,)),
    ),
    "/v1/predict/bulk": (
        _Path(
            "Decide up to 1,000 transactions, each as if it had come alone", BulkReply, BulkBody
        ),
    ),
    "/v1/explain": (
        _Path(
            "Every contribution to a past decision, recomputed", Explanation, ExplainBody, (404,)
        ),
    ),
    "/v1/events": (
        _Path("Take in a transaction without deciding it", Accepted, TransactionBody, (409,)),
    ),
    "/v1/labels": (_Path("Take in a verdict", Accepted, LabelBody, (409,)),),
    "/v1/batch_predict": (
        _Path(
            "Score a file or a folder of Parquet in a process of its own",
            JobAccepted, JobBody, (404,), status=202,
        ),
    ),
    "/v1/models/fraud/deploy": (
        _Path("Let a release of the store answer and decide, blue-green", JobAccepted, DeployBody,
              (404,), status=202),
    ),
    "/v1/jobs/{job_id}": (
        _Path("How far a batch job or a deployment is", JobStatus, refuses=(404,), parameters=(_JOB,)),
    ),
    "/v1/traffic": (
        _Path("Who decides and who is on trial, and how that came", TrafficReply, refuses=(503,)),
        _Path("Change who decides or who is on trial", TrafficReply, Change, (409,), changes=True),
    ),
    "/metrics": (_Path("Figures for Prometheus", "text/plain"),),
    "/openapi.json": (_Path("This document", "application/json", open=True),),
    "/livez": (_Path("Whether the process lives", "text/plain", open=True),),
    "/readyz": (
        _Path("Whether it answers requests", "text/plain", refuses=(503,), open=True),
    ),
}  # fmt: skip


def document() -> Json:
    """The document as JSON's types."""
    return {
        "openapi": "3.1.0",
        "info": {"title": "Switchyard fraud decisions", "version": "1"},
        "paths": {
            path: {of.method: _operation(of) for of in methods} for path, methods in _PATHS.items()
        },
        "components": {
            "schemas": _schemas(),
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"key": []}, {}],
    }


def _schemas() -> Json:
    told = [t for methods in _PATHS.values() for of in methods for t in (of.takes, of.gives)]
    types = {t for t in told if isinstance(t, type)}
    named = sorted(types | {ErrorReply}, key=lambda t: t.__name__)
    _, found = msgspec.json.schema_components(named, ref_template=_REF)
    # Python's end of text is no end of text in JSON Schema's regular expressions
    schemas: Json = msgspec.json.decode(msgspec.json.encode(found).replace(rb"\\Z", b"$"))
    # bodies that are read raw, of which msgspec knows no type
    amount = schemas["TransactionBody"]["properties"]["amount"]
    amount |= {"anyOf": [{"type": "number"}, {"type": "string"}], "description": "In the currency"}
    schemas["BulkBody"]["properties"]["transactions"]["items"] = _ref(TransactionBody)
    schemas["Single"]["properties"]["answer"] = {"anyOf": [_ref(Reply), _ref(ErrorReply)]}
    return schemas


def _operation(path: _Path) -> Json:
    given: Json = {"description": HTTPStatus(path.status).phrase, "content": _content(path.gives)}
    operation: Json = {"summary": path.says}
    if path.parameters:
        operation["parameters"] = list(path.parameters)
    if path.takes is not None:
        operation["requestBody"] = {"required": True, "content": _content(path.takes)}
    operation["responses"] = {
        str(path.status): given,
        **{str(status): _refusal(path, status) for status in path.statuses},
    }
    if path.open:
        operation["security"] = []
    return operation


def _refusal(path: _Path, status: int) -> Json:
    """The one error shape; a probe that is not ready is answered by the server, in plain text."""
    content = path.gives if path.open and status == HTTPStatus.SERVICE_UNAVAILABLE else ErrorReply
    said: Json = {"description": HTTPStatus(status).phrase, "content": _content(content)}
    if status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE) and not path.open:
        said["headers"] = {"retry-after": {"description": "Seconds", "schema": {"type": "integer"}}}
    return said


def _content(of: type | str) -> Json:
    return {of: {}} if isinstance(of, str) else {"application/json": {"schema": _ref(of)}}


def _ref(of: type) -> Json:
    return {"$ref": _REF.format(name=of.__name__)}
