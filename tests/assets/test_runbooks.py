import re

import promql_parser
import pytest

from exporter.assets.__main__ import ROOT
from exporter.assets.rules import all_groups
from exporter.catalog.metrics import METRICS
from exporter.catalog.rules import Alert, Settings

RUNBOOKS = ROOT / "alerts/runbooks"
LABELS_OF: dict[str, set[str]] = {}
"""By alert, the labels that it has whatever fires it."""
for group in all_groups(Settings()):
    for rule in group.rules:
        if isinstance(rule, Alert):
            own = {"alertname", *Settings().targets, *rule.labels}
            LABELS_OF[rule.name] = LABELS_OF.get(rule.name, own) & own
ALERTS = tuple(LABELS_OF)
TITLES = {
    **{alert.lower(): alert for alert in ALERTS},
    "incident-model-rollback": "Incident: model rollback",
    "incident-data-pipeline-failure": "Incident: data pipeline failure",
}
SECTIONS = ["Meaning", "Impact", "First three queries", "Likely causes", "What to do", "How to silence"]

SCRAPE_LABELS = {"namespace", "pod", "instance", "job"}
LABELS = {"up": SCRAPE_LABELS}
for one in METRICS:
    own = {label.name for label in one.labels} | SCRAPE_LABELS
    if one.kind == "histogram":
        LABELS |= {f"{one.name}_count": own, f"{one.name}_sum": own, f"{one.name}_bucket": own | {"le"}}
    else:
        LABELS[one.name] = own

FENCE = re.compile(r"^ *```(\w+)\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)
STRING = re.compile(r'"(?:\\.|[^"\\])*"')
GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")
SELECTOR = re.compile(r"\b([a-zA-Z_:][\w:]*)\b(?!\s*\()(?:\s*\{([^}]*)\})?")
MATCHER = re.compile(r"(\w+)\s*(?:=~|!~|!=|=)")
WORDS = {"and", "or", "unless", "bool", "offset"}

runbook = pytest.mark.parametrize("name", TITLES)


def page(name):
    return (RUNBOOKS / f"{name}.md").read_text(encoding="utf-8")


def sections(name):
    """Text by heading; the title is the first key."""
    parts = re.split(r"^#+ (.*)\n", page(name), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def fenced(text, language):
    return [body for found, body in FENCE.findall(text) if found == language]


def queries(name):
    return fenced(page(name), "promql")


def strangers(query):
    """What a query names that is in no catalogue: metrics, matchers of a metric, and labels to group by."""
    query = STRING.sub('""', query)
    grouped = {label.strip() for listed in GROUPING.findall(query) for label in listed.split(",")} - {""}
    selected = [found for found in SELECTOR.findall(GROUPING.sub("", query)) if found[0] not in WORDS]
    known = {label for metric, _ in selected for label in LABELS.get(metric, ())}
    wrong = {metric for metric, _ in selected if metric not in LABELS}
    for metric, matchers in selected:
        wrong |= set(MATCHER.findall(matchers)) - LABELS.get(metric, set())
    return wrong | (grouped - known)


def test_each_alert_and_incident_has_a_runbook_and_the_index_names_each_once():
    assert {path.stem for path in RUNBOOKS.glob("*.md")} == {*TITLES, "README"}

    index = re.findall(r"^- \[(.*?)\]\((.*?)\.md\): ", page("README"), re.MULTILINE)
    expected = {
        (title.removeprefix("Incident: ").capitalize() if ":" in title else title): name
        for name, title in TITLES.items()
    }
    assert len(index) == len(expected)
    assert dict(index) == expected


@runbook
def test_a_runbook_has_its_sections_in_order_and_none_is_empty(name):
    found = sections(name)

    assert list(found) == [TITLES[name], *SECTIONS]
    assert [heading for heading in SECTIONS if not found[heading].strip()] == []


@runbook
def test_there_are_three_queries_to_begin_with(name):
    assert len(fenced(sections(name)["First three queries"], "promql")) == 3


@pytest.mark.parametrize("name", [*TITLES, "README"])
def test_queries_and_prose_name_only_what_is_exported(name):
    assert {query: wrong for query in queries(name) if (wrong := strangers(query))} == {}

    known = {*LABELS, *(metric.name for metric in METRICS)}
    assert {metric for metric in re.findall(r"\bml_\w+", page(name)) if metric not in known} == set()


@pytest.mark.parametrize(
    ("query", "wrong"),
    [
        ('sum by (version) (rate(ml_predictions_total{model="a",pod="b"}[5m] offset 1d)) > bool 0', set()),
        ('histogram_quantile(0.9, sum by (le) (ml_prediction_duration_seconds_bucket{model="ml_x{y="}))', set()),
        ("ml_feature_pssi / ml_feature_psi", {"ml_feature_pssi"}),
        ('ml_predictions_total{feature="a"}', {"feature"}),
        ("sum by (feature) (ml_predictions_total)", {"feature"}),
        ("ml_feature_psi / on (model) group_left () ml_drift_alpha or down", {"down"}),
        ("ml_prediction_duration_seconds", {"ml_prediction_duration_seconds"}),
    ],
)
def test_a_name_that_is_in_no_catalogue_is_found(query, wrong):
    assert strangers(query) == wrong


@pytest.mark.parametrize("name", [*TITLES, "README"])
def test_queries_are_promql(name):
    for query in queries(name):
        promql_parser.parse(query)


@runbook
def test_a_silence_is_exact_and_ends(name):
    blocks = fenced(sections(name)["How to silence"], "sh")
    added = [line for block in blocks for line in block.replace("\\\n", " ").splitlines() if "silence add" in line]
    alerts = ALERTS if name.startswith("incident-") else (TITLES[name],)

    assert bool(added) == (name != "mlwatchdog")  # a silence of which is what its switch takes for a failure
    for command in added:
        (matchers,) = re.fullmatch(r'amtool silence add --duration=\d+h --comment="[^"]+" (.*)', command).groups()
        (silenced,) = re.findall(r'alertname=(?:~")?([\w|]+)', matchers)
        assert set(silenced.split("|")) <= set(alerts)
        labels = MATCHER.findall(STRING.sub('""', matchers))
        assert all(set(labels) <= LABELS_OF[alert] for alert in silenced.split("|"))
        assert len(labels) > 1, "everywhere at once"


@pytest.mark.parametrize("name", [*TITLES, "README"])
def test_links_lead_somewhere_and_paths_are_served(name):
    links = re.findall(r"\]\(([^)#]*)(#[^)]*)?\)", page(name))
    assert [link for link, _ in links if link and not (RUNBOOKS / link).is_file()] == []
    headings = {
        link: {
            "#" + re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")
            for heading in re.findall(r"^#+ (.*)$", (RUNBOOKS / link).read_text(encoding="utf-8"), re.MULTILINE)
        }
        for link, anchor in links
        if anchor
    }
    assert [link + anchor for link, anchor in links if anchor and anchor not in headings[link]] == []

    served = set(re.findall(r"GET (/[\w/]*)", (ROOT / "README.md").read_text(encoding="utf-8")))
    asked = set(re.findall(r'exporter "?(/[\w/]*)', page(name)))
    assert asked <= served
