"""Stage 'evaluation': both models on the test window, and the gates a candidate has to pass.

The gates are typed policies of ``switchyard.learning.policy``; here they become blocking checks, so that
what is downstream does not run, and the check says why.
"""

import json
from collections.abc import Iterator
from typing import Any

import dagster as dg

from assets.fraud import registry
from assets.fraud.describe import OWNERS, picture
from assets.fraud.gates import CANDIDATE_GATES, noted
from assets.fraud.training import TRAINING_SET, split_of
from switchyard.fraud.columns import FEATURES, names
from switchyard.fraud.dataset import Dataset
from switchyard.fraud.features import code_hash
from switchyard.lake import write_text
from switchyard.learning import pictures
from switchyard.learning.fitting import Fitted
from switchyard.learning.models import GradientBoosting, LogisticRegression
from switchyard.learning.policy import (
    LeakPolicy,
    PromotionPolicy,
    ScoringCostPolicy,
    Verdict,
)
from switchyard.learning.release import load_release
from switchyard.learning.shipment import known_as_of
from switchyard.learning.splits import microseconds
from switchyard.learning.trial import Trial, trial_of
from switchyard.settings import Settings

GROUP = "evaluation"
EVALUATION = "evaluation.json"
"""File of the training folder that holds every metric of the last evaluation."""


def assets() -> list[dg.AssetsDefinition]:
    """The stage's assets."""

    @dg.multi_asset(
        name="evaluate",
        group_name=GROUP,
        specs=[
            dg.AssetSpec(
                "evaluation",
                deps=[LogisticRegression.name, GradientBoosting.name, "training_set"],
                description="Average precision, AUC, card precision@100, precision, recall and calibration "
                "on the test window, each with an interval from a bootstrap over customers; pictures.",
                owners=OWNERS,
                kinds={"mlflow"},
            )
        ],
        check_specs=[
            dg.AssetCheckSpec(name, asset="evaluation", description=said, blocking=True)
            for name, said in CANDIDATE_GATES.items()
        ],
    )
    def evaluation(
        mlflow: dg.ResourceParam[Any], settings: dg.ResourceParam[Settings]
    ) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:
        data = Dataset.load(settings.training / TRAINING_SET)
        candidate = Fitted.load(settings.training / GradientBoosting.name)
        baseline = Fitted.load(settings.training / LogisticRegression.name)
        trial = trial_of(
            data.rows(), split_of(data, settings), candidate, baseline, seed=settings.seed
        )
        write_text(json.dumps(trial.record(), indent=1), settings.training / EVALUATION)
        pngs = _pictures(trial, candidate)
        _track(mlflow, trial, pngs)
        yield dg.MaterializeResult(
            asset_key="evaluation", metadata=_metadata(trial) | _inline(pngs)
        )
        verdicts = _verdicts(trial, candidate, settings)
        for name, verdict in verdicts.items():
            yield noted(settings, _check(name, verdict))

    return [evaluation]


def _verdicts(trial: Trial, candidate: Fitted, settings: Settings) -> dict[str, Verdict]:
    """The gates' verdicts by check."""
    champion = _champion_scores(trial, settings)
    holds = PromotionPolicy().judge(
        trial.test.y,
        trial.score,
        entity=trial.test.entity,
        champion=champion,
        baseline=trial.baseline_score,
        seed=settings.seed,
    )
    leaks = LeakPolicy().judge(trial.validation.X, trial.validation.y, names(FEATURES))
    cost = ScoringCostPolicy().judge(candidate.model, trial.test.X)
    return dict(zip(CANDIDATE_GATES, (holds, leaks, cost), strict=True))


def _champion_scores(trial: Trial, settings: Settings) -> Any:
    """What the champion's release scores on the test rows.

    None where there is no champion; where it was trained since the test window began, so that it has learned from it (then
    its trial is the comparison); or where its columns are not those this code computes: the vectors of the test rows would
    mean something else to it.
    """
    champion = registry.release_of(settings.mlflow_tracking_uri, "champion")
    if champion is None:
        return None
    release = load_release(settings.releases / champion)
    known = known_as_of(release.manifest)
    if known is not None and (trial.test.event_us < microseconds(known)).any():
        return None
    return release.score(trial.test.X) if release.manifest["code_hash"] == code_hash() else None


def _pictures(trial: Trial, candidate: Fitted) -> dict[str, bytes]:
    """PNG by name."""
    columns = names(FEATURES)
    scores = {"candidate": trial.score, "logistic regression": trial.baseline_score}
    sample = pictures.sample_rows(trial.test.X)
    return {
        "precision_recall_curve": pictures.precision_recall_curve(trial.test.y, scores),
        "calibration_curve": pictures.calibration_curve(trial.test.y, trial.score),
        "shap_summary": pictures.shap_summary(
            candidate.model.contributions(sample), sample, columns
        ),
        "score_histogram": pictures.score_histogram(trial.test.y, trial.score),
    }


def _track(mlflow: Any, trial: Trial, pngs: dict[str, bytes]) -> None:
    import tempfile
    from pathlib import Path

    mlflow.log_metrics({f"test.{name}": m.value for name, m in trial.metrics.items()})
    mlflow.log_metrics({f"baseline.{name}": m.value for name, m in trial.baseline_metrics.items()})
    with tempfile.TemporaryDirectory() as folder:
        for name, png in pngs.items():
            (Path(folder) / f"{name}.png").write_bytes(png)
        mlflow.log_artifacts(folder, artifact_path="pictures")


def _metadata(trial: Trial) -> dict[str, Any]:
    lines = [
        "| metric | candidate | 95 % interval | logistic regression |",
        "| --- | --- | --- | --- |",
    ]
    for name, metric in trial.metrics.items():
        base = trial.baseline_metrics[name]
        lines.append(
            f"| {name} | {metric.value:.4f} | {metric.low:.4f} to {metric.high:.4f} | {base.value:.4f} |"
        )
    return {
        "metrics": dg.MetadataValue.md("\n".join(lines)),
        "test_rows": len(trial.test.y),
        "test_frauds": int(trial.test.y.sum()),
        **{name: float(m.value) for name, m in trial.metrics.items()},
    }


def _inline(pngs: dict[str, bytes]) -> dict[str, Any]:
    return {name: picture(png, name.replace("_", " ")) for name, png in pngs.items()}


def _check(name: str, verdict: Verdict) -> dg.AssetCheckResult:
    plain = {k: v for k, v in verdict.figures.items() if isinstance(v, int | float | str)}
    return dg.AssetCheckResult(
        asset_key="evaluation",
        check_name=name,
        passed=verdict.passed,
        description="; ".join(verdict.reasons),
        metadata=plain,
    )
