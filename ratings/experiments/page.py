"""The facts that the pages of experiments show: in words, and in the coordinates of drawings."""

import math
from typing import Any
from uuid import UUID

from django.utils.dateparse import parse_datetime

from arena.experiments.obstacles import note_of, noted_obstacles
from arena.experiments.panels import VOTER_ID_SHOWN, voter_names
from arena.experiments.proposal import default_name
from arena.models import DefectKind, Exclusion, Experiment, ExperimentState
from arena.templatetags.numbers import number
from generation.catalogue.categories import Category
from generation.media.profile import PROFILE
from generation.models import Prompt
from generation.rendering.progress import spell
from ratings.elo_scale import block_effect, elo_of_score
from ratings.experiments.state import newest_assessments
from ratings.models import Assessment, Delivery, StoppingRule, Verdict

WIDTH, HEIGHT = 600, 160  # of a drawing, in its own units
PENTANOMIAL = (
    "both for the baseline",
    "one for the baseline, one even",
    "one each, or both even",
    "one even, one for the candidate",
    "both for the candidate",
)
DAMAGE = {
    "frozen": "frozen picture",
    "noisy": "strong grain",
    "shuffled": "frames shuffled",
    "sound shifted": "sound shifted",
    "sound replaced": "replaced sound",
}


def usual_elo(normalised: float, counts: list[int]) -> float | None:
    """About how many Elo points so many normalised ones are, as these blocks' scores spread.

    They are the same where votes are independent and nobody ties. None where nothing spreads.
    """
    blocks = sum(counts)
    if not blocks:
        return None
    mean = sum(score / 4 * count for score, count in enumerate(counts)) / blocks
    squares = sum((score / 4 - mean) ** 2 * count for score, count in enumerate(counts))
    spread = math.sqrt(squares / blocks)
    if not spread:
        return None
    return elo_of_score(0.5 + block_effect(normalised) * spread)


def plan_facts(plan: dict[str, Any]) -> dict[str, Any]:
    """A plan as the planner's page shows it: shares in percent, lengths of time in words."""
    verdicts = ("pass", "regressed", "inconclusive")
    return {
        **plan,
        "tie_percent": 100 * plan["tie_rate"],
        "pairs": plan["clip_pairs"],
        "measured": spell(plan["measured_seconds"]),
        "clips": [
            row | {"time": None if row["seconds"] is None else spell(row["seconds"])}
            for row in plan["clips"]
        ],
        "truths": [
            row | {f"{name}_percent": 100 * row[name] for name in verdicts}
            for row in plan["truths"]
        ],
    }


def status_of(experiment: Experiment, verdict: str) -> dict[str, str]:
    """The mark and the word of an experiment."""
    if verdict:
        return {"mark": verdict, "word": Verdict(verdict).label}
    state = ExperimentState(experiment.state)
    if state in (ExperimentState.CANCELLED, ExperimentState.FAILED):
        return {"mark": "cancelled", "word": state.label}
    return {"mark": "running", "word": "Running"}


def rows_of(experiments: list[Experiment]) -> list[dict[str, Any]]:
    """The list of experiments, selected with their notes of obstacles; one query for where they
    stand."""
    made = newest_assessments(experiments)
    return [
        {
            "experiment": experiment,
            "made": made.get(experiment.pk),
            "category": Category(experiment.category),
            "named": experiment.name
            != default_name(experiment.candidate, experiment.baseline, experiment.category),
            **status_of(experiment, made[experiment.pk].verdict if experiment.pk in made else ""),
            "blocked": bool(noted_obstacles(experiment)),
        }
        for experiment in experiments
    ]


def page_of(experiment: Experiment, made: Assessment | None) -> dict[str, Any]:
    """All that the page shows; `made` is the newest assessment, None before there is one."""
    context: dict[str, Any] = {
        "experiment": experiment,
        "category": Category(experiment.category),
        "made": made,
        "panels": list(experiment.panels.all()),
        "public_percent": 100 * experiment.public_share,
        "muted_percent": 100 * experiment.muted_share,
        "obstacles": noted_obstacles(experiment),
        "obstacle_note": note_of(experiment),
        "history": _history(experiment),
        "deliveries": list(
            Delivery.objects.filter(assessment__experiment=experiment).order_by("-assessment")
        ),
        **status_of(experiment, made.verdict if made else ""),
    }
    if made is None:
        return context
    found = made.findings
    answers = found["answers"]
    ties = (answers["tie"] + answers["both_bad"]) / made.votes if made.votes else 0.0
    return {
        **context,
        "found": found,
        "sentence": _sentence(experiment, made),
        "rule": made.get_rule_display(),
        "margin_elo": usual_elo(experiment.margin, found["counts"]),
        "tie_percent": 100 * ties,
        "votes_left": max(0, experiment.max_votes - made.votes),
        "vote_percent": min(100.0, 100 * made.votes / experiment.max_votes),
        "e_value": made.e_value,
        "alarm": 1 / experiment.alpha,
        "drawings": _drawings(made),
        "ranges": {
            "normalised": _range(found["normalised"]["low"], found["normalised"]["high"]),
            "plain": _range(found["plain"]["low"], found["plain"]["high"]),
        },
        "estimate": _estimate(made),
        "estimate_bar": _estimate_bar(experiment, made),
        "pentanomial": _pentanomial(found["counts"]),
        "trust": _trust(found["trust"], found["fewest_answers"]),
        **_with_words(experiment, made),
    }


