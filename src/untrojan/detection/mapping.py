"""Where a trigger for all classes sends each of them: the mapping that an attacker laid down.

A trigger that an attacker taught to move every class to one of its own sends nearly all images of a class to the same
other one, and each class elsewhere. In an honest classifier the smallest that moves most images sends them to the few
classes that are easily reached, whatever they show. So the class of a moved image says where it went after an
all-to-all attack, and next to nothing otherwise; how large the trigger is does not come into it. UMD (Xiang et al.,
ICML 2023) compares triggers by what they do to other pairs' images, for the same reason.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from untrojan.detection.inversion import Inversion
from untrojan.detection.shares import Searches

MOST = 200
"""Images that a trigger is tried on: passes without gradients, for each of the few triggers for all classes."""


def destinations(
    searches: Searches, probes: Mapping[int, Inversion], images: Tensor, labels: Tensor, classes: int
) -> dict[int, Tensor]:
    """Of each start with a trigger, how many images of each class (rows) it moves to each other one (columns): int64
    [K, K]; none at all after the deadline.

    images: float [N, C, H, W] in [0, 1] that the classifier gets right; labels: int64 [N], below ``classes``.
    """
    found = {number: i.trigger for number, i in probes.items() if i.trigger is not None}
    if not found:
        return {}
    if searches.out_of_time():
        searches.unreached.append("where triggers for all classes send each of them")
        return {}
    index = searches.choose("mapping", len(images), MOST)
    images, labels = images[index], labels[index]
    sent: dict[int, Tensor] = {}
    for number, trigger in found.items():
        answers = searches.classifier.predict(trigger.stamp(images)).argmax(1)
        moved = answers != labels
        cells = torch.bincount(labels[moved] * classes + answers[moved], minlength=classes**2)
        sent[number] = cells.view(classes, classes)
    return sent


def only_destination(counts: Tensor, share: float) -> int | None:
    """The class that at least this share of the moved images is sent to, if there is one. counts: int64 [K, K].

    >>> import torch
    >>> only_destination(torch.tensor([[0, 0, 9], [1, 0, 9], [0, 0, 0]]), 0.9), only_destination(torch.eye(3), 0.9)
    (2, None)
    """
    columns = counts.sum(0)
    largest, total = float(columns.max()), float(columns.sum())
    return int(columns.argmax()) if total > 0 and largest >= share * total else None


def information(counts: Tensor) -> float:
    """How many nats the row of a count says of its column: the mutual information, less what so few counts have by
    chance (Miller and Madow). counts: int64 [K, K]. From 0, where all rows are alike, to log K.

    >>> import torch
    >>> round(information(100 * torch.eye(10, dtype=torch.int64)), 2), information(torch.ones(10, 10))
    (2.3, 0.0)
    """
    table = counts.double()
    total = float(table.sum())
    if total == 0:
        return 0.0
    rows, columns = table.sum(1), table.sum(0)
    plain = _entropy(rows) + _entropy(columns) - _entropy(table.flatten())
    spare = int((table > 0).sum()) - int((rows > 0).sum()) - int((columns > 0).sum()) + 1
    return max(plain - max(spare, 0) / (2 * total), 0.0)


def _entropy(counts: Tensor) -> float:
    share = counts[counts > 0] / counts.sum()
    return float(-(share * share.log()).sum())
