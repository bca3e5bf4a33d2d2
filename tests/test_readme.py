"""What the README shows, works."""

import json
import re
from pathlib import Path

import pytest

from exporter.app.config import parse
from exporter.ingest.native import NativeCodec
from exporter.ingest.source import Messages
from exporter.monitor.fleet import Fleet
from exporter.monitor.settings import ModelSettings

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("block", re.findall(r"```yaml\n(.*?)```", README, re.DOTALL))
def test_configurations_are_good(block):
    config = parse(block, "README.md", {"MODEL_VERSION": "3", "POD_NAME": "exporter-0"})

    assert config.models[0].name == "car_loan"


def test_the_example_event_is_accepted():
    (event,) = re.findall(r"-d '(\{.*?\})'", README, re.DOTALL)
    codec = NativeCodec(Fleet([ModelSettings("car_loan")]), "http")

    decoded = codec.decode(Messages("http", [event.encode()], 0.0))

    assert json.loads(event)["model"] == "car_loan"
    assert (len(decoded.batches), decoded.rejects, decoded.dropped) == (1, [], {})


def test_linked_files_exist():
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in link]

    assert [link for link in links if not (ROOT / link).exists()] == []


def test_every_metric_named_exists():
    documented = (ROOT / "docs/metrics.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(ml_\w*[a-z])`", README))

    assert {name for name in named if f"`{name}`" not in documented} == set()
