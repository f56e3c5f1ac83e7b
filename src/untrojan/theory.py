"""Theorem 3.1 of the BNA paper: how the source class comes back as the shift of the activations is reversed.

Two classes of Gaussian images, X | Y ~ N(Y mu, sigma^2 I), and triggered ones, X_b ~ N(-mu + shift, sigma_b^2 I), which
come from the class -1 and are sent to +1. The classifier has one hidden layer with BatchNorm and linear activation,

    a_j(x) = (w_j . x - m_j) gamma_j / sqrt(v_j) + beta_j,    and answers -1 where u . a(x) > 0.

The distribution of a_j over triggered images becomes that over clean images of the class -1 if m and v are replaced by

    sqrt(v*) = r sqrt(v),    m* = r m + (r - 1) w . mu + w . shift,    r = sigma_b / sigma.

(The paper's appendix; the root signs are ours, they follow from equal variances.) In between, with alpha from 0, all
reversed, to 1, nothing: m^ = alpha m + (1 - alpha) m* and sqrt(v^) = alpha sqrt(v) + (1 - alpha) sqrt(v*).

What follows, and is simpler than the paper's proof: sqrt(v^) = s sqrt(v) with the same s = alpha + (1 - alpha) r in
every node, and w . (-mu + shift) - m^ = alpha w . shift - s (w . mu + m). With c_j = u_j gamma_j / sqrt(v_j), the
margin u . a of a triggered image is therefore Gaussian with

    mean  [s A + alpha E] / s,   A = u . beta - c . (W mu + m),   E = c . (W shift),
    standard deviation  sigma_b |c W| / s,

so that SIA = Phi((s A + alpha E) / (sigma_b |c W|)), whose argument is a straight line in alpha: from Phi^-1 of the
clean accuracy of the source class to Phi^-1(1 - ASR). SIA falls with alpha exactly if that accuracy and the ASR
together exceed 1. The paper asks for more: both beyond one half, and sigma_b <= sigma, which is not needed at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from untrojan.errors import UsageError
from untrojan.intervals import wilson
from untrojan.records import Rate

Array = NDArray[np.float64]
NORMAL = NormalDist()


@dataclass(frozen=True, kw_only=True)
class Problem:
    """The images and the classifier; all arrays float64.

    weights: W [J, D]; readout: u [J], that of the class -1 less that of +1; gamma, beta, mean, variance: BatchNorm's
    [J], variance > 0; mu: [D]; shift: [D], the trigger's; sigma, sigma_b: > 0. Raises UsageError otherwise.
    """

    weights: Array
    readout: Array
    gamma: Array
    beta: Array
    mean: Array
    variance: Array
    mu: Array
    shift: Array
    sigma: float
    sigma_b: float

    def __post_init__(self) -> None:
        nodes, inputs = self.weights.shape
        for name in ("readout", "gamma", "beta", "mean", "variance"):
            if getattr(self, name).shape != (nodes,):
                raise UsageError(f"{name} must have one value for each of {nodes} nodes: {getattr(self, name).shape}")
        for name in ("mu", "shift"):
            if getattr(self, name).shape != (inputs,):
                raise UsageError(f"{name} must have one value for each of {inputs} inputs: {getattr(self, name).shape}")
        if not (self.sigma > 0 and self.sigma_b > 0 and bool((self.variance > 0).all())):
            raise UsageError("sigma, sigma_b and every variance must be positive")


def reversal(problem: Problem) -> tuple[Array, Array]:
    """m* and v* (both [J]), with which triggered images have the activations of clean ones of their class: Eq. 2."""
    ratio = problem.sigma_b / problem.sigma
    moved = (ratio - 1) * (problem.weights @ problem.mu) + problem.weights @ problem.shift
    return ratio * problem.mean + moved, ratio**2 * problem.variance


def between(problem: Problem, alpha: float) -> tuple[Array, Array]:
    """m^ and v^ (both [J]): alpha = 1 is the classifier as it is, 0 the full reversal."""
    mean, variance = reversal(problem)
    root = alpha * np.sqrt(problem.variance) + (1 - alpha) * np.sqrt(variance)
    return alpha * problem.mean + (1 - alpha) * mean, root**2


def margins(problem: Problem, images: Array, alpha: float = 1.0) -> Array:
    """u . a of images [N, D]: float64 [N], positive where the answer is the class -1."""
    mean, variance = between(problem, alpha)
    activations = (images @ problem.weights.T - mean) * problem.gamma / np.sqrt(variance) + problem.beta
    answers: Array = activations @ problem.readout
    return answers


def sia(problem: Problem, alpha: float) -> float:
    """P(a triggered image is answered with its own class), from the mean and variance of its margin."""
    centre = float(margins(problem, (problem.shift - problem.mu)[None], alpha)[0])
    _, variance = between(problem, alpha)
    spread = problem.sigma_b * float(
        np.linalg.norm((problem.readout * problem.gamma / np.sqrt(variance)) @ problem.weights)
    )
    return NORMAL.cdf(centre / spread)


def source_accuracy(problem: Problem) -> float:
    """P(a clean image of the class -1 is answered with it)."""
    centre = float(margins(problem, -problem.mu[None])[0])
    weights = (problem.readout * problem.gamma / np.sqrt(problem.variance)) @ problem.weights
    return NORMAL.cdf(centre / (problem.sigma * float(np.linalg.norm(weights))))


def sia_between(accuracy: float, asr: float, alpha: float) -> float:
    """SIA from two rates alone, the clean accuracy of the source class and the ASR, both in (0, 1).

    >>> round(sia_between(0.9, 0.99, 0.0), 4), round(sia_between(0.9, 0.99, 1.0), 4)
    (0.9, 0.01)
    >>> round(sia_between(0.9, 0.99, 0.5), 4)
    0.3007
    """
    return NORMAL.cdf((1 - alpha) * NORMAL.inv_cdf(accuracy) + alpha * NORMAL.inv_cdf(1 - asr))


def simulated_sia(problem: Problem, alpha: float, *, samples: int, seed: int) -> Rate:
    """The share of so many triggered images that are answered with their own class, with its 95 % interval."""
    generator = np.random.default_rng(seed)
    noise = generator.standard_normal((samples, len(problem.mu)))
    images = problem.shift - problem.mu + problem.sigma_b * noise
    rate = wilson(int((margins(problem, images, alpha) > 0).sum()), samples)
    if rate is None:
        raise UsageError(f"a simulation needs at least one sample, got {samples}")
    return rate


def learnt_problem(
    *, inputs: int, nodes: int, sigma: float, sigma_b: float, poisoned: float, strength: float, seed: int
) -> Problem:
    """A classifier that has learnt the attack: random hidden weights, BatchNorm's statistics and a readout by least
    squares from a training set, of which the share ``poisoned`` of the class -1 carries the trigger and the label +1.

    strength: the length of the trigger's shift, which points in a random direction; mu has length 1.
    """
    generator = np.random.default_rng(seed)
    mu, shift = (v / np.linalg.norm(v) for v in generator.standard_normal((2, inputs)))
    shift = strength * shift
    weights = generator.standard_normal((nodes, inputs)) / np.sqrt(inputs)
    count = 4000
    labels = np.repeat([-1.0, 1.0], count)
    images = labels[:, None] * mu + sigma * generator.standard_normal((2 * count, inputs))
    stamped = round(poisoned * count)
    images[:stamped] = shift - mu + sigma_b * generator.standard_normal((stamped, inputs))
    labels[:stamped] = 1.0
    hidden = images @ weights.T
    mean, variance = hidden.mean(0), hidden.var(0)
    normalised = (hidden - mean) / np.sqrt(variance)
    readout = np.linalg.lstsq(normalised, -labels - (-labels).mean(), rcond=None)[0]
    # The offset that least squares would give the readout, as BatchNorm's beta along it.
    beta = (-labels).mean() * readout / float(readout @ readout)
    return Problem(
        weights=weights,
        readout=readout,
        gamma=np.ones(nodes),
        beta=beta,
        mean=mean,
        variance=variance,
        mu=mu,
        shift=shift,
        sigma=sigma,
        sigma_b=sigma_b,
    )
