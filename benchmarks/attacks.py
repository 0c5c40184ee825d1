"""Hostile requests for the decision service, byte for byte: what breaks parsers, fills memory, or waits for ever.

Each kind is a function of a random generator; the same seed gives the same requests. Not here: sending them
and counting what comes back (``hostile``).
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import cycle
from typing import Any

POSTS = ("/v1/predict", "/v1/predict/bulk", "/v1/explain", "/v1/events", "/v1/labels",
         "/v1/batch_predict")  # fmt: skip
GETS = ("/v1/jobs/" + "0" * 32, "/metrics", "/openapi.json", "/livez", "/readyz")
TEN_MB = 10 * 1024 * 1024


@dataclass(frozen=True)
class Attack:
    """Bytes to send, in parts with a pause between them; ``hangs_up`` right after, without reading.

    ``slow``: it may take as long as the service's patience; ``answers``: how many may come back.
    """

    kind: str
    parts: tuple[bytes, ...]
    pause_s: float = 0.0
    hangs_up: bool = False
    answers: int = 1

    @property
    def slow(self) -> bool:
        return self.pause_s >= 1.0


def attacks(count: int, seed: int, slow_share: float = 0.005) -> Iterator[Attack]:
    """``count`` attacks, all kinds in turn; slow ones are a small share, since each takes seconds."""
    rng = random.Random(seed)
    quick = cycle(_KINDS)
    for _ in range(count):
        yield (rng.choice(_SLOW) if rng.random() < slow_share else next(quick))(rng)


def valid(rng: random.Random, path: str = "/v1/predict") -> dict[str, Any]:
    """A body that ``path`` takes."""
    name = f"hostile-{rng.getrandbits(64):x}"
    transaction = {
        "transaction_id": name, "customer_id": f"c{rng.randrange(50)}",
        "terminal_id": f"s{rng.randrange(50)}", "amount": "57.16",
        "event_timestamp": "2026-03-02T12:00:00Z",
    }  # fmt: skip
    if path == "/v1/predict/bulk":
        return {"transactions": [valid(rng) for _ in range(3)]}
    if path == "/v1/explain":
        return {"transaction_id": name}
    if path == "/v1/batch_predict":
        return {"input_uri": "/tmp/in.parquet", "output_uri": "/tmp/out.parquet"}
    if path == "/v1/labels":
        del transaction["amount"]
        return transaction | {"is_fraud": True}
    return transaction


def request(
    body: bytes,
    path: str = "/v1/predict",
    method: str = "POST",
    headers: bytes = b"content-type: application/json\r\n",
    length: int | None = None,
) -> bytes:
    """One HTTP/1.1 request; ``length`` is what it declares, by default the truth."""
    declared = len(body) if length is None else length
    head = f"{method} {path} HTTP/1.1\r\nhost: localhost\r\n".encode("latin-1", "replace")
    return head + headers + f"content-length: {declared}\r\n\r\n".encode() + body


def _json(kind: str, rng: random.Random, body: Any, path: str | None = None) -> Attack:
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Attack(kind, (request(text, path or rng.choice(POSTS)),))


# ---------------------------------------------------------------- bodies


def deep_nesting(rng: random.Random) -> Attack:
    depth = rng.choice((100, 1_000, 10_000, 30_000))
    opening, closing = rng.choice(((b"[", b"]"), (b'{"a":', b"}")))
    nested = (opening * depth + b"1" + closing * depth)[:60_000]
    if rng.random() < 0.5:
        return _json("deep nesting", rng, nested)
    text = json.dumps(valid(rng)).encode().replace(b'"57.16"', nested)
    return _json("deep nesting", rng, text, rng.choice(("/v1/predict", "/v1/events")))


def odd_numbers(rng: random.Random) -> Attack:
    number = rng.choice(
        (b"NaN", b"Infinity", b"-Infinity", b"1e999", b"-1e999", b"1e-999", b"-0", b"-0.0",
         b"9" * 5_000, b"0." + b"1" * 5_000, b"1" + b"0" * 400 + b".00", b"0x10", b"01", b"1e", b"+1",
         b'"NaN"', b'"1e5"', b'"1_000"', b'" 1"', '"\u0661"'.encode(), b'"Infinity"', b"1e308", b"-1",
         b"18446744073709551616", b"true", b"null", b"1000000.01", b'"1,5"', b'""')
    )  # fmt: skip
    field = rng.choice((b'"57.16"', b'"2026-03-02T12:00:00Z"', b'"c1"'))
    body = json.dumps(valid(rng) | {"customer_id": "c1"}).encode().replace(field, number)
    return _json("odd numbers", rng, body, rng.choice(("/v1/predict", "/v1/events")))


def wrong_types(rng: random.Random) -> Attack:
    path = rng.choice(POSTS)
    body = valid(rng, path)
    for name in rng.sample(sorted(body), k=min(len(body), rng.randint(1, 2))):
        body[name] = rng.choice(
            (None, True, 0, -1, 1.5, "", "x" * 10_000, [], [[]], {}, {"a": 1}, ["a"] * 100, "\0", "💳",
             "‮", "a\nb", "9999-12-31T23:59:59Z", "0001-01-01T00:00:00Z", "2026-03-02T12:00:00",
             "2026-02-30T12:00:00Z", "2026-03-02T12:00:60Z", "2026-03-02T12:00:00+99:99", "1970-01-01",
             "../../etc/passwd", "s3://bucket/key", "file:///etc/passwd", "file://%00", "file://[", "x" * 128)
        )  # fmt: skip
    if rng.random() < 0.3:
        body[rng.choice(("__proto__", "colour", "", "a" * 1_000, "amount "))] = 1
    return _json("wrong types", rng, body, path)


def no_utf8(rng: random.Random) -> Attack:
    junk = rng.choice(
        (b"\xff\xfe", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf5\x80\x80\x80", b"\\ud800", b"\\ud800\\u0041",
         b"\\u0000", b"\x00", b"\xef\xbb\xbf", bytes(rng.randrange(128, 256) for _ in range(20)))
    )  # fmt: skip
    text = json.dumps(valid(rng)).encode()
    place = rng.choice((text.index(b"hostile-"), 0, len(text) - 2, text.index(b"57.16")))
    return _json("invalid UTF-8", rng, text[:place] + junk + text[place:])


def mutated(rng: random.Random) -> Attack:
    path = rng.choice(POSTS)
    text = bytearray(json.dumps(valid(rng, path)).encode())
    for _ in range(rng.randint(1, 8)):
        place = rng.randrange(len(text))
        how = rng.randrange(3)
        if how == 0:
            text[place] = rng.randrange(256)
        elif how == 1:
            del text[place : place + rng.randint(1, 5)]
            text += b" "
        else:
            text[place:place] = rng.choice(
                (b'"', b"{", b"}", b"[", b",", b":", b"\\", b"0", b"\x00")
            )
    return _json("mutated", rng, bytes(text), path)


def no_json(rng: random.Random) -> Attack:
    body = rng.choice(
        (b"", b" ", b"null", b"[]", b'"', b"{}", b"{", b"<xml/>", b"a=b", rng.randbytes(500), b"{}" * 50,
         b"\x1f\x8b\x08\x00" + rng.randbytes(50), b'{"transaction_id":"a","transaction_id":"b"}')
    )  # fmt: skip
    return _json("no JSON", rng, body)


def bad_bulk(rng: random.Random) -> Attack:
    one = json.dumps(valid(rng)).encode()
    body = rng.choice(
        (b'{"transactions":[%b]}' % b",".join([b"{}"] * 1_001),
         b'{"transactions":[%b]}' % b",".join([one] * 200),
         b'{"transactions":[%b]}' % b",".join([b"1", b'"a"', b"null", b"[[[]]]", one]),
         b'{"transactions":[%b' % (b"[" * 100_000),
         b'{"transactions":{}}', b'{"transactions":[]}')
    )  # fmt: skip
    return _json("bulk", rng, body, "/v1/predict/bulk")


# ---------------------------------------------------------------- lengths


def truncated(rng: random.Random) -> Attack:
    body = json.dumps(valid(rng)).encode()
    cut = body[: rng.randrange(len(body))]
    return Attack("truncated", (request(cut, length=len(body)),), hangs_up=True)


def cut_in_the_head(rng: random.Random) -> Attack:
    whole = request(b"{}")
    return Attack("truncated", (whole[: rng.randrange(1, len(whole) - 4)],), hangs_up=True)


def chunked(rng: random.Random) -> Attack:
    body = json.dumps(valid(rng)).encode()
    size = rng.choice((1, 7, 100))
    pieces = [body[i : i + size] for i in range(0, len(body), size)]
    good = b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in pieces) + b"0\r\n\r\n"
    broken = rng.choice((good, good, b"zz\r\n{}\r\n0\r\n\r\n", b"-1\r\n{}\r\n", b"ffffffffffffffff\r\n{}",
                         b"2\r\n{}\r\n0\r\nx: y\r\n\r\n", b"0" * 5_000 + b"2\r\n{}\r\n0\r\n\r\n",
                         b"2;" + b"e" * 9_000 + b"\r\n{}\r\n0\r\n\r\n"))  # fmt: skip
    return Attack("chunked", (_chunked_head(rng) + broken,))


def large(rng: random.Random) -> Attack:
    """Ten megabytes, declared or in chunks."""
    piece = b"x" * 65_536
    if rng.random() < 0.5:
        head = request(b"", rng.choice(POSTS), length=TEN_MB)
        return Attack("10 MB", (head, *[piece] * (TEN_MB // len(piece))))
    block = b"%x\r\n%b\r\n" % (len(piece), piece)
    blocks = [block] * (TEN_MB // len(piece))
    return Attack("10 MB", (_chunked_head(rng), *blocks, b"0\r\n\r\n"))


def lying_length(rng: random.Random) -> Attack:
    declared = rng.choice(
        (b"content-length: 99999999999999999999\r\n", b"content-length: -1\r\n", b"content-length: 0x2\r\n",
         b"content-length: 2\r\ncontent-length: 3\r\n", b"content-length: 2, 2\r\n", b"content-length:\r\n",
         b"content-length: 2\r\ntransfer-encoding: chunked\r\n", b"content-length: 9223372036854775808\r\n",
         b"transfer-encoding: gzip\r\n", b"transfer-encoding: chunked, chunked\r\n", b"content-length: +2\r\n")
    )  # fmt: skip
    head = b"POST /v1/predict HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n"
    return Attack("lying length", (head + declared + b"\r\n{}",), hangs_up=rng.random() < 0.5)


def _chunked_head(rng: random.Random) -> bytes:
    path = rng.choice(POSTS)
    return (f"POST {path} HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n"
            "transfer-encoding: chunked\r\n\r\n").encode()  # fmt: skip


# ---------------------------------------------------------------- heads


def header_flood(rng: random.Random) -> Attack:
    flood = rng.choice(
        (b"".join(b"x-%d: y\r\n" % i for i in range(5_000)), b"x-long: %b\r\n" % (b"y" * 1_000_000),
         b"x" * 200_000 + b": y\r\n", b"cookie: %b\r\n" % (b"a=b;" * 20_000),
         b"authorization: Bearer %b\r\n" % (b"k" * 60_000))
    )  # fmt: skip
    return Attack("header flood", (request(json.dumps(valid(rng)).encode(), headers=flood),))


def odd_headers(rng: random.Random) -> Attack:
    odd = rng.choice(
        (b"x: \x00\r\n", b"x\x00: y\r\n", b": y\r\n", b"x y: z\r\n", b"x: \xff\xfe\r\n", b"x:\r\n  folded\r\n",
         b"expect: 100-continue\r\n", b"expect: 200-ok\r\n", b"upgrade: websocket\r\nconnection: upgrade\r\n",
         b"connection: close, keep-alive, \x01\r\n", b"host: b\r\n", b"accept-encoding: br;q=x\r\n",
         b"origin: http://example.org\r\n", b"content-encoding: gzip\r\n",
         b"authorization: Bearer \xff\r\n", b"authorization: Basic YTpi\r\n")
    )  # fmt: skip
    return Attack("odd headers", (request(json.dumps(valid(rng)).encode(), headers=odd),))


def wrong_methods(rng: random.Random) -> Attack:
    method = rng.choice(("GET", "PUT", "DELETE", "HEAD", "OPTIONS", "TRACE", "PATCH", "CONNECT", "PROPFIND",
                         "get", "X" * 5_000, "PO ST", "", "\x01"))  # fmt: skip
    return Attack("wrong methods", (request(b"{}", rng.choice(POSTS + GETS), method),))


def wrong_paths(rng: random.Random) -> Attack:
    path = rng.choice(
        ("/", "//", "/v1", "/v1/predict/", "/v1/predict/../predict", "/V1/PREDICT", "/v1/predict%00",
         "/v1/jobs/", "/v1/jobs/../../etc/passwd", "/v1/jobs/%2e%2e%2fslot-0.lock", "/v1/jobs/" + "a" * 9_000,
         "/" + "a" * 70_000, "/%ff%fe", "/v1/predict?release=latest", "/v1/predict?release=" + "0a" * 16,
         "/v1/predict?" + "a=b&" * 5_000, "/v1/events?x", "/docs.json", "/schema.json", "/static_content/x",
         "*", "http://example.org/v1/predict", "predict", "/v1/predict#x", "/\x7f", "/v1/jobs/\xff")
    )  # fmt: skip
    return Attack("wrong paths", (request(b"{}", path, rng.choice(("GET", "POST"))),))


def wrong_content_types(rng: random.Random) -> Attack:
    kind = rng.choice((b"text/plain", b"application/xml", b"multipart/form-data; boundary=x", b"", b"\xff",
                       b"application/json; charset=utf-16", b"application/jsonx", b"a" * 9_000))  # fmt: skip
    headers = b"content-type: %b\r\n" % kind
    return Attack("content types", (request(json.dumps(valid(rng)).encode(), headers=headers),))


def no_http(rng: random.Random) -> Attack:
    junk = rng.choice(
        (rng.randbytes(200), b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
         b"\r\n" * 500, b"GET / HTTP/9.9\r\n\r\n", b"GET /\r\n", b"POST /v1/predict HTTP/1.0\r\n\r\n",
         b"HELO a\r\n", b"\x00" * 1_000)
    )  # fmt: skip
    return Attack("no HTTP", (junk,), hangs_up=rng.random() < 0.5)


def pipelined(rng: random.Random) -> Attack:
    many = [request(json.dumps(valid(rng)).encode()) for _ in range(20)]
    if rng.random() < 0.3:
        many[10] = b"garbage\r\n\r\n"
    return Attack("pipelined", (b"".join(many),), answers=20)


def same_id(rng: random.Random) -> Attack:
    """One id again and again, with bodies that differ."""
    body = valid(rng) | {
        "transaction_id": f"hostile-{rng.randrange(5)}",
        "amount": rng.randrange(9),
    }
    return _json("same id", rng, body, rng.choice(("/v1/predict", "/v1/events")))


# ---------------------------------------------------------------- slow


def slow_body(rng: random.Random) -> Attack:
    body = json.dumps(valid(rng)).encode()
    whole = request(body)
    start = len(whole) - len(body) + 5
    drip = [whole[i : i + 1] for i in range(start, start + 9)]
    return Attack("slow body", (whole[:start], *drip), pause_s=1.0)


def no_body(rng: random.Random) -> Attack:
    return Attack("slow body", (request(b"", rng.choice(POSTS), length=100), b""), pause_s=8.0)


_KINDS: tuple[Callable[[random.Random], Attack], ...] = (
    deep_nesting, odd_numbers, wrong_types, no_utf8, mutated, no_json, bad_bulk, truncated, cut_in_the_head,
    chunked, large, lying_length, header_flood, odd_headers, wrong_methods, wrong_paths,
    wrong_content_types, no_http, pipelined, same_id, wrong_types, mutated, odd_numbers,
)  # fmt: skip
_SLOW: tuple[Callable[[random.Random], Attack], ...] = (slow_body, no_body)
