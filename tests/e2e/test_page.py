"""The status page in a real browser: what a person sees, and what a hostile event cannot make it do."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e import stories
from tests.e2e.chromium import PHONE, WIDE, Browser, Tab
from tests.e2e.running import Running, run, started
from tests.e2e.waiting import eventually

pytestmark = pytest.mark.e2e

ROWS = "[...document.querySelectorAll('[data-feature]')]"
OUTPUTS = ("prediction", "score")
MODELS = "[...document.querySelectorAll('[data-model]')]"
FOLDED = "[...document.querySelectorAll('[aria-expanded=\"false\"]')]"
FILTERS = "[...document.querySelectorAll('#filters button')]"
QUALITY = "document.querySelector('.qualities').textContent"
COVARIANCE = "document.querySelector('[data-moment=covariance]')"
QUALITIES = "[...document.querySelectorAll('[data-quality]')]"
ATTRIBUTES = "[...document.querySelectorAll('*')].flatMap((node) => node.getAttributeNames())"
ANY_DRIFTED = "document.querySelectorAll('[data-feature][data-drifted=\"true\"]').length"


def assert_clean(tab: Tab, exporter: Running) -> None:
    """No error, and no request but those for the page and its data."""
    assert tab.troubles == []
    assert set(tab.requests) == {exporter.url, f"{exporter.url}api/v1/models"}


def assert_fits(tab: Tab, width: int) -> None:
    """Nothing is wider than the screen, and the browser has not zoomed out to make it fit."""
    assert tab.evaluate("innerWidth") == width
    assert tab.evaluate("document.documentElement.scrollWidth") <= width


def pictures(tab: Tab, folder: Path) -> None:
    """The page wide and on a phone, for the eye; and the phone's check that it fits."""
    tab.screenshot(folder / "wide.png")
    assert_fits(tab, WIDE[0])
    tab.resize(*PHONE)
    tab.until(f"innerWidth === {PHONE[0]}")
    assert_fits(tab, PHONE[0])
    tab.screenshot(folder / "phone.png")


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Running]:
    """An exporter with one model that has drifted."""
    with run(tmp_path, [stories.MODEL_CONFIG], [stories.reference()]) as exporter:
        exporter.post(stories.predictions(400, drifted=[stories.DRIFTING]))
        yield exporter


def test_the_demo_drifts_before_ones_eyes(tmp_path, browser: Browser):
    with started(tmp_path, "demo", "--round", "10", "--listen", "127.0.0.1:0") as exporter, browser.tab() as tab:
        tab.open(exporter.url)
        tab.evaluate("window.survivor = 'still here'; 0")
        tab.until(ANY_DRIFTED, within_s=20)
        flags = tab.evaluate(f"{ROWS}.map((row) => row.dataset.drifted)")
        assert flags == sorted(flags, reverse=True), "drifted features come first"
        assert flags.count("false") > 0
        assert tab.evaluate("document.querySelector('#verdict').textContent").startswith("car_loan 3: ")
        assert tab.evaluate("document.querySelector('[data-model]').dataset.version") == "3"
        assert tab.evaluate("document.title").endswith(" drifted) model-health-exporter")
        assert tab.evaluate(f"{QUALITIES}.length") == 8, "nine in ten predictions have their label"
        assert tab.evaluate("window.survivor") == "still here", "the page was reloaded"
        pictures(tab, tmp_path)
        assert_clean(tab, exporter)


def test_one_slice_that_drifts_is_named_though_the_whole_is_well(tmp_path: Path, browser: Browser):
    config = stories.MODEL_CONFIG | {"segments": ["region"]}
    reference = stories.reference(regions=("eu", "us"), right=0.9)
    with run(tmp_path, [config], [reference]) as exporter, browser.tab() as tab:
        exporter.post(stories.predictions(2000, region="eu", right=0.9))
        exporter.post(stories.predictions(220, region="us", drifted=[stories.DRIFTING], right=0.9, seed=1))
        exporter.post(stories.predictions(30, region="atlantis", seed=2))
        tab.open(exporter.url)
        tab.until("document.querySelectorAll('[data-segment]').length === 4")
        tiles = "[...document.querySelectorAll('[data-segment]')]"
        assert tab.evaluate(f"{tiles}.map((tile) => tile.dataset.segment)") == ["us", "eu", "atlantis", "other"]
        assert tab.evaluate(f"{tiles}.map((tile) => tile.dataset.state)")[:2] == ["drifting", "ok"]
        assert stories.DRIFTING in tab.evaluate(f"{tiles}[0].textContent")
        assert "Accuracy 0.9" in tab.evaluate(f"{tiles}[1].textContent")
        assert "region us" in tab.evaluate("document.querySelector('#notes').textContent")
        assert tab.evaluate(ANY_DRIFTED) == 0, "a tenth of the traffic hardly shows in all of it"
        pictures(tab, tmp_path)
        assert_clean(tab, exporter)


