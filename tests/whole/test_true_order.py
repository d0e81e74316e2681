"""The order that is known by construction comes out of simulated votes."""

import requests

from tests.whole.demo import RunningDemo

STREAM = "t2v-audio"


def test_simulated_votes_find_the_true_order(demo: RunningDemo) -> None:
    demo.wait_for_all_clips()
    simulated = "SELECT count(*) FROM arena_vote WHERE simulated"
    before = demo.sql(simulated)[0][0]
    said = demo.manage(
        "simulate_votes", "--site", demo.site, "--stream", STREAM, "--voters", "60",
        "--votes", "300", "--rate", "1000",
    )  # fmt: skip
    assert "300 simulated votes cast." in said
    url = f"{demo.site}/leaderboards/{STREAM}.json"
    demo.wait_for("the refit", lambda: requests.get(url, timeout=10).json()["votes"] >= 300)
    board = requests.get(url, timeout=10).json()
    assert board["simulated_share"] > 0.5
    ratings = {row["slug"]: row["rating"] for row in board["standings"] + board["not_ranked"]}
    assert ratings["scenes-reference"] > ratings["scenes-stutter"] > ratings["scenes-faded"]
    assert ratings["colt-2"] > ratings["colt-2-early"]
    assert demo.sql(simulated)[0][0] == before + 300
