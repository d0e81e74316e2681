"""The robustness findings in the words and order of their page."""

from collections.abc import Sequence
from typing import Any

from generation.models import Prompt, Version
from ratings.robustness.stored import PAIR_VOTES

# Krippendorff 2004, Content Analysis: reliable from 0.8, tentative conclusions from 0.667. Tastes
# differ more than codings of texts do, so these are words for the reader and no marks.
ALPHA_WORDS = ((0.8, "high"), (0.667, "fair"), (0.3, "modest"), (float("-inf"), "low"))
MATRIX_AT_MOST = 24  # versions shown in the table of pairs; the JSON has all


def names_of(versions: Sequence[int]) -> dict[int, str]:
    found = Version.objects.select_related("model").in_bulk(versions)
    return {pk: version.public_name for pk, version in found.items()}


def context_of(findings: dict[str, Any]) -> dict[str, Any]:
    """The tables have the ranked versions, or all that are comparable where none is ranked yet."""
    versions, ratings = findings["versions"], findings["ratings"]
    names = names_of(versions)
    known = [i for i, rating in enumerate(ratings) if rating is not None]
    shown = [i for i in known if findings["ranked"][i]] or known
    order = sorted(shown, key=lambda i: -ratings[i])
    opinions = _opinion_rows(findings, names, order)
    return {
        "votes": findings["votes"],
        "tie_percent": 100 * findings["ties"] / findings["votes"],
        "voters": findings["voters"],
        "prompts": findings["prompts"],
        "left_out": len(versions) - len(order),
        "lead": _lead(findings["lead"], names),
        "intervals": [_interval_row(findings, names, i) for i in order],
        "opinions": opinions,
        "opinions_agree": _agree(opinions),
        "online_elo_step": findings["second_opinions"]["online_elo_step"],
        "influence": _influence(findings, names),
        "agreement": _agreement(findings["agreement"]),
        "other_influences": _influences_with_names(findings["other_influences"]),
        "columns": [names[versions[i]] for i in order[:MATRIX_AT_MOST]],
        "pairs": _pair_rows(findings, names, order[:MATRIX_AT_MOST]),
        "pair_votes": PAIR_VOTES,
        "pairs_off": _pairs_off(findings, names, order),
        "pairs_left_out": max(0, len(order) - MATRIX_AT_MOST),
    }


def _lead(found: dict[str, Any], names: dict[int, str]) -> dict[str, Any]:
    if not found:
        return {}
    return {
        **found,
        "leader": names[found["leader"]],
        "runner_up": names[found["runner_up"]],
        "tied_second": found["runner_up"] in found["tied"],
        "tied_others": [names[pk] for pk in found["tied"] if pk != found["runner_up"]],
    }


def _influences_with_names(found: dict[str, Any]) -> dict[str, Any]:
    sure = [e["name"] for e in found["effects"] if e["low"] > 0 or e["high"] < 0]
    return {**found, "sure": sure}


def _interval_row(findings: dict[str, Any], names: dict[int, str], i: int) -> dict[str, Any]:
    def ends(method: str) -> dict[str, Any]:
        low, high = (side[i] for side in findings["intervals"][method])
        width = None if low is None or high is None else high - low
        return {"low": low, "high": high, "width": width}

    headline, control = ends("two_way_bootstrap"), ends("vote_bootstrap")
    wider = headline["width"] and control["width"] and headline["width"] / control["width"]
    return {
        "name": names[findings["versions"][i]],
        "rating": findings["ratings"][i],
        "headline": headline,
        "sandwich": ends("sandwich"),
        "control": control,
        "wider": wider,
    }


OPINIONS = ("davidson", "discriminants", "held_equal", "online_elo")


def _places(values: Sequence[float | None], order: Sequence[int]) -> dict[int, int]:
    """The place of each of these versions by other ratings, of those that have one."""
    known = sorted((i for i in order if values[i] is not None), key=lambda i: -(values[i] or 0.0))
    return {i: place for place, i in enumerate(known, 1)}


