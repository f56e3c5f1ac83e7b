"""Makes victims: a network trained on a clean or a poisoned set, measured, and written with its answer key."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import json
import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from untrojan.attacks import ATTACKS, Attack
from untrojan.classifier import Classifier, printable, rng_as_found
from untrojan.data import ImageSet
from untrojan.errors import DataError, UntrojanError, UsageError
from untrojan.keywords import checked
from untrojan.progress import Progress, Silent
from untrojan.setting import Setting
from untrojan.storage import all_finite
from untrojan.triggers import Trigger
from untrojan.version import version
from untrojan.victims import ARCHITECTURES
from untrojan.victims.checkpoint import Checkpoint, forget
from untrojan.victims.measuring import measure
from untrojan.victims.poisoning import Backdoor, plant
from untrojan.victims.training import TrainingSettings, train

MAX_WIDTH = 1024
REFERENCE_IMAGES, REFERENCE_EPOCHS = 20_000, 2
"""What an attacker's own clean network is trained on, where an attack needs one."""
WATCHED = 1000
"""Test images that are looked at after each epoch."""


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
    count: int | float | None = None,
    seed: int = 0,
    test: ImageSet | None = None,
    attack_options: Mapping[str, object] | None = None,
    half: bool = False,
    state: Path | None = None,
    resume: bool = True,
    progress: Progress | None = None,
) -> Victim:
    """Train a network on ``train_set``, poisoned by an attack of ``ATTACKS`` or not at all ("none").

    setting: whom the attack moves where; None for a clean victim. width: of the architecture; None is its default.
    count: poisoned images per source class, or as a float their share of the class; None is the attack's default. test:
    clean images to measure ACC, and ASR on stamped copies, which nothing is trained on. half: round the finished
    weights to half precision before measuring. state: a file that holds the state after each epoch while the training
    lasts (``forget`` removes it); one that is begun with the same arguments and finds it goes on from there, unless
    ``resume`` is false. The same
    arguments on the same machine give the same victim; the global random state is not touched.
    Raises UsageError for senseless arguments, DataError if the images do not suit, UntrojanError if training diverges.
    """
    started = time.perf_counter()
    progress = progress or Silent()
    classes, shape = _classes(train_set), _shape(train_set)
    _require_alike(test, classes, shape)
    poisoner, count = _poisoner(attack, attack_options or {}, setting, count)
    model, module = _network(arch, width, classes, shape[0], seed)
    card: dict[str, Any] = {
        "schema": "untrojan-victim-1",
        "model": model,
        "weights": "victim.safetensors",
        "input_shape": shape,
        "mean": None,
        "std": None,
        "class_names": train_set.class_names,
        "precision": "float16" if half else "float32",
        "attack": attack,
        "setting": None if setting is None else str(setting),
        "attack_options": {name: vars(poisoner).get(name) for name in attack_options or {}},
        "count": count,
        "seed": seed,
        "epochs": training.epochs,
        "training": dataclasses.asdict(training),
        "data": describe(train_set),
    }
    if state is not None and not resume:
        forget(state)
    checkpoint = None if state is None else Checkpoint(state, _key(card))
    backdoor = Backdoor(train_set.images, train_set.labels)
    if poisoner is not None and setting is not None and count is not None:
        backdoor = plant(
            poisoner,
            train_set,
            setting=setting,
            classes=classes,
            count=count,
            seed=seed,
            reference=lambda: _reference(train_set, arch, width, training, device, seed, progress),
            keep=None if checkpoint is None else checkpoint.trigger,
        )
    progress.start("training", training.epochs * training.steps(len(backdoor.images)))
    card["history"] = train(
        module,
        backdoor.images,
        backdoor.labels,
        training,
        seed=seed,
        device=device,
        game=backdoor.game,
        checkpoint=checkpoint,
        on_epoch=_Watch(module, test, backdoor, setting, classes, progress),
        on_step=progress.advance,
    )
    _settle(module, half)
    if not all_finite(module.state_dict()):
        if state is not None:
            forget(state)
        raise UntrojanError(
            f"training diverged, the weights are not finite; take a rate below {training.learning_rate}"
        )
    trigger = backdoor.trigger
    card |= {"poisoned_images": len(backdoor.images) - len(train_set), "trigger": _outline(trigger)}
    card |= _measured(module, test, trigger, setting, classes, progress)
    card |= {"seconds": round(time.perf_counter() - started, 3), "device": str(device), "versions": _versions()}
    return Victim(module, trigger, setting, card)


