from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from oracles.correction import corrected_norm, corrected_output
from tiny_networks import WITHOUT_BATCH_NORM, convolutional, flat, random_images, settled, shaken, tiny_classifier
from untrojan.classifier.classifier import Classifier
from untrojan.classifier.corrected import PARAMETERS, CorrectedClassifier, sites_of, twin
from untrojan.classifier.cost import CostMeter
from untrojan.classifier.sites import batch_norms, captured, find_sites, neuron_axis
from untrojan.errors import CheckpointError, UnsupportedError

NETWORKS = {
    "2d": convolutional(),
    "2d without affine": convolutional(affine=False),
    "1d": flat(),
    "1d without affine": flat(affine=False),
    "3d": nn.Sequential(nn.Unflatten(1, (1, 2)), nn.BatchNorm3d(1), nn.Flatten(), nn.Linear(32, 3)),
    "sequence": nn.Sequential(nn.Flatten(2), nn.BatchNorm1d(2), nn.Flatten(), nn.Linear(32, 3)),
}
WITHOUT = {
    "none": nn.Sequential(nn.Flatten(), nn.Linear(32, 3)),
    "no statistics": nn.Sequential(nn.BatchNorm2d(2, track_running_stats=False), nn.Flatten(), nn.Linear(32, 3)),
    "other norms": nn.Sequential(nn.GroupNorm(1, 2), nn.InstanceNorm2d(2), nn.Flatten(), nn.LayerNorm(32)),
}


