"""Any text- or image-to-video pipeline of the diffusers library, as a backend.

A version's settings say everything that determines its clips; nothing is guessed:

    pipeline   class name, one of KINDS, such as "WanPipeline"
    source     "org/name" on the Hugging Face hub, or an absolute directory
    revision   of the hub's repository: the commit, 40 hexadecimal digits
    digest     of a directory: what `python -m generation.backends.diffusers DIRECTORY` prints
    dtype      "bfloat16", "float16" or "float32"
    offload    "none", "model" or "sequential": what leaves the GPU while it is not needed
    width, height, frames, fps
    arguments  the rest of the pipeline's call: num_inference_steps, guidance_scale ...
    tiling     whether the VAE works in tiles; left out, it does not
    scheduler  what differs from the scheduler that comes with the weights: class, flow_shift ...
    guider     what differs from the guider that comes with the weights: guidance_scale ...
    t2v, i2v   tables: what one task has otherwise. Their weights may be two repositories, but size,
               length, frame rate, dtype and offload belong to the version

The library rounds a size or a frame count that doesn't fit and logs a warning. Here that is an
error, before anything is loaded: two versions are only comparable if each made what it was asked.
Without a revision or a digest a version can be entered, and neither activated nor rendered.

Pipelines stay loaded while they fit (generation/backends/warm.py). Weights are read from
safetensors files alone, and no code that lies beside them is ever run.
"""

import functools
import hashlib
import inspect
import json
import logging
import math
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from generation.backends import CannotRender, NeverRenders, Progress, Request
from generation.backends.warm import WARM
from generation.categories import ratio
from generation.encoding import FILL_WITHIN, SOUND_SLACK, RawClip

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Kind:
    """What a pipeline class makes and which sizes its public checkpoints take."""

    image: Literal["never", "always", "may"]
    sound: bool
    multiple: int  # of width and height, in pixels
    frame_step: int  # frames are 1 more than a multiple of this
    rate_argument: str = ""  # by what name the model is told the frame rate, if it is told
    float32: tuple[str, ...] = ()  # components whose authors run them in full precision
    sized: bool = True  # whether it is told the size; if not, it takes its own from the image


# Read in the source of diffusers 0.42.1. Where a class itself only asks for multiples of its VAE's
# scale, the patches of its transformer are counted in. CogVideoX compresses time by 4, but its VAE
# gives the asked number of frames only for an odd number of latents.
KINDS: Mapping[str, Kind] = {
    "WanPipeline": Kind("never", False, 16, 4, float32=("vae",)),
    "WanImageToVideoPipeline": Kind("always", False, 16, 4, float32=("vae", "image_encoder")),
    "LTXPipeline": Kind("never", False, 32, 8, "frame_rate"),
    "LTXImageToVideoPipeline": Kind("always", False, 32, 8, "frame_rate"),
    "LTX2Pipeline": Kind("never", True, 32, 8, "frame_rate"),
    "LTX2ImageToVideoPipeline": Kind("always", True, 32, 8, "frame_rate"),
    "Kandinsky6TI2VAPipeline": Kind("may", True, 16, 4, "frame_rate"),
    "CogVideoXPipeline": Kind("never", False, 16, 8),
    "CogVideoXImageToVideoPipeline": Kind("always", False, 16, 8),
    "HunyuanVideo15Pipeline": Kind("never", False, 16, 4),
    "HunyuanVideo15ImageToVideoPipeline": Kind("always", False, 16, 4, sized=False),
    "Kandinsky5T2VPipeline": Kind("never", False, 16, 4),
    "Kandinsky5I2VPipeline": Kind("always", False, 16, 4),
    "MochiPipeline": Kind("never", False, 16, 6),
}
SETTINGS = {
    "pipeline", "source", "dtype", "offload", "width", "height", "frames", "fps", "arguments",
}  # fmt: skip
PINS = {"revision", "digest"}
OPTIONAL = PINS | {"tiling", "scheduler", "guider"}
TASKS = ("t2v", "i2v")
OF_A_TASK = {"pipeline", "source", "arguments", "scheduler", "guider"} | PINS
DTYPES = ("bfloat16", "float16", "float32")
OFFLOADS = ("none", "model", "sequential")
# Set from the request and from the settings above, or not to be set at all.
RESERVED = {
    "prompt", "image", "width", "height", "num_frames", "frame_rate", "generator", "output_type",
    "return_dict", "callback_on_step_end", "callback_on_step_end_tensor_inputs", "latents",
    "audio_latents", "num_videos_per_prompt",
}  # fmt: skip
HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
GPU = True
COMMIT = re.compile(r"[0-9a-f]{40}")
DIGEST = re.compile(r"[0-9a-f]{64}")
# Within this a rendition fills its canvas, so that no bars tell which model made it.
ASPECT_TOLERANCE = FILL_WITHIN


