"""Prints the prompt set `scenes`, sentences drawn from the grammar, or its beginning, `nightly`.

cd generation/catalogue/prompt_sets
python -m generation.backends.scenes.write_prompts > scenes.toml
python -m generation.backends.scenes.write_prompts nightly > nightly.toml
"""

import sys

import numpy as np

from generation.backends.scenes.grammar import Scene, draw_scene

PROMPTS = 240
IMAGE_EVERY = 3  # every third prompt is image to video
PROMPT_SEED = 7
NIGHTLY = 16  # text to video prompts: what an experiment of the small world needs
HEADER = """\
# Written by `python -m generation.backends.scenes.write_prompts`. The images of its
# image-to-video prompts are first frames that the renderer draws when the set is loaded.
slug = "scenes"
name = "Scenes"
description = "Sentences of the built-in models' small world: coloured shapes that move and strike."
aspect = "1:1"
seconds = 2
seed_slots = 1
"""
NIGHTLY_HEADER = """\
# Written by `python -m generation.backends.scenes.write_prompts nightly`: prompts of `scenes`
# again, so that clips made for the one serve the other.
slug = "nightly"
name = "Nightly scenes"
description = "A short text-to-video set for experiments on the built-in models."
aspect = "1:1"
seconds = 2
seed_slots = 1
"""


def tags(scene: Scene) -> list[str]:
    found = ["single-subject" if len(scene.actors) == 1 else "multi-character"]
    if any(actor.motion in ("bounces", "falls") for actor in scene.actors):
        found.append("physics")
    if any(actor.motion.startswith("slides") for actor in scene.actors):
        found.append("travel")
    if scene.time == "at night":
        found.append("night")
    return found


def clear(scene: Scene) -> bool:
    """Two actors that slide along one floor hide each other: nobody could judge that."""
    return sum(actor.motion.startswith("slides") for actor in scene.actors) < 2


def main() -> None:
    rng = np.random.default_rng(PROMPT_SEED)
    chosen: list[Scene] = []
    while len(chosen) < PROMPTS:
        scene = draw_scene(rng, pair_share=0.3)
        if clear(scene) and scene not in chosen:
            chosen.append(scene)
    nightly = sys.argv[1:] == ["nightly"]
    print(NIGHTLY_HEADER if nightly else HEADER)
    printed = 0
    for index, scene in enumerate(chosen):
        with_image = index % IMAGE_EVERY == IMAGE_EVERY - 1
        if nightly and (with_image or printed == NIGHTLY):
            continue
        printed += 1
        words = ", ".join(f'"{tag}"' for tag in tags(scene))
        print(f'[[prompt]]\nkey = "scenes-{index + 1:03}"\ntext = "{scene}"\ntags = [{words}]')
        if with_image:
            print('image = "scene"')
        print()


if __name__ == "__main__":
    main()
