"""Every setting of Switchyard once: typed, with its unit, read once at the edge.

Order of precedence: arguments, ``SWITCHYARD_*`` environment variables, ``switchyard.toml`` of the home,
the defaults below. Nothing else in the project reads the environment for its own settings.
"""

from __future__ import annotations

import os
import re
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from switchyard.errors import InputError, SettingsError
from switchyard.storage import Place, is_url, place_of, without_credentials

SourceName = Literal["simulator", "handbook", "file"]

_BETWEEN = re.compile(r":(?!//|[^:/]*@)")
"""Between paths and URLs in one text; not the colons of a URL."""
_PROJECT = Path(__file__).resolve().parents[1]
FIRST_DAYS: dict[SourceName, date] = {
    "simulator": date(2026, 1, 1),
    "handbook": date(2018, 4, 1),
    "file": date(2026, 1, 1),
}


def default_home() -> Path:
    """``SWITCHYARD_HOME``, else ``.switchyard/`` of the project (of the working folder inside a Bento)."""
    if named := os.environ.get("SWITCHYARD_HOME"):
        return Path(named).expanduser().resolve()
    project = _PROJECT if (_PROJECT / "workspace.yaml").exists() else Path.cwd()
    return project / ".switchyard"


class Settings(BaseSettings):
    """One frozen object; build it with :func:`load_settings`."""

    model_config = SettingsConfigDict(env_prefix="SWITCHYARD_", frozen=True, extra="forbid")

    home: Annotated[Path, Field(description="Folder of everything written at run time")]

    source: Annotated[SourceName, Field(description="Where transactions come from")] = "simulator"
    data: Annotated[
        Path | None, Field(description="Folder or file of the source, if it has one")
    ] = None
    column_map: Annotated[Path | None, Field(description="YAML column map of source 'file'")] = None
    first_day: Annotated[date | None, Field(description="First daily partition (UTC)")] = None
    days: Annotated[int, Field(ge=1, description="Days the demo and the UI's range cover")] = 60
    currency: Annotated[str, Field(pattern="^[A-Z]{3}$", description="ISO 4217; one per home")] = (
        "EUR"
    )

    simulated_days: Annotated[int, Field(ge=1, description="Days of the simulated world")] = 90
    seed: Annotated[int, Field(ge=0, description="Seed of simulator, splits and models")] = 7
    customers: Annotated[int, Field(ge=1, description="Simulated cards")] = 5_000
    terminals: Annotated[int, Field(ge=1, description="Simulated terminals")] = 2_000
    transactions_per_day: Annotated[int, Field(ge=1, description="Simulated, on average")] = 5_100

    simulated_change_day: Annotated[
        int | None,
        Field(
            ge=0,
            description="Day of the simulated world (0: its first) from which on frauds differ",
        ),
    ] = None

    label_delay_days: Annotated[int, Field(ge=0, description="Gap between training and test")] = 7
    test_days: Annotated[
        int, Field(ge=1, description="Length of validation and of test window")
    ] = 7
    promise_days: Annotated[
        int, Field(ge=1, description="Newest days, on which a release promises how its scores lie")
    ] = 2
    review_share: Annotated[float, Field(gt=0, lt=1, description="Share analysts can review")] = (
        0.005
    )
    block_precision: Annotated[
        float, Field(gt=0, lt=1, description="Least precision among blocked")
    ] = 0.9

    redis_url: Annotated[
        str | None, Field(description="Redis or Valkey of production; None starts the embedded one")
    ] = None
    cold_store_url: Annotated[
        str | None,
        Field(description="Postgres of the profiles' second copy; None: SQLite in the home"),
    ] = None
    recent_bytes: Annotated[
        int,
        Field(ge=0, description="Memory of a worker for what it lately read of the online store"),
    ] = 24 * 1024 * 1024
    mlflow_uri: Annotated[str | None, Field(description="None: SQLite in the home")] = None
    host: Annotated[str, Field(description="Address the service binds to")] = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65535, description="Port of the decision service")] = 3000
    tls: Annotated[
        bool | None, Field(description="TLS at the gateway; None: unless the host is a loopback")
    ] = None
    tls_certificate: Annotated[
        Path | None, Field(description="PEM file with the chain; None: by the home's own CA")
    ] = None
    tls_key: Annotated[Path | None, Field(description="PEM file of the certificate's key")] = None
    four_eyes: Annotated[
        bool, Field(description="Whether a promotion needs the approval of a second person")
    ] = False
    workers: Annotated[int, Field(ge=1, description="Worker processes of the service")] = 1
    api_keys: Annotated[
        str | None,
        Field(description="'role:sha256hex' pairs, comma-separated; required off loopback"),
    ] = None
    rate_limit_per_s: Annotated[
        int | None,
        Field(ge=0, description="Requests of one key; 0: any; None: any without keys, else 2,000"),
    ] = None
    max_waiting: Annotated[
        int, Field(ge=1, description="Requests that may wait in one worker; more get 503")
    ] = 2_000
    batch_roots: Annotated[
        tuple[str, ...] | None,
        NoDecode,
        Field(
            description="Folders and s3:// URLs that batch jobs use, ':' between; None: home/batch"
        ),
    ] = None
    batch_jobs: Annotated[int, Field(ge=1, description="Batch jobs that run at a time")] = 1
    future_limit_s: Annotated[
        int, Field(ge=0, description="How far an event may lie ahead of the service's clock")
    ] = 300
    drain_s: Annotated[
        float, Field(ge=0, description="Seconds that a worker goes on after SIGTERM")
    ] = 0.5
    log_format: Annotated[
        Literal["json", "text"], Field(description="Form of the served worker's log")
    ] = "json"
    log_decisions: Annotated[
        Literal["never", "degraded", "always"],
        Field(description="Decisions in the log; degraded ones once in 10 s for each rung"),
    ] = "degraded"
    price_per_hour: Annotated[
        float, Field(ge=0, description="Price of a worker for an hour, in the home's currency")
    ] = 0.0
    journal_fsync: Annotated[
        Literal["never", "always"], Field(description="'always' survives the machine's death too")
    ] = "never"
    journal_max_bytes: Annotated[
        int, Field(ge=1, description="Size of the journal's folder beyond which nothing is decided")
    ] = 20 * 1024**3
    journal_min_free_bytes: Annotated[
        int, Field(ge=0, description="What the journal leaves free of its disk")
    ] = 256 * 1024**2
    journal_days: Annotated[
        int, Field(ge=31, description="Days that a compacted segment of the journal is kept")
    ] = 90
    keep_history_days: Annotated[
        int | None,
        Field(
            ge=100, description="Days of transactions, labels and features that are kept; None: all"
        ),
    ] = None
    keep_served_days: Annotated[
        int | None,
        Field(ge=31, description="The same of decisions and batch scores in the lake"),
    ] = None
    keep_vectors_days: Annotated[
        int | None, Field(ge=31, description="The same of the decisions' vectors and reasons there")
    ] = 400
    keep_quarantine_days: Annotated[
        int | None, Field(ge=1, description="The same of rows that were set aside")
    ] = 90
    keep_monitoring_days: Annotated[
        int | None, Field(ge=31, description="The same of monitoring's reports")
    ] = 730
    keep_logs_days: Annotated[
        int | None, Field(ge=1, description="Days after its last line that a log is kept")
    ] = 90
    keep_bentos_days: Annotated[
        int | None, Field(ge=7, description="Days that a Bento is kept which no plan names")
    ] = 7
    retrain_rest_days: Annotated[
        float, Field(ge=0, description="Event time between two trainings, at least")
    ] = 3.0
    retrain_least_labels: Annotated[
        int, Field(ge=1, description="Verdicts since the newest training that start another")
    ] = 50_000
    retrain_least_frauds: Annotated[
        int, Field(ge=0, description="Frauds known of the days since the data moved, at least")
    ] = 150
    rollout_steps: Annotated[
        tuple[Annotated[float, Field(ge=0, le=0.5)], ...],
        Field(min_length=1, description="Shares of a challenger, rising; 0 is shadow"),
    ] = (0.0, 0.05, 0.10, 0.20)
    rollout_min_hours: Annotated[
        float, Field(ge=0, description="Event time that each step of a rollout lasts at least")
    ] = 24.0
    rollout_min_decisions: Annotated[
        int, Field(ge=0, description="Decisions of the challenger at each step, at least")
    ] = 5_000
    rollout_min_matured: Annotated[
        int, Field(ge=1, description="Decisions of each arm with a matured label before 100 %")
    ] = 20_000
    rollout_outcome_limit: Annotated[
        float,
        Field(
            gt=0, lt=1, description="How much worse than the control's each outcome may be at most"
        ),
    ] = 0.1
    rollout_alpha_proof: Annotated[
        float, Field(gt=0, lt=1, description="Level at which that is shown before 100 %")
    ] = 0.05
    rollout_block_ratio: Annotated[
        float,
        Field(
            ge=1,
            description="Customers blocked beyond the promise: at most so many times the control's",
        ),
    ] = 1.1
    rollout_reviews_per_day: Annotated[
        float | None, Field(gt=0, description="What the analysts can review; None: no limit")
    ] = None
    ui_url: Annotated[str, Field(description="Where people open the Dagster UI; for links")] = (
        "http://127.0.0.1:3001"
    )
    alert_quiet_minutes: Annotated[
        float, Field(ge=0, description="So long an incident's repeats are counted, not sent")
    ] = 360.0
    alert_timeout_s: Annotated[
        float, Field(gt=0, le=30, description="Patience with a channel, for each message")
    ] = 5.0
    alert_webhook_url: Annotated[
        SecretStr | None, Field(description="Where incidents are posted as JSON; None: nowhere")
    ] = None
    alert_smtp_host: Annotated[
        str | None, Field(description="Mail server of incidents; None: no mail")
    ] = None
    alert_smtp_port: Annotated[int, Field(ge=1, le=65535, description="Its port")] = 587
    alert_smtp_security: Annotated[
        Literal["starttls", "tls", "none"], Field(description="TLS after or before the first word")
    ] = "starttls"
    alert_smtp_user: Annotated[str | None, Field(description="None: without logging in")] = None
    alert_smtp_password: Annotated[
        SecretStr | None, Field(description="Of 'alert_smtp_user'; better set in the environment")
    ] = None
    alert_email_from: Annotated[
        str | None, Field(pattern=r"^[^@\s]+@[^@\s]+$", description="Sender of incidents")
    ] = None
    alert_email_to: Annotated[
        tuple[Annotated[str, Field(pattern=r"^[^@\s]+@[^@\s]+$")], ...],
        NoDecode,
        Field(description="Recipients, ',' between"),
    ] = ()
    exploration_share: Annotated[
        float, Field(ge=0, lt=1, description="Share of would-be blocks that go to review; 0: off")
    ] = 0.0
    exploration_most_minor: Annotated[
        int, Field(ge=0, description="Largest amount explored, in the currency's smallest unit")
    ] = 10_000
    exploration_budget_minor: Annotated[
        int,
        Field(ge=0, description="Money that a host's workers may let through in a day, same unit"),
    ] = 100_000
    drift_psi: Annotated[
        float, Field(gt=0, description="PSI of a feature over which, beyond chance, it is an alarm")
    ] = 0.1
    drift_psi_major: Annotated[
        float, Field(gt=0, description="PSI of a feature over which the change is called major")
    ] = 0.2
    drift_share: Annotated[
        float,
        Field(gt=0, le=1, description="Share of features moved at which a day counts as drifting"),
    ] = 0.08
    drift_days: Annotated[
        int, Field(ge=1, description="Drifting days that it takes to ask for a retraining")
    ] = 3
    drift_cool_down_days: Annotated[
        int, Field(ge=0, description="Days from one retraining by drift to the next, at least")
    ] = 14
    missing_share: Annotated[
        float, Field(gt=0, lt=1, description="Missing values beyond the usual share, at most")
    ] = 0.05
    system_p99_ms: Annotated[
        float, Field(gt=0, description="Latency that 99 of 100 decisions of a day stay below")
    ] = 200.0
    system_degraded_share: Annotated[
        float, Field(gt=0, le=1, description="Decisions of a day that may be degraded, at most")
    ] = 0.05
    system_stale_share: Annotated[
        float, Field(gt=0, le=1, description="Decisions with a stale profile, at most")
    ] = 0.05
    system_error_share: Annotated[
        float, Field(gt=0, le=1, description="Decisions whose model failed, at most")
    ] = 0.001
    system_freshness_hours: Annotated[
        float, Field(gt=0, description="Age of the profiles of a view at a day's end, at most")
    ] = 30.0
    executor: Annotated[
        Literal["in_process", "multiprocess"], Field(description="How Dagster runs the steps")
    ] = "in_process"

    @field_validator("batch_roots", mode="before")
    @classmethod
    def _from_one_text(cls, roots: object) -> object:
        return tuple(filter(None, _BETWEEN.split(roots))) if isinstance(roots, str) else roots

    @field_validator("alert_email_to", mode="before")
    @classmethod
    def _recipients(cls, told: object) -> object:
        if not isinstance(told, str):
            return told
        return tuple(filter(None, (one.strip() for one in told.split(","))))

    @field_validator("batch_roots")
    @classmethod
    def _absolute(cls, roots: tuple[str, ...] | None) -> tuple[str, ...] | None:
        """A request is checked against them, so where a process was started must not matter."""
        for root in roots or ():
            if is_url(root):
                _check_url(root)
            elif not Path(root).is_absolute():
                raise ValueError(f"'{root}' must be an absolute path or an s3:// URL")
        return roots

    @field_validator("data", "column_map", "tls_certificate", "tls_key")
    @classmethod
    def _from_any_folder(cls, path: Path | None) -> Path | None:
        """The home remembers them, and its next command may run elsewhere."""
        return path.expanduser().resolve() if path is not None else None

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        home = Path(init_settings().get("home", default_home()))
        return (
            init_settings,
            env_settings,
            TomlConfigSettingsSource(settings_cls, toml_file=home / "switchyard.toml"),
        )

    @property
    def start_day(self) -> date:
        """First day of the home's transactions (UTC)."""
        return self.first_day or FIRST_DAYS[self.source]

    @property
    def lake(self) -> Path:
        return self.home / "lake"

    @property
    def releases(self) -> Path:
        return self.home / "releases"

    @property
    def training(self) -> Path:
        return self.home / "training"

    @property
    def journal(self) -> Path:
        return self.home / "journal"

    @property
    def rollouts(self) -> Path:
        """What is known of each experiment."""
        return self.home / "rollouts"

    @property
    def monitoring(self) -> Path:
        """What monitoring found of each day."""
        return self.home / "monitoring"

    @property
    def forgotten(self) -> Path:
        """Who was forgotten, as hashes, and who is being forgotten."""
        return self.home / "forgotten"

    @property
    def activity(self) -> Path:
        """Snapshots that the online store was filled with."""
        return self.home / "activity"

    @property
    def exploration(self) -> Path:
        """What was explored of each day, so that its budget holds."""
        return self.home / "exploration"

    @property
    def bentos(self) -> Path:
        """Bentos of the decision service, each in a folder named after its release."""
        return self.home / "bentoml" / "bentos" / "fraud"

    @property
    def incidents(self) -> Path:
        """What failed, and who was told of it."""
        return self.home / "incidents.json"

    @property
    def jobs(self) -> Path:
        return self.home / "jobs"

    @property
    def deployments(self) -> Path:
        """Jobs that deploy a release."""
        return self.home / "deployments"

    @property
    def batch_folders(self) -> tuple[Place, ...]:
        """The folders under which a request may name files."""
        if self.batch_roots is None:
            return (self.home / "batch",)
        return tuple(place_of(root) if is_url(root) else Path(root) for root in self.batch_roots)

    @property
    def cold_store(self) -> Path:
        return self.home / "cold_store.sqlite"

    @property
    def mlflow_tracking_uri(self) -> str:
        return self.mlflow_uri or f"sqlite:///{self.home / 'mlflow' / 'mlflow.db'}"


def _check_url(root: str) -> None:
    try:
        place_of(root)
    except InputError as error:
        raise ValueError(error) from None


def load_settings(**overrides: Any) -> Settings:
    """Read the settings once; arguments win over environment, home file and defaults.

    Raises SettingsError naming the setting, the value and what would be right.
    """
    home = Path(overrides.pop("home", None) or default_home()).expanduser().resolve()
    given = {name: value for name, value in overrides.items() if value is not None}
    try:
        return Settings(home=home, **given)
    except ValidationError as error:
        raise SettingsError(without_credentials("; ".join(map(_said, error.errors())))) from None
    except ValueError as error:  # a home file that is no TOML
        raise SettingsError(f"{home / 'switchyard.toml'} can't be read: {error}") from None


_SECRETS = frozenset(
    name
    for name, field in Settings.model_fields.items()
    if SecretStr in (field.annotation, *get_args(field.annotation))
)


def _said(error: ErrorDetails) -> str:
    name = ".".join(map(str, error["loc"]))
    value = "not one that is shown" if name in _SECRETS else repr(error["input"])
    return f"setting '{name}' is {value}: {error['msg']}"
