"""Second opinions: the same votes looked at in other ways. No leaderboard is made of them.

`davidson` gives ties a chance of their own, `voters` trusts each voter by how sharply they judge,
`covariates` holds equal what else may sway a vote, and `online_elo` depends on the order of the
votes. `influence` says how few votes, and whose, decide who is first; `agreement` says whether
voters agree with each other and with themselves.
"""