def _range(low: float | None, high: float | None) -> str:
    return "unknown" if low is None or high is None else f"{number(low)} to {number(high)}"


def _sentence(experiment: Experiment, made: Assessment) -> str:
    candidate, baseline = experiment.candidate.name, experiment.baseline.name
    if made.verdict == Verdict.PASS:
        return (
            f"{candidate} is not worse than {baseline} by the margin of {experiment.margin:g} "
            "normalised Elo."
        )
    if made.verdict == Verdict.REGRESSED:
        if made.rule == "e-process":
            return (
                f"{candidate} is worse than {baseline}. If it were not worse, the chance of "
                f"votes this clear would be at most {experiment.alpha:.3g}."
            )
        return (
            f"{candidate} is worse than {baseline}. The votes support “worse by the margin of "
            f"{experiment.margin:g} normalised Elo” over “not worse”."
        )
    if made.verdict == Verdict.INCONCLUSIVE:
        return f"The votes don't show whether {candidate} is worse than {baseline}."
    if experiment.state == ExperimentState.CANCELLED:
        return "Cancelled before there was a verdict."
    if experiment.state == ExperimentState.FAILED:
        return "Ended without a verdict."
    if not made.blocks:
        return "No clip pair has been judged by two voters yet."
    return f"Still collecting votes to decide whether {candidate} is worse than {baseline}."


def _estimate(made: Assessment) -> dict[str, str] | None:
    """How far the candidate is below or above the baseline, in words instead of signs."""
    if made.estimate is None or made.low is None or made.high is None:
        return None
    low, high = (f"{abs(end):.0f}" for end in (made.low, made.high))
    if made.high <= 0:
        words = f"{high} to {low} below"
    else:
        words = f"{low} to {high} above" if made.low >= 0 else f"{low} below to {high} above"
    word = "below" if made.estimate < 0 else "above"
    return {"points": f"{abs(made.estimate):.0f}", "word": word, "range": words}


# --- drawings -------------------------------------------------------------------------------------


def _drawings(made: Assessment) -> dict[str, Any] | None:
    """Both curves over the blocks, and what each is decided at."""
    found = made.findings
    curves = found["curves"]
    if not curves["block"]:
        return None
    llr, log_e = curves["llr"], curves["log_e"]
    last = curves["block"][-1]
    decided = made.decided_at and round(WIDTH * made.decided_at / last, 1)
    ratio = _plane([*llr, found["lower"], found["upper"], 0.0])
    wealth = _plane([*log_e, found["log_alarm"], 0.0])
    return {
        "width": WIDTH,
        "height": HEIGHT,
        "last": last,
        "decided": decided,
        "llr": {
            "points": _polyline(curves["block"], llr, ratio),
            "zero": _y(0.0, ratio),
            "upper": _y(found["upper"], ratio),
            "lower": _y(found["lower"], ratio),
        },
        "log_e": {
            "points": _polyline(curves["block"], log_e, wealth),
            "zero": _y(0.0, wealth),
            "alarm": _y(found["log_alarm"], wealth),
        },
    }


def _plane(values: list[float]) -> tuple[float, float]:
    """Lowest and highest of what is drawn, with a little room."""
    low, high = min(values), max(values)
    room = 0.04 * (high - low)
    return low - room, high + room


def _y(value: float, plane: tuple[float, float]) -> float:
    low, high = plane
    return round(HEIGHT * (high - value) / (high - low), 1)


def _polyline(blocks: list[int], values: list[float], plane: tuple[float, float]) -> str:
    """From nothing at no blocks."""
    points = zip([0, *blocks], [0.0, *values], strict=True)
    return " ".join(f"{WIDTH * x / blocks[-1]:.1f},{_y(y, plane)}" for x, y in points)


def _estimate_bar(experiment: Experiment, made: Assessment) -> dict[str, Any] | None:
    """The interval on an axis of Elo points with the margin and zero, in percent of its width."""
    estimate, low, high = made.estimate, made.low, made.high
    if estimate is None or low is None or high is None:
        return None
    margin = -(usual_elo(experiment.margin, made.findings["counts"]) or 0.0)
    begin, end = min(low, margin, 0.0) - 10, max(high, 0.0) + 10

    def percent(value: float) -> float:
        return round(100 * (value - begin) / (end - begin), 2)

    names = {"low": low, "high": high, "estimate": estimate, "zero": 0.0, "margin": margin}
    return {name: percent(value) for name, value in names.items()} | {"begin": begin, "end": end}


def _pentanomial(counts: list[int]) -> list[dict[str, Any]]:
    most = max(*counts, 1)
    return [
        {"name": name, "count": number, "percent": round(100 * number / most, 1)}
        for name, number in zip(PENTANOMIAL, counts, strict=True)
    ]


