"""Prints the digest of a directory of weights, for the settings of a version.

Ends with 1 and a sentence if the directory can't be read whole, with 2 if none was named.
"""

import argparse
import sys
from pathlib import Path

from generation.backends import CannotRender
from generation.backends.diffusers.weights import digest_of

parser = argparse.ArgumentParser("python -m generation.backends.diffusers", description=__doc__)
parser.add_argument("folder", type=Path, help="the directory that holds the weights")
folder = parser.parse_args().folder
try:
    print(digest_of(folder))
except CannotRender as error:
    sys.exit(str(error))
except OSError as error:
    sys.exit(f"{error.filename or folder} can't be read: {error.strerror}.")
