"""Tables as sources of events: CSV and Parquet rows through the column mapping of a reference.

A cell of CSV is text: "" and the usual spellings of null are missing, and whether it is a number is the reference's
decision, not the cell's.
"""

import csv
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np

from exporter.ingest.source import Cells, Chunk, Table, Unavailable
from exporter.ingest.timestamps import epoch_s
from exporter.monitor.events import (
    LABEL,
    MISSING,
    NO_ERROR,
    NON_FINITE_NUMBER,
    PREDICTION,
    UNSEEN,
    WRONG_TYPE,
    WRONG_TYPE_NUMBER,
    Batch,
    Codes,
    Decoded,
    FeatureKey,
    Names,
    Reject,
    as_number,
    ids_of,
)
from exporter.monitor.fleet import Fleet
from exporter.monitor.reference import Columns, is_mostly_numeric
from exporter.stats import Floats

Format = Literal["csv", "parquet", "jsonl"]

FORMATS: dict[str, Format] = {".csv": "csv", ".parquet": "parquet", ".jsonl": "jsonl", ".ndjson": "jsonl"}
"""What the ending of a file's name says of its format."""

MISSING_TEXTS = frozenset({"", "NaN", "nan", "NA", "N/A", "null", "NULL"})
ROWS_AT_ONCE = 4096
ID = "id"
"""The column of ids, unless the mapping names another."""


class TableCodec:
    """Rows of tables as predictions of one model version, in the columns that its references ask for."""

    def __init__(self, fleet: Fleet, source: str, model: str, version: str, columns: Columns) -> None:
        self._fleet = fleet
        self._source = source
        self._model = model
        self._version = version
        self._columns = columns

    def decode(self, chunk: Chunk) -> Decoded:
        """One batch; rows without a usable timestamp are rejected."""
        if not isinstance(chunk, Table):
            raise TypeError("undecoded messages are not for the table codec")
        schema = self._fleet.schema(self._model)
        rejects = list(chunk.rejects)
        time = self._times(chunk)
        good = ~np.isnan(time)
        stamp = self._columns.timestamp
        rejects += [
            Reject(int(row), "invalid_timestamp", f"column {stamp}: not a timestamp") for row in np.flatnonzero(~good)
        ]
        numeric = np.empty((chunk.rows, len(schema.numeric)), order="F")
        for place, name in enumerate(schema.numeric):
            numeric[:, place] = numbers(self._values(chunk, name))
        codes: Codes = np.empty((chunk.rows, len(schema.categorical)), np.int32)
        for place, name in enumerate(schema.categorical):
            codes[:, place] = _codes(self._values(chunk, name), schema.vocabularies[place])
        batch = Batch(
            model=self._model,
            partition=chunk.partition,
            versions=(self._version,),
            version=np.zeros(int(good.sum()), np.int64),
            time=time[good],
            numeric=numeric[good],
            codes=codes[good],
            latency_s=np.full(int(good.sum()), np.nan),
            error=np.full(int(good.sum()), NO_ERROR, np.int16),
            schema=schema,
            id=ids_of(self._ids(chunk))[good] if schema.joins else None,
        )
        return Decoded(self._source, chunk.rows + len(chunk.rejects), [batch], rejects, Counter())

    def _times(self, table: Table) -> Floats:
        values = table.columns.get(self._columns.timestamp or "")
        if values is None:
            return np.full(table.rows, table.time)
        return times(values, self._columns.timestamp_format)

    def _ids(self, table: Table) -> Sequence[object]:
        values = table.columns.get(self._columns.id or ID)
        return [None] * table.rows if values is None else python_values(values)

    def _values(self, table: Table, name: FeatureKey) -> Cells:
        values = table.columns.get(column_of(name, self._columns))
        return [None] * table.rows if values is None else values


def times(values: Cells, time_format: str | None) -> Floats:
    """Epoch seconds of cells; NaN for one that is no timestamp."""
    # With a format "20181030" is a date, not a number.
    seconds = (epoch_s(value if time_format else number_or_text(value), time_format) for value in values)
    return np.array([np.nan if second is None else second for second in seconds], np.float64)


