"""The configuration file: YAML, read whole, checked whole, refused with the path of the key and what was expected.

Nothing is guessed: an unknown key, a wrong unit or an impossible value stops the start.
"""

import difflib
import os
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import yaml

from exporter.app.schema import (
    Auth,
    BudgetConfig,
    Config,
    Duration,
    FeatureThresholds,
    FileConfig,
    HttpConfig,
    KafkaConfig,
    LabelsConfig,
    ModelConfig,
    SaslConfig,
    SegmentConfig,
    ShareConfig,
    SourceConfig,
    StateConfig,
    Thresholds,
    TlsConfig,
)
from exporter.catalog.labels import INFO_LABELS
from exporter.catalog.thresholds import ALERT_THRESHOLDS
from exporter.ingest.envelopes import HEADERS
from exporter.ingest.fields import Fields, remap
from exporter.ingest.tables import FORMATS
from exporter.monitor.accuracy import LOSSES, QUALITIES
from exporter.monitor.events import ErrorReasons
from exporter.monitor.panes import sliding_window
from exporter.monitor.settings import Budget, JoinSettings, ModelSettings, Segmentation

_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_LONGEST_WINDOW_S = 366 * 86400
_QUANTILE = re.compile(r"p(\d{1,2}(?:\.\d+)?)")


class ConfigError(ValueError):
    """A configuration that must not be used; the message names the file, the key and what was expected."""


@dataclass(frozen=True, slots=True)
class Listen:
    """A host and port."""

    host: str
    port: int

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach it."""
        return self.host in ("localhost", "::1") or self.host.startswith("127.")


def load(path: Path, environment: Mapping[str, str] | None = None) -> Config:
    """Read and check a configuration file. Raises ConfigError."""
    return parse(read_text(path), str(path), os.environ if environment is None else environment)


def parse(text: str, name: str, environment: Mapping[str, str]) -> Config:
    """Check the text of a configuration file called `name`. Raises ConfigError."""
    values = parse_yaml(text, name) or {}
    try:
        config = msgspec.convert(_expanded(values, environment, ""), Config)
        _check(config)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{name}: {_readable(error)}") from None
    except RecursionError:
        raise ConfigError(f"{name}: an anchor holds itself") from None
    except _Wrong as wrong:
        raise ConfigError(f"{name}: {wrong}") from None
    return config


def read_text(path: Path) -> str:
    """The text of a file. Raises ConfigError."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from None


def parse_yaml(text: str, name: str) -> Any:
    """What the text of a YAML file called `name` says. Raises ConfigError."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{name}: not YAML: {' '.join(str(error).split())}") from None
    except (ValueError, RecursionError) as error:  # of a date that is none, of brackets without end
        raise ConfigError(f"{name}: not YAML: {error}") from None


def model_settings(model: ModelConfig) -> ModelSettings:
    """The settings of a checked model."""
    budget = model.budget or BudgetConfig()
    return ModelSettings(
        name=model.name,
        version=model.version,
        window=sliding_window(seconds(model.window), model.window),
        min_samples=model.min_samples,
        alpha=model.thresholds.alpha,
        budget=Budget(budget.pages, seconds(budget.per)),
        psi_threshold=model.thresholds.psi,
        feature_psi_thresholds={name: one.psi for name, one in model.thresholds.features.items()},
        multivariate_threshold=model.thresholds.multivariate,
        drifted_features_ratio=model.thresholds.drifted_features_ratio,
        join=_join_settings(model.labels),
        min_labels=model.labels.min_samples,
        quality_tolerances=model.thresholds.quality,
        error_reasons=ErrorReasons(model.error_reasons),
        segments=_segments(model),
        learn=model.learn,
        learn_categorical=frozenset(model.categorical),
        trained=None if model.trained is None else _utc(model.trained).timestamp(),
        max_age_s=None if model.max_age is None else seconds(model.max_age),
        latency_objective_s={
            f"{float(name[1:]) / 100:g}": seconds(limit) for name, limit in model.latency_objective.items()
        },
        error_budget=model.error_budget,
        alert_thresholds={one.name: getattr(model.thresholds, one.name) for one in ALERT_THRESHOLDS},
        info=model.info,
    )


def _join_settings(labels: LabelsConfig) -> JoinSettings | None:
    if labels.maturity is None:
        return None
    return JoinSettings(seconds(labels.maturity), labels.max_pending, labels.sample)


def _segments(model: ModelConfig) -> tuple[Segmentation, ...]:
    return tuple(
        Segmentation(one.name, one.top) if isinstance(one, SegmentConfig) else Segmentation(one)
        for one in model.segments
    )


def fields_of(source: SourceConfig) -> Fields:
    """Where a source's events carry their fields."""
    return remap(source.fields, frozenset(source.exclude))


