"""A release: model, fallback, calibration, thresholds and training record, as files under one id.

The id is the SHA-256 of everything the manifest says, file hashes and code hash included: the same content
has the same id wherever and whenever it is made. So nothing that changes from run to run (timings, dates,
run ids, git commits) may be given. Every file is checked before it is read; nothing is unpickled.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from switchyard.errors import ReleaseError
from switchyard.lake import write_text
from switchyard.learning import Floats
from switchyard.learning.calibration import Calibration
from switchyard.learning.models import MODELS, Model
from switchyard.learning.thresholds import Thresholds

MANIFEST = "manifest.json"
FORMAT = 1
ROLES = ("model", "baseline")
"""The folders of a release: what decides, and the logistic regression it falls back on."""


@dataclass(frozen=True, slots=True)
class Release:
    """A release, checked and loaded. ``manifest`` is what it says of itself; treat it as read-only."""

    id: str
    folder: Path
    manifest: Mapping[str, Any]
    model: Model
    baseline: Model
    calibration: Calibration
    baseline_calibration: Calibration
    thresholds: Thresholds

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(self.manifest["columns"])

    @property
    def feature_service(self) -> str:
        return str(self.manifest["feature_service"])

    def score(self, X: Floats) -> Floats:
        """Probabilities float64[n] of rows float64[n, k] that begin with ``columns`` in their order; later code's rows
        may go on with columns of its own."""
        return self.calibration.score(self.model.margin(self._own(X)))

    def explain(self, X: Floats) -> Floats:
        """Exact contributions to the score's log-odds, float64[n, k + 1], the base last."""
        return self.calibration.contributions(self.model.contributions(self._own(X)))

    def fallback_score(self, X: Floats) -> Floats:
        """Probabilities float64[n] by the logistic regression."""
        return self.baseline_calibration.score(self.baseline.margin(self._own(X)))

    def fallback_explain(self, X: Floats) -> Floats:
        """The same of the logistic regression's score."""
        return self.baseline_calibration.contributions(self.baseline.contributions(self._own(X)))

    def _own(self, X: Floats) -> Floats:
        own = len(self.manifest["columns"])
        return X if X.shape[1] == own else np.ascontiguousarray(X[:, :own])


def write_release(
    releases: Path,
    *,
    model: Model,
    calibration: Calibration,
    baseline: Model,
    baseline_calibration: Calibration,
    thresholds: Thresholds,
    feature_service: str,
    columns: Sequence[str],
    code_hash: str,
    training: Mapping[str, Any],
    metrics: Mapping[str, Any],
) -> Release:
    """Write a release below ``releases``, whole or not at all; the same content again changes nothing.

    ``code_hash`` is of the code that computes ``columns``; ``training`` and ``metrics`` are JSON without
    NaN and, like all else, part of the id. Raises ReleaseError if a model takes other columns, or a
    folder of this id is there and damaged.
    """
    models = dict(zip(ROLES, ((model, calibration), (baseline, baseline_calibration)), strict=True))
    for role, (trained, _) in models.items():
        if trained.columns != tuple(columns):
            raise ReleaseError(
                f"the {role} takes {trained.columns}, the release has {tuple(columns)}"
            )
    releases.mkdir(parents=True, exist_ok=True)
    _clear_leftovers(releases)
    stage = releases / f".{os.getpid()}.part"
    try:
        described = {role: _save(stage, role, *pair) for role, pair in models.items()}
        content = {
            "format": FORMAT,
            "feature_service": feature_service,
            "columns": list(columns),
            "code_hash": code_hash,
            "engine": model.engine,
            **described,
            "thresholds": thresholds.record(),
            "training": training,
            "metrics": metrics,
        }
        identity = content_id(content)
        write_text(json.dumps({"id": identity, **content}, indent=1), stage / MANIFEST)
        _publish(stage, releases / identity)
    finally:
        shutil.rmtree(stage, ignore_errors=True)
    return load_release(releases / identity)


