"""Sentences of the scene world and what they mean, in both directions.

a big red star bounces at night
a small blue circle slides left while a big green square falls by day
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

SIZES = ("small", "big")
COLOURS = ("red", "green", "blue", "yellow", "purple")
SHAPES = ("circle", "square", "triangle", "star")
MOTIONS = ("bounces", "falls", "rises", "slides left", "slides right", "pulses")
TIMES = ("by day", "at night")

WORDS = tuple(
    sorted(
        {"a", "while"}
        | {
            word
            for group in (SIZES, COLOURS, SHAPES, MOTIONS, TIMES)
            for phrase in group
            for word in phrase.split()
        }
    )
)


class NotAScene(ValueError):
    """The sentence is not one of the grammar; the message says where it leaves it."""


@dataclass(frozen=True)
class Actor:
    size: str
    colour: str
    shape: str
    motion: str

    def __str__(self) -> str:
        return f"a {self.size} {self.colour} {self.shape} {self.motion}"


@dataclass(frozen=True)
class Scene:
    actors: tuple[Actor, ...]
    time: str

    def __str__(self) -> str:
        return " while ".join(map(str, self.actors)) + f" {self.time}"


def parse(text: str) -> Scene:
    """The scene a sentence describes; raises `NotAScene` with the first word that does not fit."""
    words = text.lower().rstrip(".").split()
    position = 0

    def take(phrases: tuple[str, ...], what: str) -> str:
        nonlocal position
        for phrase in phrases:
            length = len(phrase.split())
            if words[position : position + length] == phrase.split():
                position += length
                return phrase
        found = f"“{words[position]}”" if position < len(words) else "the end"
        expected = ", ".join(phrases)
        raise NotAScene(
            f"“{text}” is not a scene: word {position + 1} should be {what} ({expected}), "
            f"found {found}."
        )

    actors = []
    while True:
        take(("a",), "an article")
        actors.append(
            Actor(
                take(SIZES, "a size"),
                take(COLOURS, "a colour"),
                take(SHAPES, "a shape"),
                take(MOTIONS, "a motion"),
            )
        )
        if words[position : position + 1] != ["while"]:
            break
        position += 1
        if len(actors) == 2:
            raise NotAScene(f"“{text}” is not a scene: it has more than two actors.")
    time = take(TIMES, "a time of day")
    if position != len(words):
        raise NotAScene(f"“{text}” is not a scene: nothing may follow “{time}”.")
    return Scene(tuple(actors), time)


def draw_scene(rng: np.random.Generator, pair_share: float = 0.25) -> Scene:
    """A random scene; with probability `pair_share` one of two actors that differ in colour."""
    colours = rng.permutation(COLOURS)
    count = 2 if rng.random() < pair_share else 1
    actors = tuple(
        Actor(
            str(rng.choice(SIZES)),
            str(colours[index]),
            str(rng.choice(SHAPES)),
            str(rng.choice(MOTIONS)),
        )
        for index in range(count)
    )
    return Scene(actors, str(rng.choice(TIMES)))
