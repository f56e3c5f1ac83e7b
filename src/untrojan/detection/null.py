"""How small triggers get in honest classifiers: what every verdict is measured against.

Made by ``benchmarks/calibration.py`` from the clean victims of the zoo's calibration half; a test compares it with the
record. For each test and kind, or the two that are judged together: the location of a Gumbel distribution, the law of
the largest of many values, and its scales above and below there, fitted to the largest value of each clean victim.
"""

NULL: dict[tuple[str, str], tuple[float, float, float]] = {
    ("margin", "margin"): (0.349, 0.137, 0.144),
    ("mixed", "additive"): (0.299, 0.163, 0.189),
    ("mixed", "patch"): (0.217, 0.143, 0.169),
    ("mixed", "patch+additive"): (0.274, 0.112, 0.137),
    ("mixed", "warp"): (0.281, 0.148, 0.132),
    ("pair", "additive"): (0.74, 0.116, 0.14),
    ("pair", "patch"): (1.007, 0.159, 0.249),
    ("pair", "patch+additive"): (0.809, 0.111, 0.157),
    ("target", "additive"): (0.351, 0.177, 0.121),
    ("target", "patch"): (0.561, 0.198, 0.189),
    ("target", "patch+additive"): (0.438, 0.17, 0.135),
    ("target", "warp"): (0.331, 0.092, 0.128),
}

NULL_OF_MANY: dict[tuple[str, str], tuple[float, float, float]] = {
    ("margin", "margin"): (0.187, 0.197, 0.019),
    ("mixed", "additive"): (-0.971, 0.196, 0.307),
    ("mixed", "patch"): (-0.74, 0.224, 0.496),
    ("mixed", "patch+additive"): (-0.797, 0.13, 0.196),
    ("source", "additive"): (0.341, 0.163, 0.546),
    ("source", "patch"): (0.493, 0.549, 0.344),
    ("source", "patch+additive"): (0.363, 0.28, 0.691),
    ("target", "additive"): (0.092, 0.111, 0.016),
    ("target", "patch"): (0.358, 0.241, 0.087),
    ("target", "patch+additive"): (0.212, 0.113, 0.056),
    ("target", "warp"): (0.484, 0.087, 0.307),
}
"""The same of networks of more than 20 classes, whose sizes are compared in another way (``anomaly.usual``); where it
says nothing, ``NULL`` holds."""

CLASSES, PROBES = 10, 5
"""How many values, in effect, both were fitted to the largest of; the largest of more is larger."""

TESTS, TESTS_OF_MANY = 4.66, 9.19
"""How many independent tests there are in effect: those of a scan are related, since a network that is easily moved in
one way is so in others."""
