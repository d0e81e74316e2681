"""Write `headline.json` and `experiment.json` again."""

import json
from pathlib import Path
from typing import Any

from tests.ratings.stats.golden import EXPERIMENT, HEADLINE, experiment, headline


def write(path: Path, figures: dict[str, Any]) -> None:
    rows = (f"  {json.dumps(name)}: {json.dumps(values)}" for name, values in figures.items())
    path.write_text("{\n" + ",\n".join(rows) + "\n}\n")


write(HEADLINE, headline())
write(EXPERIMENT, experiment())
