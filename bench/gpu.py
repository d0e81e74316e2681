"""What clips cost on this machine's GPU: `make bench-gpu`.

Every row is clips of one version through the worker's own path in this process: claimed, rendered,
encoded, published. Three kinds of versions: Colt's, as the catalogue has them; tiny pipelines of
every family, which show what the path and the libraries cost when the model costs nothing; and
pipelines of the published size with random weights made on the GPU, which take the time and the
memory of the real ones, and whose pictures are noise. The table goes to docs/gpu.md with the
card's name.
"""

import argparse
import logging
import os
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.markers import around_markers
from bench.servers import own_servers

PAGE = Path(__file__).resolve().parents[1] / "docs" / "gpu.md"
GPU_MARKERS = "<!-- table: written by bench.gpu -->", "<!-- end of table -->"
NO_GPU = 3
GPU_PROMPT = "a big red circle bounces by day"


@dataclass(frozen=True)
class GpuCase:
    """A version to measure, and what has to happen before it is rendered."""

    name: str
    backend: str
    settings: Mapping[str, Any]
    category: str
    aspect: str
    seconds: float
    width: int
    height: int
    fps: float
    prepare: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class GpuRow:
    case: GpuCase
    steps: int
    first: float  # s, with loading
    render: float  # s, median of the rest
    gpu: float | None  # s, likewise
    encode: float
    peak: int | None  # bytes of GPU memory


# --- what is measured ----------------------------------------------------------------------------


def colt_cases() -> Iterator[GpuCase]:
    from generation.catalogue.entries import CATALOGUE, read_toml

    for model in read_toml(CATALOGUE)["model"]:
        for version in model["version"]:
            if version["backend"] == "colt":
                yield GpuCase(
                    version["name"], "colt", version["settings"], "t2v-audio", "1:1",
                    version["max_seconds"], version["width"], version["height"], version["fps"],
                )  # fmt: skip


def tiny_cases(home: Path) -> Iterator[GpuCase]:
    """A pipeline of each family, saved and loaded, of one second at 64x64."""
    from generation.backends.diffusers.backend import PIPELINES
    from generation.backends.diffusers.weights import digest_of
    from tests.generation.backends import tiny_pipelines as save
    from tests.generation.tiny_clips import PLAIN_LTX2

    short, long = {"max_sequence_length": 32}, {"max_sequence_length": 1000}
    makers: dict[str, tuple[Callable[..., Path], dict[str, Any], dict[str, Any]]] = {
        "WanPipeline": (save.save_wan, {"image": False}, short),
        "LTX2Pipeline": (save.save_ltx2, {"image": False}, short | PLAIN_LTX2),
        "CogVideoXPipeline": (save.save_cogvideox, {"image": False}, short),
        "HunyuanVideo15Pipeline": (save.save_hunyuan15, {"image": False}, {}),
        "Kandinsky5T2VPipeline": (save.save_kandinsky5, {"image": False}, long),
        "Kandinsky6TI2VAPipeline": (save.save_kandinsky6, {}, long),
    }
    for pipeline, (make, which, arguments) in makers.items():
        folder = make(home / pipeline, **which)
        settings = {
            "pipeline": pipeline, "source": str(folder), "digest": digest_of(folder),
            "dtype": "float32", "offload": "none", "width": 64, "height": 64, "frames": 17,
            "fps": 16, "arguments": {"num_inference_steps": 4, **arguments},
        }  # fmt: skip
        category = "t2v-audio" if PIPELINES[pipeline].sound else "t2v-silent"
        yield GpuCase(f"{pipeline}, tiny", "diffusers", settings, category, "1:1", 1.0, 64, 64, 16)


