"""One broker of each kind for a whole run. Tests make their own topics; one that stops a broker starts its own."""

from collections.abc import Iterator

import pytest

from tests.brokers import apache
from tests.brokers import tansu as small
from tests.brokers.apache import Apache
from tests.brokers.tansu import Tansu


def pytest_configure(config: pytest.Config) -> None:
    # kafka-python reads its message formats with functions that Python 3.11 and 3.12 deprecated and 3.13 took back.
    for name in ("read_text", "open_text"):
        config.addinivalue_line("filterwarnings", f"ignore:{name} is deprecated:DeprecationWarning")


@pytest.fixture(scope="session")
def tansu(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tansu]:
    with small.running(tmp_path_factory.mktemp("tansu")) as broker:
        yield broker


@pytest.fixture(scope="session")
def apache_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Apache]:
    """With all its listeners."""
    with apache.running(tmp_path_factory.mktemp("apache"), apache.PROTOCOLS) as broker:
        yield broker
