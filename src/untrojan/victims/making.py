"""Makes victims: a network trained on a clean or a poisoned set, measured, and written with its answer key."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import platform
import time
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn

from untrojan.attacks import ATTACKS, Attack
from untrojan.classifier import Classifier, VictimCard, rng_as_found
from untrojan.data import ImageSet
from untrojan.errors import DataError, OutputError, UntrojanError, UsageError
from untrojan.evaluation.metrics import agreement
from untrojan.intervals import wilson
from untrojan.progress import Progress, Silent
from untrojan.setting import Setting
from untrojan.storage import all_finite, write_bytes
from untrojan.triggers import Trigger, save_trigger
from untrojan.version import version
from untrojan.victims import ARCHITECTURES
from untrojan.victims.training import TrainingSettings, train

WEIGHTS, TRIGGER, CARD = "victim.safetensors", "trigger.safetensors", "victim.json"
MAX_WIDTH = 1024


@dataclass(frozen=True, eq=False)
class Victim:
    """A trained network in evaluation mode, the trigger that it obeys (None: a clean one), and ``victim.json``."""

    module: nn.Module
    trigger: Trigger | None
    setting: Setting | None
    card: dict[str, Any]

    def classifier(self) -> Classifier:
        """The network with its class names and input shape."""
        return Classifier(
            self.module, class_names=self.card["class_names"], input_shape=tuple(self.card["input_shape"])
        )


def make_victim(
    train_set: ImageSet,
    *,
    attack: str,
    setting: Setting | None,
    arch: str,
    training: TrainingSettings,
    device: torch.device,
    width: int | None = None,
    count: int | None = None,
    seed: int = 0,
    test: ImageSet | None = None,
    attack_options: Mapping[str, object] | None = None,
    progress: Progress | None = None,
) -> Victim:
    """Train a network on ``train_set``, poisoned by an attack of ``ATTACKS`` or not at all ("none").

    setting: whom the attack moves where; None for a clean victim. width: of the architecture; None is its default.
    count: poisoned images per source class; None is the attack's default. test: clean images to measure ACC, and ASR
    on stamped copies, which nothing is trained on. The same arguments on the same machine give the same victim; the
    global random state is not touched.
    Raises UsageError for senseless arguments, DataError if the images do not suit, UntrojanError if training diverges.
    """
    started = time.perf_counter()
    progress = progress or Silent()
    classes, shape = _classes(train_set), _shape(train_set)
    if test is not None:
        test.require_labels(classes)
        if _shape(test) != shape:
            raise DataError(
                f"{test.where}: images of shape {_shape(test)}, those to train on have {shape}; use --input"
            )
    poisoner = None if attack == "none" else build_attack(attack, attack_options or {})
    if (poisoner is None) != (setting is None) or (poisoner is None and (attack_options or count is not None)):
        raise UsageError("an attack needs a setting such as a2o:9; a clean victim takes no setting, count or option")
    images, labels, trigger = train_set.images, train_set.labels, None
    if poisoner is not None and setting is not None:
        generator = torch.Generator().manual_seed(seed)
        count = poisoner.default_count[setting.kind] if count is None else count
        trigger = poisoner.make_trigger(shape, generator)
        poisoned = poisoner.poison(
            images, labels, trigger=trigger, setting=setting, classes=classes, count=count, generator=generator
        )
        images, labels = poisoned.images, poisoned.labels
    model, module = _network(arch, width, classes, shape[0], seed)
    progress.start("training", training.epochs * -(-len(images) // training.batch_size))
    train(module, images, labels, training, seed=seed, device=device, on_step=progress.advance)
    # As it will be when loaded from its file, to the last bit of its answers.
    module.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    if not all_finite(module.state_dict()):
        raise UntrojanError(
            f"training diverged, the weights are not finite; take a rate below {training.learning_rate}"
        )
    card: dict[str, Any] = {
        "schema": "untrojan-victim-1",
        "model": model,
        "weights": WEIGHTS,
        "input_shape": shape,
        "mean": None,
        "std": None,
        "class_names": train_set.class_names,
        "attack": attack,
        "setting": None if setting is None else str(setting),
        "attack_options": {name: vars(poisoner).get(name) for name in attack_options or {}},
        "count": count,
        "poisoned_images": len(images) - len(train_set),
        "trigger": _outline(trigger),
        "seed": seed,
        "epochs": training.epochs,
        "training": dataclasses.asdict(training),
        "data": describe(train_set),
    }
    card |= {"acc": None, "asr": None, "asr_floor": None, "test_data": None}
    if test is not None:
        progress.start("measuring", len(test))
        card |= {"test_data": describe(test), **_measure(Classifier(module), test, trigger, setting, classes, progress)}
    card |= {"seconds": round(time.perf_counter() - started, 3), "device": str(device), "versions": _versions()}
    return Victim(module, trigger, setting, card)


def save_victim(folder: str | Path, victim: Victim) -> None:
    """Write ``victim.safetensors``, ``trigger.safetensors`` (not for a clean one) and, last, ``victim.json``.

    Without its card a folder is no victim: an earlier card goes first, so that whatever interrupts this leaves no card
    beside weights that it does not describe. Raises OutputError; each file is written whole or not at all.
    """
    folder = Path(folder)
    card = VictimCard.model_validate(victim.card)
    tensors = {name: value.detach().cpu().contiguous() for name, value in victim.module.state_dict().items()}
    weights = safetensors.torch.save(tensors)
    try:
        (folder / CARD).unlink(missing_ok=True)
        (folder / TRIGGER).unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write to {folder}: {error.strerror or error}; choose another --out") from None
    write_bytes(folder / WEIGHTS, weights)
    if victim.trigger is not None and victim.setting is not None:
        save_trigger(folder / TRIGGER, victim.trigger, victim.setting)
    write_bytes(folder / CARD, (card.model_dump_json(by_alias=True, indent=2) + "\n").encode())


def build_attack(name: str, options: Mapping[str, object]) -> Attack:
    """An attack of ``ATTACKS`` with its hyper-parameters, which may come as text ("3"); raises UsageError."""
    if name not in ATTACKS:
        raise UsageError(f"attack '{name}' is not one of none, {', '.join(ATTACKS)}")
    kind = ATTACKS[name]
    known = inspect.signature(kind).parameters
    hints = typing.get_type_hints(kind.__init__)
    values = {}
    for key, value in options.items():
        if key not in known:
            raise UsageError(f"attack {name} has no option '{key}'; it has {', '.join(known) or 'none'}")
        try:
            values[key] = TypeAdapter(hints.get(key, Any)).validate_python(value)
        except ValidationError as error:
            text = error.errors()[0]["msg"]
            raise UsageError(f"attack {name}: {key} cannot be '{value}' ({text[:1].lower()}{text[1:]})") from None
    return kind(**values)


def describe(images: ImageSet) -> dict[str, Any]:
    """What a set is, and a hash over its images and labels in their order."""
    digest = hashlib.sha256("".join(images.hashes()).encode())
    digest.update(images.labels.cpu().contiguous().numpy().tobytes())
    return {"where": images.where, "images": len(images), "sha256": digest.hexdigest()}


def _classes(images: ImageSet) -> int:
    """How many classes a network for these images needs."""
    present = images.classes_present()
    classes = len(images.class_names) if images.class_names else (present[-1] + 1 if present else 0)
    images.require_labels(classes)
    return classes


def _shape(images: ImageSet) -> tuple[int, int, int]:
    channels, height, width = images.images.shape[1:]
    return channels, height, width


def _network(arch: str, width: int | None, classes: int, channels: int, seed: int) -> tuple[str, nn.Module]:
    """The factory's notation, and the network with initial weights from ``seed``."""
    if arch not in ARCHITECTURES:
        raise UsageError(f"architecture '{arch}' is not one of {', '.join(ARCHITECTURES)}")
    if width is None:
        width = int(inspect.signature(ARCHITECTURES[arch]).parameters["width"].default)
    if not 1 <= width <= MAX_WIDTH:
        raise UsageError(f"width is the number of channels of the first layer, 1 to {MAX_WIDTH}, got {width}")
    with rng_as_found():
        torch.manual_seed(seed)
        module = ARCHITECTURES[arch](width=width, classes=classes, channels=channels)
    return f"{arch}?width={width}&classes={classes}&channels={channels}", module


