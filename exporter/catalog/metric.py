"""What a metric is. A sample is only made from a declared metric with exactly its labels, so a typo is a TypeError."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

Kind = Literal["counter", "gauge", "histogram"]

_ESCAPES = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})


@dataclass(frozen=True, slots=True)
class Label:
    """A label name, what its values mean, and what keeps their number finite."""

    name: str
    help: str
    bound: str


@dataclass(frozen=True, slots=True)
class Series:
    """One time series: a metric with a value for each label. `text` is its exposition line up to the number."""

    metric: "Metric"
    values: tuple[str, ...]
    text: str

    def __call__(self, value: float) -> "Sample":
        """A sample of this series."""
        return Sample(self, value)


class Sample(NamedTuple):
    """A series and its value now."""

    series: Series
    value: float


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric family as exported; the name carries the unit, counters end in `_total`."""

    name: str
    kind: Kind
    help: str
    labels: tuple[Label, ...] = ()
    _names: frozenset[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_names", frozenset(label.name for label in self.labels))

    def series(self, **labels: str) -> Series:
        """The series with these label values. Raises TypeError unless exactly this metric's labels are given."""
        return self._series("", labels, "")

    def sample(self, value: float, **labels: str) -> Sample:
        """One sample of this metric. Raises TypeError unless exactly this metric's labels are given."""
        return Sample(self.series(**labels), value)

    def histogram(self, upper_bounds: Sequence[float], **labels: str) -> "HistogramSeries":
        """The series of a classic histogram with these finite, increasing bucket bounds (`+Inf` is added)."""
        buckets = tuple(
            self._series("_bucket", labels, f'le="{format_float(bound)}"') for bound in (*upper_bounds, math.inf)
        )
        return HistogramSeries(buckets, self._series("_count", labels, ""), self._series("_sum", labels, ""))

    def _series(self, suffix: str, labels: dict[str, str], extra: str) -> Series:
        if labels.keys() != self._names:
            expected = ", ".join(label.name for label in self.labels) or "no labels"
            raise TypeError(f"{self.name} takes {expected}; got {', '.join(labels) or 'none'}")
        values = tuple(labels[label.name] for label in self.labels)
        pairs = [
            f'{label.name}="{value.translate(_ESCAPES)}"' for label, value in zip(self.labels, values, strict=True)
        ]
        if extra:
            pairs.append(extra)
        return Series(self, values, f"{self.name}{suffix}{{{','.join(pairs)}}}" if pairs else self.name + suffix)


@dataclass(frozen=True, slots=True)
class HistogramSeries:
    """The series of one classic histogram."""

    buckets: tuple[Series, ...]
    count: Series
    sum: Series

    def samples(self, bucket_counts: Iterable[int], total: float) -> Iterator[Sample]:
        """Samples from per-bucket (not cumulative) counts, one a bucket and one for `+Inf`, and the sum of values."""
        cumulative = 0
        for series, count in zip(self.buckets, bucket_counts, strict=True):
            cumulative += int(count)
            yield Sample(series, cumulative)
        yield Sample(self.count, cumulative)
        yield Sample(self.sum, total)


def format_float(value: float) -> str:
    """A number as Prometheus writes it: `+Inf`, `NaN`, integers without exponent where they are exact."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return repr(float(value))
