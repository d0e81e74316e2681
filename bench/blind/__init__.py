"""Is what a voter's machine receives blind: `make bench-blind`.

Eight made-up versions with native formats of their own make clips of the same prompts. Every clip
is imported as an operator would import it, encoded by the one encoder, and fetched as a voter's
browser fetches it. Then classifiers try to name the version from all that was received short of
the coded pictures and sound. A blind arena leaves them at chance, 1 in as many as there are
versions. What they make of the pixels and the sound is printed beside it and is not judged: those
are what voters compare. So is what they make of how long a picture's code is before its packet is
filled up: whoever takes packets apart reads there how busy a picture is, as in the picture itself.

Canvases and native sizes are a quarter of the real ones, so that it ends within the hour; packets
are as much smaller, and the rest of the profile is the real one. `--scale 1` takes the real ones.
Whether anything but coded pictures and sound differs at the real size and length is looked at
apart, on a few dozen clips. Times are of this process: no network, no server.

`--write` puts the tables into docs/methodology.md. PASS needs the whole 95 % interval of the
accuracy at or below chance + 5 points; OVER is an accuracy above that; UNSURE lies between and asks
for more clips.
"""

import os

# One thread per process: two of them already fill two cores. Set before numpy is loaded.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("SVT_LOG", "1")  # errors only
