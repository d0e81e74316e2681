"""A clip of a diffusers pipeline: load it or find it warm, call it, read what it returned."""

import functools
import inspect
import json
import logging
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps

from generation.backends import CannotRender, ReportStep, Request
from generation.backends.diffusers.backend import OPTIONAL, PIPELINES, RESERVED, check_grid
from generation.backends.diffusers.weights import folder_of, size_of
from generation.media.masters import RawClip
from generation.media.profile import SOUND_SLACK
from generation.rendering.model_cache import WARM

log = logging.getLogger(__name__)


def make_clip(settings: Mapping[str, Any], request: Request, progress: ReportStep) -> RawClip:
    """Make the clip on the warm pipeline, loading it first if it is not.

    When the GPU's memory runs out although nothing else is loaded, the clip is tried once more with
    sequential offload and a tiled VAE. A pipeline that needed that stays so while it is warm.
    """
    return WARM.within_memory(
        f"{settings['pipeline']} from {settings['source']}",
        lambda frugal: _make(settings, request, progress, frugal=frugal),
        full=torch.OutOfMemoryError,
    )


def _make(
    settings: Mapping[str, Any], request: Request, progress: ReportStep, *, frugal: bool
) -> RawClip:
    pipe = _warmed(settings, frugal)
    call = _call(settings, request)
    progress(0, settings["arguments"]["num_inference_steps"])
    pipe.progress_bar = functools.partial(StepBar, progress)
    try:
        output = pipe(**call)
    except BaseException:
        pipe.maybe_free_model_hooks()  # a run that breaks off leaves models on the GPU
        raise
    frames = _pixels(output.frames, settings, request)
    if not request.audio:
        return RawClip(frames, float(settings["fps"]), None, None)
    rate = _sample_rate(pipe)
    sound = _sound(getattr(output, "audio", None), rate, len(frames), settings)
    return RawClip(frames, float(settings["fps"]), sound, rate)


def _call(settings: Mapping[str, Any], request: Request) -> dict[str, Any]:
    """Everything that is handed to the pipeline's call."""
    kind = PIPELINES[settings["pipeline"]]
    call = {
        **settings["arguments"],
        "prompt": request.text,
        "num_frames": settings["frames"],
        # On the CPU, so that a seed means the same noise on every kind of machine.
        "generator": torch.Generator("cpu").manual_seed(request.seed),
        "output_type": "np",
    }
    if kind.sized:
        call |= {"width": settings["width"], "height": settings["height"]}
    if kind.rate_argument:
        call[kind.rate_argument] = settings["fps"]
    if request.image is not None:
        size = (settings["width"], settings["height"])
        call["image"] = ImageOps.fit(request.image, size, Image.Resampling.LANCZOS)
    return call


class StepBar:
    """Stands where the library has its progress bar and reports each step.

    All pipelines tell their bar; HunyuanVideo's know no callback. What `progress` raises ends the
    run.
    """

    def __init__(self, progress: ReportStep, iterable: None = None, total: int = 0) -> None:
        self.progress, self.step, self.total = progress, 0, total

    def __enter__(self) -> "StepBar":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def update(self, steps: int = 1) -> None:
        self.step += steps
        self.progress(self.step, self.total)


def _warmed(settings: Mapping[str, Any], frugal: bool) -> Any:
    """The pipeline of these settings; versions that differ in their arguments share it."""
    os.environ["DIFFUSERS_DISABLE_REMOTE_CODE"] = "1"  # read when diffusers is first imported

    import diffusers

    pipeline_class = getattr(diffusers, settings["pipeline"])
    _check_argument_names(pipeline_class, settings)

    @functools.cache
    def folder() -> str:
        return folder_of(pipeline_class, settings)

    pipe = WARM.model(
        loaded_from(settings),
        lambda: _load(pipeline_class, settings, folder(), frugal),
        size=lambda: size_of(Path(folder())),
        on_gpu=settings["offload"] == "none" and not frugal,
    )
    _check_against_weights(pipe, settings)
    return pipe


def loaded_from(settings: Mapping[str, Any]) -> str:
    """Everything that decides what is in memory; versions that are alike in it share it."""
    names = {"pipeline", "source", "dtype", "offload"} | OPTIONAL
    return json.dumps({name: settings.get(name) for name in names}, sort_keys=True)


def _load(pipeline_class: Any, settings: Mapping[str, Any], folder: str, frugal: bool) -> Any:
    import diffusers
    import transformers

    device = "cuda" if torch.cuda.is_available() else "cpu"
    offload = "sequential" if frugal and device == "cuda" else settings["offload"]
    if offload != "none" and device == "cpu":
        raise RuntimeError(
            f"{settings['pipeline']} from {settings['source']} asks for {offload} offload, but "
            "this worker has no GPU: render this version on a host that has one."
        )
    for library in (diffusers, transformers):  # a worker's log is no place for progress bars
        library.utils.logging.disable_progress_bar()
    log.info("loading %s from %s", settings["pipeline"], settings["source"])
    dtype = getattr(torch, settings["dtype"])
    full = dict.fromkeys(PIPELINES[settings["pipeline"]].float32, torch.float32)
    pipe = pipeline_class.from_pretrained(
        folder,
        dtype={"default": dtype, **full},
        use_safetensors=True,
        trust_remote_code=False,
    )
    _adapt(pipe, settings)
    if frugal or settings.get("tiling"):
        pipe.vae.enable_tiling()
    if offload == "sequential":
        pipe.enable_sequential_cpu_offload()
    elif offload == "model":
        pipe.enable_model_cpu_offload()
    else:
        pipe.to(device)
    return pipe