def test_it_updates_without_reloading(watched: Running, tab: Tab, tmp_path: Path):
    tab.open(watched.url)
    tab.until(ANY_DRIFTED)
    assert tab.evaluate(f"{ROWS}[0].dataset.feature") == stories.DRIFTING
    assert "income" in tab.evaluate("document.querySelector('#verdict').textContent")
    assert tab.evaluate(f"{ROWS}[0].dataset.state") == "drifting"
    kinds = tab.evaluate(f"{ROWS}.map((row) => row.dataset.kind)")
    assert sorted(kinds) == ["input"] * 4 + ["output", "score"]

    # A reader has opened a row and typed into the search field: an update must take neither away.
    tab.evaluate(
        "window.survivor = document.querySelector('[data-feature=\"age\"]'); survivor.querySelector('button').click()"
    )
    tab.evaluate("document.querySelector('#search').focus()")
    tab.type("a")
    before = tab.evaluate("document.body.dataset.updated")
    watched.post(stories.predictions(2000, seed=1))
    tab.until(f"document.body.dataset.updated !== '{before}'")
    tab.until("document.querySelector('[data-model] .numbers').textContent.includes('n = 2,400')")
    assert tab.evaluate("window.survivor === document.querySelector('[data-feature=\"age\"]') && survivor.isConnected")
    assert tab.evaluate("survivor.querySelector('button').getAttribute('aria-expanded')") == "true"
    assert tab.evaluate("[document.activeElement.id, document.activeElement.value]") == ["search", "a"]
    assert_clean(tab, watched)


def test_quality_is_shown_with_its_bounds_and_a_loss_of_it_stands_out(tmp_path: Path, tab: Tab):
    classes = HOSTILE[:2]  # they come with the data
    known = stories.reference(classes=classes, right=0.9)
    with run(tmp_path, [stories.MODEL_CONFIG], [known]) as exporter:
        exporter.post(stories.predictions(300, classes=classes))
        tab.open(exporter.url)
        tab.until(f"{QUALITY}.includes('No labels in this window')")
        exporter.post(stories.predictions(12, classes=classes, right=0.9, seed=1))
        tab.until(f"{QUALITY}.includes('12 of 200 labels: too few')")
        estimated = tab.evaluate(f"{QUALITIES}.map((node) => node.innerText)")
        assert len(estimated) == 5
        assert all("\nestimated, 95 %: " in text for text in estimated)
        assert "Expected of these scores" in tab.evaluate(QUALITY)
        assert "degraded" not in tab.evaluate("document.querySelector('main').innerText")

        exporter.post(stories.predictions(500, classes=classes, right=0.7, seed=2))
        tab.until(f"{QUALITY}.includes('507 labels, for 63.')")  # a failed prediction can be neither right nor wrong
        (model,) = json.loads(exporter.get("/api/v1/models").body)["models"]
        quality, texts = (
            model["quality"],
            dict(tab.evaluate(f"{QUALITIES}.map((n) => [n.dataset.quality, n.innerText])")),
        )
        assert texts.keys() == quality["metrics"].keys()
        for name, one in quality["metrics"].items():
            value, lower, upper, baseline = (f"{one[key]:.3g}" for key in ("value", "lower", "upper", "baseline"))
            assert f"\n{value}\n95 %: {lower} \N{EN DASH} {upper}\nbaseline {baseline}, at " in texts[name]
            assert ("degraded" in texts[name]) == one["degraded"], name
        degraded = [name for name, one in quality["metrics"].items() if one["degraded"]]
        assert "accuracy" in degraded
        shown = tab.evaluate(f"{QUALITIES}.map((node) => node.dataset.quality)")
        assert sorted(shown[: len(degraded)]) == sorted(degraded), "degraded ones come first"
        colours = tab.evaluate(f"{QUALITIES}.map((node) => getComputedStyle(node.querySelector('.value')).color)")
        assert len(set(colours[: len(degraded)])) == 1
        assert colours[0] not in colours[len(degraded) :]
        assert "degraded" in tab.evaluate("document.querySelector('.model-fold').innerText")
        assert ": quality degraded in " in tab.evaluate("document.querySelector('#verdict').textContent")
        assert tab.evaluate("document.title") == "(1 degraded) model-health-exporter"

        assert quality["positive"] in tab.evaluate(QUALITY)
        assert tab.evaluate("window.pwned ?? null") is None
        assert tab.evaluate("document.querySelectorAll('main img, main script').length") == 0
        pictures(tab, tmp_path)
        assert_clean(tab, exporter)


