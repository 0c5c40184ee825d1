"""The OpenAPI 3.1 document of the decision service: every path, body, answer and status.

Schemas come from the very types that bodies are read with and answers are written from. Not here: serving
it (``bentos.fraud``), the meaning of a path (``serving.service``).
"""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import msgspec

from switchyard.fraud.explain import ExplainBody, Explanation
from switchyard.fraud.requests import LabelBody, TransactionBody
from switchyard.serving.bulk import BulkBody, BulkReply
from switchyard.serving.replies import Accepted, ErrorReply, Reply

_REF = "#/components/schemas/{name}"
_COMMON = (400, 401, 403, 413, 422, 500, 503)


@dataclass(frozen=True, slots=True)
class _Path:
    """One POST: what it takes and gives, what it may refuse with beside _COMMON, in a line."""

    takes: type
    gives: type
    says: str
    refuses: tuple[int, ...] = ()


_PATHS = {
    "/v1/predict": _Path(TransactionBody, Reply, "Decide a transaction", (409,)),
    "/v1/predict/bulk": _Path(
        BulkBody, BulkReply, "Decide up to 1,000 transactions, each as if it had come alone"
    ),
    "/v1/explain": _Path(
        ExplainBody, Explanation, "Every contribution to a past decision, recomputed", (404,)
    ),
    "/v1/events": _Path(
        TransactionBody, Accepted, "Take in a transaction without deciding it", (409,)
    ),
    "/v1/labels": _Path(LabelBody, Accepted, "Take in a verdict", (409,)),
}


def document() -> dict[str, Any]:
    """The document as JSON's types."""
    types = {t for path in _PATHS.values() for t in (path.takes, path.gives)} | {ErrorReply}
    named = sorted(types, key=lambda t: t.__name__)
    _, found = msgspec.json.schema_components(named, ref_template=_REF)
    # Python's end of text is no end of text in JSON Schema's regular expressions
    schemas = msgspec.json.decode(msgspec.json.encode(found).replace(rb"\\Z", b"$"))
    # bodies that are read raw, of which msgspec knows no type
    amount = schemas["TransactionBody"]["properties"]["amount"]
    amount |= {"anyOf": [{"type": "number"}, {"type": "string"}], "description": "In the currency"}
    schemas["BulkBody"]["properties"]["transactions"]["items"] = _ref(TransactionBody)
    schemas["Single"]["properties"]["answer"] = {"anyOf": [_ref(Reply), _ref(ErrorReply)]}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Switchyard fraud decisions", "version": "1"},
        "paths": {path: {"post": _post(of)} for path, of in _PATHS.items()},
        "components": {
            "schemas": schemas,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"key": []}, {}],
    }


def _post(path: _Path) -> dict[str, Any]:
    statuses = sorted({*_COMMON, *path.refuses})
    return {
        "summary": path.says,
        "requestBody": {"required": True, "content": _json(path.takes)},
        "responses": {
            "200": {"description": "Done", "content": _json(path.gives)},
            **{str(s): _refusal(s) for s in statuses},
        },
    }


def _refusal(status: int) -> dict[str, Any]:
    return {"description": HTTPStatus(status).phrase, "content": _json(ErrorReply)}


def _json(of: type) -> dict[str, Any]:
    return {"application/json": {"schema": _ref(of)}}


def _ref(of: type) -> dict[str, str]:
    return {"$ref": _REF.format(name=of.__name__)}