# --- what can be told before anything is loaded --------------------------------------------------


def check(settings: Mapping[str, Any], request: Request) -> None:
    settings = of_task(settings, request)
    kind = _check_settings(settings)
    _check_grid(settings, kind.multiple, kind.frame_step)
    _check_request(settings, kind, request)


def of_task(settings: Mapping[str, Any], request: Request) -> dict[str, Any]:
    """The settings that hold for what is asked: the task's own over those beside its table."""
    for task in TASKS:
        table = settings.get(task, {})
        if not isinstance(table, Mapping):
            raise NeverRenders(f"The setting {task} is {table!r}; it must be a table.")
        if other := set(table) - OF_A_TASK:
            raise NeverRenders(
                f"The setting {', '.join(sorted(other))} can't differ between tasks: take it out "
                f"of {task}."
            )
    common = {name: value for name, value in settings.items() if name not in TASKS}
    return {**common, **settings.get("t2v" if request.image is None else "i2v", {})}


def _check_settings(settings: Mapping[str, Any]) -> Kind:
    """The settings by themselves: complete, known, and pinned to files that can't change."""
    if missing := SETTINGS - set(settings):
        raise NeverRenders(f"The diffusers setting {', '.join(sorted(missing))} is missing.")
    if unknown := set(settings) - SETTINGS - OPTIONAL:
        raise NeverRenders(
            f"Unknown diffusers setting {', '.join(sorted(unknown))}; there are "
            f"{', '.join(sorted(SETTINGS | OPTIONAL))}, t2v and i2v."
        )
    pipeline = settings["pipeline"]
    if not (isinstance(pipeline, str) and pipeline in KINDS):
        raise NeverRenders(
            f"The pipeline “{pipeline}” is not known here; known are {', '.join(KINDS)}."
        )
    _check_source(settings)
    for name, known in (("dtype", DTYPES), ("offload", OFFLOADS)):
        if settings[name] not in known:
            raise NeverRenders(
                f"The setting {name} is {settings[name]!r}; it can be {', '.join(known)}."
            )
    for name in ("width", "height", "frames"):
        if type(settings[name]) is not int or settings[name] < 1:
            raise NeverRenders(
                f"The setting {name} is {settings[name]!r}; it must be a whole number above 0."
            )
    fps = settings["fps"]
    if type(fps) not in (int, float) or not (math.isfinite(fps) and fps > 0):
        raise NeverRenders(f"The setting fps is {fps!r}; it must be a number above 0.")
    if type(settings.get("tiling", False)) is not bool:
        raise NeverRenders(f"The setting tiling is {settings['tiling']!r}; it is true or false.")
    for name in ("arguments", "scheduler", "guider"):
        if not isinstance(settings.get(name, {}), Mapping):
            raise NeverRenders(f"The setting {name} is {settings[name]!r}; it must be a table.")
    _check_arguments(settings["arguments"])
    return KINDS[pipeline]


