"""From a checked configuration to a runtime."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from exporter.app.clock import LiveSurroundings
from exporter.app.config import ConfigError, fields_of, model_settings, seconds
from exporter.app.http import Access
from exporter.app.references import load_all
from exporter.app.runtime import Feed, Runtime
from exporter.app.schema import Config, FileConfig, HttpConfig, KafkaConfig, SaslConfig, SourceConfig, TlsConfig
from exporter.app.state import Store
from exporter.ingest.envelopes import HEADERS
from exporter.ingest.file import FileSource
from exporter.ingest.http import HttpSource
from exporter.ingest.kafka import KafkaSource
from exporter.ingest.kafka_client import Connect, Connection, Sasl, Share, Tls
from exporter.ingest.lenient import UNKNOWN_VERSION
from exporter.ingest.native import NativeCodec
from exporter.ingest.source import Codec, Source, Unavailable
from exporter.ingest.tables import TableCodec, format_of
from exporter.monitor.blocks import Shelf
from exporter.monitor.fleet import Fleet
from exporter.monitor.reference import Columns, Reference
from exporter.monitor.state import BadState, NewerState

_LABELS = "-labels"
"""Ending of the name of a source that brings labels alone."""


def build_fleet(config: Config, base: Path, shelf: Shelf | None = None) -> Fleet:
    """The fleet with its references; paths are relative to `base`. Raises BadReference and ConfigError.

    Rows that wait for labels lie on the `shelf` once they are durable.
    """
    references = find_references(config, base)
    for place, model in enumerate(config.models):
        known = {feature.name for one in references.get(model.name, ()) for feature in one.features}
        for name in model.thresholds.features if known else ():
            if name not in known:
                raise ConfigError(f"models[{place}].thresholds.features.{name}: no reference has this feature")
    settings = [model_settings(model) for model in config.models]
    return Fleet(settings, references, series_limit=config.series_limit, shelf=shelf)


def find_references(config: Config, base: Path) -> dict[str, list[Reference]]:
    """The references that each model's patterns match now. Raises BadReference."""
    return {model.name: load_all(model.references, model.name, base) for model in config.models if model.references}


def build_runtime(config: Config, base: Path) -> tuple[Runtime, HttpSource | None]:
    """Everything but the server. Raises BadReference, ConfigError and Unavailable."""
    fleet, store = _restored(config, base)
    surroundings = LiveSurroundings()
    feeds: list[Feed] = []
    http: HttpSource | None = None
    for source in config.sources:
        name = _name(source, [feed.source.name for feed in feeds])
        if isinstance(source, HttpConfig):
            http = HttpSource(name, surroundings, body_limit_bytes=source.max_body_bytes)
            feeds.append(Feed(http, _native(fleet, name, source, event_time=source.time == "event")))
        elif isinstance(source, KafkaConfig):
            for reader, labels in _kafka(fleet, name, source, base, surroundings):
                feeds.append(Feed(reader, _native(fleet, reader.name, source, event_time=True), labels=labels))
        else:
            feeds.append(_file(fleet, name, source, base, surroundings))
    rescan = (lambda: find_references(config, base)) if any(model.references for model in config.models) else None
    return Runtime(fleet, feeds, tick_s=seconds(config.tick), rescan=rescan, store=store), http


def _restored(config: Config, base: Path) -> tuple[Fleet, Store | None]:
    """The fleet as it was when its state was last written."""
    if config.state is None:
        return build_fleet(config, base), None
    store = Store.open(base / config.state.path)
    fleet = build_fleet(config, base, store)
    if store.entries:
        try:
            fleet.load(store.entries)
        except BadState as error:
            store.put_aside("newer" if isinstance(error, NewerState) else "damaged", str(error))
            fleet = build_fleet(config, base, store)
    store.keep_blocks(fleet.block_keys())
    return fleet, store


def kafka_connection(source: KafkaConfig, base: Path, name: str = "kafka") -> Connection:
    """How to reach a cluster, its secrets read. Raises ConfigError; never shows a secret."""
    group_id = source.group_id if source.partitions or source.group_id else "model-health"
    return Connection(
        bootstrap_servers=tuple(source.bootstrap_servers),
        group_id=group_id,
        earliest=source.auto_offset_reset == "earliest",
        client_id=f"model-health-exporter-{name}",
        session_timeout_s=seconds(source.session_timeout),
        tls=None if source.tls is None else _tls(source.tls, base),
        sasl=None if source.sasl is None else _sasl(source.sasl, base),
    )


def access(config: Config, base: Path) -> Access:
    """The tokens of a configuration. Raises ConfigError, naming the key; never shows a token."""
    auth = config.auth
    return Access(
        read_token=_token(auth.read_token_file, "auth.read_token_file", base),
        write_token=_token(auth.write_token_file, "auth.write_token_file", base),
        insecure=config.insecure,
    )


def _token(path: str | None, key: str, base: Path) -> str | None:
    return None if path is None else secret(base / path, key)


