#!/usr/bin/env python
"""Django's command line for Photofinish."""

import os
import sys
import traceback

# A pipeline reads their exit code as an answer, and Python itself ends with 1 after an error. Where
# the installation or its settings are broken they never begin, so it is seen to here.
ANSWERING = (["gate"], ["experiment"])
NO_ANSWER = 3


def main() -> None:
    from django.core.management import execute_from_command_line

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "arena.settings")
    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    try:
        main()
    except SystemExit as end:
        if sys.argv[1:2] in ANSWERING and end.code and not hasattr(end, "is_answer"):
            end.code = NO_ANSWER
        raise
    except Exception:
        if sys.argv[1:2] not in ANSWERING:
            raise
        traceback.print_exc()
        sys.exit(NO_ANSWER)