def listen_address(listen: str) -> Listen:
    """`host:port`; a port of 0 means any. Raises ValueError."""
    host, separator, port = listen.rpartition(":")
    if not separator or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"host:port expected, found {listen!r}")
    return Listen(host.strip("[]") or "0.0.0.0", int(port))  # noqa: S104 - ":9878" means every interface


def seconds(duration: Duration) -> float:
    """A duration in seconds. Raises ValueError."""
    match = _DURATION.fullmatch(duration)
    if match is None or float(match[1]) == 0:
        raise ValueError(f"a duration such as 250ms, 30s, 5m, 1h or 30d expected, found {duration!r}")
    return float(match[1]) * _UNITS_S[match[2]]


class _Wrong(Exception):
    """A value that the types allow and the meaning does not."""


def _check(config: Config) -> None:
    _duration(config.tick, "tick")
    try:
        listen_address(config.listen)
    except ValueError as error:
        raise _Wrong(f"listen: {error}") from None
    names = [model.name for model in config.models]
    for place, model in enumerate(config.models):
        key = f"models[{place}]"
        if names.index(model.name) != place:
            raise _Wrong(f"{key}.name: {model.name!r} is configured twice")
        if model.references and model.learn is not None:
            raise _Wrong(f"{key}.learn: the model has references; remove one of the two")
        window_s = _duration(model.window, f"{key}.window")
        if window_s < 1 or window_s > _LONGEST_WINDOW_S:
            limit = "at least 1s" if window_s < 1 else "at most 366d"
            raise _Wrong(f"{key}.window: {limit} expected, found {model.window!r}")
        tags = [one.tag for one in _segments(model)]
        for at, tag in enumerate(tags):
            if tags.index(tag) != at:
                raise _Wrong(f"{key}.segments[{at}]: {tag!r} is configured twice")
        if model.budget is not None:
            _check_budget(model, window_s, f"{key}.budget")
        if model.labels.maturity is not None and _duration(model.labels.maturity, f"{key}.labels.maturity") < 1:
            raise _Wrong(f"{key}.labels.maturity: at least 1s expected, found {model.labels.maturity!r}")
        if model.max_age is not None:
            _duration(model.max_age, f"{key}.max_age")
        for quantile, limit in model.latency_objective.items():
            if not _QUANTILE.fullmatch(quantile) or float(quantile[1:]) == 0:
                raise _Wrong(f"{key}.latency_objective.{quantile}: a quantile such as p50, p99 or p99.9 expected")
            _duration(limit, f"{key}.latency_objective.{quantile}")
        _check_names(model.info, [label.name for label in INFO_LABELS], f"{key}.info")
        _check_names(model.thresholds.quality, (*QUALITIES, *LOSSES), f"{key}.thresholds.quality")
    for place, source in enumerate(config.sources):
        key = f"sources[{place}]"
        try:
            fields_of(source)
        except ValueError as error:
            raise _Wrong(f"{key}.fields.{error}") from None
        if isinstance(source, FileConfig):
            _check_file(source, key, names)
        if isinstance(source, KafkaConfig):
            _check_kafka(source, key, config.models)
        if source.model is not None and source.model not in names:
            raise _Wrong(f"{key}.model: one of the configured models expected, found {source.model!r}")
    if sum(isinstance(source, HttpConfig) for source in config.sources) > 1:
        raise _Wrong("sources: one of type http at most")


