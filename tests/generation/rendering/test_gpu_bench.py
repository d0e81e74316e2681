"""make bench-gpu, as far as it goes without a GPU."""

import subprocess
import sys
from pathlib import Path

import pytest

from bench import gpu

pytestmark = pytest.mark.torch


def test_without_a_gpu_it_says_so() -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    command = [sys.executable, "-m", "bench.gpu"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert done.stdout.splitlines() == [
        "make bench-gpu needs a GPU and torch finds none here; ARGS=--cpu runs the tiny ones."
    ]


@pytest.mark.django_db
def test_a_version_is_measured_and_written_into_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = gpu.measure(next(gpu.tiny_cases(tmp_path)), number=1, clips=1)
    assert row.steps == 4
    assert row.first > 0
    assert row.render > 0
    assert row.encode > 0
    page = tmp_path / "gpu.md"
    page.write_text(gpu.PAGE.read_text())
    monkeypatch.setattr(gpu, "PAGE", page)
    for card in ("One card", "Another card"):
        gpu.write_page(card, [row], clips=1)
    text = page.read_text()
    assert text.startswith("# What clips cost on a GPU")
    assert "Measured on: Another card. Medians of 1 clip" in text
    assert text.count("| WanPipeline, tiny | 1 s of 64x64 at 16 | 4 |") == 1
    assert "has not been run" not in text


@pytest.mark.parametrize(
    ("build", "billions"),
    [
        (gpu.wan_1_3b, {"transformer": 1.42, "text_encoder": 5.68, "vae": 0.13}),
        (gpu.cogvideox_2b, {"transformer": 1.69, "text_encoder": 4.76, "vae": 0.22}),
    ],
)
def test_the_real_sizes_are_the_published_ones(build: object, billions: dict[str, float]) -> None:
    """On the device that has no memory, so nothing is made."""
    pipe = build("meta")  # type: ignore[operator]
    for name, wanted in billions.items():
        made = sum(weights.numel() for weights in getattr(pipe, name).parameters())
        assert made / 1e9 == pytest.approx(wanted, abs=0.005)


def test_every_version_of_colt_is_measured() -> None:
    cases = list(gpu.colt_cases())
    assert len(cases) >= 2
    assert {case.backend for case in cases} == {"colt"}
    assert [case.name for case in gpu.real_cases()]
