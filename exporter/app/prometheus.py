"""What a Prometheus (or Thanos, or Mimir) is asked over its HTTP API, with the standard library.

A server that is not there, or in trouble, is asked again a few times and then named; a question that is refused is not
repeated, and one that is too much is put in parts. The token goes to the address that was given and nowhere else:
redirections are not followed.
"""

import json
import math
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPException, HTTPMessage
from typing import IO, Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode, urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from exporter import __version__
from exporter.app.config import ConfigError
from exporter.app.patience import Trouble, patiently
from exporter.ingest.source import Unavailable

MOST_POINTS = 11_000
"""Points a series that Prometheus gives at once; it refuses to be asked for more."""

_FIRST_POINTS = 16
_ANSWER_S = 10.0
"""How long an answer about a part of a range may take, to let it be seen that there are answers."""
_GROWTH = 10
_TIMEOUT_S = 130.0
"""A little more than Prometheus gives a query."""
_WRONG = frozenset({HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY})
_TOO_MUCH = re.compile("timed out|too many samples")
_REFUSED = range(300, HTTPStatus.INTERNAL_SERVER_ERROR)


@dataclass(frozen=True, slots=True)
class Grid:
    """Moments from `start_ms` on (epoch), `step_ms` apart."""

    start_ms: int
    step_ms: int
    count: int

    def part(self, first: int, count: int) -> "Grid":
        """So many of its moments, or what is left of them, from one on."""
        return Grid(self.start_ms + first * self.step_ms, self.step_ms, min(count, self.count - first))

    def at_s(self, place: int) -> float:
        """One of them, in epoch seconds."""
        return (self.start_ms + place * self.step_ms) / 1000

    def place(self, moment_s: float) -> int:
        """The number of the moment that an answer names in epoch seconds."""
        return round((moment_s * 1000 - self.start_ms) / self.step_ms)


def grid(start_s: float, end_s: float, step_s: float) -> Grid:
    """The moments of a range, its ends included, that are multiples of the step; the first may lie before it."""
    step_ms = max(round(step_s * 1000), 1)
    first, last = math.floor(start_s * 1000 / step_ms), math.floor(end_s * 1000 / step_ms)
    return Grid(first * step_ms, step_ms, last - first + 1)


class _Wrong(Exception):
    """What the server says of a question that it cannot answer."""


class _TooMuch(Unavailable):
    """It might answer a smaller one."""


@dataclass(frozen=True, slots=True)
class Prometheus:
    """A server at `url`, e.g. http://prometheus:9090 or one with a path before /api/v1."""

    url: str
    token: str | None = None
    pause: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"--prometheus: a URL such as http://prometheus:9090 expected, found {self.url!r}")

    def range(
        self, expression: str, moments: Grid, progress: Callable[[int], None] = lambda _: None
    ) -> Iterator[tuple[Mapping[str, str], Iterator[tuple[int, float]]]]:
        """Each series of an expression, with those of the moments (by number) at which it was there, and its values.

        A long range comes in several parts, in order, as large as are answered in about ten seconds, and then a series
        once a part; `progress` is told how many moments each part had. Raises ConfigError for an expression that the
        server refuses, Unavailable when it does not answer.
        """
        first, size = 0, _FIRST_POINTS
        while first < moments.count:
            part = moments.part(first, size)
            began = self.clock()
            try:
                found = self._ask(
                    "query_range",
                    query=expression,
                    start=f"{part.at_s(0):.3f}",
                    end=f"{part.at_s(part.count - 1):.3f}",
                    step=f"{part.step_ms / 1000:.3f}",
                )
            except _TooMuch:
                if part.count == 1:
                    raise
                size = max(part.count // _GROWTH, 1)
                continue
            growth = _ANSWER_S / max(self.clock() - began, _ANSWER_S / _GROWTH)
            size = min(max(int(part.count * growth), 1), MOST_POINTS)
            for one in found["result"]:
                yield one["metric"], ((moments.place(at), float(value)) for at, value in one["values"])
            first += part.count
            progress(part.count)

    def has(self, metric: str, start_s: float, end_s: float) -> bool:
        """Whether there is any series of a metric in a range (epoch seconds). Raises Unavailable."""
        selector = {"match[]": f'{{__name__="{metric}"}}', "start": f"{start_s:.3f}", "end": f"{end_s:.3f}"}
        # Older ones know no limit, and name them all.
        return bool(self._ask("series", **selector, limit="1"))

    def _ask(self, path: str, **parameters: str) -> Any:
        try:
            return patiently(lambda: self._answer(path, parameters), self.pause)
        except _Wrong as wrong:
            raise ConfigError(f"Prometheus refuses {parameters.get('query', path)!r}: {wrong}") from None

    def _answer(self, path: str, parameters: Mapping[str, str]) -> Any:
        headers = {"User-Agent": f"model-health-exporter/{__version__}"}
        if self.token is not None:
            headers["Authorization"] = f"Bearer {self.token}"
        body = urlencode(parameters).encode()  # as a form: expressions may be longer than a URL
        request = Request(f"{self.url.rstrip('/')}/api/v1/{path}", body, headers)  # noqa: S310 - see __post_init__
        try:
            with build_opener(_Stay).open(request, timeout=_TIMEOUT_S) as response:
                answer = json.loads(response.read())
            return answer["data"]
        except HTTPError as error:
            reason = _reason(error)
            if _TOO_MUCH.search(reason):
                raise _TooMuch(f"{self.url}: {reason}") from None
            if error.code in _WRONG:
                raise _Wrong(reason) from None
            final = error.code in _REFUSED and error.code != HTTPStatus.TOO_MANY_REQUESTS
            raise (Unavailable if final else Trouble)(f"{self.url}: answers {error.code} {error.reason}") from None
        except (OSError, HTTPException) as error:
            cause = error.reason if isinstance(error, URLError) else error
            raise Trouble(f"{self.url}: {getattr(cause, 'strerror', None) or cause}") from None
        except (ValueError, KeyError, TypeError):
            raise Unavailable(f"{self.url}: what answers there is no Prometheus") from None


class _Stay(HTTPRedirectHandler):
    """Goes nowhere else."""

    def redirect_request(
        self, _req: Request, _fp: IO[bytes], _code: int, _msg: str, _headers: HTTPMessage, _newurl: str
    ) -> None:
        """Let the redirection be the answer."""


def _reason(error: HTTPError) -> str:
    try:
        return str(json.loads(error.read())["error"])
    except (OSError, ValueError, KeyError, TypeError):
        return str(error.reason)
