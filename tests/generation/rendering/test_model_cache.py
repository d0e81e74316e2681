"""Models stay loaded while they fit, clips come in an order that saves loading, memory runs out."""

import logging
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from generation.backends import Request
from generation.backends.colt import backend as colt
from generation.backends.diffusers import backend as diffusers
from generation.catalogue.categories import Category, Conditions
from generation.catalogue.entries import CATALOGUE, read_toml
from generation.catalogue.prompts import load_prompt_set
from generation.media.masters import RawClip
from generation.models import Clip, ClipState, PromptSet, Version
from generation.rendering import model_cache
from generation.rendering.claims import claim_clip
from generation.rendering.model_cache import WARM
from generation.rendering.queue import queue_clips
from generation.rendering.render import render_claimed
from tests.generation.tiny_clips import ignore, same, tiny, wish

pytestmark = pytest.mark.torch

# A heartbeat comes over a connection of its own, which must see the clip.
in_the_open = pytest.mark.django_db(transaction=True)
WAN = "WanPipeline"
SENTENCE = "a big red circle bounces by day"

PROMPTS = """
slug = "two"
name = "Two scenes"
aspect = "1:1"
seconds = 1
""" + "".join(
    f'[[prompt]]\nkey = "two-{n}"\ntext = "a big red {shape} bounces by day"\n'
    for n, shape in enumerate(("circle", "square"))
)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three sets of random weights for one pipeline."""
    from tests.generation.backends.tiny_pipelines import save_wan

    home = tmp_path_factory.mktemp("weights")
    return [save_wan(home / f"wan-{n}", image=False, seed=n) for n in range(3)]


@pytest.fixture(autouse=True)
def cold(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A worker that has just begun, with all the memory there is."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setattr(model_cache, "RAM_RESERVE", 0)
    WARM.__init__()
    yield
    WARM.clear()
    torch.set_num_threads(threads)


@pytest.fixture
def loads(caplog: pytest.LogCaptureFixture) -> Callable[[], int]:
    """How many models were loaded so far."""
    caplog.set_level(logging.INFO, model_cache.__name__)
    return lambda: sum("loading a model" in message for message in caplog.messages)


@pytest.fixture
def two(db: None, tmp_path: Path) -> PromptSet:
    file = tmp_path / "two.toml"
    file.write_text(PROMPTS)
    return load_prompt_set(file)[0]


@pytest.fixture
def versions(
    make_version: Callable[..., Version], two: PromptSet, weights: list[Path]
) -> list[Version]:
    """Three versions with weights of their own, all their clips waiting in turns."""
    made = [
        make_version(
            f"wan-{name}", backend="diffusers", settings=tiny(WAN, folder),
            categories=["t2v-silent"], width=64, height=64, fps=16,
        )
        for name, folder in zip("abc", weights, strict=True)
    ]  # fmt: skip
    assert queue_clips(Category.T2V_SILENT, two).added == 6
    return made


def render(settings: dict[str, Any], seed: int = 7) -> RawClip:
    """As a worker does, who measures each clip by itself."""
    with WARM.rendering(settings["source"]):
        return diffusers.render(settings, wish(seed=seed), ignore)


def order() -> str:
    """Render all that waits; the versions' letters in the order of their clips."""
    rendered = ""
    while clip := claim_clip("test"):
        assert render_claimed(clip), Clip.objects.get(pk=clip.pk).error
        rendered += clip.version.slug[-1]
    return rendered


