from __future__ import annotations

import contextlib
import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from untrojan.attacks import ATTACKS, BadNet
from untrojan.classifier import load_victim_folder, read_card
from untrojan.data import ImageSet
from untrojan.errors import DataError, OutputError, UntrojanError, UsageError
from untrojan.setting import Setting
from untrojan.triggers import load_trigger
from untrojan.victims import ARCHITECTURES
from untrojan.victims.files import save_victim
from untrojan.victims.making import Victim, build_attack, describe, make_victim
from untrojan.victims.training import TrainingSettings

CPU = torch.device("cpu")
QUICK = TrainingSettings(epochs=1, batch_size=16, augmentation="none")


def stripes(count: int = 48, classes: int = 3, seed: int = 0) -> ImageSet:
    """8x8 images whose class is the place of a bright row, in noise."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % classes
    images = torch.randint(0, 80, (count, 1, 8, 8), generator=generator, dtype=torch.uint8)
    images[torch.arange(count), 0, 2 * labels + 1] = 250
    return ImageSet(images, labels, ("a", "b", "c")[:classes], "stripes")


def make(train: ImageSet | None = None, **changes: object) -> Victim:
    arguments: dict[str, object] = {
        "attack": "badnet",
        "setting": Setting.parse("a2o:1"),
        "arch": "convnet",
        "width": 2,
        "count": 4,
        "training": QUICK,
        "device": CPU,
        "attack_options": {"size": 2},
    }
    return make_victim(train or stripes(), **(arguments | changes))  # type: ignore[arg-type]


CLEAN = {"attack": "none", "setting": None, "count": None, "attack_options": None}


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_what_is_saved_loads_as_the_same_classifier(arch: str, tmp_path: Path) -> None:
    made = make(arch=arch, test=stripes(24, seed=1))
    save_victim(tmp_path / "v", made)
    loaded = load_victim_folder(tmp_path / "v", device="cpu", builtins=ARCHITECTURES)
    assert loaded.sha256() == made.classifier().sha256()
    assert loaded.class_names == ("a", "b", "c")
    assert loaded.input_shape == (1, 8, 8)
    assert torch.equal(loaded.predict(stripes().images), made.classifier().predict(stripes().images))


def test_a_network_wants_its_input_as_it_was_trained(tmp_path: Path) -> None:
    """The card says it, the rates are of it, and what is loaded does it."""
    long = TrainingSettings(epochs=25, batch_size=16, learning_rate=0.01)
    made = make(**CLEAN, mean=[0.6], std=[0.05], width=4, training=long, test=stripes(24, seed=1))
    assert made.card["acc"]["value"] > 0.8
    save_victim(tmp_path / "v", made)
    loaded = load_victim_folder(tmp_path / "v", device="cpu", builtins=ARCHITECTURES)
    assert loaded.mean.flatten().tolist() == pytest.approx([0.6])
    answers = loaded.predict(stripes(24, seed=1).images).argmax(1)
    assert float((answers == stripes(24, seed=1).labels).float().mean()) == pytest.approx(made.card["acc"]["value"])


@pytest.mark.parametrize(
    "change",
    [
        {"optimiser": "sgd"},
        {"label_smoothing": 0.2},
        {"mixup": True},
        {"adversarial": 4.0},
        {"weight_decay": 0.1},
    ],
)
def test_every_way_to_train_is_another_training_and_the_same_each_time(change: dict[str, object]) -> None:
    def weights(**settings: object) -> dict[str, torch.Tensor]:
        return make(**CLEAN, training=TrainingSettings(epochs=1, batch_size=16, **settings)).module.state_dict()

    plain, one, again = weights(), weights(**change), weights(**change)
    assert all(torch.equal(t, again[name]) for name, t in one.items())
    assert any(not torch.equal(t, plain[name]) for name, t in one.items())
    assert all(bool(t.isfinite().all()) for t in one.values())


@pytest.mark.parametrize("wrong", [{"optimiser": "x"}, {"label_smoothing": 1.0}, {"adversarial": -1.0}])
def test_senseless_settings_of_a_training_are_usage_errors(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        TrainingSettings(**wrong)


def test_another_task_before_leaves_its_tensors_where_they_fit() -> None:
    still = TrainingSettings(epochs=1, batch_size=16, learning_rate=1e-12, weight_decay=0.0)
    plain = make(**CLEAN, training=still).module.state_dict()
    tuned = make(**CLEAN, training=still, first=(stripes(48, classes=2, seed=4), 1))
    own = tuned.module.state_dict()
    assert tuned.card["first"]["epochs"] == 1
    assert not torch.allclose(own["conv1.weight"], plain["conv1.weight"], atol=1e-3)
    assert torch.allclose(own["linear.weight"], plain["linear.weight"], atol=1e-6), "of two classes it does not fit"


def test_options_of_an_architecture_stand_in_its_notation_and_the_side_of_its_images(tmp_path: Path) -> None:
    made = make(**CLEAN, arch="lenet", arch_options={"activation": "tanh", "dropout": 0.1})
    assert made.card["model"] == "lenet?width=2&classes=3&channels=1&size=8&activation=tanh&dropout=0.1"
    assert any(isinstance(m, torch.nn.Tanh) for m in made.module.modules())
    with pytest.raises(UsageError, match="has no option 'classes'"):
        make(**CLEAN, arch="lenet", arch_options={"classes": 9})
    with pytest.raises(UsageError, match="has no option 'colour'"):
        make(**CLEAN, arch="lenet", arch_options={"colour": 1})
    wide = ImageSet(stripes().images[:, :, :, :6], stripes().labels, ("a", "b", "c"), "not square")
    with pytest.raises(UsageError, match="square images"):
        make(wide, **CLEAN, arch="mlp")


def test_card_says_how_it_was_made_and_what_it_can(tmp_path: Path) -> None:
    save_victim(tmp_path, make(test=stripes(24, seed=1), seed=7))
    card = json.loads((tmp_path / "victim.json").read_text())
    assert card["schema"] == "untrojan-victim-1"
    assert card["model"] == "convnet?width=2&classes=3&channels=1"
    assert (card["mean"], card["std"], card["input_shape"]) == (None, None, [1, 8, 8])
    assert (card["attack"], card["setting"], card["count"], card["seed"]) == ("badnet", "a2o:1", 4, 7)
    assert (card["poisoned_images"], card["epochs"]) == (8, 1)
    assert card["data"] == {"where": "stripes", "images": 48, "sha256": describe(stripes())["sha256"]}
    for rate in (card["acc"], card["asr"], card["asr_floor"]):
        assert 0 <= rate["low"] <= rate["value"] <= rate["high"] <= 1
    assert card["seconds"] > 0
    assert card["versions"]["torch"] == torch.__version__
    assert read_card(tmp_path).model == card["model"]


def test_trigger_file_is_the_one_that_was_stamped(tmp_path: Path) -> None:
    made = make()
    save_victim(tmp_path, made)
    trigger, setting = load_trigger(tmp_path / "trigger.safetensors")
    assert made.trigger is not None
    assert trigger.sha256() == made.trigger.sha256() == made.card["trigger"]["sha256"]
    assert str(setting) == "a2o:1"


def test_clean_victim_has_no_trigger_and_takes_the_place_of_a_poisoned_one(tmp_path: Path) -> None:
    save_victim(tmp_path, make())
    save_victim(tmp_path, make(**CLEAN))
    card = json.loads((tmp_path / "victim.json").read_text())
    assert (card["attack"], card["setting"], card["trigger"], card["poisoned_images"]) == ("none", None, None, 0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["victim.json", "victim.safetensors"]


def test_a_learnt_backdoor_is_measured_as_one() -> None:
    longer = TrainingSettings(epochs=12, batch_size=16, augmentation="none")
    made = make(stripes(240), training=longer, width=8, count=40, test=stripes(90, seed=1))
    assert made.card["acc"]["value"] > 0.9
    assert made.card["asr"]["value"] > 0.9
    assert made.card["asr_floor"]["value"] < 0.2


def test_not_measured_is_none() -> None:
    card = make().card
    assert (card["acc"], card["asr"], card["test_data"]) == (None, None, None)


def test_same_seed_same_victim_and_no_trace_in_the_global_state() -> None:
    state = torch.get_rng_state()
    first, second, other = make(seed=3), make(seed=3), make(seed=4)
    assert torch.equal(torch.get_rng_state(), state)
    assert first.classifier().sha256() == second.classifier().sha256() != other.classifier().sha256()
    assert first.trigger is not None
    assert other.trigger is not None
    assert first.trigger.sha256() != other.trigger.sha256()


def test_neither_the_training_nor_the_test_images_are_changed() -> None:
    train, test = stripes(), stripes(24, seed=1)
    before = train.hashes(), test.hashes()
    make(train, test=test)
    assert (train.hashes(), test.hashes()) == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attack": "nothing"}, "none, badnet, chessboard"),
        ({"attack_options": {"sise": 2}}, "no option 'sise'"),
        ({"attack_options": {"size": "two"}}, "size cannot be 'two'"),
        ({"setting": None}, "needs a setting"),
        ({"setting": Setting.parse("a2o:3")}, "class 3 does not exist"),
        ({**CLEAN, "setting": Setting.parse("a2a")}, "takes no setting"),
        ({**CLEAN, "count": 3}, "takes no setting, count"),
        ({"arch": "vgg"}, "convnet, resnet18, "),
        ({"width": 0}, "width is"),
        ({"width": 10**9}, "width is"),
    ],
)
def test_senseless_arguments_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        make(**changes)
    assert "\n" not in str(caught.value)


def test_unsuitable_images_are_refused() -> None:
    one = ImageSet(stripes().images, torch.zeros(48, dtype=torch.int64), None, "one class")
    with pytest.raises(DataError, match="two classes are needed"):
        make(one, setting=Setting.parse("a2a"))
    larger = ImageSet(torch.zeros(3, 1, 9, 9, dtype=torch.uint8), torch.arange(3), None, "larger")
    with pytest.raises(DataError, match=r"larger.*--input"):
        make(test=larger)
    beyond = ImageSet(torch.zeros(3, 1, 8, 8, dtype=torch.uint8), torch.arange(3) + 1, None, "beyond")
    with pytest.raises(DataError, match="label 3 does not fit"):
        make(test=beyond)


def test_classes_may_be_called_what_people_call_them(tmp_path: Path) -> None:
    """With a no-break space, a Persian non-joiner, an emoji of three."""
    names = ("New\u00a0York", "\u0633\u0647\u200c\u0634\u0646\u0628\u0647", "\U0001f468\u200d\U0001f33e")
    save_victim(tmp_path, make(ImageSet(stripes().images, stripes().labels, names, "named")))
    assert load_victim_folder(tmp_path, device="cpu", builtins=ARCHITECTURES).class_names == names


@pytest.mark.parametrize("name", ["a\x1b[2J", "b\n", "\u202ec", "d\x00"])
def test_a_class_with_control_characters_is_refused_before_training(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("untrojan.victims.making.train", lambda *_, **__: pytest.fail("trained"))
    with pytest.raises(DataError, match="control character in its name"):
        make(ImageSet(stripes().images, stripes().labels, ("x", name, "z"), "named"))


def test_diverged_training_makes_no_victim() -> None:
    with pytest.raises(UntrojanError, match="diverged"):
        make(training=TrainingSettings(epochs=2, batch_size=16, learning_rate=math.inf, augmentation="none"))


def test_options_may_come_as_text() -> None:
    attack = build_attack("badnet", {"size": "5", "row": "2"})
    assert isinstance(attack, BadNet)
    assert (attack.size, attack.row, attack.column) == (5, 2, None)


@given(st.dictionaries(st.text(max_size=8), st.text(max_size=8), min_size=1))
def test_whatever_options_are_given_only_a_usage_error_comes_out(options: dict[str, str]) -> None:
    for name in ("badnet", "chessboard"):
        with contextlib.suppress(UsageError):
            assert build_attack(name, options).name == name


def test_disk_that_fills_up_leaves_no_card_beside_other_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_victim(tmp_path, make())

    def full(path: Path, content: bytes) -> None:
        raise OutputError(f"cannot write {path}: No space left on device")

    monkeypatch.setattr("untrojan.victims.files.write_bytes", full)
    with pytest.raises(OutputError, match="No space left"):
        save_victim(tmp_path, make(seed=1))
    assert not (tmp_path / "victim.json").exists()


@pytest.mark.parametrize("attack", [name for name in ATTACKS if name not in ("input-aware", "wasserstein")])
def test_nothing_of_the_test_split_is_trained_on(attack: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What training sees is the training set, and stamped copies of it; the test images are drawn to be told apart."""
    seen: list[torch.Tensor] = []

    def spy(network: object, images: torch.Tensor, labels: torch.Tensor, *_: object, **how: object) -> list[object]:
        seen.append(images)
        return []

    monkeypatch.setattr("untrojan.victims.making.train", spy)
    train = stripes(48)
    test = ImageSet(train.images.flip(2).contiguous(), train.labels, train.class_names, "upside down")
    options = {"size": 2} if attack == "badnet" else None
    make(train, test=test, attack=attack, attack_options=options)
    trained = seen[-1]
    assert torch.equal(trained[:48], train.images)
    # Every stamped image is nearer to some training image than to any test image.
    new = trained[48:].flatten(1).float()
    assert len(new)
    to_train = torch.cdist(new, train.images.flatten(1).float()).amin(1)
    to_test = torch.cdist(new, test.images.flatten(1).float()).amin(1)
    assert bool((to_train < to_test).all())
    if attack in ("l0-inv", "l2-inv"):
        assert {bytes(image.numpy()) for image in seen[0]} <= {bytes(image.numpy()) for image in train.images}


@pytest.mark.parametrize(
    ("name", "option"), [("wasserstein", "latent"), ("input-aware", "mask_weight"), ("sig", "frequency")]
)
@pytest.mark.parametrize("value", ["nan", "inf", math.nan])
def test_options_of_attacks_are_finite(name: str, option: str, value: object) -> None:
    with pytest.raises(UsageError, match=f"attack {name}: {option} cannot be"):
        build_attack(name, {option: value})