def column_of(name: FeatureKey, columns: Columns) -> str:
    """The table column that holds a feature."""
    if name.kind == "output":
        return columns.prediction or PREDICTION
    if name.kind == "label":
        return columns.label or LABEL.name
    if name.kind == "score":
        return columns.scores.get(name.name, name.name)
    return name.name


def format_of(path: Path) -> Format:
    """The format that the ending of a file's name tells. Raises Unavailable, naming the file."""
    file_format = FORMATS.get(path.suffix.lower())
    if file_format is None:
        raise Unavailable(f"{path}: unknown format {path.suffix or '(none)'}; expected {', '.join(FORMATS)}")
    return file_format


def read(path: Path, file_format: Format | None = None) -> Iterator[Table]:
    """All rows of a file, a few thousand at a time (of JSONL all at once, as its features become columns).

    Without `file_format` the name's ending tells. Raises Unavailable, naming the file, when it cannot be read.
    """
    readers = {"csv": _read_csv, "parquet": _read_parquet, "jsonl": _read_jsonl}
    reader = readers[file_format or format_of(path)]
    try:
        yield from reader(path)
    except OSError as error:
        raise Unavailable(f"cannot read {path}: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise Unavailable(f"cannot read {path}: invalid UTF-8 at byte {error.start}") from None


def csv_header(line: str) -> list[str]:
    """Column names of a header line."""
    return next(csv.reader([line]), [])


def table_of_csv(
    header: Sequence[str], lines: Sequence[str], partition: str, time: float, position: str, *, spanning: bool = False
) -> Table:
    """Lines of CSV as a table; rows with another number of cells than the header are rejects.

    With `spanning` a quoted cell may hold line breaks; otherwise a stray quote costs its own line only.
    """
    rows, rejects = list[list[str]](), list[Reject]()
    for index, cells in enumerate(_records(lines) if spanning else (next(_records([line]), []) for line in lines)):
        if isinstance(cells, csv.Error):
            rejects.append(Reject(index, "malformed_row", f"not CSV: {cells}"))
        elif len(cells) == len(header):
            rows.append(cells)
        elif cells:
            rejects.append(Reject(index, "malformed_row", f"{len(cells)} cells where the header has {len(header)}"))
    columns: dict[str, Cells] = {name: [row[place] for row in rows] for place, name in enumerate(header)}
    return Table(partition, columns, len(rows), time, position, rejects)


def _records(lines: Iterable[str]) -> Iterator[list[str] | csv.Error]:
    """Cells of each record, or why it has none: the reader goes on behind one that it cannot read."""
    reader = csv.reader(lines)
    while True:
        try:
            yield next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield error


def typed(values: Cells, *, categorical: bool = False) -> Sequence[object]:
    """Cells of a column as Python values, missing ones None.

    Texts become numbers when nearly all of them are. In a column of categories only those do that Python would write
    so: "3.0" is the category 3 of an event, and "007" is not 7.
    """
    cells = [None if is_missing(value) else value for value in values]
    as_numbers = [number_or_text(cell) for cell in cells]
    if not categorical and is_mostly_numeric(as_numbers):
        return as_numbers
    return [_category(cell) for cell in cells]


def python_values(values: Cells) -> Sequence[object]:
    """Cells as Python values: those of numpy are neither hashed nor written as numbers of Python are."""
    return values.tolist() if isinstance(values, np.ndarray) else values


def is_missing(value: object) -> bool:
    """None, NaN, or a text that stands for null."""
    if isinstance(value, float):
        return math.isnan(value)
    return value is None or (isinstance(value, str) and value in MISSING_TEXTS)


def number_or_text(value: object) -> object:
    """A text that spells a number as that number; anything else as it is."""
    if not isinstance(value, str):
        return value
    try:
        return float(value)
    except ValueError:
        return value


def numbers(values: Cells) -> Floats:
    """Cells as a numeric column with the sentinels of monitor.events."""
    if isinstance(values, np.ndarray):
        column = values.astype(np.float64)
        column[np.isinf(column)] = NON_FINITE_NUMBER
        return column
    return np.array([_number(value) for value in values], np.float64)


def _number(value: object) -> float:
    if not isinstance(value, str):
        return as_number(value)
    if value in MISSING_TEXTS:
        return np.nan
    number = number_or_text(value)
    return as_number(number) if isinstance(number, float) else WRONG_TYPE_NUMBER


def _codes(values: Cells, vocabulary: Mapping[object, int]) -> list[int]:
    cells = python_values(values)
    if isinstance(vocabulary, Names):
        vocabulary.learn(
            _category(cell) for cell in cells if isinstance(cell, str | int | float) and not is_missing(cell)
        )
    return [_code(cell, vocabulary) for cell in cells]


def _code(value: object, vocabulary: Mapping[object, int]) -> int:
    if is_missing(value):
        return MISSING
    if not isinstance(value, str | int | float):
        return WRONG_TYPE
    code = vocabulary.get(value)
    if code is None and isinstance(value, str):
        code = vocabulary.get(_category(value))
    return UNSEEN if code is None else code


def _category(value: object) -> object:
    number = number_or_text(value)
    if isinstance(value, str) and isinstance(number, float):
        return number if value in (repr(number), f"{number:.0f}") else value
    return value


def _read_csv(path: Path) -> Iterator[Table]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        header = next(csv.reader(file), None)
        if not header:
            raise Unavailable(f"{path}: empty, a header line expected")
        twice = [name for name, count in Counter(header).items() if count > 1]
        if twice:
            raise Unavailable(f"{path}: column {twice[0]} stands twice in the header")
        while lines := _whole_lines(file, ROWS_AT_ONCE):
            yield table_of_csv(header, lines, str(path), 0.0, "", spanning=True)


def _whole_lines(file: Iterator[str], count: int) -> list[str]:
    """About `count` lines, on until quotes are balanced: a quoted cell may hold line breaks."""
    lines, quotes = list[str](), 0
    for line in file:
        lines.append(line)
        quotes += line.count('"')
        if len(lines) >= count and quotes % 2 == 0:
            break
    return lines


def _read_parquet(path: Path) -> Iterator[Table]:
    try:
        from pyarrow import ArrowException, parquet, timestamp, types  # noqa: PLC0415 - 50 MB that only Parquet needs
    except ImportError:
        raise Unavailable(f"{path}: reading Parquet needs `pip install model-health-exporter[parquet]`") from None

    def values(column: Any) -> Cells:
        if types.is_dictionary(column.type):
            column = column.dictionary_decode()  # to_pylist takes 40 times as long on codes
        kind = column.type
        if types.is_decimal(kind) or types.is_floating(kind) or types.is_integer(kind):
            try:
                numbers: Floats = column.cast("float64").to_numpy(zero_copy_only=False)
            except ArrowException:
                return column.to_pylist()  # type: ignore[no-any-return]  # an id of 64 bits is no float
            return numbers
        if types.is_timestamp(kind):
            column = column.cast(timestamp("us", kind.tz), safe=False)
        cells: Cells = column.to_pylist()
        return cells

    try:
        for batch in parquet.ParquetFile(path).iter_batches(ROWS_AT_ONCE):
            columns = {name: values(batch.column(place)) for place, name in enumerate(batch.schema.names)}
            yield Table(str(path), columns, batch.num_rows, 0.0)
    except (ArrowException, ValueError) as error:  # ValueError: times of day in nanoseconds
        raise Unavailable(f"{path}: cannot be read as Parquet: {str(error).splitlines()[0]}") from None


def _read_jsonl(path: Path) -> Iterator[Table]:
    rows, rejects, names = list[dict[str, object]](), list[Reject](), dict[str, None]()
    with path.open("rb") as file:
        for index, line in enumerate(file):
            if not line.strip():
                continue
            try:
                event = msgspec.json.decode(line, type=dict[str, Any])
            except (msgspec.MsgspecError, RecursionError):
                rejects.append(Reject(index, "malformed_json", f"line {index + 1} is no JSON object"))
                continue
            features = event.pop("features", None)
            row = {**event, **(features if isinstance(features, dict) else {})}
            rows.append(row)
            names.update(dict.fromkeys(row))
    columns: dict[str, Cells] = {name: [row.get(name) for row in rows] for name in names}
    yield Table(str(path), columns, len(rows), 0.0, "", rejects)
