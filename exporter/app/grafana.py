"""What a Grafana is asked over its HTTP API, one request a method; nothing else knows grafana-client.

Who uses it deals in folders, dashboards, rules, contact points and policies, not in paths: when /api, which Grafana 13
calls deprecated, gives way to /apis, this file changes. What fails is told apart by whose business it is: `ConfigError`
is for what was given (the token, its rights, what Grafana refuses), `Trouble` may be over the next time, and all else
is `Unavailable`. The token goes to the address that was given and nowhere else: redirections are not followed. No
message holds a secret.
"""

import ssl
from collections.abc import Callable, Iterable
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path
from typing import Any, Self, TypeVar
from urllib.parse import SplitResult, urlsplit

from grafana_client.api import GrafanaApi
from grafana_client.client import GrafanaException, GrafanaTimeoutError

from exporter import __version__
from exporter.app.config import ConfigError
from exporter.app.patience import Trouble
from exporter.ingest.source import Unavailable

Json = dict[str, Any]
REDACTED = "[REDACTED]"
"""What Grafana shows instead of a secret, and takes for the one it has."""

_TIMEOUT_S = 30.0
_LATER = frozenset(
    {
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.BAD_GATEWAY,
        HTTPStatus.SERVICE_UNAVAILABLE,
        HTTPStatus.GATEWAY_TIMEOUT,
    }
)
_MOST = 5000
"""Hits of a search: what Grafana gives at once."""
_LONGEST = 300
"""Of what a server says of an error: some say it with a page of HTML."""
_Shape = TypeVar("_Shape", dict[str, Any], list[Any])


class Forbidden(ConfigError):
    """The token is good, but not for this."""


