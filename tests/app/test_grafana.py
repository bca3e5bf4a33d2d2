import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from exporter.app.config import ConfigError
from exporter.app.grafana import Forbidden, Grafana
from exporter.app.patience import Trouble as Waiting
from exporter.ingest.source import Unavailable
from tests.app.fake_grafana import FakeGrafana, Trouble, fake_grafana
from tests.app.grafana_content import TOKEN
from tests.e2e.binaries import binary

KEY = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def fake() -> Iterator[FakeGrafana]:
    with fake_grafana() as running:
        yield running


def ask(fake: FakeGrafana, what: Callable[[Grafana], Any], token: str = TOKEN, **options: Any) -> Any:
    with Grafana(fake.url, token, **options) as grafana:
        return what(grafana)


def fails(fake: FakeGrafana, what: Callable[[Grafana], Any] = Grafana.datasources, **options: Any) -> Exception:
    with pytest.raises((ConfigError, Unavailable)) as raised:
        ask(fake, what, **options)
    assert TOKEN not in str(raised.value)
    assert KEY not in str(raised.value)
    return raised.value


@pytest.mark.parametrize("slash", ["", "/"])
@pytest.mark.parametrize("prefix", ["", "/grafana", "/a/b"])
def test_it_is_found_at_any_path(prefix: str, slash: str):
    with fake_grafana(prefix=prefix) as fake, Grafana(fake.url + slash, TOKEN) as grafana:
        assert grafana.version() == "12.1.0"
        assert [one["uid"] for one in grafana.datasources()] == ["prom", "logs"]
        assert grafana.url == fake.url


def test_an_address_keeps_its_port_and_brackets():
    with Grafana("https://[::1]:3000/g/", TOKEN) as grafana:
        assert grafana.url == "https://[::1]:3000/g"
        assert grafana._client.url == "https://[::1]:3000/g/api"


@pytest.mark.parametrize(
    "url",
    [
        "grafana:3000",
        "ftp://grafana",
        "https://",
        "http://grafana:port",
        "http://grafana/?org=1",
        "http://g/#x",
        "http://[",
    ],
)
def test_what_is_no_address_is_refused(url: str):
    with pytest.raises(ConfigError, match="--url: "):
        Grafana(url, TOKEN)


@pytest.mark.parametrize("url", ["https://admin:{}@grafana.example.com", "admin:{}@grafana", "https://g/?key={}"])
def test_a_secret_in_the_address_is_refused_and_never_shown(url: str):
    with pytest.raises(ConfigError, match="--url: ") as raised:
        Grafana(url.format(KEY), TOKEN)
    assert KEY not in str(raised.value)


def test_the_token_and_the_organisation_are_sent(fake: FakeGrafana):
    ask(fake, Grafana.datasources, organisation=7)
    assert fake.organisations == {"7"}
    assert str(fails(fake, token="glsa_wrong")) == f"--token-file: {fake.url} does not accept the token"


def test_a_token_without_the_right_is_told_which(fake: FakeGrafana):
    fake.forbidden = {"/v1/provisioning/policies"}
    error = fails(fake, Grafana.policies)
    assert isinstance(error, Forbidden)
    assert "the token has no right to notification policies: You'll need additional permissions" in str(error)


@pytest.mark.parametrize("status", [429, 502, 503, 504])
@pytest.mark.parametrize(
    ("header", "after_s"), [(None, None), ("0", 0.0), ("7", 7.0), ("-1", None), ("Thu, 26 Nov 2026 12:00:00 GMT", None)]
)
def test_trouble_that_may_pass_says_how_long(fake: FakeGrafana, status: int, header: str | None, after_s: float | None):
    fake.troubles = [Trouble("GET", "/datasources", status, {} if header is None else {"retry-after": header})]
    error = fails(fake)
    assert isinstance(error, Waiting)
    assert (str(error), error.after_s) == (f"{fake.url}: answers {status}: starting", after_s)


@pytest.mark.parametrize(
    ("status", "kind", "said"),
    [
        (500, Unavailable, "{url}: answers 500 for data sources: starting"),
        (400, ConfigError, "Grafana refuses data sources: starting (400)"),
        (404, ConfigError, "Grafana refuses data sources: starting (404)"),
        (412, ConfigError, "Grafana refuses data sources: starting (412)"),
    ],
)
def test_what_will_not_pass_is_told_at_once(fake: FakeGrafana, status: int, kind: type[Exception], said: str):
    fake.troubles = [Trouble("GET", "/datasources", status)]
    error = fails(fake)
    assert (type(error), str(error)) == (kind, said.format(url=fake.url))


def test_nobody_there_is_trouble():
    with Grafana("http://127.0.0.1:9", TOKEN) as grafana, pytest.raises(Waiting, match="9: Connection refused"):
        grafana.version()


