"""Write `headline.json` anew."""

import json

from tests.stats.golden import HEADLINE, headline

rows = (f"  {json.dumps(name)}: {json.dumps(values)}" for name, values in headline().items())
HEADLINE.write_text("{\n" + ",\n".join(rows) + "\n}\n")