def secret(path: Path, key: str) -> str:
    """The secret that a file holds. Raises ConfigError, naming the key; never shows the secret."""
    try:
        secret = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{key}: cannot read {path}: {getattr(error, 'strerror', 'not text')}") from None
    if not secret:
        raise ConfigError(f"{key}: {path} is empty")
    return secret


def _tls(tls: TlsConfig, base: Path) -> Tls:
    files = {
        name: None if value is None else str(base / value)
        for name, value in (("ca_file", tls.ca_file), ("cert_file", tls.cert_file), ("key_file", tls.key_file))
    }
    for name, file in files.items():
        if file is not None:
            secret(Path(file), f"tls.{name}")
    password = _token(tls.key_password_file, "tls.key_password_file", base)
    return Tls(**files, key_password=password, check_hostname=tls.check_hostname)


def _sasl(sasl: SaslConfig, base: Path) -> Sasl:
    if sasl.token_file is not None:
        path = base / sasl.token_file
        secret(path, "sasl.token_file")
        return Sasl(sasl.mechanism, token=lambda: secret(path, "sasl.token_file"))
    password = sasl.password or _token(sasl.password_file, "sasl.password_file", base) or ""
    return Sasl(sasl.mechanism, sasl.username or "", password)


def _kafka(
    fleet: Fleet, name: str, source: KafkaConfig, base: Path, surroundings: LiveSurroundings
) -> Iterator[tuple[KafkaSource, bool]]:
    """The source, or two where labels are shared out in another way; and whether it brings labels."""
    connection, client = kafka_connection(source, base, name), _kafka_client(source, name)
    share = None if source.partitions is None else Share(source.partitions.number, source.partitions.of)
    whole = Share(0, 1)
    apart = source.label_join == "broadcast" and bool(source.label_topics) and share != whole
    # A quarter of the window: far less than partitions may be apart before the window leaves one behind.
    slack_s = min((settings.window.seconds for settings in fleet.models), default=3600.0) / 4
    topics = source.topics if apart else [*source.topics, *source.label_topics]
    equal = source.label_join == "copartitioned"
    if topics:
        reader = KafkaSource(
            name, surroundings, client, connection, topics, share=share, equal_partitions=equal, slack_s=slack_s
        )
        yield reader, bool(source.label_topics) and not apart
    if apart:
        labels = f"{name}{_LABELS}" if topics else name
        alone = replace(kafka_connection(source, base, labels), group_id=None)
        yield KafkaSource(labels, surroundings, client, alone, source.label_topics, share=whole, slack_s=slack_s), True


def _kafka_client(source: KafkaConfig, name: str) -> Connect:
    """The client library that is asked for, or the fastest one that is installed. Raises Unavailable."""
    headers = HEADERS | source.headers
    if source.client in ("auto", "confluent"):
        try:
            from exporter.ingest.confluent import ConfluentClient  # noqa: PLC0415 - either may not be installed
        except ImportError:
            pass
        else:
            return lambda connection, rebalancing: ConfluentClient(connection, rebalancing, headers)
    if source.client in ("auto", "kafka-python"):
        try:
            from exporter.ingest.kafka_python import KafkaPythonClient  # noqa: PLC0415
        except ImportError:
            pass
        else:
            return lambda connection, rebalancing: KafkaPythonClient(connection, rebalancing, headers)
    wanted = "kafka-fast" if source.client == "confluent" else "kafka"
    raise Unavailable(f"source {name}: no Kafka client is installed; pip install 'model-health-exporter[{wanted}]'")


def _file(fleet: Fleet, name: str, source: FileConfig, base: Path, surroundings: LiveSurroundings) -> Feed:
    path = base / source.path
    file_format = source.format or format_of(path)
    reader: Source = FileSource(name, path, file_format, surroundings, follow=source.follow)
    if file_format == "jsonl":
        return Feed(reader, _native(fleet, name, source, event_time=True))
    model = next(settings for settings in fleet.models if settings.name == source.model)
    reference = fleet.default_reference(model.name)
    columns = Columns() if reference is None else reference.columns
    version = fleet.expected_version(model.name) or UNKNOWN_VERSION
    return Feed(reader, TableCodec(fleet, name, model.name, version, columns))


def _native(fleet: Fleet, name: str, source: SourceConfig, *, event_time: bool) -> Codec:
    return NativeCodec(
        fleet,
        name,
        fields=fields_of(source),
        default_model=source.model,
        event_time=event_time,
        log_values=source.log_values,
    )


def _name(source: SourceConfig, taken: list[str]) -> str:
    """The source's type, numbered from the second of a type on."""
    kind = {HttpConfig: "http", KafkaConfig: "kafka", FileConfig: "file"}[type(source)]
    several = sum(name.split("-")[0] == kind and not name.endswith(_LABELS) for name in taken)
    return f"{kind}-{several + 1}" if several else kind
