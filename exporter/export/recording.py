"""Samples of many moments as one OpenMetrics text, as `promtool tsdb create-blocks-from openmetrics` reads it.

OpenMetrics wants all samples of a family together, and of a series in the order of time, so nothing can be written
before the last moment is known. What is kept until then is a number a series and moment, and no text.
"""

import math
from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeAlias

from exporter.catalog.metric import Metric, Sample, format_float
from exporter.export.exposition import declaration

_Group: TypeAlias = "dict[str, array[float]]"
"""By the text of each series of a family with the same labels (the parts of a histogram): its values, NaN for none."""


class Recording:
    """What was exposed at each of several moments."""

    def __init__(self) -> None:
        self._moments: list[float] = []
        self._families: dict[str, tuple[Metric, dict[tuple[str, ...], _Group]]] = {}

    def add(self, moment: float, samples: Iterable[Sample]) -> None:
        """Keep the samples of a moment (epoch seconds), which is later than all before. None is NaN."""
        place = len(self._moments)
        self._moments.append(moment)
        for series, value in samples:
            _, groups = self._families.setdefault(series.metric.name, (series.metric, {}))
            values = groups.setdefault(series.values, {}).setdefault(series.text, array("d"))
            values.extend([math.nan] * (place - len(values)))
            values.append(value)

    def text(self) -> Iterator[str]:
        """The exposition, a part for each set of labels."""
        for metric, groups in self._families.values():
            yield declaration(metric, openmetrics=True)
            for group in groups.values():
                yield "".join(_lines(group, self._moments))
        yield "# EOF\n"


def _lines(group: _Group, moments: Sequence[float]) -> Iterator[str]:
    """The parts of a histogram belong together at each moment."""
    for place, moment in enumerate(moments):
        for text, values in group.items():
            if place < len(values) and not math.isnan(values[place]):
                yield f"{text} {format_float(values[place])} {format_float(moment)}\n"