def description(module: nn.Module) -> dict[str, Any]:
    """Everything about a network that must not change: layers, modes, hooks, tensors and their flags."""
    told: dict[str, Any] = {}
    for name, layer in module.named_modules():
        hooks = {key: list(value) for key, value in vars(layer).items() if "hooks" in key and isinstance(value, dict)}
        told[name] = (id(layer), type(layer), layer.training, hooks)
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        told[f"tensor {name}"] = (id(tensor), tensor.data_ptr(), tensor.requires_grad, tensor.grad, tensor.tolist())
    return told


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("count", [1, 3])
def test_with_its_own_statistics_it_is_the_classifier(name: str, count: int) -> None:
    classifier, images = Classifier(settled(NETWORKS[name]), mean=[0.4], std=[0.3]), random_images(9)
    corrected, wanted = CorrectedClassifier(classifier, count), classifier(images)
    assert wanted.std() > 0.01
    assert torch.allclose(corrected(images), wanted, rtol=1e-5, atol=1e-5)
    assert torch.allclose(corrected(images, torch.arange(9) % count), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_each_sample_uses_its_own_row(name: str) -> None:
    classifier, images = Classifier(settled(NETWORKS[name])), random_images(12)
    several = CorrectedClassifier(classifier, 3)
    several.load_theta(shaken(several.theta()))
    rows = torch.tensor([0, 2, 1, 1, 2, 0, 2, 2, 0, 1, 0, 1])
    together = several(images, rows)
    for row in range(3):
        alone = CorrectedClassifier(classifier)
        alone.load_theta({key: value[row : row + 1] for key, value in several.theta().items()})
        assert torch.allclose(together[rows == row], alone(images[rows == row]), rtol=1e-5, atol=1e-5)
    assert torch.allclose(several(images), several(images, torch.zeros(12, dtype=torch.int64)), rtol=1e-5, atol=1e-5)
    assert not torch.allclose(together, several(images), atol=1e-2)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_layer_answers_what_the_definition_says(name: str) -> None:
    classifier, images = Classifier(settled(NETWORKS[name])), random_images(2)
    corrected = CorrectedClassifier(classifier)
    corrected.load_theta(shaken(corrected.theta()))
    norms = batch_norms(classifier.module)
    assert list(norms) == list(corrected.layers)
    inputs: dict[str, Tensor] = {}
    for key, layer in corrected.layers.items():
        layer.register_forward_pre_hook(lambda _, given, key=key: inputs.update({key: given[0]}))
    with captured(corrected.layers) as outputs, torch.no_grad():
        corrected(images)
    for key, norm in norms.items():
        theta = {p: corrected.theta()[f"{key}|{p}"][0] for p in PARAMETERS}
        assert torch.allclose(outputs[key], corrected_norm(inputs[key], norm, theta), rtol=1e-4, atol=1e-5)


def without(name: str, count: int = 1) -> tuple[Classifier, CorrectedClassifier]:
    """A classifier without BatchNorm, and its twin with a Theta that is not the initial one."""
    classifier = Classifier(settled(WITHOUT_BATCH_NORM[name]()), mean=[0.4], std=[0.3])
    corrected = CorrectedClassifier(classifier, count, find_sites(classifier, random_images(1)))
    corrected.load_theta(shaken(corrected.theta()))
    return classifier, corrected


@pytest.mark.parametrize("name", WITHOUT_BATCH_NORM)
def test_without_batch_norms_mean_0_and_std_1_change_nothing(name: str) -> None:
    classifier, images = Classifier(settled(WITHOUT_BATCH_NORM[name]())), random_images(9)
    corrected, wanted = CorrectedClassifier(classifier, 2, find_sites(classifier, images)), classifier(images)
    assert wanted.std() > 0.01
    assert torch.allclose(corrected(images), wanted, atol=1e-6)
    assert torch.allclose(corrected(images, torch.arange(9) % 2), wanted, atol=1e-6)


@pytest.mark.parametrize("name", WITHOUT_BATCH_NORM)
@pytest.mark.parametrize("grad", [True, False])
def test_without_batch_norms_h_comes_after_the_layer(name: str, grad: bool) -> None:
    """With and without gradients: PyTorch's encoder layer must not take its fast path around h."""
    classifier, corrected = without(name, 3)
    images, rows = random_images(6), torch.tensor([0, 2, 1, 1, 2, 0])
    raw: dict[str, Tensor] = {}
    for key in corrected.layers:
        layer = corrected.classifier.module.get_submodule(key)
        # Before h, which is the first hook of its layer.
        layer.register_forward_hook(
            lambda layer, _, output, key=key: raw.update({key: output.movedim(neuron_axis(layer, output), 1)})
        )
        layer._forward_hooks.move_to_end(next(iter(layer._forward_hooks)))
    with captured(corrected.layers) as outputs, torch.set_grad_enabled(grad):
        logits = corrected(images, rows)
    for key in corrected.layers:
        for row in range(3):
            theta = {p: corrected.theta()[f"{key}|{p}"][row] for p in PARAMETERS}
            wanted = corrected_output(raw[key][rows == row].detach(), theta)
            assert torch.allclose(outputs[key][rows == row], wanted, atol=1e-5)
    assert not torch.allclose(logits, classifier(images), atol=1e-2)


@pytest.mark.parametrize("name", WITHOUT_BATCH_NORM)
def test_without_batch_norms_each_sample_uses_its_own_row(name: str) -> None:
    classifier, several = without(name, 3)
    images, rows = random_images(7), torch.tensor([0, 2, 1, 1, 2, 0, 2])
    for row in range(3):
        alone = CorrectedClassifier(classifier, 1, several.layers)
        alone.load_theta({key: value[row : row + 1] for key, value in several.theta().items()})
        with torch.no_grad():
            assert torch.allclose(several(images, rows)[rows == row], alone(images[rows == row]), atol=1e-5)


def test_a_theta_names_the_sites_of_a_network_without_batch_norms() -> None:
    classifier, corrected = without("encoder")
    assert sites_of(classifier, corrected.theta()) == list(corrected.layers)
    with pytest.raises(CheckpointError, match="not those of this classifier"):
        sites_of(tiny_classifier(), corrected.theta())
    assert sites_of(tiny_classifier(), CorrectedClassifier(tiny_classifier()).theta()) == ["1", "3.1", "6"]
    for name in ("layer.linear3|mean", "layer|mean", "mean"):
        with pytest.raises(CheckpointError, match="here: its layers are not those of this classifier"):
            sites_of(classifier, {name: torch.zeros(1, 8)}, "here")


@torch.no_grad()
def bind(corrected: CorrectedClassifier, images: Tensor) -> None:
    """Clip a quarter of each channel's values at either end, layer after layer."""
    for name, layer in corrected.layers.items():
        with captured(corrected.layers) as outputs:
            corrected(images)
        low, high = outputs[name].movedim(1, 0).flatten(1).quantile(torch.tensor([0.25, 0.75]), 1)
        assert (low < high).all()
        layer.low.copy_(low.expand_as(layer.low))
        layer.high.copy_(high.expand_as(layer.high))


def test_the_clip_bounds_every_channel() -> None:
    corrected = CorrectedClassifier(tiny_classifier())
    bind(corrected, random_images(50))
    with captured(corrected.layers) as outputs:
        corrected(random_images(50))
    assert outputs.keys() == corrected.layers.keys()
    for name, layer in corrected.layers.items():
        values = outputs[name].movedim(1, 0).flatten(1)
        assert torch.equal(values.amin(1), layer.low[0])
        assert torch.equal(values.amax(1), layer.high[0])


@pytest.mark.parametrize("rows", [None, torch.arange(60) % 2])
def test_a_gradient_reaches_every_number_when_the_clip_binds(rows: Tensor | None) -> None:
    corrected = CorrectedClassifier(tiny_classifier(), 2)
    bind(corrected, random_images(60))
    for layer in corrected.layers.values():
        for parameter in PARAMETERS:
            getattr(layer, parameter).requires_grad_(True)
    with captured(corrected.layers) as outputs:
        corrected(random_images(60), rows)
    sum((output - 1).square().sum() for output in outputs.values()).backward()
    for layer in corrected.layers.values():
        for parameter in PARAMETERS:
            gradient = getattr(layer, parameter).grad
            assert torch.isfinite(gradient).all()
            assert (gradient[0] != 0).all(), parameter
            assert (gradient[1] != 0).all() == (rows is not None), parameter


def test_its_gradient_is_that_of_the_definition() -> None:
    corrected = CorrectedClassifier(Classifier(settled(flat()).double()))
    layer = next(iter(corrected.layers.values()))
    x = torch.randn(5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    theta = [getattr(layer, p).double() for p in PARAMETERS[:2]]
    theta += [torch.full((1, 6), -0.4, dtype=torch.float64), torch.full((1, 6), 0.5, dtype=torch.float64)]

    def forward(x: Tensor, *tensors: Tensor) -> Tensor:
        for name, tensor in zip(PARAMETERS, tensors, strict=True):
            setattr(layer, name, tensor)
        return layer(x)

    assert torch.autograd.gradcheck(forward, (x, *(t.requires_grad_() for t in theta)))


def test_the_classifier_is_as_it_was() -> None:
    classifier = tiny_classifier()
    classifier.module[0].weight.requires_grad_(False)
    classifier.module[1].weight.grad = torch.ones(4)
    classifier.module[3].register_forward_hook(lambda *_: None)
    classifier.train()
    classifier.module[1].eval()
    before = description(classifier)
    corrected = CorrectedClassifier(classifier, 2)
    corrected.load_theta(shaken(corrected.theta()))
    with captured(corrected.layers):
        corrected(random_images(8), torch.arange(8) % 2)
    corrected.train()
    corrected.eval()
    assert not any(layer.training for layer in corrected.modules())
    assert description(classifier) == before
    twin(classifier, own_parameters=True).requires_grad_(True).train()
    assert description(classifier) == before


def test_it_shares_the_tensors_of_the_classifier() -> None:
    classifier = tiny_classifier()
    own = {id(tensor) for tensor in [*classifier.parameters(), *classifier.buffers()]}
    corrected = CorrectedClassifier(classifier)
    theta = {id(getattr(layer, p)) for layer in corrected.layers.values() for p in PARAMETERS}
    assert {id(tensor) for tensor in [*corrected.parameters(), *corrected.buffers()]} - theta <= own
    with torch.no_grad():
        classifier.module[5].bias += 1
    assert torch.allclose(corrected(random_images(3)), classifier(random_images(3)), atol=1e-5)


def test_a_twin_with_parameters_of_its_own_has_the_same_values() -> None:
    classifier = tiny_classifier()
    other = twin(classifier, own_parameters=True)
    assert not {id(p) for p in other.parameters()} & {id(p) for p in classifier.parameters()}
    assert not any(p.requires_grad for p in other.parameters())
    assert other.sha256() == classifier.sha256()
    assert torch.equal(other(random_images(3)), classifier(random_images(3)))


def test_a_hook_on_the_classifiers_network_sees_corrected_passes() -> None:
    classifier, seen = tiny_classifier(), []
    classifier.module.register_forward_hook(lambda _module, inputs, _output: seen.append(len(inputs[0])))
    classifier.module.register_forward_pre_hook(lambda _module, inputs: seen.append(-len(inputs[0])))
    corrected = CorrectedClassifier(classifier)
    corrected(random_images(4))
    corrected(random_images(7), torch.zeros(7, dtype=torch.int64))
    assert seen == [-4, 4, -7, 7]
    classifier(random_images(2))
    assert seen[4:] == [-2, 2]


def test_a_meter_on_the_classifier_counts_corrected_passes() -> None:
    classifier = tiny_classifier()
    with torch.no_grad(), CostMeter(classifier) as meter, CostMeter(classifier.module) as inner:
        corrected = CorrectedClassifier(classifier)
        corrected(random_images(4))
        classifier(random_images(2))
    assert (meter.images_forward, inner.images_forward) == (6, 6)


def test_rows_do_not_stay_after_a_pass_nor_a_failed_one() -> None:
    corrected, images = CorrectedClassifier(tiny_classifier(), 2), random_images(4)
    wanted = corrected(images)
    corrected(images, torch.ones(4, dtype=torch.int64))
    assert corrected.rows.index is None
    with pytest.raises(IndexError):
        corrected(images, torch.full((4,), 2))
    assert corrected.rows.index is None
    assert torch.equal(corrected(images), wanted)


@pytest.mark.parametrize("name", WITHOUT)
def test_a_network_without_batch_normalisation(name: str) -> None:
    module = WITHOUT[name]
    assert batch_norms(module) == {}
    with pytest.raises(UnsupportedError, match="no BatchNorm layer with running statistics"):
        CorrectedClassifier(Classifier(module))


def test_theta_is_given_back_and_copied() -> None:
    corrected = CorrectedClassifier(tiny_classifier(), 2)
    theta = shaken(corrected.theta())
    assert set(theta) == {f"{layer}|{p}" for layer in ("1", "3.1", "6") for p in ("mean", "log_std", "low", "high")}
    assert {tuple(value.shape) for value in theta.values()} == {(2, 4), (2, 3), (2, 5)}
    corrected.load_theta({name: value.double() for name, value in theta.items()})
    for name, value in corrected.theta().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, theta[name])
        assert not value.requires_grad
    theta["1|mean"].zero_()
    assert corrected.theta()["1|mean"].any()


def test_theta_of_another_network() -> None:
    corrected = CorrectedClassifier(tiny_classifier())
    theta = corrected.theta()
    wrong = [
        {},
        {name: value for name, value in theta.items() if name != "1|low"},
        theta | {"7|mean": torch.zeros(1, 4)},
        theta | {"1|mean": torch.zeros(2, 4)},
        theta | {"1|mean": torch.zeros(4)},
        CorrectedClassifier(Classifier(settled(flat()))).theta(),
    ]
    for other in wrong:
        with pytest.raises(CheckpointError, match="its layers are not those of this classifier"):
            corrected.load_theta(other)
    with pytest.raises(CheckpointError, match="here: 1 high holds NaN"):
        corrected.load_theta(theta | {"1|high": torch.full((1, 4), torch.nan)}, "here")


class NormAct(nn.BatchNorm2d):
    """A BatchNorm that does more, as timm's do."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.silu(super().forward(x))


class Unusual(nn.Module):
    """BatchNorms with more in their forward, of two names, and of no use in evaluation."""

    def __init__(self) -> None:
        super().__init__()
        self.act, self.norm, self.aux = NormAct(4), nn.BatchNorm2d(4), nn.BatchNorm2d(4)
        self.features = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), self.act, nn.Conv2d(4, 4, 1), self.norm)
        self.head, self.last = nn.Linear(4, 5), None

    def forward(self, x: Tensor) -> Tensor:
        self.last = self.features(x)  # a tensor that hangs on a pass, and cannot be copied
        return self.head(self.last.mean((2, 3)))


def test_batch_norms_of_unusual_kinds() -> None:
    classifier = Classifier(settled(Unusual()))
    images = torch.rand(6, 2, 8, 8)
    sites = find_sites(classifier, images)
    assert set(sites) == {"act", "norm"}
    assert classifier(images).requires_grad  # so that the network keeps a tensor with a history
    corrected = CorrectedClassifier(classifier, sites=sites)
    assert torch.allclose(corrected(images), classifier(images), atol=1e-5)
    with captured(corrected.layers) as outputs:
        corrected(images)
    assert set(outputs) == {"act", "norm"}
    for name in ("act", "norm"):
        changed = CorrectedClassifier(classifier, sites=sites)
        changed.layers[name].mean.add_(1.0)
        assert not torch.allclose(changed(images), classifier(images), atol=1e-2)
    again = CorrectedClassifier(classifier, sites=sites_of(classifier, changed.theta()))
    again.load_theta(changed.theta())
    assert torch.equal(again(images), changed(images))


def test_corrections_are_where_the_network_is_also_those_of_layers_without_numbers() -> None:
    with torch.device("meta"):
        module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.InstanceNorm2d(4), nn.Flatten(), nn.Linear(4 * 36, 5))
    corrected = CorrectedClassifier(Classifier(module), sites=["0", "1"])
    assert {value.device.type for value in corrected.theta().values()} == {"meta"}


def test_passes_at_the_same_time_use_their_own_rows() -> None:
    classifier = tiny_classifier()
    corrected = CorrectedClassifier(classifier, 5)
    corrected.load_theta(shaken(corrected.theta(), 1))
    corrected = copy.deepcopy(corrected)
    cases = [(random_images(64, seed=seed), torch.full((64,), seed % 5)) for seed in range(10)] * 20
    expected = [corrected(*case) for case in cases]
    with ThreadPoolExecutor(4) as pool:
        got = list(pool.map(lambda case: corrected(*case), cases))
    assert all(torch.equal(one, other) for one, other in zip(got, expected, strict=True))