@in_the_open
class TestWhichClipComesNext:
    def test_in_its_turn_a_worker_stays_with_what_is_loaded(
        self, versions: list[Version], monkeypatch: pytest.MonkeyPatch, loads: Callable[[], int]
    ) -> None:
        monkeypatch.setattr(model_cache, "LOADING", 1e9)
        assert order() == "aabbcc"
        assert loads() == 3

    def test_after_its_turn_come_those_it_has_served_longest_ago(
        self, versions: list[Version], monkeypatch: pytest.MonkeyPatch, loads: Callable[[], int]
    ) -> None:
        monkeypatch.setattr(model_cache, "LOADING", 0)
        monkeypatch.setattr(model_cache, "RAM_RESERVE", 1 << 60)  # one model fits at a time
        assert order() == "abcabc"
        assert loads() == 6

    def test_what_is_all_loaded_is_made_in_the_queue_s_order(
        self, versions: list[Version], monkeypatch: pytest.MonkeyPatch, loads: Callable[[], int]
    ) -> None:
        monkeypatch.setattr(model_cache, "LOADING", 0)
        Clip.objects.filter(version=versions[1], prompt__key="two-1").update(position=9)
        assert order() == "abc" + "acb"
        assert loads() == 3

    def test_two_tasks_of_a_version_may_need_two_models(
        self,
        make_version: Callable[..., Version],
        few: PromptSet,
        weights: list[Path],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        from tests.generation.backends.tiny_pipelines import save_wan

        image = tiny("WanImageToVideoPipeline", save_wan(tmp_path / "image", image=True))
        settings = tiny(WAN, weights[0])
        settings["i2v"] = {name: image[name] for name in ("pipeline", "source", "digest")}
        make_version(
            "both", backend="diffusers", settings=settings, width=64, height=64, fps=16,
            categories=["t2v-silent", "i2v-silent"],
        )  # fmt: skip
        for category in (Category.I2V_SILENT, Category.T2V_SILENT):
            assert queue_clips(category, few).refused == []
        Clip.objects.filter(category="i2v-silent").update(position=1)  # between the other two
        monkeypatch.setattr(model_cache, "LOADING", 1e9)
        made = []
        while clip := claim_clip("test"):
            assert render_claimed(clip), Clip.objects.get(pk=clip.pk).error
            made.append(clip.category)
        assert made == ["t2v-silent", "t2v-silent", "i2v-silent"]


class TestWhatStaysLoaded:
    def test_everything_that_fits(self, weights: list[Path], loads: Callable[[], int]) -> None:
        for _ in range(2):
            for folder in weights:
                render(tiny(WAN, folder))
        assert loads() == 3

    def test_else_the_least_recently_used_goes(
        self, weights: list[Path], loads: Callable[[], int], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        a, b, c = (tiny(WAN, folder) for folder in weights)
        for settings in (a, b, a):
            render(settings)
        assert loads() == 2
        free, room = model_cache._free_ram(), iter((0, 1 << 60, 1 << 60))
        assert free > 0
        monkeypatch.setattr(model_cache, "_free_ram", lambda: next(room))  # until one has gone
        render(c)
        monkeypatch.undo()
        render(a)
        assert loads() == 3
        render(b)
        assert loads() == 4


class TestWhenTheMemoryRunsOut:
    """A GPU with too little of it, played by the library's own decoder."""

    @pytest.fixture
    def fails(self, monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Any], bool]], None]:
        """Decoding runs out of memory if the condition says so of the decoder."""
        import torch
        from diffusers import AutoencoderKLWan

        decode = AutoencoderKLWan.decode

        def install(condition: Callable[[Any], bool]) -> None:
            def limited(vae: Any, *arguments: Any, **named: Any) -> Any:
                if condition(vae):
                    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
                return decode(vae, *arguments, **named)

            monkeypatch.setattr(AutoencoderKLWan, "decode", limited)

        return install

    def test_everything_else_makes_room_first(
        self, weights: list[Path], fails: Any, loads: Callable[[], int]
    ) -> None:
        a, b = (tiny(WAN, folder) for folder in weights[:2])
        render(b)
        alone = render(a)
        assert loads() == 2
        seen = weakref.WeakSet[Any]()

        def crowded(vae: Any) -> bool:
            seen.add(vae)
            return not vae.use_tiling and len(seen) > 1

        fails(crowded)
        render(b)
        assert same(alone, render(a))
        assert loads() == 2  # the pipeline itself stayed, and was not made frugal
        assert len(seen) == 1

    def test_then_the_pipeline_is_made_frugal_and_stays_so(
        self, weights: list[Path], fails: Any, loads: Callable[[], int]
    ) -> None:
        tried: list[bool] = []

        def untiled(vae: Any) -> bool:
            tried.append(vae.use_tiling)
            return not vae.use_tiling

        fails(untiled)
        settings = tiny(WAN, weights[0])
        clip = render(settings)
        assert clip.frames.shape == (16, 64, 64, 3)
        assert (tried, loads()) == ([False, True], 2)
        render(settings, seed=8)
        assert (tried, loads()) == ([False, True, True], 2)

    def test_colt_too_has_room_made_for_it(
        self, weights: list[Path], loads: Callable[[], int], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It works on the GPU where there is one, beside what is loaded there."""
        import torch
        from torch.nn import functional

        assert colt.GPU
        entry = next(
            version
            for model in read_toml(CATALOGUE)["model"]
            for version in model["version"]
            if version["slug"] == "colt-2"
        )
        settings = {**entry["settings"], "steps": 1}
        asked = Request(SENTENCE, Conditions("1:1", entry["max_seconds"]), False, seed=7)
        attend = functional.scaled_dot_product_attention
        render(tiny(WAN, weights[0]))

        def crowded(*arguments: Any, **named: Any) -> Any:
            if len(WARM._models) > 1:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
            return attend(*arguments, **named)

        monkeypatch.setattr(functional, "scaled_dot_product_attention", crowded)
        with WARM.rendering("colt"):
            clip = colt.render(settings, asked, ignore)
        assert len(clip.frames) == entry["max_seconds"] * entry["fps"]
        assert (loads(), WARM.warm) == (2, ["colt"])

    @in_the_open
    def test_then_the_clip_fails_and_says_so_and_others_are_made(
        self, versions: list[Version], fails: Any
    ) -> None:
        fails(lambda vae: True)
        clip = claim_clip("test")
        assert clip is not None
        assert not render_claimed(clip)
        clip.refresh_from_db()
        assert (clip.state, clip.attempts) == (ClipState.FAILED, 1)
        assert "runs out of GPU memory even alone and as frugal as it can be" in clip.error
        assert clip.failed_at is not None
        assert WARM.warm == []
        fails(lambda vae: False)
        Clip.objects.filter(version=versions[2]).delete()  # enough are left
        assert len(order()) == 3