def test_before_the_first_event_no_time_is_made_up(tmp_path: Path, tab: Tab):
    with run(tmp_path, [stories.MODEL_CONFIG], [stories.reference()]) as exporter:
        tab.open(exporter.url)
        assert "Window 1h: no events yet" in tab.evaluate("document.querySelector('.facts-line').textContent")
        assert "1970" not in tab.evaluate("document.body.innerText")


def test_no_quality_is_shown_where_no_truth_is_told(watched: Running, tab: Tab):
    tab.open(watched.url)
    tab.until(ANY_DRIFTED)
    assert tab.evaluate("document.querySelector('.qualities').checkVisibility()") is False


def test_an_exporter_that_has_gone_is_told_and_its_return_is_noticed(tmp_path: Path, tab: Tab):
    with run(tmp_path / "first", tick="1s") as exporter:
        tab.open(exporter.url)
        assert tab.evaluate("document.querySelector('#alarm').hidden") is True
        listen = f"127.0.0.1:{exporter.port}"
    tab.until("!document.querySelector('#alarm').hidden && document.body.dataset.link === 'stale'")
    with run(tmp_path / "second", tick="1s", listen=listen):
        tab.until("document.querySelector('#alarm').hidden && document.body.dataset.link === 'live'")


def test_the_first_event_is_the_one_the_page_shows(tmp_path: Path, tab: Tab):
    with run(tmp_path) as exporter:
        tab.open(exporter.url)
        assert tab.evaluate("document.querySelector('#start').hidden") is False
        curl = tab.evaluate("document.querySelector('#example').textContent")
        assert curl.startswith(f"curl -X POST {exporter.url}v1/events ")
        event = curl.partition(" -d '")[2].removesuffix("'").encode()
        assert exporter.post([event])["accepted"] == 1
        tab.until('document.querySelector(\'[data-model="car_loan"][data-version="3"]\')?.isConnected')
        assert tab.evaluate("document.querySelector('#start').hidden") is True
        assert exporter.value("ml_prediction_duration_seconds_count", model="car_loan") == 1
        assert_clean(tab, exporter)


# ---- hostile input -------------------------------------------------------------------------------------------------

HOSTILE = (
    '<script>window.pwned="script"</script>',
    '<img src=x onerror="window.pwned=1">',
    "\"'><svg onload=window.pwned=2>",
    "</bdi></script><script>window.pwned=3</script>",
    "javascript:window.pwned=4",
    "${window.pwned=5}{{constructor.constructor('window.pwned=6')()}}",
    "'; window.pwned=7; //",
    "__proto__",
    "constructor",
    "\\u003cscript\\u003e &lt;b&gt; \\ \\n %3Cscript%3E",
    "\N{PILE OF POO} \N{ARABIC LETTER ALEF}\N{HEBREW LETTER ALEF} Z\N{COMBINING DIAERESIS}",
    "W" * 128,
)


def test_hostile_texts_are_shown_and_nothing_else(tmp_path: Path, tab: Tab):
    model, version, *features = HOSTILE
    known = stories.reference(model, version, inputs=features, colour="colour</script>")
    categories = [(HOSTILE[i % len(HOSTILE)]) for i in range(300)]
    config = {
        "name": model,
        "version": version,
        "references": ["reference-0.json"],
        "min_samples": 100,
        "info": {"team": HOSTILE[1]},
    }
    with run(tmp_path, [config], [known], sources=[{"type": "http", "time": "event", "log_values": True}]) as exporter:
        exporter.post(
            {**event, "features": {**event["features"], "colour</script>": category}}
            for event, category in zip(
                stories.predictions(300, model=model, version=version, inputs=features, drifted=features[:2]),
                categories,
                strict=True,
            )
        )
        for text in HOSTILE:
            exporter.post([{"model": text, "version": other, "features": {}} for other in HOSTILE[:3]])
            rejected = exporter.post([{"model": model, "timestamp": text, "features": {}}, {"model": text * 200}])
            assert rejected["rejected"] == 2
        exporter.post([HOSTILE[0].encode(), b"\xff<script>"])
        exporter.post([{"model": model, "timestamp": HOSTILE[0], "features": {}}])  # the newest reject is shown
        tab.open(exporter.url)
        tab.until(f"document.querySelectorAll('[data-model]').length >= {len(HOSTILE)}")
        tab.evaluate(f"{FOLDED}.forEach((fold) => fold.click())")
        before = tab.evaluate("document.body.dataset.updated")
        tab.until(f"document.body.dataset.updated !== '{before}'")

        shown = tab.evaluate(f"{MODELS}.map((node) => [node.dataset.model, node.dataset.version])")
        assert {name for name, _ in shown} >= set(HOSTILE)
        assert [model, version] in shown
        assert set(tab.evaluate(f"{ROWS}.map((row) => row.dataset.feature)")) == {
            *features,
            "colour</script>",
            *OUTPUTS,
        }
        text = tab.evaluate("document.querySelector('main').textContent")
        assert [hostile for hostile in HOSTILE if hostile not in text] == []
        assert model in tab.evaluate("document.querySelector('#verdict').textContent")
        assert "<script>" in tab.evaluate("document.querySelector('#feed').textContent")

        assert tab.evaluate("window.pwned ?? null") is None
        assert tab.evaluate("document.querySelectorAll('script, style, link[rel=stylesheet]').length") == 2
        assert tab.evaluate("document.querySelectorAll('img, iframe, object, embed, main a').length") == 0
        assert [name for name in tab.evaluate(ATTRIBUTES) if name.startswith("on")] == []
        pictures(tab, tmp_path)
        assert_clean(tab, exporter)


