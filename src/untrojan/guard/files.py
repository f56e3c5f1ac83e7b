"""A guard on disk: ``guard.safetensors`` holds Theta, ``guard.json`` says whose it is and how it was made.

Of a replacement, ``guard.safetensors`` holds the tensors that take the place of the victim's, as ``weights/NAME``, and
its row of Theta, if it has one, as ``theta/LAYER|PARAMETER``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from pydantic import ValidationError
from torch import Tensor

from untrojan.classifier.classifier import Classifier
from untrojan.classifier.corrected import require_own_layers
from untrojan.errors import CheckpointError, GuardMismatchError, ShapeError
from untrojan.guard.guard import Guard
from untrojan.guard.replacement import Replacement
from untrojan.records import GuardCard
from untrojan.storage import pack_safetensors, read_safetensors, read_text, require_written_together, write_bytes

FORMAT = "untrojan-guard-1"
WEIGHTS, CARD = "guard.safetensors", "guard.json"

MOST_VALUES = 2**28
"""Of an image; what a card says beyond that is a mistake."""

AnyGuard = Guard | Replacement
"""What ``repair`` makes and ``load_guard`` reads."""


def save_guard(directory: str | Path, guard: AnyGuard) -> None:
    """Write both files into a folder, which is made if it is missing; raises OutputError."""
    card = guard.require_card()
    # Clones, since weights may be tied.
    tensors = {name: tensor.cpu().contiguous().clone() for name, tensor in tensors_of(guard).items()}
    metadata = {"format": FORMAT, "victim": card.victim.sha256}
    write_bytes(Path(directory) / WEIGHTS, pack_safetensors(tensors, metadata))
    write_bytes(Path(directory) / CARD, (card.model_dump_json(indent=2) + "\n").encode())


def load_guard(directory: str | Path, classifier: Classifier) -> AnyGuard:
    """Read a guard for this classifier.

    Raises CheckpointError if a file is missing or malformed, GuardMismatchError if it was made for another victim,
    UnsupportedError for one whose copy does not use its own layers.
    """
    directory = Path(directory)
    card = load_card(directory)
    tensors, metadata = read_safetensors(directory / WEIGHTS)
    if metadata.get("format") != FORMAT:
        raise CheckpointError(f"{directory / WEIGHTS}: not a guard file, its metadata has no format '{FORMAT}'")
    own = classifier.sha256()
    for said in (card.victim.sha256, metadata.get("victim", "")):
        if said != own:
            raise GuardMismatchError(
                f"{directory}: this guard was made for the victim {said[:12]}…, and this is {own[:12]}…; "
                "run repair for this victim, with the same --mean and --std as you use it"
            )
    names = card.victim.class_names
    if names is not None and len(names) != card.victim.classes:
        raise CheckpointError(f"{directory / CARD}: it names {len(names)} of {card.victim.classes} classes")
    if len(set(card.targets)) != len(card.targets) or not set(card.targets) <= set(range(card.victim.classes)):
        raise CheckpointError(f"{directory / CARD}: its targets are not distinct classes: {list(card.targets)}")
    made = _replacement if card.form == "replacement" else _correction
    guard = made(directory, classifier, card, tensors)
    require_written_together(tensors, card.tensors_sha256, directory / WEIGHTS, CARD)
    _require_used(directory, classifier, guard, card)
    guard.card = card
    return guard


def _require_used(directory: Path, classifier: Classifier, guard: AnyGuard, card: GuardCard) -> None:
    """What images pass must be the guard's own layers."""
    shape = classifier.input_shape or card.victim.input_shape
    if min(shape) < 1 or math.prod(shape) > MOST_VALUES:
        raise CheckpointError(f"{directory / CARD}: no images have the shape {'x'.join(map(str, shape))}")
    try:
        require_own_layers(classifier, guard.victim, torch.zeros(1, *shape, device=classifier.device))
    except (RuntimeError, ShapeError) as error:
        raise CheckpointError(
            f"{directory / CARD}: an image of its shape {'x'.join(map(str, shape))} does not pass the classifier "
            f"({' '.join(str(error).split())[:120]})"
        ) from None


def tensors_of(guard: AnyGuard) -> dict[str, Tensor]:
    """What of a guard is kept in its file, by the names there."""
    if isinstance(guard, Guard):
        return guard.corrected.theta()
    weights, theta = guard.contents()
    return {**{f"weights/{n}": t for n, t in weights.items()}, **{f"theta/{n}": t for n, t in theta.items()}}


def _replacement(
    directory: Path, classifier: Classifier, card: GuardCard, tensors: Mapping[str, Tensor]
) -> Replacement:
    parts: dict[str, dict[str, Tensor]] = {"weights": {}, "theta": {}}
    for name, tensor in tensors.items():
        part, _, rest = name.partition("/")
        if part not in parts:
            raise CheckpointError(f"{directory}: {WEIGHTS} holds '{name[:80]}', which no replacement has")
        parts[part][rest] = tensor
    return Replacement(classifier, card.targets, parts["weights"], parts["theta"], where=str(directory / WEIGHTS))


def _correction(directory: Path, classifier: Classifier, card: GuardCard, tensors: Mapping[str, Tensor]) -> Guard:
    rows = {tensor.shape[0] if tensor.ndim == 2 else -1 for tensor in tensors.values()}
    if rows != {len(card.targets)}:
        raise CheckpointError(f"{directory}: {WEIGHTS} does not hold one row per target of {CARD}")
    answers = None if card.answers is None else allowed(card.answers, card.targets, card.victim.classes)
    return Guard(
        classifier,
        card.targets,
        tensors,
        answers=answers,
        margin_share=card.margin_share,
        usual_margins=[card.usual_margins.get(target, 0.0) for target in card.targets],
        where=str(directory / WEIGHTS),
    )


def allowed(answers: Mapping[int, Sequence[int]], targets: Sequence[int], classes: int) -> Tensor:
    """bool [targets, classes]; a target that ``answers`` does not name may have every class. Raises CheckpointError."""
    found = torch.ones(len(targets), classes, dtype=torch.bool)
    for row, target in enumerate(targets):
        if target in answers:
            among = {target, *answers[target]}
            if not among <= set(range(classes)):
                raise CheckpointError(f"guard card: the answers of target {target} are not classes: {sorted(among)}")
            found[row] = torch.isin(torch.arange(classes), torch.tensor(sorted(among)))
    return found


def load_card(directory: str | Path) -> GuardCard:
    """Read ``guard.json`` alone; raises CheckpointError."""
    path = Path(directory) / CARD
    if not path.exists():
        raise CheckpointError(f"{path}: no such file; give the folder that untrojan repair --out wrote")
    try:
        return GuardCard.model_validate_json(read_text(path))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "content"
        raise CheckpointError(f"{path}: not a guard card: {place}: {first['msg']}") from None
