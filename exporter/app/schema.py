"""What a configuration file may hold: the Structs are the schema, and say what each key is when it is not given."""

from datetime import datetime
from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import Meta

from exporter.catalog import thresholds
from exporter.ingest.tables import Format

PORT = 9878

Duration: TypeAlias = str
"""A number and a unit: ms, s, m, h or d."""
Positive = Annotated[int, Meta(gt=0)]
Ratio = Annotated[float, Meta(gt=0, lt=1)]
Name = Annotated[str, Meta(min_length=1, max_length=128)]


class FeatureThresholds(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Thresholds of one feature."""

    psi: Annotated[float, Meta(gt=0)]


class Thresholds(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What counts as drift of a model, and what its alerts compare it with."""

    psi: Annotated[float, Meta(gt=0)] = thresholds.PSI_THRESHOLD.value
    multivariate: Annotated[float, Meta(gt=0)] = thresholds.MULTIVARIATE_THRESHOLD.value
    alpha: Ratio | None = None
    drifted_features_ratio: Annotated[float, Meta(gt=0, le=1)] = thresholds.DRIFTED_FEATURES_RATIO.value
    quality: dict[str, Annotated[float, Meta(gt=0)]] = {}
    features: dict[str, FeatureThresholds] = {}
    faulty_ratio: Ratio = thresholds.FAULTY_RATIO.value
    faulty_features: Positive = thresholds.FAULTY_FEATURES.count
    canary_predictions: Positive = thresholds.CANARY_PREDICTIONS.count
    canary_z: Annotated[float, Meta(gt=0)] = thresholds.CANARY_Z.value
    canary_margin: Annotated[float, Meta(ge=0, lt=1)] = thresholds.CANARY_MARGIN.value
    traffic_ratio: Ratio = thresholds.TRAFFIC_RATIO.value
    traffic_predictions: Positive = thresholds.TRAFFIC_PREDICTIONS.count


class BudgetConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """False pages that a model may cause in a period; sets the level of its tests."""

    pages: Annotated[float, Meta(gt=0)] = thresholds.BUDGET_PAGES.value
    per: Duration = f"{thresholds.BUDGET_PER_S.value / 86400:g}d"


class LabelsConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Ground truth of a model. With a `maturity`, labels may come alone: predictions wait that long for theirs."""

    maturity: Duration | None = None
    max_pending: Positive = thresholds.MAX_PENDING.count
    sample: Annotated[float, Meta(gt=0, le=1)] = 1.0
    min_samples: Positive = thresholds.MIN_LABELS.count


class SegmentConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A tag whose most frequent values are watched one by one."""

    name: Name
    top: Annotated[int, Meta(ge=1, le=100)] = thresholds.SEGMENT_TOP.count


class ModelConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One watched model."""

    name: Name
    version: Name | None = None
    references: list[str] = []
    learn: Annotated[int, Meta(ge=100, le=1_000_000)] | None = None
    categorical: list[str] = []
    window: Duration = "1h"
    min_samples: Positive = thresholds.MIN_SAMPLES.count
    error_budget: Annotated[float, Meta(gt=0, lt=1)] = thresholds.ERROR_BUDGET.value
    thresholds: Thresholds = Thresholds()
    budget: BudgetConfig | None = None
    labels: LabelsConfig = LabelsConfig()
    segments: list[Name | SegmentConfig] = []
    latency_objective: dict[str, Duration] = {}
    error_reasons: list[Name] = []
    trained: datetime | None = None
    max_age: Duration | None = None
    info: dict[str, str] = {}


class _EventSource(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What sources of native events have in common."""

    model: Name | None = None
    fields: dict[str, str] = {}
    exclude: list[str] = []
    log_values: bool = False


class HttpConfig(_EventSource, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="type", tag="http"):
    """POST /v1/events."""

    time: Literal["arrival", "event"] = "arrival"
    max_body_bytes: Positive = thresholds.BODY_LIMIT_BYTES.count


class FileConfig(_EventSource, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="type", tag="file"):
    """A file of events, or a table of predictions of one model."""

    path: str
    format: Format | None = None
    follow: bool = False


class TlsConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """TLS; without `ca_file` the system's certificates are trusted."""

    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    key_password_file: str | None = None
    check_hostname: bool = True


class SaslConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """SASL: user name and password, or a token that is read again whenever one is needed."""

    mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"]
    username: str | None = None
    password: str | None = None
    password_file: str | None = None
    token_file: str | None = None


class ShareConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Static ownership: partition p is this member's if p mod `of` is `member`. Of a pod's name the ending counts."""

    member: Annotated[int, Meta(ge=0)] | Annotated[str, Meta(pattern=r"^(.*-)?\d{1,6}$")]
    of: Positive

    @property
    def number(self) -> int:
        """The member as a number."""
        return int(str(self.member).rpartition("-")[2])


class KafkaConfig(_EventSource, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="type", tag="kafka"):
    """Topics of predictions and of labels; a consumer group, unless `partitions` says which are this member's.

    With `label_join: broadcast` each member reads all labels. With `copartitioned` it reads those of the partitions
    whose predictions it has: they must be keyed alike, in equally many partitions.
    """

    bootstrap_servers: Annotated[list[Name], Meta(min_length=1)]
    topics: list[Name] = []
    label_topics: list[Name] = []
    label_join: Literal["broadcast", "copartitioned"] = "broadcast"
    group_id: Name | None = None
    partitions: ShareConfig | None = None
    client: Literal["auto", "kafka-python", "confluent"] = "auto"
    auto_offset_reset: Literal["earliest", "latest"] = "earliest"
    session_timeout: Duration = "45s"
    tls: TlsConfig | None = None
    sasl: SaslConfig | None = None
    headers: dict[str, Name] = {}


SourceConfig: TypeAlias = HttpConfig | FileConfig | KafkaConfig


class StateConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where state is kept over restarts: a folder of this process's own."""

    path: Annotated[str, Meta(min_length=1)]


class Auth(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Files that hold tokens: `write_token_file` for POST, `read_token_file` for page, API and metrics."""

    write_token_file: str | None = None
    read_token_file: str | None = None


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The whole file."""

    listen: str = f"0.0.0.0:{PORT}"
    tick: Duration = f"{thresholds.TICK_S.count}s"
    insecure: bool = False
    state: StateConfig | None = None
    auth: Auth = Auth()
    series_limit: Positive = thresholds.SERIES_LIMIT.count
    models: list[ModelConfig] = []
    sources: list[SourceConfig] = msgspec.field(default_factory=lambda: [HttpConfig()])
