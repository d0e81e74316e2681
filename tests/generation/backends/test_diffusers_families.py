"""Every family of pipelines that the catalogue names makes a clip, from real saved weights."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from generation.backends import CannotRender
from generation.backends.diffusers import backend as diffusers
from generation.backends.diffusers.weights import digest_of
from generation.media.masters import RawClip
from generation.rendering.model_cache import WARM
from tests.generation.tiny_clips import SQUARE, ignore, same, tiny, wish

pytestmark = pytest.mark.torch

SAMPLE_RATE = 16_000
# HunyuanVideo takes no length of its text; Kandinsky's template alone has several hundred bytes.
LONG = {"num_inference_steps": 2, "max_sequence_length": 1000}


@dataclass(frozen=True)
class Family:
    """`folder` names the weights; `tasks` are the pipeline's class by task."""

    folder: str
    tasks: dict[str, str]
    channels: int = 0  # of its sound
    arguments: dict[str, Any] | None = None


WAN = {"t2v": "WanPipeline", "i2v": "WanImageToVideoPipeline"}
FAMILIES = [
    Family("wan-2.1", {"t2v": WAN["t2v"]}),
    Family("wan-2.1-i2v", {"i2v": WAN["i2v"]}),
    Family("wan-2.2", {"t2v": WAN["t2v"]}),
    Family("wan-2.2-i2v", {"i2v": WAN["i2v"]}),
    Family("wan-2.2-5b", WAN),
    Family("ltx-2", {"t2v": "LTX2Pipeline", "i2v": "LTX2ImageToVideoPipeline"}, channels=2),
    Family("cogvideox", {"t2v": "CogVideoXPipeline"}),
    Family("cogvideox-i2v", {"i2v": "CogVideoXImageToVideoPipeline"}),
    Family("hunyuan-1.5", {"t2v": "HunyuanVideo15Pipeline"}, arguments={"num_inference_steps": 2}),
    Family(
        "hunyuan-1.5-i2v",
        {"i2v": "HunyuanVideo15ImageToVideoPipeline"},
        arguments={"num_inference_steps": 2},
    ),
    Family("kandinsky-5", {"t2v": "Kandinsky5T2VPipeline"}, arguments=LONG),
    Family("kandinsky-5-i2v", {"i2v": "Kandinsky5I2VPipeline"}, arguments=LONG),
    Family(
        "kandinsky-6",
        {"t2v": "Kandinsky6TI2VAPipeline", "i2v": "Kandinsky6TI2VAPipeline"},
        channels=1,
        arguments=LONG,
    ),
]
RUNS = [
    pytest.param(family, task, id=f"{family.folder}-{task}")
    for family in FAMILIES
    for task in family.tasks
]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Path]]:
    """The directory of a family's weights, made when it is first asked for."""
    import torch

    from tests.generation.backends import tiny_pipelines as make

    makers: dict[str, Callable[[Path], Path]] = {
        "wan-2.1": lambda folder: make.save_wan(folder, image=False),
        "wan-2.1-i2v": make.save_wan21_image,
        "wan-2.2": make.save_wan22,
        "wan-2.2-i2v": lambda folder: make.save_wan(folder, image=True),
        "wan-2.2-5b": make.save_wan_5b,
        "ltx-2": lambda folder: make.save_ltx2(folder, image=False),
        "cogvideox": lambda folder: make.save_cogvideox(folder, image=False),
        "cogvideox-i2v": lambda folder: make.save_cogvideox(folder, image=True),
        "hunyuan-1.5": lambda folder: make.save_hunyuan15(folder, image=False),
        "hunyuan-1.5-i2v": lambda folder: make.save_hunyuan15(folder, image=True),
        "kandinsky-5": lambda folder: make.save_kandinsky5(folder, image=False),
        "kandinsky-5-i2v": lambda folder: make.save_kandinsky5(folder, image=True),
        "kandinsky-6": make.save_kandinsky6,
    }
    home = tmp_path_factory.mktemp("families")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # tiny tensors

    def of(name: str) -> Path:
        folder = home / name
        return folder if folder.exists() else makers[name](folder)

    yield of
    torch.set_num_threads(threads)
    WARM.clear()


