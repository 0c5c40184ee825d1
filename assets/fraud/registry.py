"""The model registry: which release each MLflow alias names, and how a release gets a version.

Here: MLflow's model registry, spoken to by release id. Not here: what a release is (``learning.release``).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

MODEL = "fraud"
"""Name of the registered model."""


def release_of(tracking_uri: str, alias: str) -> str | None:
    """Release id of the version that carries ``alias``, None if no version does."""
    client = _client(tracking_uri)
    if not client.search_registered_models(f"name='{MODEL}'"):
        return None
    number = client.get_registered_model(MODEL).aliases.get(alias)
    if number is None:
        return None
    release: str | None = client.get_model_version(MODEL, number).tags.get("release")
    return release


def version_of(tracking_uri: str, release_id: str) -> str | None:
    """Version number of a release, None if it is not registered."""
    found = _client(tracking_uri).search_model_versions(
        f"name='{MODEL}' and tags.release='{release_id}'"
    )
    return str(found[0].version) if found else None


def register(mlflow: Any, tracking_uri: str, release_id: str, folder: Path) -> str:
    """Log the release's files with the active run, register them, tag the version with the release id.

    The same release again keeps its version. Returns the version number.
    """
    if known := version_of(tracking_uri, release_id):
        return known
    client = _client(tracking_uri)
    mlflow.log_artifacts(str(folder), artifact_path="release")
    if not client.search_registered_models(f"name='{MODEL}'"):
        client.create_registered_model(MODEL, description="Scores card transactions for fraud.")
    run_id = mlflow.active_run().info.run_id
    source = mlflow.get_artifact_uri("release")
    version = client.create_model_version(
        MODEL, source, run_id=run_id, tags={"release": release_id}
    )
    return str(version.version)


def set_alias(tracking_uri: str, alias: str, release_id: str) -> None:
    """Let ``alias`` name the release's version."""
    client = _client(tracking_uri)
    version = version_of(tracking_uri, release_id)
    assert version is not None, f"release {release_id} is registered before it gets an alias"
    client.set_registered_model_alias(MODEL, alias, version)


def remove_alias(tracking_uri: str, alias: str) -> None:
    """Let ``alias`` name nothing."""
    _client(tracking_uri).delete_registered_model_alias(MODEL, alias)


def _client(tracking_uri: str) -> Any:
    from mlflow.tracking import MlflowClient

    return MlflowClient(tracking_uri=tracking_uri)