def real_cases() -> Iterator[GpuCase]:
    """Published sizes. The digest is of no file: the pipeline is loaded before it is asked for."""
    sizes = {"width": 848, "height": 480, "dtype": "bfloat16", "offload": "none"}
    wan = {
        **sizes, "pipeline": "WanPipeline", "source": "/random/wan-2.1-1.3b", "digest": "0" * 64,
        "width": 832, "frames": 81, "fps": 16,
        "arguments": {"num_inference_steps": 50, "guidance_scale": 6.0},
    }  # fmt: skip
    # 720x480 is what it was trained for and no aspect of the arena; this is an eighth more.
    cog = {
        **sizes, "pipeline": "CogVideoXPipeline", "source": "/random/cogvideox-2b",
        "digest": "0" * 64, "frames": 49, "fps": 8,
        "arguments": {"num_inference_steps": 50, "guidance_scale": 6.0},
    }  # fmt: skip
    for name, settings, build in (
        ("Wan 2.1 1.3B, random weights", wan, wan_1_3b),
        ("CogVideoX 2B, random weights", cog, cogvideox_2b),
    ):
        yield GpuCase(
            name, "diffusers", settings, "t2v-silent", "16:9", 5.0, settings["width"],
            settings["height"], settings["fps"], lambda s=settings, b=build: hold(s, b),
        )  # fmt: skip


def hold(settings: Mapping[str, Any], build: Callable[[str], Any]) -> None:
    """Put a pipeline that no file holds among those that are loaded."""
    from generation.backends.diffusers.clip import loaded_from
    from generation.rendering.model_cache import WARM

    WARM.model(loaded_from(settings), lambda: build("cuda"), size=lambda: 16 << 30, on_gpu=True)


def wan_1_3b(device: str) -> Any:
    """The configuration of Wan-AI/Wan2.1-T2V-1.3B-Diffusers."""
    import torch
    from diffusers import (
        AutoencoderKLWan,
        UniPCMultistepScheduler,
        WanPipeline,
        WanTransformer3DModel,
    )
    from transformers import UMT5Config, UMT5EncoderModel

    from tests.generation.backends.tiny_pipelines import byte_tokenizer

    text = {"d_model": 4096, "d_kv": 64, "d_ff": 10240, "num_layers": 24, "num_heads": 64}
    with made_on(device):
        transformer = WanTransformer3DModel(
            num_attention_heads=12, attention_head_dim=128, num_layers=30, ffn_dim=8960
        )
        encoder = UMT5EncoderModel(UMT5Config(vocab_size=256384, **text))
    with torch.device(device):
        vae = AutoencoderKLWan()
    scheduler = UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=8.0
    )
    return WanPipeline(byte_tokenizer("right"), encoder.eval(), vae.eval(), scheduler, transformer)


def cogvideox_2b(device: str) -> Any:
    """The configuration of THUDM/CogVideoX-2b, which is the library's own default."""
    from diffusers import (
        AutoencoderKLCogVideoX,
        CogVideoXDDIMScheduler,
        CogVideoXPipeline,
        CogVideoXTransformer3DModel,
    )
    from transformers import T5Config, T5EncoderModel

    from tests.generation.backends.tiny_pipelines import byte_tokenizer

    text = {"d_model": 4096, "d_kv": 64, "d_ff": 10240, "num_layers": 24, "num_heads": 64}
    gelu = {"feed_forward_proj": "gated-gelu"}
    with made_on(device):
        transformer = CogVideoXTransformer3DModel()
        encoder = T5EncoderModel(T5Config(vocab_size=32128, **text, **gelu))
        vae = AutoencoderKLCogVideoX()
    scheduler = CogVideoXDDIMScheduler(prediction_type="v_prediction", rescale_betas_zero_snr=True)
    vae.enable_tiling()  # as its authors run it
    return CogVideoXPipeline(
        byte_tokenizer("right"), encoder.eval(), vae.eval(), transformer.eval(), scheduler
    )


@contextmanager
def made_on(device: str) -> Iterator[None]:
    """Modules built within have random bfloat16 weights on the device from the start."""
    import torch

    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(device):
            yield
    finally:
        torch.set_default_dtype(before)


# --- measuring -----------------------------------------------------------------------------------


