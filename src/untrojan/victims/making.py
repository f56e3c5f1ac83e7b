"""Makes victims: a network trained on a clean or a poisoned set, measured, and written with its answer key."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import json
import platform
import time
from collections.abc import Callable, Mapping, Sequence
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
            self.module,
            mean=self.card["mean"],
            std=self.card["std"],
            class_names=self.card["class_names"],
            input_shape=tuple(self.card["input_shape"]),
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
    arch_options: Mapping[str, int | float | str] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    first: tuple[ImageSet, int] | None = None,
    count: int | float | None = None,
    seed: int = 0,
    test: ImageSet | None = None,
    attack_options: Mapping[str, object] | None = None,
    half: bool = False,
    state: Path | None = None,
    resume: bool = True,
    watch: bool = True,
    progress: Progress | None = None,
) -> Victim:
    """Train a network on ``train_set``, poisoned by an attack of ``ATTACKS`` or not at all ("none").

    setting: whom the attack moves where; None for a clean victim. width, arch_options: of the architecture; what is not
    given is its default. mean, std: per channel, with which the network wants its input normalised. first: another
    task, images and epochs, that the network is trained on before, clean; what has another shape for that, as the last
    layer with another number of classes, begins anew.
    count: poisoned images per source class, or as a float their share of the class; None is the attack's default. test:
    clean images to measure ACC, and ASR on stamped copies, which nothing is trained on. half: round the finished
    weights to half precision before measuring. state: a file that holds the state after each epoch while the training
    lasts (``forget`` removes it); one that is begun with the same arguments and finds it goes on from there, unless
    ``resume`` is false. watch: look at the test images after each epoch, for the history. The same
    arguments on the same machine give the same victim; the global random state is not touched.
    Raises UsageError for senseless arguments, DataError if the images do not suit, UntrojanError if training diverges.
    """
    started = time.perf_counter()
    progress = progress or Silent()
    classes, shape = _classes(train_set), _shape(train_set)
    _require_alike(test, classes, shape)
    poisoner, count = _poisoner(attack, attack_options or {}, setting, count)
    model, module = _network(arch, width, classes, shape, seed, arch_options)
    whole = Classifier(module, mean=mean, std=std)

    def build(classes: int, seed: int) -> Classifier:
        return Classifier(_network(arch, width, classes, shape, seed, arch_options)[1], mean=mean, std=std)

    card: dict[str, Any] = {
        "schema": "untrojan-victim-1",
        "model": model,
        "weights": "victim.safetensors",
        "input_shape": shape,
        "mean": None if mean is None else list(mean),
        "std": None if std is None else list(std),
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
        "first": None if first is None else {"data": describe(first[0]), "epochs": first[1]},
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
            reference=lambda: _reference(train_set, build, training, device, seed, progress),
            keep=None if checkpoint is None else checkpoint.trigger,
        )
    if first is not None:
        _trained_first(*first, whole, build, training, device, seed, progress)
    progress.start("training", training.epochs * training.steps(len(backdoor.images)))
    card["history"] = train(
        whole,
        backdoor.images,
        backdoor.labels,
        training,
        seed=seed,
        device=device,
        game=backdoor.game,
        checkpoint=checkpoint,
        on_epoch=_Watch(whole, test if watch else None, backdoor, setting, classes, progress),
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
    card |= _measured(whole, test, trigger, setting, classes, progress)
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
    classifier: Classifier,
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
    measured = measure(classifier, test, trigger, setting, classes, progress)
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

    classifier: Classifier
    test: ImageSet | None
    backdoor: Backdoor
    setting: Setting | None
    classes: int
    progress: Progress

    def __call__(self, epoch: int, loss: float) -> dict[str, float | None]:
        told, row = [f"epoch {epoch + 1} done", f"loss {loss:.2f}"], {}
        if self.test is not None:
            some = self.test.select(torch.arange(0, len(self.test), -(-len(self.test) // WATCHED)))
            rates = measure(self.classifier, some, self.backdoor.trigger, self.setting, self.classes)
            row = {name: rate["value"] if rate else None for name, rate in rates.items() if name != "asr_floor"}
            told += [f"{name.upper()} {100 * value:.0f} %" for name, value in row.items() if value is not None]
        self.progress.note(", ".join(told))
        return row


def _reference(
    train_set: ImageSet,
    build: Callable[[int, int], Classifier],
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
    network = build(_classes(train_set), seed)
    progress.start("training the attacker's own network", REFERENCE_EPOCHS * settings.steps(len(own)))
    train(network, own.images, own.labels, settings, seed=seed, device=device, on_step=progress.advance)
    return network.requires_grad_(False)


def _trained_first(
    images: ImageSet,
    epochs: int,
    whole: Classifier,
    build: Callable[[int, int], Classifier],
    training: TrainingSettings,
    device: torch.device,
    seed: int,
    progress: Progress,
) -> None:
    """Train a network of this architecture on another task, and put its tensors into ``whole`` where they fit."""
    earlier = build(_classes(images), seed + 104_729)
    settings = dataclasses.replace(training, epochs=epochs)
    progress.start("training on another task first", epochs * settings.steps(len(images)))
    train(earlier, images.images, images.labels, settings, seed=seed, device=device, on_step=progress.advance)
    own = whole.module.state_dict()
    fits = {name: t for name, t in earlier.module.state_dict().items() if own[name].shape == t.shape}
    whole.module.load_state_dict({**own, **fits})


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


def _network(
    arch: str,
    width: int | None,
    classes: int,
    shape: tuple[int, int, int],
    seed: int,
    options: Mapping[str, int | float | str] | None = None,
) -> tuple[str, nn.Module]:
    """The factory's notation, and the network with initial weights from ``seed``."""
    if arch not in ARCHITECTURES:
        raise UsageError(f"architecture '{arch}' is not one of {', '.join(ARCHITECTURES)}")
    takes = inspect.signature(ARCHITECTURES[arch]).parameters
    if width is None:
        width = int(takes["width"].default)
    if not 1 <= width <= MAX_WIDTH:
        raise UsageError(f"width is the number of channels of the first layer, 1 to {MAX_WIDTH}, got {width}")
    given: dict[str, Any] = {"width": width, "classes": classes, "channels": shape[0]}
    if "size" in takes:
        if shape[1] != shape[2]:
            raise UsageError(
                f"architecture '{arch}' is made for square images, got {shape[1]} x {shape[2]}; use --input"
            )
        given["size"] = shape[1]
    fixed = ("width", "classes", "channels", "size")
    given |= checked(ARCHITECTURES[arch], dict(options or {}), f"architecture {arch}", without=fixed)
    with rng_as_found():
        torch.manual_seed(seed)
        module = ARCHITECTURES[arch](**given)
    return f"{arch}?{'&'.join(f'{name}={value}' for name, value in given.items())}", module


def _outline(trigger: Trigger | None) -> dict[str, Any] | None:
    return None if trigger is None else {"kind": trigger.kind, "size": trigger.size, "sha256": trigger.sha256()}


def _versions() -> dict[str, str]:
    return {"untrojan": version(), "torch": torch.__version__, "python": platform.python_version()}