# --- trust, and names for numbers -----------------------------------------------------------------


def _percents(found: dict[str, Any]) -> dict[str, Any]:
    """The same with shares in percent."""
    shares = ("share", "low", "high", "chance")
    return found | {
        name: None if found[name] is None else 100 * found[name] for name in shares if name in found
    }


def _trust(trust: dict[str, Any], fewest: int) -> dict[str, Any]:
    shown: dict[str, Any] = {name: _percents(found) for name, found in trust.items()}
    shown["gold"]["kinds"] = [
        _percents(kind) | {"name": DAMAGE.get(kind["kind"], kind["kind"])}
        for kind in trust["gold"]["kinds"]
    ]
    doubtful = [name for name, found in trust.items() if found["word"] == "doubtful"]
    few = [name for name, found in trust.items() if found["word"] == "too few"]
    passed = len(trust) - len(doubtful) - len(few)
    return {**shown, "doubtful": doubtful, "few": few, "passed": passed, "fewest": fewest}


def _with_words(experiment: Experiment, made: Assessment) -> dict[str, Any]:
    """What the findings tell by numbers alone, with prompts' words and voters' names."""
    found = made.findings
    pairs = found["worst"] + [pair for row in found["slices"] for pair in row["pairs"]]
    marks = found["defects"]["marks"]
    wanted = {each["prompt"] for each in pairs + marks}
    prompts = Prompt.objects.only("text", "aspect").in_bulk(wanted)
    for each in pairs + marks:
        prompt = prompts[each["prompt"]]
        each["words"] = prompt.text
        each["width"], each["height"] = PROFILE.canvases[prompt.aspect]
    for mark in marks:
        mark["label"] = DefectKind(mark["kind"]).label
        of_candidate = mark["whose"] == "candidate"
        mark["name"] = (experiment.candidate if of_candidate else experiment.baseline).name
    kinds = [
        {"label": DefectKind(kind).label, **row} for kind, row in found["defects"]["kinds"].items()
    ]
    tags = [{"tag": tag, **row} for tag, row in found["defects"]["tags"].items()]
    return {
        "worst": found["worst"],
        "slices": found["slices"],
        "sound": found["sound"] and _sound_words(found["sound"]),
        "defects": {"kinds": kinds, "tags": tags, "marks": marks},
        **_people(found["contributors"]),
    }


def _sound_words(sound: dict[str, Any]) -> dict[str, Any]:
    beyond = sound["low"] is not None and not sound["low"] <= 0 <= sound["high"]
    less = sound["difference"] < 0
    points = -100 if less else 100  # so that it reads "less" with no sign beside it
    ends = [None if sound[name] is None else points * sound[name] for name in ("low", "high")]
    low, high = reversed(ends) if less else ends
    return {
        "gap": points * sound["difference"],
        "word": "less" if less else "more",
        "low": low,
        "high": high,
        "rows": sound["rows"],
        "beyond": beyond,
    }


def _people(found: dict[str, Any]) -> dict[str, Any]:
    """The voters with their names, and why those who were taken out were."""
    rows = found["shown"] + found["excluded"]
    names = voter_names([UUID(row["voter"]) for row in rows])
    latest = (
        Exclusion.objects.filter(voter__in=[row["voter"] for row in found["excluded"]])
        .order_by("voter_id", "-pk")
        .distinct("voter_id")
        .select_related("by")
    )
    entries = {entry.voter_id: entry for entry in latest}
    for row in rows:
        row["short"] = row["voter"][:VOTER_ID_SHOWN]
        row["name"] = names[UUID(row["voter"])]
        row["entry"] = entries.get(UUID(row["voter"]))
        if row.get("residual") is not None:
            row["residual_percent"] = 100 * row["residual"]
    usual = [row for row in found["shown"] if not row["stands_out"]]
    return {
        "contributors": found["shown"],
        "unusual": [row for row in found["shown"] if row["stands_out"]],
        "usual": usual,
        "others": len(usual) + found["more"],
        "more": found["more"],
        "excluded": found["excluded"],
    }


def _history(experiment: Experiment) -> list[dict[str, Any]]:
    """Every verdict change, newest first, with what took a verdict away or gave it back."""
    rows = (
        Assessment.objects.filter(experiment=experiment)
        .order_by("pk")
        .values(
            "verdict",
            "rule",
            "blocks",
            "votes",
            "decided_at",
            "created_at",
            "findings__verdict_change",
        )
    )
    changes: list[dict[str, Any]] = []
    verdict = ""
    for row in rows:
        if row["verdict"] == verdict:
            continue
        verdict = row["verdict"]
        cause = row["findings__verdict_change"]
        if cause:
            cause["word"] = Verdict(cause["from"]).label if cause["from"] else "Not decided"
            for entry in cause["because"]:
                entry["at"] = parse_datetime(entry["at"])
        changes.append(
            {
                **row,
                "cause": cause,
                "word": Verdict(verdict).label if verdict else "Reopened",
                "mark": verdict or "running",
                "rule": dict(StoppingRule.choices).get(row["rule"], ""),
            }
        )
    return changes[::-1]