def measure(case: GpuCase, number: int, clips: int) -> GpuRow:
    """One clip to load and to warm up, then as many as asked, as a worker makes them."""
    from generation.models import Clip, ClipState, Model, Prompt, Version
    from generation.rendering.claims import claim_clip
    from generation.rendering.queue import seed_of
    from generation.rendering.render import render_claimed

    case.prepare()
    model, _ = Model.objects.get_or_create(
        slug="bench", defaults={"name": "Bench", "lab": "Bench", "weights": "open"}
    )
    version = Version.objects.create(
        model=model, slug=f"bench-{number}", name=case.name, state="active", backend=case.backend,
        settings=dict(case.settings), categories=[case.category], width=case.width,
        height=case.height, fps=case.fps, min_seconds=case.seconds, max_seconds=case.seconds,
    )  # fmt: skip
    prompt = Prompt.objects.create(
        key=f"bench-{number}", text=GPU_PROMPT, sounds=["silent", "audio"], aspect=case.aspect,
        seconds=case.seconds,
    )  # fmt: skip
    made = []
    for slot in range(clips + 1):
        clip = Clip.objects.create(
            version=version, prompt=prompt, category=case.category, seed_slot=slot,
            seed=seed_of(prompt, slot),
        )  # fmt: skip
        claimed = claim_clip("bench")
        if claimed is None or claimed.pk != clip.pk:
            raise SystemExit(f"{case.name}: another clip was claimed than the one just asked for.")
        render_claimed(claimed)
        clip.refresh_from_db()
        if clip.state != ClipState.READY:
            raise SystemExit(f"{case.name}: {clip.error}")
        made.append(clip)
    rest = made[1:]
    gpu = [clip.gpu_seconds for clip in rest if clip.gpu_seconds is not None]
    return GpuRow(
        case,
        steps=made[0].steps,
        first=made[0].render_seconds or 0.0,
        render=statistics.median(clip.render_seconds or 0.0 for clip in rest),
        gpu=statistics.median(gpu) if gpu else None,
        encode=statistics.median(clip.encode_seconds or 0.0 for clip in rest),
        peak=max((clip.gpu_peak_bytes or 0 for clip in made), default=0) or None,
    )


def gpu_table(rows: list[GpuRow]) -> str:
    lines = [
        "| version | clip | steps | first clip, s | render, s | GPU, s | encode, s | peak, GB |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        case = row.case
        size = f"{case.seconds:g} s of {case.width}x{case.height} at {case.fps:g}"
        gpu = "-" if row.gpu is None else f"{row.gpu:.2f}"
        peak = "-" if row.peak is None else f"{row.peak / 1e9:.2f}"
        lines.append(
            f"| {case.name} | {size} | {row.steps} | {row.first:.2f} | {row.render:.2f} | {gpu} | "
            f"{row.encode:.2f} | {peak} |"
        )
    return "\n".join(lines)


def write_page(card: str, rows: list[GpuRow], clips: int) -> None:
    before, after = around_markers(PAGE, *GPU_MARKERS)
    said = f"Measured on: {card}. Medians of {clips} clips after a first one."
    PAGE.write_text(f"{before}\n{said}\n\n{gpu_table(rows)}\n\n{after}", encoding="utf-8")


def bench_gpu(home: Path, clips: int, cpu: bool) -> None:
    import django
    from django.core.management import call_command

    django.setup()
    logging.getLogger("generation").setLevel(logging.WARNING)
    call_command("migrate", verbosity=0)

    from generation.rendering.workers import hardware

    cases = list(tiny_cases(home))
    if not cpu:
        cases = [*colt_cases(), *cases, *real_cases()]
    rows = []
    for number, case in enumerate(cases):
        print(f"{case.name} ...", flush=True)
        rows.append(measure(case, number, clips))
    card = hardware(gpu=not cpu)
    print(f"\n{card}; medians of {clips} clips after a first one\n\n{gpu_table(rows)}")
    if not cpu:
        write_page(card, rows, clips)
        print(f"\nWritten to {PAGE}.")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--clips", type=int, default=3, help="of each version, after a first one")
    parser.add_argument("--cpu", action="store_true", help="only the tiny ones, on the processor")
    options = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    if options.cpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""

    import torch

    if not options.cpu and not torch.cuda.is_available():
        print(
            "make bench-gpu needs a GPU and torch finds none here; ARGS=--cpu runs the tiny ones."
        )
        raise SystemExit(NO_GPU)
    with own_servers(), tempfile.TemporaryDirectory(prefix="photofinish-gpu-") as folder:
        bench_gpu(Path(folder), options.clips, options.cpu)


if __name__ == "__main__":
    main()
