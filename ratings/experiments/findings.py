"""What an experiment's votes say beyond its verdict: whether the panel can be trusted, on which
prompts the candidate does worse or better, who answers unlike the rest, sound, defects."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import numpy as np

from arena.ledger import LedgerEnd
from arena.models import BattleKind, Choice, Defect, DefectKind, Experiment
from generation.models import Prompt
from ratings.elo_scale import elo_of_score
from ratings.experiments.votes import BlockVote, CheckVote, checks_behind
from ratings.stats.parts import by_tag, contributors, parts, wilson
from ratings.stored import rounded

FEWEST_ANSWERS = 20  # from which on a check is given a word
GOLD_FINE = 0.8  # share of gold pairs in which a panel that looks finds the intact clip
FEWEST_SLICE_VOTES = 20
PAIRS_PER_SLICE = 3
WORST_PAIRS = 6
CONTRIBUTORS_SHOWN = 100
MARKS_SHOWN = 20  # newest defects, with their seconds

FINE, DOUBTFUL, FEW = "fine", "doubtful", "too few"

Pairs = Sequence[tuple[BlockVote, BlockVote]]


def compute_findings(
    experiment: Experiment, votes: Sequence[BlockVote], pairs: Pairs, end: LedgerEnd
) -> dict[str, Any]:
    """All of it as JSON; shares are 0 to 1, differences are in Elo points, null can't be told.

    `pairs` are the complete blocks of these votes.
    """
    counted = [vote for vote in votes if not vote.out]
    checks = checks_behind(experiment, end)
    complete = [vote for pair in pairs for vote in pair]
    clips = _clip_pairs(complete)
    tags = dict(
        Prompt.objects.filter(pk__in={vote.prompt for vote in counted}).values_list("pk", "tags")
    )
    slices = _slices(complete, tags, clips)
    return {
        "answers": _count_answers(counted),
        "fewest_answers": FEWEST_ANSWERS,
        "voters": len({vote.voter for vote in counted}),
        "prompts": len(tags),
        "left_out": Counter(vote.out for vote in votes if vote.out),
        "trust": {
            "same": _same_version(checks),
            "sides": _lean_to_a(counted),
            "repeats": _repeat_checks(checks),
            "gold": _gold_checks(checks),
        },
        "worst": [pair for pair in clips[:WORST_PAIRS] if pair["won"] < pair["lost"]],
        "slices": slices,
        "contributors": _contributors(votes, checks),
        "sound": _sound_effect(complete),
        "defects": _defects(experiment, {vote.id for vote in counted}, tags),
    }


def _rounded_share(value: float) -> float | None:
    return round(float(value), 4) if np.isfinite(value) else None


def _share_and_range(mean: float, n: int) -> dict[str, Any]:
    """A share of n answers with its interval."""
    low, high = wilson(mean, n)
    return {
        "n": n,
        "share": _rounded_share(mean),
        "low": _rounded_share(low),
        "high": _rounded_share(high),
    }


def _clustered_share(
    values: Sequence[float], votes: Sequence[BlockVote] | Sequence[CheckVote]
) -> dict[str, Any]:
    """The same, wider where the answers of one voter, or on one prompt, are alike."""
    found = _share_and_range(_mean(values), len(values))
    if values:
        low, high = parts(
            np.array(values, dtype=np.float64),
            _number_names([vote.voter for vote in votes]),
            _number_names([vote.prompt for vote in votes]),
            np.ones((1, len(values)), dtype=bool),
        ).interval(0)
        if np.isfinite(low):
            found["low"] = min(found["low"], max(0.0, round(low, 4)))
            found["high"] = max(found["high"], min(1.0, round(high, 4)))
    return found


def _elo(share: float) -> float | None:
    return rounded(elo_of_score(share))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else float("nan")


def _word(n: int, fine: bool) -> str:
    if n < FEWEST_ANSWERS:
        return FEW
    return FINE if fine else DOUBTFUL


def _count_answers(votes: Sequence[BlockVote]) -> dict[str, int]:
    return {
        "candidate": sum(vote.half_points == 2 for vote in votes),
        "tie": sum(vote.choice == Choice.TIE for vote in votes),
        "both_bad": sum(vote.choice == Choice.BOTH_BAD for vote in votes),
        "baseline": sum(vote.half_points == 0 for vote in votes),
    }


def _same_version(checks: Sequence[CheckVote]) -> dict[str, Any]:
    """One version under two ids: how often the first is preferred, and that in Elo points."""
    points = {"first": 1.0, "even": 0.5, "second": 0.0}
    asked = [check for check in checks if check.kind == BattleKind.SAME]
    values = [points[check.answer] for check in asked]
    found = _clustered_share(values, asked)
    zero = found["low"] <= 0.5 <= found["high"]
    in_elo = {
        name: _elo(value) if values else None
        for name, value in (
            ("elo", _mean(values)), ("elo_low", found["low"]), ("elo_high", found["high"]),
        )
    }  # fmt: skip
    return {**found, **in_elo, "zero": zero, "word": _word(len(values), zero)}


def _lean_to_a(votes: Sequence[BlockVote]) -> dict[str, Any]:
    """Of the votes with a winner, those that went to A."""
    decided = [vote for vote in votes if vote.half_points != 1]
    found = _clustered_share([float(vote.choice == Choice.A) for vote in decided], decided)
    fine = found["low"] <= 0.5 <= found["high"]
    return {**found, "word": _word(len(decided), fine)}


def _repeat_checks(checks: Sequence[CheckVote]) -> dict[str, Any]:
    """The same pair with its sides swapped: how often the answer is the same, and how often it
    would be if both answers were drawn from those given."""
    asked = [check for check in checks if check.kind == BattleKind.REPEAT]
    n = len(asked)
    before, after = Counter(c.before for c in asked), Counter(c.answer for c in asked)
    chance = sum(before[name] * after[name] for name in before) / n**2 if n else float("nan")
    found = _share_and_range(_mean([float(c.before == c.answer) for c in asked]), n)
    return {
        **found,
        "chance": _rounded_share(chance),
        "word": _word(n, n > 0 and found["low"] > chance),
    }


def _gold_checks(checks: Sequence[CheckVote]) -> dict[str, Any]:
    """A clip against itself degraded: how often the intact one is preferred."""
    by_kind: dict[str, list[float]] = defaultdict(list)
    for check in checks:
        if check.kind == BattleKind.GOLD:
            by_kind[check.damage].append(float(check.answer == "intact"))
    right = [value for values in by_kind.values() for value in values]
    found = _share_and_range(_mean(right), len(right))
    kinds = [
        {"kind": kind, **_share_and_range(_mean(by_kind[kind]), len(by_kind[kind]))}
        for kind in sorted(by_kind)
    ]
    fine = bool(right) and _mean(right) >= GOLD_FINE
    return {**found, "kinds": kinds, "word": _word(len(right), fine)}


def _number_names(names: Sequence[Any]) -> np.ndarray:
    """Names as numbers in the order in which they appear."""
    known: dict[Any, int] = {}
    return np.array([known.setdefault(name, len(known)) for name in names], dtype=np.int64)


def _candidate_points(votes: Sequence[BlockVote]) -> np.ndarray:
    return np.array([vote.half_points / 2 for vote in votes], dtype=np.float64)


def _clip_pairs(votes: Sequence[BlockVote]) -> list[dict[str, Any]]:
    """The pairs of clips that were judged, worst for the candidate first."""
    judged: dict[tuple[UUID, UUID], list[BlockVote]] = defaultdict(list)
    for vote in votes:
        judged[vote.candidate_clip, vote.baseline_clip].append(vote)
    rows = [
        {
            "candidate": str(candidate),
            "baseline": str(baseline),
            "prompt": of_pair[0].prompt,
            "slot": of_pair[0].seed_slot,
            "won": sum(vote.half_points == 2 for vote in of_pair),
            "even": sum(vote.half_points == 1 for vote in of_pair),
            "lost": sum(vote.half_points == 0 for vote in of_pair),
        }
        for (candidate, baseline), of_pair in judged.items()
    ]
    return sorted(rows, key=_how_much_won)


def _how_much_won(row: dict[str, Any]) -> float:
    """From -1 to 1, as if there were two even votes more: so that more votes weigh more."""
    return float(row["won"] - row["lost"]) / (row["won"] + row["even"] + row["lost"] + 2)


def _slices(
    votes: Sequence[BlockVote], tags: dict[int, list[str]], clips: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """The candidate on the prompts of each tag, worst first, with the pairs that show it."""
    members = _votes_of_tags(votes, tags)
    if not members:
        return []
    found = by_tag(
        _candidate_points(votes),
        _number_names([vote.voter for vote in votes]),
        _number_names([vote.prompt for vote in votes]),
        np.array(list(members.values())),
    )
    whole = elo_of_score(float(_candidate_points(votes).mean()))
    rows = []
    for index, (tag, member) in enumerate(members.items()):
        differs = bool(found.discovery[index])
        better = differs and bool(found.pooled[index] > whole)
        shown = [pair for pair in clips if tag in tags[pair["prompt"]]]
        rows.append(
            {
                "tag": tag,
                "votes": int(member.sum()),
                "prompts": sum(tag in of_prompt for of_prompt in tags.values()),
                "raw": rounded(found.raw[index]),
                "estimate": rounded(found.pooled[index]),
                "low": rounded(found.low[index]),
                "high": rounded(found.high[index]),
                "from_whole": rounded(found.pooled[index] - whole),
                "p": _rounded_share(found.p_value[index]),
                "differs": differs,
                "better": better,
                "pairs": (shown[::-1] if better else shown)[:PAIRS_PER_SLICE],
            }
        )
    return sorted(rows, key=lambda row: (row["estimate"] is None, row["estimate"] or 0, row["tag"]))


def _votes_of_tags(votes: Sequence[BlockVote], tags: dict[int, list[str]]) -> dict[str, np.ndarray]:
    """Which votes are on prompts of each tag; without tags that too few votes or all have."""
    members = {}
    for tag in sorted({tag for of_prompt in tags.values() for tag in of_prompt if tag}):
        member = np.array([tag in tags[vote.prompt] for vote in votes], dtype=bool)
        if FEWEST_SLICE_VOTES <= np.count_nonzero(member) < len(votes):
            members[tag] = member
    return members


def _contributors(votes: Sequence[BlockVote], checks: Sequence[CheckVote]) -> dict[str, Any]:
    """Each voter's answers against the rest's: who stands out first, then by votes.

    Those who were excluded stand apart, with their number of votes.
    """
    counts: dict[UUID, list[int]] = {}
    for vote in votes:
        if not vote.out:
            counts.setdefault(vote.voter, [0, 0, 0])[2 - vote.half_points] += 1
    table = np.array(list(counts.values()), dtype=np.int64).reshape(-1, 3)
    found = contributors(table)
    gold: dict[UUID, list[bool]] = defaultdict(list)
    for check in checks:
        if check.kind == BattleKind.GOLD:
            gold[check.voter].append(check.answer == "intact")
    rows: list[dict[str, Any]] = [
        {
            "voter": str(voter),
            "votes": sum(answers),
            "answers": answers,
            "residual": _rounded_share(found.residual[index]),
            "chi_square": rounded(found.chi_square[index]),
            "p": _rounded_share(found.p_value[index]),
            "stands_out": bool(found.stands_out[index]),
            "gold": len(gold[voter]),
            "gold_right": sum(gold[voter]),
        }
        for index, (voter, answers) in enumerate(counts.items())
    ]
    rows.sort(key=_list_order)
    left_out = Counter(str(vote.voter) for vote in votes if vote.out == "excluded")
    return {
        "shown": rows[:CONTRIBUTORS_SHOWN],
        "more": max(0, len(rows) - CONTRIBUTORS_SHOWN),
        "excluded": [
            {"voter": voter, "votes": number}
            for voter, number in left_out.most_common(CONTRIBUTORS_SHOWN)
        ],
    }


def _list_order(row: dict[str, Any]) -> tuple[Any, ...]:
    if row["stands_out"]:
        return 0, -row["chi_square"], row["voter"]
    return 1, -row["votes"], row["voter"]


def _sound_effect(votes: Sequence[BlockVote]) -> dict[str, Any] | None:
    """The candidate with sound against muted; None where one of the two was not shown."""
    muted = np.array([vote.muted for vote in votes], dtype=bool)
    if not muted.any() or muted.all():
        return None
    found = parts(
        _candidate_points(votes),
        _number_names([vote.voter for vote in votes]),
        _number_names([vote.prompt for vote in votes]),
        np.stack([~muted, muted]),
    )
    difference, low, high = found.difference(0, 1)
    rows = []
    for part, name in enumerate(("with sound", "muted")):
        ends = found.interval(part)
        rows.append(
            {
                "name": name,
                "votes": int(np.count_nonzero(muted == bool(part))),
                "share": _rounded_share(found.mean[part]),
                "estimate": _elo(found.mean[part]),
                "low": _elo(ends[0]),
                "high": _elo(ends[1]),
            }
        )
    return {
        "rows": rows,
        "difference": _rounded_share(difference),
        "low": _rounded_share(low),
        "high": _rounded_share(high),
    }


def _defects(
    experiment: Experiment, counted: set[int], tags: dict[int, list[str]]
) -> dict[str, Any]:
    """What was marked after the votes that count, by version and by tag."""
    marked = Defect.objects.standing().filter(vote__experiment=experiment).order_by("pk")
    by_kind = {kind: {"candidate": 0, "baseline": 0} for kind in DefectKind.values}
    of_tags: dict[str, dict[str, int]] = defaultdict(lambda: {"candidate": 0, "baseline": 0})
    marks = []
    rows = marked.values_list("vote_id", "clip_id", "clip__version_id", "kind", "second",
                              "vote__prompt_id")  # fmt: skip
    for vote, clip, version, kind, second, prompt in rows:
        if vote not in counted:
            continue
        whose = "candidate" if version == experiment.candidate_id else "baseline"
        by_kind[kind][whose] += 1
        for tag in tags[prompt]:
            of_tags[tag][whose] += 1
        marks.append({"clip": str(clip), "whose": whose, "kind": kind, "second": second,
                      "prompt": prompt})  # fmt: skip
    return {
        "kinds": {kind: row for kind, row in by_kind.items() if any(row.values())},
        "tags": {tag: of_tags[tag] for tag in sorted(of_tags)},
        "marks": marks[: -MARKS_SHOWN - 1 : -1],
    }
