"""The least numbers of an experiment: no verdict comes from fewer, so no design may ask for fewer.

This module imports nothing, so that the arena, the pages and the statistics all read it.
"""

# The design effect is measured from the blocks; fewer tell too little of it.
LEAST_BLOCKS = 30
LEAST_VOTES = 2 * LEAST_BLOCKS  # a block is a pair of clips judged twice
# Clustered variances need clusters: one less than these are the degrees of freedom.
LEAST_VOTERS = 4
LEAST_PROMPTS = 4

# Elo. A verdict at 5 takes some 40,000 votes; below, no panel ends, and what one voter can't see in
# a thousand pairs is no loss.
LEAST_MARGIN = 5
LEAST_CHANCE = 0.001  # of a wrong verdict
