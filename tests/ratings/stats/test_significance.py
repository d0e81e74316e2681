"""The formulas that pages use, against scipy; and what they load."""

import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import ndtr, ndtri
from scipy.stats import false_discovery_control

from ratings.elo_scale import NORMALISED_ELO, block_effect, elo_of_score, normalised_elo
from ratings.significance import discoveries, normal_reach, two_sided_p_value


@pytest.mark.parametrize("level", [0.5, 0.9, 0.95, 0.999_999])
def test_normal_reach_is_the_quantile(level: float) -> None:
    assert normal_reach(level) == pytest.approx(float(ndtri((1 + level) / 2)), rel=1e-12)


@pytest.mark.parametrize("deviate", [0.0, 1.959964, -2.5, 9.0])
def test_p_values_of_both_sides(deviate: float) -> None:
    assert two_sided_p_value(deviate) == pytest.approx(2 * float(ndtr(-abs(deviate))), rel=1e-9)


@settings(deadline=None)
@given(st.lists(st.one_of(st.floats(0, 0.2), st.floats(0, 1)), max_size=40), st.integers(0, 3))
def test_discoveries_are_those_of_scipy(p_values: list[float], untested: int) -> None:
    """Tests without a p-value change nothing for the others."""
    expected = (false_discovery_control(p_values) <= 0.05).tolist() if p_values else []
    corrected = false_discovery_control(p_values) if p_values else np.ones(1)
    if np.abs(corrected - 0.05).min() > 1e-12:  # equal but for rounding
        assert discoveries([*p_values, *[math.nan] * untested]) == expected + [False] * untested


def test_five_tests_by_hand() -> None:
    """Of 5 tests the third smallest may be 0.03: it pulls the second, 0.025, with it."""
    assert discoveries([0.03, 0.5, 0.001, 0.025, 0.2]) == [True, False, True, True, False]
    assert discoveries([0.031, 0.5, 0.001, 0.025, 0.2]) == [False, False, True, False, False]


def test_elo_of_a_score() -> None:
    assert elo_of_score(10 / 11) == pytest.approx(400)
    assert elo_of_score(0.5) == 0
    assert elo_of_score(0.0) == pytest.approx(-1199.826, abs=1e-3)
    assert elo_of_score(1.0) == pytest.approx(1199.826, abs=1e-3)
    assert math.isnan(elo_of_score(math.nan))


def test_normalised_elo_is_elo_where_a_vote_has_the_deviation_of_a_half() -> None:
    score, votes_per_block = 0.51, 2
    effect = (score - 0.5) / (0.5 / math.sqrt(votes_per_block))
    assert normalised_elo(effect) == pytest.approx(elo_of_score(score), rel=1e-3)
    assert block_effect(normalised_elo(effect)) == pytest.approx(effect)
    assert pytest.approx(347.4, abs=0.05) == NORMALISED_ELO


def test_they_load_no_numpy() -> None:
    code = (
        "import sys, ratings.design, ratings.significance;"
        "sys.exit(','.join({'numpy', 'scipy', 'django'} & sys.modules.keys()) or 0)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (found.returncode, found.stderr) == (0, "")
