"""The peers' side of `make bench-ratings`, run by the Python that has their packages.

They ask for other versions of numpy than the site does, so they live in an environment of their
own, and nothing of Photofinish is imported here. Each task writes JSON to standard output, one
object a line and as soon as it is known, so that what was finished counts when time runs out.
"""

import json
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

PEER_REPLICATES = 1000
ELO_PER_LOGIT = 400 / np.log(10)


class Votes:
    def __init__(self, path: str) -> None:
        with np.load(path) as columns:
            self.a, self.b = columns["a"], columns["b"]
            self.outcome = columns["outcome"]  # 0 A won, 1 B, 2 a tie
        self.n_versions = int(max(self.a.max(), self.b.max())) + 1


def say(**found: Any) -> None:
    print(json.dumps(found), flush=True)


def numbers_of_replicates(full: bool) -> Iterator[int]:
    """Ever more, so that the time for all of them can be told from those that were finished."""
    count = 2
    while count < PEER_REPLICATES and not full:
        yield count
        count *= 2
    yield PEER_REPLICATES


def evalica_ratings(votes: Votes, _: bool) -> None:
    import evalica

    for name, chosen in (("bradley_terry", votes.outcome >= 0), ("newman", votes.outcome < 2)):
        found = getattr(evalica, name)(*_for_evalica(votes, chosen), index=_index(votes))
        logits = np.log(found.scores.sort_index().to_numpy())
        say(name=name, elo=(ELO_PER_LOGIT * (logits - logits.mean())).tolist())


def evalica_bootstrap(votes: Votes, full: bool) -> None:
    """Its own, on the votes as they are; percentiles, for BCa would refit once for each vote."""
    import evalica

    columns = _for_evalica(votes, votes.outcome >= 0)
    for count in numbers_of_replicates(full):
        begin = time.perf_counter()
        evalica.bootstrap(
            evalica.bradley_terry,
            *columns,
            index=_index(votes),
            n_resamples=count,
            bootstrap_method="percentile",
            random_state=1,
        )
        say(replicates=count, seconds=time.perf_counter() - begin)


def evalica_refits(votes: Votes, full: bool) -> None:
    """The quickest way to use it: votes added up per pair and outcome and resampled as weights."""
    import evalica

    rng = np.random.default_rng(1)
    for count in numbers_of_replicates(full):
        begin = time.perf_counter()
        n = votes.n_versions
        cells = np.bincount((votes.a * n + votes.b) * 3 + votes.outcome, minlength=3 * n * n)
        seen = np.flatnonzero(cells)
        a, b = (seen // 3 // n).tolist(), (seen // 3 % n).tolist()
        winners = np.array([evalica.Winner.X, evalica.Winner.Y, evalica.Winner.Draw])
        won, share = winners[seen % 3].tolist(), cells[seen] / cells.sum()
        for drawn in rng.multinomial(cells.sum(), share, size=count).astype(float):
            evalica.bradley_terry(a, b, won, weights=drawn, index=_index(votes))
        say(replicates=count, seconds=time.perf_counter() - begin)


def arena_rank_ratings(votes: Votes, _: bool) -> None:
    from arena_rank.models.bradley_terry import BradleyTerry

    # Its fit has no prior either; what it regularises is the matrix of its intervals.
    found = BradleyTerry(votes.n_versions).fit(_for_arena_rank(votes)).params["ratings"]
    logits = np.asarray(found)
    say(name="BradleyTerry", elo=(ELO_PER_LOGIT * (logits - logits.mean())).tolist())


def arena_rank_bootstrap(votes: Votes, full: bool) -> None:
    from arena_rank.models.bradley_terry import BradleyTerry

    # It forks, and a forked child of JAX's threads hangs; a spawned one does not.
    multiprocessing.set_start_method("spawn")
    begin = time.perf_counter()
    data = _for_arena_rank(votes)
    preparing = time.perf_counter() - begin
    for count in numbers_of_replicates(full):
        begin = time.perf_counter()
        BradleyTerry(votes.n_versions).compute_ratings_and_cis(
            data, ci_method="bootstrap", num_bootstrap=count
        )
        say(replicates=count, seconds=preparing + time.perf_counter() - begin)


def plot(path: str) -> None:
    """Draw the curves that standard input holds as JSON: `sizes`, and `seconds` by name."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "photofinish"  # the same numbers make the same file
    from matplotlib import pyplot

    data = json.load(sys.stdin)
    figure, axes = pyplot.subplots(figsize=(7, 4.5), facecolor="white", layout="constrained")
    for (name, seconds), marker in zip(data["seconds"].items(), "os^D", strict=True):
        axes.loglog(data["sizes"], seconds, marker=marker, label=name)
    axes.set(xlabel="votes", ylabel="seconds", facecolor="white")
    axes.grid(which="major", alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(path, facecolor="white", metadata={"Date": None})


def _index(votes: Votes) -> Any:
    import pandas as pd

    return pd.Index(range(votes.n_versions))


def _for_evalica(votes: Votes, chosen: np.ndarray) -> tuple[list[int], list[int], list[Any]]:
    import evalica

    winners = [evalica.Winner.X, evalica.Winner.Y, evalica.Winner.Draw]
    won = [winners[code] for code in votes.outcome[chosen].tolist()]
    return votes.a[chosen].tolist(), votes.b[chosen].tolist(), won


def _for_arena_rank(votes: Votes) -> Any:
    import pandas as pd
    from arena_rank.utils.data_utils import PairDataset

    winner = np.array(["model_a", "model_b", "tie"])[votes.outcome]
    frame = pd.DataFrame({"model_a": votes.a, "model_b": votes.b, "winner": winner})
    return PairDataset.from_pandas(frame)


PEER_TASKS: dict[str, Callable[[Votes, bool], None]] = {
    "evalica-ratings": evalica_ratings,
    "evalica-bootstrap": evalica_bootstrap,
    "evalica-refits": evalica_refits,
    "arena-rank-ratings": arena_rank_ratings,
    "arena-rank-bootstrap": arena_rank_bootstrap,
}


def main() -> None:
    task, path, *rest = sys.argv[1:]
    if task == "plot":
        plot(path)
    else:
        PEER_TASKS[task](Votes(path), rest == ["full"])


if __name__ == "__main__":
    main()
