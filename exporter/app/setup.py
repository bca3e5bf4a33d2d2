"""From a checked configuration to a runtime."""

from pathlib import Path

from exporter.app.clock import LiveSurroundings
from exporter.app.config import (
    Config,
    ConfigError,
    FileConfig,
    HttpConfig,
    SourceConfig,
    fields_of,
    model_settings,
    seconds,
)
from exporter.app.http import Access
from exporter.app.references import load_all
from exporter.app.runtime import Feed, Runtime
from exporter.ingest.file import FileSource
from exporter.ingest.http import HttpSource
from exporter.ingest.lenient import UNKNOWN_VERSION
from exporter.ingest.native import NativeCodec
from exporter.ingest.source import Codec, Source
from exporter.ingest.tables import TableCodec, format_of
from exporter.monitor.fleet import Fleet
from exporter.monitor.reference import Columns, Reference


def build_fleet(config: Config, base: Path) -> Fleet:
    """The fleet with its references; paths are relative to `base`. Raises BadReference and ConfigError."""
    references = find_references(config, base)
    for place, model in enumerate(config.models):
        known = {feature.name for one in references.get(model.name, ()) for feature in one.features}
        for name in model.thresholds.features if known else ():
            if name not in known:
                raise ConfigError(f"models[{place}].thresholds.features.{name}: no reference has this feature")
    return Fleet([model_settings(model) for model in config.models], references, series_limit=config.series_limit)


def find_references(config: Config, base: Path) -> dict[str, list[Reference]]:
    """The references that each model's patterns match now. Raises BadReference."""
    return {model.name: load_all(model.references, model.name, base) for model in config.models if model.references}


def build_runtime(config: Config, base: Path) -> tuple[Runtime, HttpSource | None]:
    """Everything but the server. Raises BadReference and Unavailable."""
    fleet = build_fleet(config, base)
    surroundings = LiveSurroundings()
    feeds: list[Feed] = []
    http: HttpSource | None = None
    for source in config.sources:
        name = _name(source, [feed.source.name for feed in feeds])
        if isinstance(source, HttpConfig):
            http = HttpSource(name, surroundings, body_limit_bytes=source.max_body_bytes)
            feeds.append(Feed(http, _native(fleet, name, source, event_time=source.time == "event")))
        else:
            feeds.append(_file(fleet, name, source, base, surroundings))
    rescan = (lambda: find_references(config, base)) if any(model.references for model in config.models) else None
    return Runtime(fleet, feeds, tick_s=seconds(config.tick), rescan=rescan), http


def access(config: Config, base: Path) -> Access:
    """The tokens of a configuration. Raises ConfigError, naming the key; never shows a token."""
    auth = config.auth
    return Access(
        read_token=_token(auth.read_token_file, "auth.read_token_file", base),
        write_token=_token(auth.write_token_file, "auth.write_token_file", base),
        insecure=config.insecure,
    )


def _token(path: str | None, key: str, base: Path) -> str | None:
    if path is None:
        return None
    try:
        token = (base / path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{key}: cannot read {base / path}: {getattr(error, 'strerror', 'not text')}") from None
    if not token:
        raise ConfigError(f"{key}: {base / path} is empty")
    return token


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
    kind = "http" if isinstance(source, HttpConfig) else "file"
    several = sum(name.split("-")[0] == kind for name in taken)
    return f"{kind}-{several + 1}" if several else kind
