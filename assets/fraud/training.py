"""Stage 'training': the training set from Feast's point-in-time join, and the two models.

Splitting, fitting and calibrating are ``switchyard.learning``; a label that was not known is never used.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import dagster as dg

from assets.fraud.describe import OWNERS, AsOf, schema
from assets.fraud.gates import ALL_GATES, CANDIDATE_GATES, DATA_GATES, gates_of, noted
from assets.ports import FeatureStore
from switchyard.fraud import expectations
from switchyard.fraud.columns import FEATURES, names
from switchyard.fraud.dataset import UNKNOWN, Dataset, dataset_of
from switchyard.fraud.features import profile_matrices, vectors_of
from switchyard.fraud.labels import labels_as_of
from switchyard.lake import Lake, write_text
from switchyard.learning.drift import drift_report
from switchyard.learning.fitting import Fitted, fit
from switchyard.learning.gates import forget_gates
from switchyard.learning.maturity import MaturityPolicy
from switchyard.learning.models import GradientBoosting, LogisticRegression, Model
from switchyard.learning.policy import ResemblancePolicy
from switchyard.learning.shipment import Shipment, shipment_of
from switchyard.learning.splits import Split, lifecycle_split, shipping_of
from switchyard.settings import Settings

GROUP = "training"
TRAINING_SET = "training_set.parquet"
"""File of the home's training folder."""
EXPECTED_ROWS = 20_000
"""Vectors that the expectations look at, evenly spaced: the transactions they are made from have all been
validated, so this guards the formulas, not single rows."""


def assets() -> list[dg.AssetsDefinition]:
    """The stage's assets."""

    @dg.multi_asset(
        name="build_training_set",
        group_name=GROUP,
        specs=[
            dg.AssetSpec(
                "training_set",
                deps=["customer_profiles", "terminal_profiles", "activity_windows", "feature_registry",
                      "labels"],
                description="One row per transaction: the vector as it could be known at its moment, by "
                "Feast's point-in-time join, and the verdict where it is known by now.",
                owners=OWNERS,
                kinds={"feast", "parquet"},
                metadata=schema(FEATURES),
            )
        ],
        check_specs=[
            dg.AssetCheckSpec(name, asset="training_set", description=said, blocking=True)
            for name, said in DATA_GATES.items()
        ],
    )  # fmt: skip
    def training_set(
        config: AsOf,
        lake: dg.ResourceParam[Lake],
        settings: dg.ResourceParam[Settings],
        feature_store: dg.ResourceParam[FeatureStore],
    ) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:
        as_of = config.moment(lake)
        first, last = lake.days("transactions")[0], (as_of - timedelta(days=1)).date()
        rows = lake.read("transactions", first, last)
        X = vectors_of(lake, rows, profile_matrices(feature_store.historical(rows)))
        data = dataset_of(rows, labels_as_of(lake, first, last, as_of), X, as_of)
        forget_gates(gates_of(settings), ALL_GATES)
        data.save(settings.training / TRAINING_SET)
        yield dg.MaterializeResult(
            asset_key="training_set",
            metadata={
                "dagster/row_count": len(data),
                "verdicts_known": int((data.is_fraud >= 0).sum()),
                "fraud_share": data.fraud_share,
                "as_of": str(as_of),
            },
        )
        yield noted(settings, _vectors_meet_expectations(data))
        yield noted(settings, _resembles_window_before(data, settings, as_of))
        yield noted(settings, _test_window_has_matured(data, settings))

    def model_asset(kind: type[Model], description: str, kinds: set[str]) -> dg.AssetsDefinition:
        @dg.asset(
            name=kind.name,
            group_name=GROUP,
            deps=["training_set"],
            description=description,
            owners=OWNERS,
            kinds=kinds,
        )
        def model(
            mlflow: dg.ResourceParam[Any], settings: dg.ResourceParam[Settings]
        ) -> dg.MaterializeResult:
            fitted = fit_model(kind, settings)
            forget_gates(gates_of(settings), CANDIDATE_GATES)
            fitted.save(settings.training / kind.name)
            mlflow.log_params({f"{kind.name}.{k}": v for k, v in fitted.record.items()})
            return dg.MaterializeResult(metadata={k: str(v) for k, v in fitted.record.items()})

        return model

    return [
        training_set,
        model_asset(
            LogisticRegression,
            "The baseline, and the fallback that every release carries: a calibrated logistic regression.",
            {"scikitlearn"},
        ),
        model_asset(
            GradientBoosting,
            "The candidate: calibrated gradient-boosted trees, stopped early on the validation window.",
            {"xgboost"},
        ),
    ]