def load_release(
    folder: Path, *, computes: Collection[str] | None = None, threads: int = 1
) -> Release:
    """Load the release in ``folder``, after checking its id and every file's SHA-256.

    ``computes`` are the code hashes whose columns will be computed for it (None: none will, as when vectors
    are read from the journal). Raises ReleaseError if a file is missing or damaged, naming it with the
    hash expected and found, or if the release is of other code.
    """
    manifest = check_release(folder, computes=computes)
    loaded = {role: _load(folder, role, manifest[role], threads) for role in ROLES}
    return Release(
        id=manifest["id"],
        folder=folder,
        manifest=manifest,
        model=loaded["model"][0],
        baseline=loaded["baseline"][0],
        calibration=loaded["model"][1],
        baseline_calibration=loaded["baseline"][1],
        thresholds=Thresholds(**manifest["thresholds"]),
    )


def check_release(folder: Path, *, computes: Collection[str] | None = None) -> dict[str, Any]:
    """The manifest of the release in ``folder``, after every file's SHA-256 was checked; loads no model.

    Raises ReleaseError naming the file that is missing or damaged, or if the code that it needs is
    none of ``computes`` (None: any will do).
    """
    manifest = read_manifest(folder)
    if computes is not None and manifest["code_hash"] not in computes:
        raise ReleaseError(
            f"release {manifest['id']} has columns of code {manifest['code_hash']}, but this code is "
            f"{' or '.join(sorted(computes))} and can't compute them; serve it with the code it was made with"
        )
    for role in ROLES:
        for name, expected in manifest[role]["files"].items():
            _check_file(folder / name, expected)
    return manifest


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of the release in ``folder``, checked against its own id; loads no model.

    Raises ReleaseError if there is none, it is damaged, or of another format.
    """
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        expected = manifest["id"]
    except OSError as error:
        raise ReleaseError(f"{folder} holds no release: {path} can't be read ({error})") from None
    except (ValueError, KeyError, TypeError) as error:
        raise ReleaseError(
            f"{path} is damaged: it is no JSON object with an id ({error})"
        ) from None
    found = content_id({name: value for name, value in manifest.items() if name != "id"})
    if found != expected:
        raise ReleaseError(f"{path} is damaged: its content has the id {found}, it says {expected}")
    if manifest["format"] != FORMAT:
        raise ReleaseError(f"{path} has format {manifest['format']}; this code reads {FORMAT}")
    return dict(manifest)


def content_id(content: Mapping[str, Any]) -> str:
    """First 32 hex characters of the SHA-256 over canonical JSON. Raises ReleaseError on NaN.

    >>> content_id({"a": 1, "b": [2.0]}) == content_id({"b": [2.0], "a": 1})
    True
    """
    try:
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except ValueError:
        raise ReleaseError(
            "a release's content holds NaN or infinity, which JSON has no word for; use null"
        ) from None
    return hashlib.sha256(canonical.encode()).hexdigest()[:32]


def file_hash(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_file(path: Path, expected: str) -> None:
    if not path.is_file():
        raise ReleaseError(f"{path} is missing; its manifest expects SHA-256 {expected}")
    if (found := file_hash(path)) != expected:
        raise ReleaseError(f"{path} is damaged: SHA-256 {expected} was expected, {found} found")


def _save(stage: Path, role: str, model: Model, calibration: Calibration) -> dict[str, Any]:
    """Write one model's files; returns what the manifest says of it."""
    (stage / role).mkdir(parents=True)
    model.save(stage / role)
    files = sorted(p for p in (stage / role).iterdir())
    return {
        "kind": model.name,
        "calibration": asdict(calibration),
        "files": {f"{role}/{p.name}": file_hash(p) for p in files},
    }


def _load(
    folder: Path, role: str, said: Mapping[str, Any], threads: int
) -> tuple[Model, Calibration]:
    kind = MODELS.get(said["kind"])
    if kind is None:
        raise ReleaseError(
            f"{folder} names a model of kind {said['kind']!r}; known are {sorted(MODELS)}"
        )
    return kind.load(folder / role, threads=threads), Calibration(**said["calibration"])


def _publish(stage: Path, target: Path) -> None:
    """Sync the staged files and give their folder its name, unless that release is there already."""
    for path in [p for p in stage.rglob("*") if p.is_file()]:
        with path.open("rb") as file:
            os.fsync(file.fileno())
    if not target.exists():
        stage.rename(target)


def _clear_leftovers(releases: Path) -> None:
    """Remove what killed processes had begun."""
    import psutil

    for part in releases.glob(".*.part"):
        pid = part.name.split(".")[1]
        if pid == str(os.getpid()) or not (pid.isdigit() and psutil.pid_exists(int(pid))):
            shutil.rmtree(part, ignore_errors=True)
