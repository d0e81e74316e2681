"""A paid service that stands in, a version that it makes clips of, and one clip of it."""

from collections.abc import Callable, Iterator
from decimal import Decimal

import pytest

from generation.catalogue.categories import Category
from generation.models import Clip, PromptSet, Version
from generation.rendering.queue import queue_clips
from tests.generation.hosted.services import STAND_INS
from tests.generation.hosted.stand_in import StandIn, serving
from tests.generation.imports.test_import_clips import film


@pytest.fixture(scope="module")
def clip_file(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    made = tmp_path_factory.mktemp("made") / "made.mp4"
    return film(made, seconds=1, sound=True).read_bytes()


@pytest.fixture(params=STAND_INS, ids=lambda kind: kind.backend)
def service(
    request: pytest.FixtureRequest,
    clip_file: bytes,
    monkeypatch: pytest.MonkeyPatch,
    settings,
) -> Iterator[StandIn]:
    """A service that makes clips at once, until told otherwise."""
    service: StandIn = request.param()
    settings.HOSTED_TIMEOUT_SECONDS = 2
    with serving(service, clip_file):
        for name, value in service.keys.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv(service.url_variable, service.address + service.base_path)
        yield service


@pytest.fixture
def rival(service: StandIn, few: PromptSet, make_version: Callable[..., Version]) -> Version:
    return make_version(
        "rival",
        backend=service.backend,
        settings=service.settings,
        price_per_second=Decimal("0.1"),
        budget=10,
    )


@pytest.fixture
def one(rival: Version, few: PromptSet) -> Callable[[], Clip]:
    """Ask for one silent clip; returns what becomes of it, read again."""
    assert queue_clips(Category.T2V_SILENT, few, [rival], limit=1).added == 1
    return Clip.objects.get
