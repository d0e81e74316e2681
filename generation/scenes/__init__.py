"""The small world of the built-in models: a grammar of scenes, their renderer and their judge.

Numpy only. The renderer draws any sentence of the grammar together with its sound, which makes it
the yardstick for the in-house model, the source of its training clips and the measure by which
simulated voters choose.
"""