def _measure(
    classifier: Classifier,
    test: ImageSet,
    trigger: Trigger | None,
    setting: Setting | None,
    classes: int,
    progress: Progress,
) -> dict[str, Any]:
    """ACC, ASR and its floor as {value, low, high}, None where it does not apply."""
    batches = [test.images[i : i + 256] for i in range(0, len(test), 256)]
    clean = []
    for batch in batches:
        clean.append(classifier.predict(batch).argmax(1).cpu())
        progress.advance(len(batch))
    predictions = torch.cat(clean)
    rates = {"acc": wilson(*agreement(predictions, test.labels))}
    if trigger is not None and setting is not None:
        goals = setting.target_of(test.labels, classes)
        moved = goals >= 0
        reached = torch.cat([_stamped_predictions(classifier, trigger, b) for b in batches])[moved]
        rates["asr"] = wilson(*agreement(reached, goals[moved]))
        rates["asr_floor"] = wilson(*agreement(predictions[moved], goals[moved]))
    return {name: None if rate is None else rate.model_dump() for name, rate in rates.items()}


def _stamped_predictions(classifier: Classifier, trigger: Trigger, images: Tensor) -> Tensor:
    return classifier.predict(trigger.stamp(classifier.as_float(images))).argmax(1).cpu()


def _outline(trigger: Trigger | None) -> dict[str, Any] | None:
    return None if trigger is None else {"kind": trigger.kind, "size": trigger.size, "sha256": trigger.sha256()}


def _versions() -> dict[str, str]:
    return {"untrojan": version(), "torch": torch.__version__, "python": platform.python_version()}