def fit_model(kind: type[Model], settings: Settings) -> Fitted:
    """Fit ``kind`` on the home's training set, split in time."""
    data = Dataset.load(settings.training / TRAINING_SET)
    return fit(
        kind,
        data.rows(),
        split_of(data, settings),
        columns=names(FEATURES),
        seed=settings.seed,
        review_share=settings.review_share,
        block_precision=settings.block_precision,
    )


def trained_as_of(settings: Settings) -> datetime | None:
    """As of when the home's training set is; None if there is none."""
    path = settings.training / TRAINING_SET
    return Dataset.moment_of(path) if path.exists() else None


def split_of(data: Dataset, settings: Settings) -> Split:
    """Train, gap, validation and test windows of the home's training set."""
    return lifecycle_split(data.start, data.as_of, settings.label_delay_days, settings.test_days)


def shipped(settings: Settings) -> Shipment:
    """The home's assessed models, fitted again on what has become known since."""
    data = Dataset.load(settings.training / TRAINING_SET)
    kinds = (GradientBoosting, LogisticRegression)
    model, baseline = (Fitted.load(settings.training / kind.name) for kind in kinds)
    return shipment_of(
        data.rows(),
        split_of(data, settings),
        shipping_of(data.start, data.as_of, settings.promise_days),
        (model, baseline),
        columns=names(FEATURES),
        seed=settings.seed,
        review_share=settings.review_share,
        block_precision=settings.block_precision,
    )


def _vectors_meet_expectations(data: Dataset) -> dg.AssetCheckResult:
    results = expectations.validate(data.evenly(EXPECTED_ROWS).table(), FEATURES)
    failed = [r for r in results if not r.success]
    return dg.AssetCheckResult(
        asset_key="training_set",
        check_name="vectors_meet_expectations",
        passed=not failed,
        description="; ".join(
            f"{r.column}: {r.expectation} fails for {r.unexpected_count} rows" for r in failed
        )
        or None,
        metadata={"expectations": len(results), "failed": len(failed)},
    )


def _test_window_has_matured(data: Dataset, settings: Settings) -> dg.AssetCheckResult:
    """A gate: what a candidate is judged by must be known for good."""
    window = split_of(data, settings).test
    rows = data.between(window.start, window.end)
    verdict = MaturityPolicy(settings.label_delay_days).judge(
        days_since_end=(data.as_of - window.end) / timedelta(days=1),
        rows=len(rows),
        known=int((rows.is_fraud != UNKNOWN).sum()),
    )
    return dg.AssetCheckResult(
        asset_key="training_set",
        check_name="test_window_has_matured",
        passed=verdict.passed,
        description="; ".join(verdict.reasons),
        metadata={"known_share": verdict.figures["known_share"]},
    )


def _resembles_window_before(
    data: Dataset, settings: Settings, as_of: datetime
) -> dg.AssetCheckResult:
    """A gate: half of the features moved at once is a broken feed, not a market that changes."""
    week = timedelta(days=settings.test_days)
    newest, before = data.between(as_of - week, as_of), data.between(as_of - 2 * week, as_of - week)
    report = drift_report(before.frame(), newest.frame(), names(FEATURES))
    verdict = ResemblancePolicy().judge(report.values)
    path = settings.training / "drift.html"
    write_text(report.html, path)
    return dg.AssetCheckResult(
        asset_key="training_set",
        check_name="features_resemble_the_window_before",
        passed=verdict.passed,
        description="; ".join(verdict.reasons),
        metadata={
            "report": dg.MetadataValue.path(str(path)),
            "share_moved": verdict.figures["share"],
        },
    )