def settings_of(family: Family, task: str, folder: Path) -> dict[str, Any]:
    changes = {} if family.arguments is None else {"arguments": family.arguments}
    return tiny(family.tasks[task], folder, **changes)


@pytest.mark.parametrize(("family", "task"), RUNS)
def test_a_family_makes_what_is_asked(
    weights: Callable[[str], Path], family: Family, task: str
) -> None:
    settings = settings_of(family, task, weights(family.folder))
    image = SQUARE if task == "i2v" else None
    seen: list[tuple[int, int]] = []

    def render(**changes: Any) -> RawClip:
        request = wish(**{"audio": family.channels > 0, "image": image, **changes})
        return diffusers.render(settings, request, lambda *step: seen.append(step))

    clip = render()
    assert seen == [(0, 2), (1, 2), (2, 2)]
    assert (clip.frames.shape, clip.frames.dtype) == ((16, 64, 64, 3), np.uint8)
    assert clip.frames.std() > 1
    assert clip.fps == 16.0
    if family.channels:
        assert clip.audio is not None
        assert clip.audio.shape == (SAMPLE_RATE, family.channels)
        assert clip.sample_rate == SAMPLE_RATE
        assert 0 < np.abs(clip.audio).max() <= 1
    else:
        assert (clip.audio, clip.sample_rate) == (None, None)
    assert same(clip, render())
    assert not same(clip, render(seed=8))
    assert not same(clip, render(text="a small blue square falls"))
    if image is not None:
        assert not same(clip, render(image=255 - image))


class TestOneVersionWithWeightsForEachTask:
    def both(self, weights: Callable[[str], Path]) -> dict[str, Any]:
        """CogVideoX as the catalogue has it: two repositories, everything else in common."""
        of_task = ("pipeline", "source", "digest")
        t2v, i2v = (
            tiny(pipeline, weights(folder))
            for pipeline, folder in (
                ("CogVideoXPipeline", "cogvideox"),
                ("CogVideoXImageToVideoPipeline", "cogvideox-i2v"),
            )
        )
        common = {name: value for name, value in t2v.items() if name not in of_task}
        tables = {
            task: {name: table[name] for name in of_task}
            for task, table in (("t2v", t2v), ("i2v", i2v))
        }
        return {**common, **tables}

    def test_the_task_decides(self, weights: Callable[[str], Path]) -> None:
        settings = self.both(weights)
        text = diffusers.render(settings, wish(), ignore)
        alone = tiny("CogVideoXPipeline", weights("cogvideox"))
        assert same(text, diffusers.render(alone, wish(), ignore))
        image = diffusers.render(settings, wish(image=SQUARE), ignore)
        alone = tiny("CogVideoXImageToVideoPipeline", weights("cogvideox-i2v"))
        assert same(image, diffusers.render(alone, wish(image=SQUARE), ignore))

    def test_a_task_without_its_table_lacks_its_settings(
        self, weights: Callable[[str], Path]
    ) -> None:
        settings = self.both(weights)
        del settings["i2v"]
        with pytest.raises(CannotRender, match="setting pipeline, source is missing"):
            diffusers.check(settings, wish(image=SQUARE))


