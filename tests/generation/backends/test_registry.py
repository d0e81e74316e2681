"""A new backend is a new file: names are found in the folders, and each loads."""

import subprocess
import sys

import pytest

from generation.backends import CannotRender, Renderer
from generation.backends.registry import (
    BACKENDS,
    HOSTED,
    RENDERED_HERE,
    load_backend,
    load_renderer,
    load_service,
)
from generation.hosted.service import Service


def test_every_backend_is_found() -> None:
    assert RENDERED_HERE == ("colt", "diffusers", "scenes")
    assert HOSTED == ("ark", "dashscope", "fal", "kling", "runway", "veo")
    assert set(BACKENDS) == {*RENDERED_HERE, *HOSTED, "imported"}


def test_every_backend_loads() -> None:
    assert all(isinstance(load_renderer(name), Renderer) for name in RENDERED_HERE)
    assert all(isinstance(load_service(name), Service) for name in HOSTED)
    assert all(callable(load_backend(name).check) for name in BACKENDS)


@pytest.mark.parametrize("load", [load_backend, load_renderer])
def test_an_unknown_backend_is_refused_with_those_there_are(load) -> None:
    with pytest.raises(CannotRender, match="There is no backend “nope”; there are colt, diffusers"):
        load("nope")


def test_a_backend_that_is_not_hosted_is_no_service() -> None:
    with pytest.raises(CannotRender, match="“colt” is not hosted; hosted are ark, dashscope"):
        load_service("colt")


def test_names_are_listed_without_loading_a_backend() -> None:
    code = (
        "import sys\n"
        "from generation.backends.registry import BACKENDS, RENDERERS, SERVICES\n"
        "loaded = {*RENDERERS.values(), *SERVICES.values(), 'torch', 'numpy'} & set(sys.modules)\n"
        "assert not loaded, loaded\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
