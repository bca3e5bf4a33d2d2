from collections.abc import Iterator

import pytest

from tests.e2e.binaries import binary
from tests.e2e.chromium import Browser, Tab, browsing


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browsing(binary("chromium", "chromium-browser", "google-chrome"), tmp_path_factory.mktemp("chromium")) as one:
        yield one


@pytest.fixture
def tab(browser: Browser) -> Iterator[Tab]:
    with browser.tab() as one:
        yield one