# ---- many features -------------------------------------------------------------------------------------------------


def test_200_features_can_be_searched(tmp_path: Path, tab: Tab):
    names = [f"feature_{number:03d}" for number in range(200)]
    drifted = names[150:153]
    with run(tmp_path, [stories.MODEL_CONFIG], [stories.reference(inputs=names)]) as exporter:
        exporter.post(stories.predictions(400, inputs=names, drifted=drifted))
        tab.open(exporter.url)
        tab.until(ANY_DRIFTED)
        assert tab.evaluate(f"{ROWS}.length") == 203
        first = tab.evaluate(f"{ROWS}.map((row) => row.dataset.feature).slice(0, 3)")
        assert sorted(first) == drifted

        visible = f"{ROWS}.filter((row) => row.checkVisibility()).map((row) => row.dataset.feature)"
        tab.evaluate("document.querySelector('#search').focus()")
        tab.type("FEATURE_19")
        assert sorted(tab.evaluate(visible)) == names[190:200]
        tab.type("7")
        assert tab.evaluate(visible) == ["feature_197"]
        before = tab.evaluate("document.body.dataset.updated")
        tab.until(f"document.body.dataset.updated !== '{before}'")
        assert tab.evaluate(visible) == ["feature_197"], "an update keeps the filter"
        tab.type("no such feature")
        assert tab.evaluate(visible) == []
        assert tab.evaluate("document.querySelector('#no-match').checkVisibility()")
        tab.evaluate("document.querySelector('#search').select()")
        tab.type("feature_15")
        tab.evaluate(f"{FILTERS}.find((button) => button.textContent === 'Needs attention').click()")
        assert sorted(tab.evaluate(visible)) == drifted
        pictures(tab, tmp_path)
        assert_clean(tab, exporter)


def test_the_page_is_for_those_with_the_read_token(tmp_path: Path, tab: Tab):
    (tmp_path / "token").write_text("secret")
    with run(tmp_path, auth={"read_token_file": "token"}) as exporter:
        for path in ("/", "/metrics", "/api/v1/models"):
            assert exporter.get(path).status == 401
        tab.open(exporter.url.replace("http://", "http://anyone:secret@"))
        tab.until("document.body.dataset.link === 'live'")
        eventually(lambda: len(tab.requests) > 1, "data are fetched with the same credentials")
        assert tab.troubles == []


def test_what_only_several_inputs_together_show_is_named(tmp_path, tab: Tab):
    with run(tmp_path, [stories.MODEL_CONFIG], [stories.reference()]) as exporter:
        events = list(stories.predictions(1000))
        for event in events:
            age, amount = (event["features"][name] for name in stories.STEADY)
            event["features"]["amount"] = round(0.8 * age + 0.6 * amount, 6)
        exporter.post(events)
        tab.open(exporter.url)
        tab.until("document.getElementById('verdict').textContent.includes('together')")

        assert tab.evaluate(ANY_DRIFTED) == 0
        verdict = tab.evaluate("document.getElementById('verdict').textContent")
        assert "no single feature drifted, but together they did" in verdict
        assert "most of it correlation of age and amount" in verdict
        states = tab.evaluate("[...document.querySelectorAll('[data-moment] .badge')].map((one) => one.dataset.state)")
        assert states == ["ok", "drifting"]
        assert "correlation of age and amount" in tab.evaluate(f"{COVARIANCE}.textContent")
        assert "1,000" in tab.evaluate(f"{COVARIANCE}.textContent")
        pictures(tab, tmp_path)
        assert_clean(tab, exporter)