class TestWhatComesWithTheWeightsCanBeChanged:
    def test_the_scheduler(self, weights: Callable[[str], Path]) -> None:
        folder = weights("wan-2.1")
        plain = diffusers.render(tiny(WAN["t2v"], folder), wish(), ignore)
        for changes in (
            {"flow_shift": 12.0},
            {"class": "FlowMatchEulerDiscreteScheduler", "shift": 9.0},
        ):
            shifted = tiny(WAN["t2v"], folder, scheduler=changes)
            assert not same(plain, diffusers.render(shifted, wish(), ignore))
        # A version without the setting is not left with another's.
        assert same(plain, diffusers.render(tiny(WAN["t2v"], folder), wish(), ignore))

    def test_the_guider(self, weights: Callable[[str], Path]) -> None:
        steps = {"arguments": {"num_inference_steps": 2}}
        settings = tiny("HunyuanVideo15Pipeline", weights("hunyuan-1.5"), **steps)
        plain = diffusers.render(settings, wish(), ignore)
        guided = {**settings, "guider": {"guidance_scale": 20.0}}
        assert not same(plain, diffusers.render(guided, wish(), ignore))

    def test_tiles(self, weights: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
        from diffusers import AutoencoderKLWan

        decode, tiled = AutoencoderKLWan.decode, []

        def watched(vae: Any, *args: Any, **kwargs: Any) -> Any:
            tiled.append(vae.use_tiling)
            return decode(vae, *args, **kwargs)

        monkeypatch.setattr(AutoencoderKLWan, "decode", watched)
        for tiling in (True, False):
            diffusers.render(tiny(WAN["t2v"], weights("wan-2.1"), tiling=tiling), wish(), ignore)
        assert tiled == [True, False]

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"scheduler": {"flow": 3.0}}, "scheduler has no setting flow; it has .*flow_shift"),
            ({"scheduler": {"class": "WanPipeline"}}, "has no scheduler “WanPipeline”"),
            ({"scheduler": {"class": "Nothing"}}, "has no scheduler “Nothing”"),
            ({"guider": {"guidance_scale": 3.0}}, "WanPipeline has no guider"),
        ],
    )
    def test_into_what_exists_only(
        self, weights: Callable[[str], Path], changes: dict[str, Any], words: str
    ) -> None:
        with pytest.raises(CannotRender, match=words):
            diffusers.render(tiny(WAN["t2v"], weights("wan-2.1"), **changes), wish(), ignore)


class TestADirectoryIsPinned:
    @pytest.mark.parametrize(
        "change",
        [
            lambda folder: (folder / "vae" / "config.json").write_bytes(b"{}"),
            lambda folder: (folder / "more.safetensors").write_bytes(b""),
            lambda folder: (folder / "scheduler" / "scheduler_config.json").unlink(),
        ],
        ids=["changed", "added", "removed"],
    )
    def test_other_files_are_an_error(
        self, weights: Callable[[str], Path], tmp_path: Path, change: Callable[[Path], Any]
    ) -> None:
        import shutil

        folder = Path(shutil.copytree(weights("wan-2.1"), tmp_path / "copy"))
        settings = tiny(WAN["t2v"], folder)
        change(folder)
        with pytest.raises(CannotRender, match="not hold the files this version was entered with"):
            diffusers.render(settings, wish(), ignore)

    def test_what_a_download_keeps_beside_them_does_not_count(self, tmp_path: Path) -> None:
        (tmp_path / "weights").write_bytes(b"1")
        before = digest_of(tmp_path)
        (tmp_path / ".cache").mkdir()
        (tmp_path / ".cache" / "when").write_bytes(b"now")
        assert digest_of(tmp_path) == before

    def test_the_command_prints_the_pin(self, tmp_path: Path) -> None:
        import subprocess
        import sys

        (tmp_path / "weights").write_bytes(b"1")
        command = [sys.executable, "-m", "generation.backends.diffusers", str(tmp_path)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == digest_of(tmp_path)


def test_a_pipeline_that_sizes_by_the_image_must_arrive_at_the_settings_size(
    weights: Callable[[str], Path],
) -> None:
    """Its checkpoint is for frames of about 64x64 pixels."""
    settings = tiny(
        "HunyuanVideo15ImageToVideoPipeline",
        weights("hunyuan-1.5-i2v"),
        width=96,
        height=96,
        arguments={"num_inference_steps": 2},
    )
    with pytest.raises(CannotRender, match="makes 64x64 of an image of 96x96: set width"):
        diffusers.render(settings, wish(image=SQUARE), ignore)


@pytest.mark.parametrize(("width", "height", "target"), [(848, 480, 640), (1280, 720, 960)])
def test_the_sizes_of_hunyuanvideo_in_the_catalogue_are_its_own(
    width: int, height: int, target: int
) -> None:
    from diffusers.pipelines.hunyuan_video1_5.image_processor import HunyuanVideo15ImageProcessor

    processor = HunyuanVideo15ImageProcessor(vae_scale_factor=16)
    assert processor.calculate_default_height_width(height, width, target) == (height, width)