def _check_budget(model: ModelConfig, window_s: float, key: str) -> None:
    if model.thresholds.alpha is not None:
        raise _Wrong(f"{key}: thresholds.alpha sets the level of each test; remove one of the two")
    if model.budget is not None and _duration(model.budget.per, f"{key}.per") < window_s:
        raise _Wrong(f"{key}.per: at least the window, {model.window}, expected, found {model.budget.per!r}")


def _check_names(given: Iterable[str], known: Collection[str], key: str) -> None:
    for name in given:
        if name not in known:
            raise _Wrong(f"{key}.{name}: unknown; expected one of {', '.join(known)}")


def _check_file(source: FileConfig, key: str, models: list[str]) -> None:
    suffix = Path(source.path).suffix
    told = FORMATS.get(suffix)
    if source.format is None and told is None:
        raise _Wrong(f"{key}.format: jsonl, csv or parquet expected, as {suffix or 'no ending'!r} does not tell")
    if (source.format or told) != "jsonl" and source.model not in models:
        raise _Wrong(f"{key}.model: a table needs one of the configured models, found {source.model!r}")
    if "parquet" in (source.format, told) and source.follow:
        raise _Wrong(f"{key}.follow: a Parquet file cannot be followed")


def _check_kafka(source: KafkaConfig, key: str, models: Sequence[ModelConfig]) -> None:
    if not (source.topics or source.label_topics):
        raise _Wrong(f"{key}.topics: at least one topic expected")
    _check_names(source.headers, HEADERS, f"{key}.headers")
    _duration(source.session_timeout, f"{key}.session_timeout")
    share, sasl = source.partitions, source.sasl
    if share is not None and share.number >= share.of:
        raise _Wrong(f"{key}.partitions.member: less than {share.of} expected, found {share.member}")
    if share is None or share.of > 1:
        for place, model in enumerate(models):
            if model.learn is not None:
                how = "partitions: {member: 0, of: 1}, or a reference built from training data"
                raise _Wrong(f"models[{place}].learn: each member of {key} would learn another reference; use {how}")
    if sasl is None:
        return
    if sasl.mechanism == "OAUTHBEARER":
        if sasl.token_file is None:
            raise _Wrong(f"{key}.sasl.token_file: expected for OAUTHBEARER")
    elif sasl.username is None or (sasl.password is None) == (sasl.password_file is None):
        raise _Wrong(f"{key}.sasl: username and one of password and password_file expected for {sasl.mechanism}")


def _duration(duration: Duration, key: str) -> float:
    try:
        return seconds(duration)
    except ValueError as error:
        raise _Wrong(f"{key}: {error}") from None


def _expanded(value: Any, environment: Mapping[str, str], key: str) -> Any:
    """The value with `${NAME}` in texts replaced from the environment."""
    if isinstance(value, dict):
        return {name: _expanded(part, environment, f"{key}.{name}".lstrip(".")) for name, part in value.items()}
    if isinstance(value, list):
        return [_expanded(part, environment, f"{key}[{place}]") for place, part in enumerate(value)]
    if not isinstance(value, str):
        return value
    for name in _VARIABLE.findall(value):
        if name not in environment:
            raise _Wrong(f"{key}: the environment has no {name}")
    return _VARIABLE.sub(lambda match: environment[match[1]], value)


def _readable(error: msgspec.ValidationError) -> str:
    """Msgspec's message, with the key first and without its dialect."""
    message, _, path = str(error).partition(" - at `$")
    key = path.rstrip("`").lstrip(".").replace("[...]", "")
    unknown = re.search(r"unknown field `(.*)`", message)
    if unknown:
        name = unknown[1]
        close = difflib.get_close_matches(name, _all_keys(), 1)
        hint = f"; did you mean {close[0]}?" if close else ""
        return f"{key}.{name}".lstrip(".") + f": unknown key{hint}"
    return f"{key}: {message[0].lower()}{message[1:]}" if key else message


def _all_keys() -> list[str]:
    of_config = (Config, StateConfig, Auth, ModelConfig, Thresholds, FeatureThresholds, BudgetConfig, LabelsConfig)
    sections = (*of_config, SegmentConfig, HttpConfig, FileConfig, KafkaConfig, TlsConfig, SaslConfig, ShareConfig)
    return sorted({name for section in sections for name in section.__struct_fields__})


def _utc(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