def _opinion_rows(
    findings: dict[str, Any], names: dict[int, str], order: Sequence[int]
) -> list[dict[str, Any]]:
    """A place has moved where it differs from the board's among the versions that both know."""
    columns = []
    for name in OPINIONS:
        values = findings["second_opinions"][name] or [None] * len(names)
        places = _places(values, order)
        on_board = {i: place for place, i in enumerate((i for i in order if i in places), 1)}
        columns.append((values, places, on_board))
    return [
        {
            "place": place,
            "name": names[findings["versions"][i]],
            "rating": findings["ratings"][i],
            "others": [
                {
                    "rating": values[i],
                    "place": places.get(i),
                    "moved": places.get(i) != on_board.get(i),
                }
                for values, places, on_board in columns
            ],
        }
        for place, i in enumerate(order, 1)
    ]


def _agree(rows: Sequence[dict[str, Any]]) -> bool:
    """Whether the models that are meant to rank, all but online Elo, have the board's leader."""
    return not any(
        other["moved"] and other["place"] == 1
        for row in rows
        for other in row["others"][: OPINIONS.index("online_elo")]
    )


def _influence(findings: dict[str, Any], names: dict[int, str]) -> dict[str, Any]:
    found = findings["influence"]
    if not found:
        return {}

    def removal(entry: dict[str, Any] | None) -> dict[str, Any] | None:
        return entry and {
            **entry,
            "leader_name": names[entry["leader"]],
            "changes": entry["leader"] != found["leader"],
        }

    prompt = removal(found["prompt"])
    if prompt:
        prompt["text"] = Prompt.objects.values_list("text", flat=True).get(pk=prompt["id"])
    fewest = found["fewest"]
    return {
        "lead": found["lead"],
        "of": found["of"],
        "fewest": {**fewest, "name": names.get(fewest["new_leader"])},
        "voter": removal(found["voter"]),
        "prompt": prompt,
    }


def _agreement(found: dict[str, Any]) -> dict[str, Any]:
    alpha = found["alpha"]
    word = None if alpha is None else next(word for least, word in ALPHA_WORDS if alpha >= least)
    biased = found["a_low"] is not None and not found["a_low"] <= 0.5 <= found["a_high"]
    percent = {
        f"{name}_percent": None if found[name] is None else 100 * found[name]
        for name in ("a_share", "a_low", "a_high")
    }
    percent["a_percent"] = percent.pop("a_share_percent")
    return {**found, **percent, "word": word, "biased": biased}


def _pairs_off(
    findings: dict[str, Any], names: dict[int, str], order: Sequence[int]
) -> list[dict[str, Any]]:
    """Pairs in which one wins more often than its rating says, by more than chance."""
    pairs = findings["head_to_head"]
    return [
        {
            "winner": names[findings["versions"][i]],
            "loser": names[findings["versions"][j]],
            "observed": 100 * pairs["observed"][i][j],
            "expected": 100 * pairs["expected"][i][j],
        }
        for i in order
        for j in order
        if pairs["beyond_chance"][i][j] and pairs["observed"][i][j] > pairs["expected"][i][j]
    ]


def _pair_rows(
    findings: dict[str, Any], names: dict[int, str], order: Sequence[int]
) -> list[dict[str, Any]]:
    pairs = findings["head_to_head"]
    return [
        {
            "place": place,
            "name": names[findings["versions"][i]],
            "cells": [
                None
                if i == j
                else {
                    "votes": pairs["votes"][i][j],
                    "observed": pairs["observed"][i][j],
                    "expected": pairs["expected"][i][j],
                    "against": names[findings["versions"][j]],
                    "few": pairs["votes"][i][j] < PAIR_VOTES,
                    "off": pairs["beyond_chance"][i][j],
                }
                for j in order
            ],
        }
        for place, i in enumerate(order, 1)
    ]
