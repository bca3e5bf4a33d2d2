"""A reference learned from the first predictions, for models whose training data nobody has at hand.

Until it is complete the state is "learning", with progress: there is nothing to compare with, hence no score.
"""

from collections.abc import Mapping, Sequence

from exporter.catalog import thresholds
from exporter.monitor import reference
from exporter.monitor.events import FeatureKey
from exporter.monitor.reference import BadReference, Reference
from exporter.monitor.settings import ModelSettings

TEXT_LIMIT = 256
"""Characters of a text that can be a category; free text is none, and must not fill the memory."""


class Learner:
    """Collects the features of the first `settings.learn` predictions of one version."""

    def __init__(self, settings: ModelSettings, version: str) -> None:
        if settings.learn is None:
            raise ValueError(f"{settings.name} is not to learn a reference")
        self.settings = settings
        self.version = version
        self.needed = settings.learn
        self.seen = 0
        self.hopeless = False
        """Whether what was seen has no feature to build from."""
        self._columns: dict[FeatureKey, list[object]] = {}

    @property
    def complete(self) -> bool:
        """Whether enough was seen to build."""
        return self.seen >= self.needed

    def observe(self, rows: Sequence[Mapping[FeatureKey, object]]) -> None:
        """Keep rows, as many as are needed. Feature names beyond the limit are not kept."""
        for row in rows[: self.needed - self.seen]:
            for name, value in row.items():
                column = self._columns.get(name)
                if column is None:
                    if len(self._columns) >= thresholds.LEARN_FEATURES_LIMIT.count:
                        continue
                    column = self._columns[name] = []
                column.append(value if _is_plain(value) else ())
            self.seen += 1

    def build(self, now: float) -> Reference:
        """The reference. Features without one usable value are left out; raises BadReference when none is left."""
        columns: dict[FeatureKey, reference.Column] = {}
        for name, values in self._columns.items():
            values.extend([None] * (self.seen - len(values)))  # of rows without it; which ones does not matter
            column: reference.Column = (
                values if name.name in self.settings.learn_categorical else reference.infer_column(name, values)
            )
            try:
                reference.build({name: column}, model="", version="", created=0)
            except BadReference:
                continue
            columns[name] = column
        self.hopeless = not columns
        return reference.build(columns, model=self.settings.name, version=self.version, created=now)


def _is_plain(value: object) -> bool:
    return isinstance(value, int | float | None) or (isinstance(value, str) and len(value) <= TEXT_LIMIT)