def _check_source(settings: Mapping[str, Any]) -> None:
    """The source has the one form or the other, and is pinned the way of its form."""
    source = settings["source"]
    if isinstance(source, str) and Path(source).is_absolute():
        pin, other, form = "digest", "revision", DIGEST
        how = f"a directory: set digest to what `python -m {__name__} {source}` prints"
    elif isinstance(source, str) and HUB_NAME.fullmatch(source):
        pin, other, form = "revision", "digest", COMMIT
        how = "on the hub: set revision to the 40 hexadecimal digits of a commit"
    else:
        raise NeverRenders(
            f"The source {source!r} is neither “org/name” on the hub nor an absolute directory."
        )
    if settings.get(other) is not None:
        raise NeverRenders(
            f"The source {source} has no {other}, because it is {how.split(':')[0]}."
        )
    value = settings.get(pin)
    if not (isinstance(value, str) and form.fullmatch(value)):
        raise NeverRenders(f"The source {source} must be pinned. It is {how}, not {value!r}.")


def _check_arguments(arguments: Mapping[str, Any]) -> None:
    if reserved := RESERVED & set(arguments):
        raise NeverRenders(
            f"The argument {', '.join(sorted(reserved))} is set by the arena: remove it from "
            "arguments."
        )
    # The defaults of a library change with it; the number of steps is what a version stands for.
    steps = arguments.get("num_inference_steps")
    if type(steps) is not int or steps < 1:
        raise NeverRenders(
            f"The argument num_inference_steps is {steps!r}; it must be a whole number above 0."
        )


def _check_grid(settings: Mapping[str, Any], multiple: int, frame_step: int) -> None:
    """Refuse what the pipeline would round."""
    pipeline, width, height = settings["pipeline"], settings["width"], settings["height"]
    if width % multiple or height % multiple:
        raise NeverRenders(
            f"{pipeline} can't make {width}x{height}: both must be multiples of {multiple}; the "
            f"nearest are {_nearest(width, multiple)}x{_nearest(height, multiple)}."
        )
    frames = settings["frames"]
    if excess := (frames - 1) % frame_step:
        raise NeverRenders(
            f"{pipeline} can't make {frames} frames: they must be 1 more than a multiple of "
            f"{frame_step}; the nearest are {frames - excess} and {frames - excess + frame_step}."
        )


def _nearest(length: float, multiple: int) -> int:
    return max(1, round(length / multiple)) * multiple


def _check_request(settings: Mapping[str, Any], kind: Kind, request: Request) -> None:
    pipeline, width, height = settings["pipeline"], settings["width"], settings["height"]
    if request.image is None and kind.image == "always":
        raise CannotRender(f"{pipeline} needs a reference image: ask it for image to video only.")
    if request.image is not None and kind.image == "never":
        raise CannotRender(f"{pipeline} takes no reference image: ask it for text to video only.")
    if request.audio and not kind.sound:
        raise CannotRender(f"{pipeline} makes no sound: ask it for silent clips only.")
    wanted = ratio(request.conditions.aspect)
    if _differ(width / height, wanted):
        fitting = _nearest(height * wanted, kind.multiple)
        raise CannotRender(
            f"{width}x{height} is not {request.conditions.aspect} within {ASPECT_TOLERANCE:.0%}: "
            f"{fitting}x{height} would be nearest."
        )
    if request.image is not None:
        image_height, image_width = request.image.shape[:2]
        if _differ(image_width / image_height, width / height):
            raise CannotRender(
                f"The reference image has {image_width}x{image_height} pixels, another shape than "
                f"{width}x{height}, and would be distorted: give one of the prompt's own aspect."
            )
    seconds, fps = request.conditions.seconds, settings["fps"]
    if settings["frames"] < (needed := round(seconds * fps)):
        allowed = math.ceil((needed - 1) / kind.frame_step) * kind.frame_step + 1
        raise CannotRender(
            f"{settings['frames']} frames are too few for {seconds:g} s at {fps:g} frames a "
            f"second: set frames to {allowed} or more."
        )


def _differ(one: float, other: float) -> bool:
    return abs(one / other - 1) > ASPECT_TOLERANCE


# --- making a clip -------------------------------------------------------------------------------


