"""How small triggers get in honest classifiers: what every verdict is measured against.

Made by ``benchmarks/calibration.py`` from the clean victims of the zoo's calibration half; a test compares it with the
record. For each test and kind, or the two that are judged together: the location of a Gumbel distribution, the law of
the largest of many values, and its scales above and below there, fitted to the largest value of each clean victim.
"""

NULL: dict[tuple[str, str], tuple[float, float, float]] = {
    ("margin", "margin"): (0.324, 0.16, 0.132),
    ("mixed", "additive"): (0.301, 0.154, 0.241),
    ("mixed", "blend"): (-0.076, 0.068, 0.147),
    ("mixed", "patch"): (0.235, 0.16, 0.247),
    ("mixed", "patch+additive"): (0.274, 0.128, 0.189),
    ("mixed", "warp"): (0.185, 0.122, 0.179),
    ("pair", "additive"): (0.773, 0.093, 0.169),
    ("pair", "patch"): (0.985, 0.203, 0.218),
    ("pair", "patch+additive"): (0.825, 0.118, 0.175),
    ("single", "additive"): (0.328, 0.233, 0.305),
    ("single", "blend"): (0.302, 0.269, 0.189),
    ("single", "patch"): (0.377, 0.251, 0.262),
    ("single", "patch+additive"): (0.393, 0.147, 0.486),
    ("single", "patch+additive+blend"): (0.218, 0.177, 0.43),
    ("target", "additive"): (0.059, 0.102, 0.049),
    ("target", "blend"): (0.069, 0.198, 0.109),
    ("target", "patch"): (0.094, 0.154, 0.073),
    ("target", "patch+additive"): (0.062, 0.119, 0.074),
    ("target", "warp"): (0.058, 0.086, 0.047),
}

NULL_OF_MANY: dict[tuple[str, str], tuple[float, float, float]] = {
    ("margin", "margin"): (0.187, 0.179, 0.026),
    ("mixed", "additive"): (-0.948, 0.187, 0.26),
    ("mixed", "patch"): (-1.027, 0.47, 0.155),
    ("mixed", "patch+additive"): (-0.857, 0.174, 0.207),
    ("source", "additive"): (0.341, 0.215, 0.516),
    ("source", "patch"): (0.493, 0.511, 0.322),
    ("source", "patch+additive"): (0.627, 0.19, 0.597),
    ("target", "additive"): (0.507, 0.088, 0.219),
    ("target", "patch"): (0.749, 0.199, 0.334),
    ("target", "patch+additive"): (0.614, 0.09, 0.285),
    ("target", "warp"): (0.033, 0.417, 0.031),
}
"""The same of networks of more than 20 classes, whose sizes are compared in another way (``anomaly.usual``); where it
says nothing, ``NULL`` holds."""

CLASSES, PROBES, PROBES_OF_MANY = 10, 4, 5
"""How many values, in effect, they were fitted to the largest of; the largest of more is larger."""

TESTS, TESTS_OF_MANY = 6.8, 8.87
"""How many independent tests there are in effect: those of a scan are related, since a network that is easily moved in
one way is so in others."""