def _adapt(pipe: Any, settings: Mapping[str, Any]) -> None:
    """Change the scheduler and the guider in what the settings say otherwise."""
    import diffusers

    if changes := dict(settings.get("scheduler", {})):
        name = changes.pop("class", type(pipe.scheduler).__name__)
        found = getattr(diffusers, str(name), None)
        if not (isinstance(found, type) and issubclass(found, diffusers.SchedulerMixin)):
            raise CannotRender(f"The installed library has no scheduler “{name}”.")
        scheduler: Any = found
        _check_names("scheduler", scheduler, changes)
        pipe.scheduler = scheduler.from_config(pipe.scheduler.config, **changes)
    if changes := settings.get("guider", {}):
        if getattr(pipe, "guider", None) is None:
            raise CannotRender(f"{settings['pipeline']} has no guider: remove the setting.")
        _check_names("guider", type(pipe.guider), changes)
        pipe.guider = pipe.guider.new(**changes)


def _check_names(what: str, kind: type, changes: Mapping[str, Any]) -> None:
    known = set(inspect.signature(kind).parameters)
    if unknown := set(changes) - known:
        raise CannotRender(
            f"The {what} has no setting {', '.join(sorted(unknown))}; it has "
            f"{', '.join(sorted(known))}."
        )


def _check_argument_names(pipeline_class: type, settings: Mapping[str, Any]) -> None:
    known = set(inspect.signature(pipeline_class.__call__).parameters) - RESERVED - {"self"}
    if unknown := set(settings["arguments"]) - known:
        raise CannotRender(
            f"{settings['pipeline']} has no argument {', '.join(sorted(unknown))}; it has "
            f"{', '.join(sorted(known))}."
        )


def _check_against_weights(pipe: Any, settings: Mapping[str, Any]) -> None:
    """The grid once more, by the weights themselves.

    Checkpoints of one class differ: the VAE of Wan 2.2 5B is twice as coarse as its sisters'.
    """
    kind = PIPELINES[settings["pipeline"]]
    space = (
        "vae_scale_factor_spatial",
        "vae_spatial_compression_ratio",
        "vae_spatial_scale_factor",
    )
    time = (
        "vae_scale_factor_temporal",
        "vae_temporal_compression_ratio",
        "vae_temporal_scale_factor",
    )
    network = pipe.transformer if pipe.transformer is not None else pipe.transformer_2
    patch = network.config.patch_size
    patch = patch if isinstance(patch, int) else max(patch[1:])
    check_grid(
        settings,
        math.lcm(kind.multiple, patch * _first_attribute(pipe, space)),
        math.lcm(kind.frame_step, _first_attribute(pipe, time)),
    )
    if not kind.sized:
        width, height = settings["width"], settings["height"]
        own = pipe.video_processor.calculate_default_height_width(height, width, pipe.target_size)
        if own != (height, width):
            raise CannotRender(
                f"{settings['pipeline']} from {settings['source']} makes {own[1]}x{own[0]} of an "
                f"image of {width}x{height}: set width and height to that."
            )


def _first_attribute(pipe: Any, names: tuple[str, ...]) -> int:
    return int(next(getattr(pipe, name) for name in names if hasattr(pipe, name)))


def _pixels(output: Any, settings: Mapping[str, Any], request: Request) -> npt.NDArray[np.uint8]:
    """The frames of the clip, as bytes, if they are exactly what was asked."""
    frames = np.asarray(output[0])
    asked = (settings["frames"], settings["height"], settings["width"], 3)
    if frames.shape != asked:
        raise CannotRender(
            f"{settings['pipeline']} from {settings['source']} returned frames of shape "
            f"{list(frames.shape)} where {list(asked)} were asked: mend the version's settings."
        )
    kept = frames[: round(request.conditions.seconds * settings["fps"])]
    if not np.isfinite(kept).all():
        raise CannotRender(
            f"{settings['pipeline']} from {settings['source']} returned pixels that are no "
            f"numbers in {settings['dtype']}: make a version with another dtype."
        )
    # One by one: a long clip is gigabytes as floats.
    return np.stack([np.rint(np.clip(frame, 0, 1) * 255).astype(np.uint8) for frame in kept])


def _sample_rate(pipe: Any) -> int:
    if hasattr(pipe, "audio_sample_rate"):
        return int(pipe.audio_sample_rate)
    return int(pipe.vocoder.config.output_sampling_rate)


def _sound(
    audio: Any, rate: int, frames: int, settings: Mapping[str, Any]
) -> npt.NDArray[np.float32]:
    """The sound [N, C] that goes with so many frames, from [C, N] or [1, C, N]."""
    maker = f"{settings['pipeline']} from {settings['source']}"
    if audio is None:
        raise CannotRender(f"{maker} returned no sound: take it out of the audio categories.")
    if torch.is_tensor(audio):
        audio = audio.detach().float().cpu().numpy()
    samples = np.asarray(audio, np.float32)
    if samples.ndim == 3:
        samples = samples[0]
    if samples.ndim != 2 or samples.shape[0] not in (1, 2):
        raise CannotRender(
            f"{maker} returned sound of shape {list(samples.shape)}; one or two channels are known."
        )
    if not np.isfinite(samples).all():
        raise CannotRender(
            f"{maker} returned sound that is no numbers in {settings['dtype']}: make a version "
            "with another dtype."
        )
    seconds = frames / settings["fps"]
    if samples.shape[1] < (seconds - SOUND_SLACK) * rate:
        raise CannotRender(
            f"{maker} returned {samples.shape[1] / rate:.2f} s of sound for {seconds:.2f} s of "
            "video: mend the version's settings."
        )
    return np.ascontiguousarray(np.clip(samples[:, : round(seconds * rate)].T, -1, 1))
