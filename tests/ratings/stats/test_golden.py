"""The headline of a stored data set is to the thousandth of a point what it was."""

import json

import numpy as np

from tests.ratings.stats.golden import HEADLINE, golden_votes, headline


def test_the_headline_is_what_it_was() -> None:
    """The same seed gives the same draws with the pinned numpy and scipy.

    Another numpy may draw other numbers. Where the ratings agree and the intervals differ by a few
    points after an upgrade, that is all: write the file again as `tests.ratings.stats.golden` says.
    """
    expected, found = json.loads(HEADLINE.read_text()), headline()
    assert found.keys() == expected.keys()
    for name in ("elo", "low", "high"):
        np.testing.assert_allclose(
            np.array(found[name], dtype=float), np.array(expected[name], dtype=float), atol=1.5e-3
        )
    for name in ("rank_low", "rank_high"):
        assert found[name] == expected[name]


def test_the_stored_votes_are_worth_the_name() -> None:
    """Enough of everything that a fault in any part of the headline would show."""
    votes, stored = golden_votes(), json.loads(HEADLINE.read_text())
    assert (votes.n_votes, np.unique(votes.voter).size, np.unique(votes.prompt).size) == (
        600,
        36,
        24,
    )
    assert np.bincount(votes.outcome).min() > 50
    width = np.array(stored["high"][:-1]) - np.array(stored["low"][:-1])
    assert (width > 60).all()
    assert stored["elo"][-1] is None
    assert len({*zip(stored["rank_low"], stored["rank_high"], strict=True)}) >= 5
    assert stored["rank_low"] != stored["rank_high"]