def render(settings: Mapping[str, Any], request: Request, progress: Progress) -> RawClip:
    """Make the clip on the warm pipeline, loading it first if it is not.

    When the GPU's memory runs out although nothing else is loaded, the clip is tried once more with
    sequential offload and a tiled VAE. A pipeline that needed that stays so while it is warm.
    """
    import torch

    check(settings, request)
    settings = of_task(settings, request)
    return WARM.within_memory(
        f"{settings['pipeline']} from {settings['source']}",
        lambda frugal: _make(settings, request, progress, frugal=frugal),
        full=torch.OutOfMemoryError,
    )


def _make(
    settings: Mapping[str, Any], request: Request, progress: Progress, *, frugal: bool
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
    import torch

    kind = KINDS[settings["pipeline"]]
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
        image = Image.fromarray(request.image)
        call["image"] = ImageOps.fit(image, size, Image.Resampling.LANCZOS)
    return call


class StepBar:
    """Stands where the library has its progress bar and reports each step.

    All pipelines tell their bar; HunyuanVideo's know no callback. What `progress` raises ends the
    run.
    """

    def __init__(self, progress: Progress, iterable: None = None, total: int = 0) -> None:
        self.progress, self.step, self.total = progress, 0, total

    def __enter__(self) -> "StepBar":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def update(self, steps: int = 1) -> None:
        self.step += steps
        self.progress(self.step, self.total)


# --- the warm pipeline ---------------------------------------------------------------------------


def _warmed(settings: Mapping[str, Any], frugal: bool) -> Any:
    """The pipeline of these settings; versions that differ in their arguments share it."""
    os.environ["DIFFUSERS_DISABLE_REMOTE_CODE"] = "1"  # read when diffusers is first imported

    import diffusers

    pipeline_class = getattr(diffusers, settings["pipeline"])
    _check_argument_names(pipeline_class, settings)

    @functools.cache
    def folder() -> str:
        return _directory(pipeline_class, settings)

    pipe = WARM.model(
        loaded_from(settings),
        lambda: _load(pipeline_class, settings, folder(), frugal),
        size=lambda: sum(file.stat().st_size for file in Path(folder()).rglob("*.safetensors")),
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
    import torch
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
    full = dict.fromkeys(KINDS[settings["pipeline"]].float32, torch.float32)
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


def _directory(pipeline_class: Any, settings: Mapping[str, Any]) -> str:
    """Where the weights lie: the directory named, or the pinned revision in the hub's cache.

    Fetched in a step of its own because the library prefers a directory that happens to be called
    like the hub's repository.
    """
    source: str = settings["source"]
    if Path(source).is_absolute():
        if not (Path(source) / "model_index.json").is_file():
            raise FileNotFoundError(
                f"{source} holds no diffusers pipeline (no model_index.json): put the weights "
                "there on every machine that renders."
            )
        if (found := digest_of(Path(source))) != settings["digest"]:
            raise CannotRender(
                f"{source} does not hold the files this version was entered with: their digest is "
                f"{found}, not {settings['digest']}. Enter them as a new version."
            )
        return source
    folder = pipeline_class.download(
        source, revision=settings["revision"], use_safetensors=True, trust_remote_code=False
    )
    return str(folder)


def digest_of(folder: Path) -> str:
    """SHA-256 over the names and contents of a directory's files, hidden ones apart."""
    whole = hashlib.sha256()
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = file.relative_to(folder).as_posix()
        if not name.startswith(".") and "/." not in name:  # what a download keeps for itself
            with file.open("rb") as content:
                digest = hashlib.file_digest(content, "sha256").hexdigest()
            whole.update(f"{digest}  {name}\n".encode())
    return whole.hexdigest()


def _check_against_weights(pipe: Any, settings: Mapping[str, Any]) -> None:
    """The grid once more, by the weights themselves.

    Checkpoints of one class differ: the VAE of Wan 2.2 5B is twice as coarse as its sisters'.
    """
    kind = KINDS[settings["pipeline"]]
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
    _check_grid(
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


# --- from tensors to a clip ----------------------------------------------------------------------


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
    import torch

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


if __name__ == "__main__":
    print(digest_of(Path(sys.argv[1])))