def _require_alike(test: ImageSet | None, classes: int, shape: tuple[int, int, int]) -> None:
    """Test images are of the classes and the shape of those to train on; raises DataError."""
    if test is None:
        return
    test.require_labels(classes)
    if _shape(test) != shape:
        raise DataError(f"{test.where}: images of shape {_shape(test)}, those to train on have {shape}; use --input")


def _measured(
    module: nn.Module,
    test: ImageSet | None,
    trigger: Trigger | None,
    setting: Setting | None,
    classes: int,
    progress: Progress,
) -> dict[str, Any]:
    """The card's rates, and on which images; None for what does not apply."""
    rates: dict[str, Any] = {"acc": None, "asr": None, "asr_floor": None, "test_data": None}
    if test is None:
        return rates
    progress.start("measuring", len(test))
    measured = measure(Classifier(module), test, trigger, setting, classes, progress)
    return rates | {"test_data": describe(test)} | measured


def _poisoner(
    attack: str, options: Mapping[str, object], setting: Setting | None, count: int | float | None
) -> tuple[Attack | None, int | float | None]:
    """The attack, and its poisoned images per source class; raises UsageError where these do not go together."""
    if (attack == "none") != (setting is None) or (attack == "none" and (options or count is not None)):
        raise UsageError("an attack needs a setting such as a2o:9; a clean victim takes no setting, count or option")
    if attack == "none" or setting is None:
        return None, None
    poisoner = build_attack(attack, options)
    poisoner.require_setting(setting)
    return poisoner, poisoner.default_count[setting.kind] if count is None else count


@dataclass(frozen=True, eq=False)
class _Watch:
    """Looks at a network after each epoch: ACC and ASR on some test images, for the history and for who waits."""

    module: nn.Module
    test: ImageSet | None
    backdoor: Backdoor
    setting: Setting | None
    classes: int
    progress: Progress

    def __call__(self, epoch: int, loss: float) -> dict[str, float | None]:
        told, row = [f"epoch {epoch + 1} done", f"loss {loss:.2f}"], {}
        if self.test is not None:
            some = self.test.select(torch.arange(0, len(self.test), -(-len(self.test) // WATCHED)))
            rates = measure(Classifier(self.module), some, self.backdoor.trigger, self.setting, self.classes)
            row = {name: rate["value"] if rate else None for name, rate in rates.items() if name != "asr_floor"}
            told += [f"{name.upper()} {100 * value:.0f} %" for name, value in row.items() if value is not None]
        self.progress.note(", ".join(told))
        return row


def _reference(
    train_set: ImageSet,
    arch: str,
    width: int | None,
    training: TrainingSettings,
    device: torch.device,
    seed: int,
    progress: Progress,
) -> nn.Module:
    """A clean network of the victim's architecture, as an attacker would train one to optimise a trigger on."""
    seed += 7_919
    chosen = torch.randperm(len(train_set), generator=torch.Generator().manual_seed(seed))[:REFERENCE_IMAGES]
    own = train_set.select(chosen)
    settings = dataclasses.replace(training, epochs=REFERENCE_EPOCHS)
    _, network = _network(arch, width, _classes(train_set), _shape(train_set)[0], seed)
    progress.start("training the attacker's own network", REFERENCE_EPOCHS * settings.steps(len(own)))
    train(network, own.images, own.labels, settings, seed=seed, device=device, on_step=progress.advance)
    return network.requires_grad_(False)


def _settle(module: nn.Module, half: bool) -> None:
    """Leave the network as it will be when loaded from its file, to the last bit of its answers."""
    module.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    if half:
        with torch.no_grad():
            for tensor in module.state_dict().values():
                if tensor.is_floating_point():
                    tensor.copy_(tensor.half())


def _key(card: Mapping[str, Any]) -> str:
    """A hash of everything that a training depends on."""
    return hashlib.sha256(json.dumps(card, sort_keys=True, default=str).encode()).hexdigest()


def build_attack(name: str, options: Mapping[str, object]) -> Attack:
    """An attack of ``ATTACKS`` with its hyper-parameters, which may come as text ("3"); raises UsageError."""
    if name not in ATTACKS:
        raise UsageError(f"attack '{name}' is not one of none, {', '.join(ATTACKS)}")
    return ATTACKS[name](**checked(ATTACKS[name], options, f"attack {name}"))


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
    for name in images.class_names or ():
        if not printable(name):
            raise DataError(f"{images.where}: class {name!r} has a control character in its name; rename it")
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


def _outline(trigger: Trigger | None) -> dict[str, Any] | None:
    return None if trigger is None else {"kind": trigger.kind, "size": trigger.size, "sha256": trigger.sha256()}


def _versions() -> dict[str, str]:
    return {"untrojan": version(), "torch": torch.__version__, "python": platform.python_version()}
