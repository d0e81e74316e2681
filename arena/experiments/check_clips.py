"""The clips that check the voters of running experiments are made, once their sources are ready."""

from arena.experiments.start import check_prompts
from arena.models import Experiment, ExperimentState
from generation.catalogue.categories import Category
from generation.rendering.quality_checks import make_checks

# A worker stays with the checks of one experiment for so many seconds, then looks at the next.
CHECKS_SECONDS = 20


def make_check_clips() -> int:
    """Returns how many were made; what is missing afterwards is made when it is called again."""
    running = Experiment.objects.filter(state=ExperimentState.RUNNING).order_by("created_at")
    return sum(
        make_checks(
            experiment.baseline,
            Category(experiment.category),
            check_prompts(experiment),
            experiment.seed_slots,
            CHECKS_SECONDS,
        )
        for experiment in running.select_related("baseline")
    )
