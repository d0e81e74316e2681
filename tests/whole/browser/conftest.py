from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from tests.browser import running_browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with running_browser() as browser:
        yield browser