class Grafana:
    """A server at `url`, e.g. https://grafana.example.com or one with a path, as whoever the token is of.

    `hidden` are further secrets that no message may hold. Use it as a context, which closes its connections. Each
    method raises ConfigError, Unavailable and Trouble, as the module says.
    """

    def __init__(
        self,
        url: str,
        token: str,
        *,
        organisation: int | None = None,
        ca_file: Path | None = None,
        hidden: Iterable[str] = (),
        timeout_s: float = _TIMEOUT_S,
    ) -> None:
        parts = _address(url)
        if ca_file is not None:
            _check_authority(ca_file)
        path = parts.path.strip("/")
        self.url = f"{parts.scheme}://{parts.netloc}{path and f'/{path}'}"
        self._hidden = (token, *hidden)
        self._after: str | None = None
        self._api = GrafanaApi(
            token,
            # With its port, and the brackets of IPv6. A path that does not end in a slash would run into what follows.
            host=parts.netloc,
            url_path_prefix=path and f"{path}/",
            protocol=parts.scheme,
            verify=True if ca_file is None else str(ca_file),
            timeout=timeout_s,
            user_agent=f"model-health-exporter/{__version__}",
            organization_id=organisation,
        )
        self._client = self._api.client
        self._client.s.hooks["response"].append(self._seen)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.s.close()

    def version(self) -> str:
        """Its version, which no token is needed for; "of unknown version" if it hides it."""
        health = self._ask(dict, "its health", lambda: self._client.GET("/health"))
        return str(health.get("version") or "of unknown version")

    def datasources(self) -> list[Json]:
        """All data sources that the token may see."""
        return self._ask(list, "data sources", self._api.datasource.list_datasources)

    def query(self, datasource: str, expression: str) -> list[Json]:
        """The series of an instant query of a Prometheus, by the uid of its data source."""
        path = f"/datasources/proxy/uid/{datasource}/api/v1/query"
        answer = self._ask(dict, "the data source", lambda: self._client.GET(path, params={"query": expression}))
        try:
            return list(answer["data"]["result"])
        except (KeyError, TypeError):
            raise Unavailable(f"{self.url}: what answers behind the data source is no Prometheus") from None

    def folder(self, uid: str) -> Json | None:
        """A folder, None if there is none."""
        return self._find("the folder", lambda: self._api.folder.get_folder(uid))

    def create_folder(self, uid: str, title: str) -> None:
        """Make a folder below the root."""
        self._ask(dict, "a new folder", lambda: self._api.folder.create_folder(title, uid))

    def rename_folder(self, uid: str, title: str) -> None:
        """Give a folder another title."""
        self._ask(dict, "the folder", lambda: self._api.folder.update_folder(uid, title, overwrite=True))

    def dashboard(self, uid: str) -> Json | None:
        """A dashboard and its `meta`, None if there is none."""
        return self._find("the dashboard", lambda: self._api.dashboard.get_dashboard(uid))

    def dashboards(self, folder: str) -> list[Json]:
        """Uid and title, among others, of the dashboards in a folder."""
        found = self._ask(
            list,
            "dashboards",
            lambda: self._api.search.search_dashboards(type_="dash-db", folder_uids=[folder], limit=_MOST),
        )
        return [hit for hit in found if hit.get("folderUid") == folder]  # older ones do not know the parameter

    def last_change(self, dashboard: str) -> str:
        """What was said when the newest version of a dashboard was saved; "" if nothing was."""
        path = f"/dashboards/uid/{dashboard}/versions"
        answer = self._call(
            "versions of the dashboard", lambda: self._client.GET(path, params={"limit": 1}), absent=True
        )
        # A list up to Grafana 10, then an object with that list in it.
        versions = answer.get("versions") if isinstance(answer, dict) else answer or []
        if not isinstance(versions, list):
            raise Unavailable(f"{self.url}: what answers there is no Grafana")
        return str(versions[0].get("message") or "") if versions else ""

    def save_dashboard(self, document: Json, folder: str, message: str) -> None:
        """Make a dashboard, or a new version of it, in a folder."""
        body = {"dashboard": document, "folderUid": folder, "message": message, "overwrite": True}
        self._ask(dict, "the dashboard", lambda: self._api.dashboard.update_dashboard(body))

    def delete_dashboard(self, uid: str) -> None:
        """Delete a dashboard."""
        self._find("the dashboard", lambda: self._api.dashboard.delete_dashboard(uid))

    def rules(self) -> list[Json]:
        """All alert rules that Grafana evaluates, of all folders."""
        return self._ask(list, "alert rules", self._api.alertingprovisioning.get_alertrules_all)

    def rule_group(self, folder: str, title: str) -> Json | None:
        """A group of alert rules, None if there is none."""
        return self._find("the rule group", lambda: self._api.alertingprovisioning.get_rule_group(folder, title))

    def create_rule(self, rule: Json, *, editable: bool) -> None:
        """Make one alert rule, in the group that it names."""
        self._ask(
            dict,
            f"the alert rule {rule['title']}",
            lambda: self._api.alertingprovisioning.create_alertrule(rule, disable_provenance=editable),
        )

    def replace_rule_group(self, group: Json, *, editable: bool) -> None:
        """Make a group what is given: rules that it does not name are deleted."""
        self._ask(
            dict,
            "the rule group",
            lambda: self._api.alertingprovisioning.update_rule_group(
                group["folderUid"], group["title"], group, disable_provenance=editable
            ),
        )

    def delete_rule(self, uid: str) -> None:
        """Delete an alert rule."""
        self._find("the alert rule", lambda: self._api.alertingprovisioning.delete_alertrule(uid))

    def contact_points(self) -> list[Json]:
        """All contact points; `REDACTED` stands for their secrets."""
        return self._ask(list, "contact points", self._api.alertingprovisioning.get_contactpoints)

    def create_contact_point(self, point: Json, *, editable: bool) -> None:
        """Make a contact point."""
        self._ask(
            dict,
            "the contact point",
            lambda: self._api.alertingprovisioning.create_contactpoint(point, disable_provenance=editable),
        )

    def replace_contact_point(self, point: Json, *, editable: bool) -> None:
        """Make a contact point what is given."""
        self._ask(
            dict,
            "the contact point",
            lambda: self._api.alertingprovisioning.update_contactpoint(
                point["uid"], point, disable_provenance=editable
            ),
        )

    def delete_contact_point(self, uid: str) -> None:
        """Delete a contact point, to which no policy may lead."""
        self._find("the contact point", lambda: self._api.alertingprovisioning.delete_contactpoint(uid))

    def policies(self) -> Json:
        """The tree of notification policies: one object, everybody's."""
        return self._ask(dict, "notification policies", self._api.alertingprovisioning.get_notification_policy_tree)

    def replace_policies(self, tree: Json, *, editable: bool) -> None:
        """Make the tree of notification policies what is given."""
        self._ask(
            dict,
            "the notification policies",
            lambda: self._api.alertingprovisioning.set_notification_policy_tree(tree, disable_provenance=editable),
        )

    def _ask(self, shape: type[_Shape], what: str, call: Callable[[], Any]) -> _Shape:
        answer = self._call(what, call)
        if not isinstance(answer, shape):
            raise Unavailable(f"{self.url}: what answers there is no Grafana")
        return answer

    def _find(self, what: str, call: Callable[[], Any]) -> Json | None:
        """The answer, None if what is asked for is not there."""
        answer: Json | None = self._call(what, call, absent=True)
        return answer

    def _call(self, what: str, call: Callable[[], Any], *, absent: bool = False) -> Any:
        self._after = None
        try:
            return call()
        except GrafanaTimeoutError:
            raise Trouble(f"{self.url}: does not answer in time") from None
        except GrafanaException as error:
            if absent and error.status_code == HTTPStatus.NOT_FOUND:
                return None
            raise self._told(what, error.status_code, error.response) from None
        except _Moved as moved:
            raise ConfigError(f"--url: {self.url} leads elsewhere ({moved}): give the address where it ends") from None
        except ValueError:
            raise Unavailable(f"{self.url}: what answers there is no Grafana") from None
        except OSError as error:  # what the library below lets through: refused, cut off, no such host, no trust
            raise self._unreachable(error) from None

    def _unreachable(self, error: OSError) -> Exception:
        """What is at the bottom of an error: libraries wrap it in who they are."""
        root: BaseException = error
        while (below := root.__cause__ or root.__context__) is not None:
            root = below
        said = self._clean(str(getattr(root, "strerror", None) or root))
        if isinstance(root, ssl.SSLCertVerificationError):
            return Unavailable(f"{self.url}: {said}: --ca-file names whom else to trust")
        return Trouble(f"{self.url}: {said}")

    def _told(self, what: str, status: int, answer: Any) -> Exception:
        """What there is to tell of an answer that is an error."""
        message = answer.get("message") if isinstance(answer, dict) else answer
        said = self._clean(str(message or "without a reason"))
        if status == HTTPStatus.UNAUTHORIZED:
            return ConfigError(f"--token-file: {self.url} does not accept the token")
        if status == HTTPStatus.FORBIDDEN:
            return Forbidden(f"--token-file: the token has no right to {what}: {said}")
        if status in _LATER:
            return Trouble(f"{self.url}: answers {status}: {said}", _seconds(self._after))
        if status < HTTPStatus.INTERNAL_SERVER_ERROR:
            return ConfigError(f"Grafana refuses {what}: {said} ({status})")
        return Unavailable(f"{self.url}: answers {status} for {what}: {said}")

    def _clean(self, text: str) -> str:
        text = " ".join(text.split())
        for secret in self._hidden:
            text = text.replace(secret, REDACTED)
        return text[:_LONGEST]

    def _seen(self, response: Any, **_: Any) -> None:
        """Look at an answer before the library does: of its headers nothing is left in an error."""
        self._after = response.headers.get("Retry-After")
        if response.is_redirect:
            response.close()
            raise _Moved(str(urlsplit(response.headers["location"]).hostname or "another path"))


class _Moved(Exception):
    """An answer that leads to another host."""


def _address(url: str) -> SplitResult:
    """The parts of an address. Raises ConfigError, which never shows what may be a password."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise ConfigError("--url: no URL") from None
    if parts.username is not None or parts.password is not None:
        raise ConfigError("--url: no user and password belong there; give a token with --token-file")
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ConfigError("--url: an address such as https://grafana.example.com expected")
    return parts


def _check_authority(file: Path) -> None:
    """Raises ConfigError unless the file holds certificates."""
    try:
        ssl.create_default_context(cafile=str(file))
    except OSError as error:
        raise ConfigError(f"--ca-file: no certificates in {file}: {error.strerror}") from None


def _seconds(text: str | None) -> float | None:
    """Retry-After in seconds; None for none, and for a date, which few servers send."""
    with suppress(TypeError, ValueError):
        seconds = float(text or "")
        return seconds if seconds >= 0 else None
    return None