def test_only_certificates_of_whom_it_trusts_are_taken(tmp_path: Path):
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    options = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 -subj /CN=g -addext"
    command = [binary("openssl"), *options.split(), "subjectAltName=IP:127.0.0.1", "-out", certificate, "-keyout", key]
    subprocess.run(command, check=True, capture_output=True)
    with fake_grafana(certificate=(certificate, key)) as fake:
        assert ask(fake, Grafana.version, ca_file=certificate) == "12.1.0"
        error = fails(fake, Grafana.version)
    assert not isinstance(error, Waiting)
    assert "certificate verify failed" in str(error)
    assert str(error).endswith(": --ca-file names whom else to trust")


def test_no_answer_in_time_is_trouble(fake: FakeGrafana):
    fake.troubles = [Trouble("GET", "/health", hang=True)]
    error = fails(fake, Grafana.version, timeout_s=0.1)
    assert isinstance(error, Waiting)
    assert str(error) == f"{fake.url}: does not answer in time"


def test_an_answer_that_is_cut_off_is_trouble(fake: FakeGrafana):
    fake.troubles = [Trouble("GET", "/health", cut=True)]
    assert isinstance(fails(fake, Grafana.version), Waiting)


@pytest.mark.parametrize("body", [b"<html>log in</html>", b"[]", b'"yes"', b"{"])
def test_what_is_no_grafana_is_named(fake: FakeGrafana, body: bytes):
    fake.troubles = [Trouble("GET", "/health", 200, {"content-type": "application/json"}, body=body)]
    error = fails(fake, Grafana.version)
    assert str(error) == f"{fake.url}: what answers there is no Grafana"
    assert not isinstance(error, Waiting)


def test_the_token_goes_nowhere_else(fake: FakeGrafana):
    with fake_grafana() as other:
        location = other.url.replace("127.0.0.1", "localhost") + "/api/datasources"
        for status in (301, 302, 307, 308):
            fake.troubles = [Trouble("GET", "/datasources", status, {"location": location})]
            error = fails(fake)
            assert str(error) == f"--url: {fake.url} leads elsewhere (localhost): give the address where it ends"
        assert other.asked == []


def test_secrets_that_a_server_repeats_are_not_shown(fake: FakeGrafana):
    said = json.dumps({"message": f"bad {KEY}\n of {TOKEN}" + "x" * 1000}).encode()
    fake.troubles = [Trouble("GET", "/datasources", 400, body=said)]
    error = str(fails(fake, hidden=[KEY]))
    assert "bad [REDACTED] of [REDACTED]xxx" in error
    assert len(error) < 400


def test_what_is_not_there_is_none(fake: FakeGrafana):
    with Grafana(fake.url, TOKEN) as grafana:
        assert (grafana.folder("f"), grafana.dashboard("d"), grafana.rule_group("f", "g")) == (None, None, None)
        assert grafana.last_change("d") == ""


def test_a_server_that_hides_its_version_has_none(fake: FakeGrafana):
    fake.troubles = [Trouble("GET", "/health", 200, {"content-type": "application/json"}, body=b"{}")]
    assert ask(fake, Grafana.version) == "of unknown version"


@pytest.mark.parametrize(
    "body", [b"[]", b'{"versions": []}', b'[{"message": "m"}]', b'{"versions": [{"message": "m"}]}']
)
def test_the_last_change_is_read_from_lists_and_objects(fake: FakeGrafana, body: bytes):
    versions = Trouble("GET", "/dashboards/uid/d/versions", 200, {"content-type": "application/json"}, body=body)
    fake.troubles = [versions]
    assert ask(fake, lambda grafana: grafana.last_change("d")) == ("m" if b'm"' in body else "")


def test_dashboards_of_other_folders_are_left_out_though_the_server_gives_them(fake: FakeGrafana):
    body = json.dumps([{"uid": "a", "title": "A", "folderUid": "f"}, {"uid": "b", "title": "B"}]).encode()
    fake.troubles = [Trouble("GET", "/search", 200, {"content-type": "application/json"}, body=body)]
    assert [hit["uid"] for hit in ask(fake, lambda grafana: grafana.dashboards("f"))] == ["a"]


def test_behind_a_data_source_must_be_a_prometheus(fake: FakeGrafana):
    fake.firing = [{"metric": {"alertname": "MLWatchdog"}, "value": [0, "1"]}]
    query = 'ALERTS{alertname="MLWatchdog"}'
    assert ask(fake, lambda grafana: grafana.query("prom", query)) == fake.firing
    path = "/datasources/proxy/uid/prom/api/v1/query"
    fake.troubles = [Trouble("GET", path, 200, {"content-type": "application/json"}, body=b"{}")]
    error = fails(fake, lambda grafana: grafana.query("prom", query))
    assert str(error) == f"{fake.url}: what answers behind the data source is no Prometheus"
