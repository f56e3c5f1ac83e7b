from __future__ import annotations

import copy
import io
import shutil
import warnings

import pytest
import torch
from torch import Tensor, nn

from oracles.correction import decide
from tiny_networks import WITHOUT_BATCH_NORM, flat, random_images, settled, shaken, tiny_classifier
from untrojan.classifier.classifier import Classifier
from untrojan.classifier.corrected import CorrectedClassifier
from untrojan.classifier.sites import find_sites
from untrojan.errors import CheckpointError, ShapeError, UnsupportedError, UsageError
from untrojan.guard import Decision, Guard
from untrojan.guard.guard import usual_margin

IMAGES = random_images(64, seed=5)
TARGETS = [(0,), (4,), (1, 3), (4, 2, 0), (0, 1, 2, 3, 4)]


def theta_for(classifier: Classifier, count: int, seed: int = 1) -> dict[str, Tensor]:
    return shaken(CorrectedClassifier(classifier, count).theta(), seed)


def guard_of(classifier: Classifier, targets: tuple[int, ...]) -> Guard:
    return Guard(classifier, targets, theta_for(classifier, len(targets)))


def same(one: Decision, other: Decision) -> bool:
    exact = all(torch.equal(a, b) for a, b in zip(one[:3], other[:3], strict=True))
    return exact and torch.allclose(one.score, other.score, atol=1e-6)


def one_by_one(classifier: Classifier, targets: tuple[int, ...], images: Tensor) -> Decision:
    """The oracle's decision on each image, with a network of one row for each target."""
    theta, corrected = theta_for(classifier, len(targets)), {}
    for row, target in enumerate(targets):
        corrected[target] = CorrectedClassifier(classifier)
        corrected[target].load_theta({name: value[row : row + 1] for name, value in theta.items()})
    rows = [decide(image, classifier, corrected) for image in images]
    return Decision(*(torch.tensor(column) for column in zip(*rows, strict=True)))


@pytest.mark.parametrize("targets", TARGETS)
@pytest.mark.parametrize("seed", [0, 1])
def test_it_decides_as_the_rule_says(targets: tuple[int, ...], seed: int) -> None:
    classifier = tiny_classifier(seed)
    decision = guard_of(classifier, targets)(IMAGES)
    assert same(decision, one_by_one(classifier, targets, IMAGES))


def test_the_examples_of_this_test_show_every_case() -> None:
    classifier = tiny_classifier()
    decision = one_by_one(classifier, (0, 1, 2, 3, 4), IMAGES)
    assert len(decision.suspect_labels.unique()) >= 4
    assert 5 < int(decision.triggered.sum()) < len(IMAGES) - 5
    assert guard_of(classifier, (0, 1))(IMAGES).score.count_nonzero() not in (0, len(IMAGES))


def test_what_it_answers() -> None:
    classifier = tiny_classifier()
    decision = guard_of(classifier, (0, 1, 2))(IMAGES)
    assert [t.dtype for t in decision] == [torch.int64, torch.bool, torch.int64, torch.float32]
    assert {tuple(t.shape) for t in decision} == {(64,)}
    assert torch.equal(decision.suspect_labels, classifier(IMAGES).argmax(1))
    assert torch.equal(decision.triggered, decision.labels != decision.suspect_labels)
    assert (decision.score >= 0).all()
    assert (decision.score <= 1).all()
    free = decision.suspect_labels > 2
    assert not decision.triggered[free].any()
    assert not decision.score[free].any()
    assert not any(t.requires_grad for t in decision)


def test_bytes_floats_and_pieces_give_the_same() -> None:
    guard = guard_of(tiny_classifier(), (0, 1, 4))
    whole = guard(IMAGES)
    assert same(whole, guard(IMAGES / 255))
    pieces = [guard(piece) for piece in IMAGES.split(5)]
    assert same(whole, Decision(*(torch.cat(part) for part in zip(*pieces, strict=True))))
    assert {tuple(t.shape) for t in guard(IMAGES[:0])} == {(0,)}


@pytest.mark.parametrize("targets", TARGETS)
def test_only_suspect_images_take_a_second_pass_and_all_of_them_one(targets: tuple[int, ...]) -> None:
    classifier, seen = tiny_classifier(), []
    classifier.module.register_forward_hook(lambda _module, inputs, _output: seen.append(inputs[0]))
    guard = guard_of(classifier, targets)
    suspects = guard(IMAGES).suspect_labels
    hit = torch.isin(suspects, torch.tensor(targets))
    assert int(hit.sum()) > 0
    assert [len(batch) for batch in seen] == [64, int(hit.sum())]
    assert torch.equal(seen[1], seen[0][hit])


def test_without_a_suspect_image_there_is_no_second_pass() -> None:
    classifier, seen = tiny_classifier(), []
    classifier.module.register_forward_hook(lambda _module, inputs, _output: seen.append(len(inputs[0])))
    target = 2
    images = IMAGES[classifier(IMAGES).argmax(1) != target]
    seen.clear()
    decision = guard_of(classifier, (target,))(images)
    assert seen == [len(images)]
    assert torch.equal(decision.labels, decision.suspect_labels)
    assert not decision.triggered.any()
    assert not decision.score.any()


def test_a_theta_that_changes_nothing_flags_nothing() -> None:
    classifier = tiny_classifier()
    decision = Guard(classifier, [0, 1], CorrectedClassifier(classifier, 2).theta())(IMAGES)
    assert not decision.triggered.any()
    assert torch.equal(decision.labels, classifier(IMAGES).argmax(1))
    probability = torch.softmax(classifier(IMAGES), 1).amax(1)
    hit = decision.suspect_labels <= 1
    assert torch.allclose(decision.score[hit], 1 - probability[hit], atol=1e-5)


def test_it_stays_in_evaluation_mode_and_leaves_the_victim_alone() -> None:
    classifier = tiny_classifier()
    classifier.train()
    classifier.module[1].eval()
    modes = [layer.training for layer in classifier.modules()]
    values = {name: tensor.clone() for name, tensor in classifier.state_dict().items()}
    guard = guard_of(classifier, (0, 1))
    before = guard(IMAGES)
    guard.train()
    guard.requires_grad_(False)
    assert not any(layer.training for layer in guard.modules())
    assert same(guard(IMAGES), before)
    assert [layer.training for layer in classifier.modules()] == modes
    assert all(parameter.requires_grad for parameter in classifier.parameters())
    assert not any(layer._forward_hooks for layer in classifier.modules())
    for name, tensor in classifier.state_dict().items():
        assert torch.equal(tensor, values[name])


def test_moving_it_keeps_its_decisions_and_the_victim() -> None:
    classifier = tiny_classifier()
    guard = guard_of(classifier, (0, 1))
    before, places = guard(IMAGES), [p.data_ptr() for p in classifier.parameters()]
    assert guard.to("cpu") is guard
    assert same(guard(IMAGES), before)
    guard.to("meta")
    assert [p.data_ptr() for p in classifier.parameters()] == places
    assert {p.device.type for p in [*classifier.parameters(), *classifier.buffers()]} == {"cpu"}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_on_a_gpu_it_decides_the_same() -> None:
    classifier = tiny_classifier()
    guard = guard_of(classifier, (0, 1, 4))
    before = guard(IMAGES)
    for images in (IMAGES, IMAGES.cuda()):
        moved = guard.to("cuda")(images)
        assert moved.labels.is_cuda
        assert same(before, Decision(*(t.cpu() for t in moved)))
    assert next(classifier.parameters()).device.type == "cpu"


def test_a_state_dict_is_all_of_it() -> None:
    classifier = tiny_classifier()
    guard, stream = guard_of(classifier, (0, 1, 4)), io.BytesIO()
    torch.save(guard.state_dict(), stream)
    stream.seek(0)
    fresh = tiny_classifier()
    other = Guard(fresh, (2, 3, 4), CorrectedClassifier(fresh, 3).theta())
    assert not same(other(IMAGES), guard(IMAGES))
    other.load_state_dict(torch.load(stream, weights_only=True))
    assert same(other(IMAGES), guard(IMAGES))
    assert other.targets.tolist() == [0, 1, 4]


@pytest.mark.parametrize("targets", [(), (1, 1), (-1,), (0, 3, 0)])
def test_targets_that_make_no_guard(targets: tuple[int, ...]) -> None:
    classifier = tiny_classifier()
    with pytest.raises(UsageError, match="distinct target classes"):
        Guard(classifier, targets, theta_for(classifier, max(1, len(targets))))


def test_a_theta_that_does_not_fit() -> None:
    classifier = tiny_classifier()
    with pytest.raises(CheckpointError, match="its layers are not those of this classifier"):
        Guard(classifier, [0, 1], theta_for(classifier, 1))
    with pytest.raises(UnsupportedError, match="no BatchNorm layer"):
        Guard(Classifier(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(32, 5))), [0], {})


def test_images_that_are_none_and_a_card_that_is_missing() -> None:
    guard = guard_of(tiny_classifier(), (0,))
    with pytest.raises(ShapeError):
        guard(IMAGES[0])
    with pytest.raises(UsageError, match="this guard has no card"):
        guard.require_card()


def test_an_exported_program_decides_the_same_for_any_number_of_images() -> None:
    guard, images = guard_of(Classifier(settled(flat()), mean=[0.5], std=[0.3]), (0, 2, 4)), IMAGES / 255
    assert guard(images).triggered.any()
    count = torch.export.Dim("count", min=2)
    program = torch.export.export(guard, (images,), dynamic_shapes=({0: count},), strict=False).module()
    for piece in (images, images[:7], IMAGES[:2] / 255):
        assert same(Decision(*program(piece)), guard(piece))


def test_a_compiled_graph_decides_the_same() -> None:
    """Traced in one piece; the graph is run as it is, without a compiler."""
    guard, images = guard_of(tiny_classifier(), (0, 1, 4)), IMAGES / 255
    compiled = torch.compile(guard, backend="eager", fullgraph=True)
    assert same(compiled(images), guard(images))
    assert guard(images).triggered.any()
    torch.compiler.reset()


def guard_without_batch_norms(name: str) -> Guard:
    classifier = Classifier(settled(WITHOUT_BATCH_NORM[name]()), mean=[0.5], std=[0.3])
    theta = CorrectedClassifier(classifier, 3, find_sites(classifier, IMAGES)).theta()
    return Guard(classifier, (0, 2, 4), shaken(theta, 1))


@pytest.mark.parametrize("name", WITHOUT_BATCH_NORM)
def test_without_batch_norms_state_copy_move_graph_and_program_decide_the_same(name: str) -> None:
    guard, images = guard_without_batch_norms(name), IMAGES / 255
    wanted = guard(images)
    assert wanted.triggered.any()
    other = guard_without_batch_norms(name)
    other.corrected.load_theta({key: value * 0 for key, value in guard.corrected.theta().items()})
    assert not same(other(images), wanted)
    other.load_state_dict(guard.state_dict())
    copied = copy.deepcopy(guard)
    for layer in guard.corrected.layers.values():
        layer.mean += 1e3
    assert same(other(images), wanted)
    assert same(copied.to("cpu")(images), wanted)
    assert not same(guard(images), wanted)
    compiled = torch.compile(other, backend="eager", fullgraph=True)
    assert same(compiled(images), wanted)
    torch.compiler.reset()
    count = torch.export.Dim("count", min=2)
    program = torch.export.export(other, (images,), dynamic_shapes=({0: count},), strict=False).module()
    for piece in (images, images[:7]):
        assert same(Decision(*program(piece)), other(piece))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("c++") is None, reason="needs a C++ compiler")
def test_compiled_code_decides_the_same() -> None:
    guard, images = guard_of(Classifier(settled(flat()), mean=[0.5], std=[0.3]), (0, 2, 4)), IMAGES / 255
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's own, about its own modules
        decision = torch.compile(guard)(images)
    assert same(decision, guard(images))
    torch.compiler.reset()


def test_answers_limit_what_the_second_pass_may_say() -> None:
    """g's own choice where it is allowed; else the best of what is; and never for an image that f sends elsewhere."""
    classifier = tiny_classifier()
    targets, answers = (1, 3), torch.zeros(2, 5, dtype=torch.bool)
    answers[0, [0, 1]] = answers[1, [2, 3, 4]] = True
    theta = theta_for(classifier, 2)
    free, limited = (
        Guard(classifier, targets, theta)(IMAGES),
        Guard(classifier, targets, theta, answers=answers)(IMAGES),
    )
    assert torch.equal(free.suspect_labels, limited.suspect_labels)
    for row, target in enumerate(targets):
        sent = free.suspect_labels == target
        assert sent.any()
        assert answers[row][limited.labels[sent]].all()
        allowed = sent & answers[row][free.labels]
        assert torch.equal(free.labels[allowed], limited.labels[allowed])
    other = ~torch.isin(free.suspect_labels, torch.tensor(targets))
    assert torch.equal(limited.labels[other], free.suspect_labels[other])
    assert not limited.triggered[other].any()


@pytest.mark.parametrize("answers", [torch.ones(5), torch.ones(1, 5), torch.zeros(2, 5)])
def test_senseless_answers_are_refused(answers: Tensor) -> None:
    classifier = tiny_classifier()
    with pytest.raises(UsageError, match="answers"):
        Guard(classifier, (1, 3), theta_for(classifier, 2), answers=answers.bool())


def test_the_target_needs_its_share_of_the_victims_unusual_margin() -> None:
    """Against the rule written out for one image at a time; with 0 it is the paper's."""
    classifier = tiny_classifier()
    theta, targets = theta_for(classifier, 5), (0, 1, 2, 3, 4)
    corrected = CorrectedClassifier(classifier, 5)
    corrected.load_theta(theta, "test")
    flagged = []
    for share, usual in ((0.0, 0.3), (0.5, -0.5), (0.95, -1.0), (0.95, 9.0)):
        guard = Guard(classifier, targets, theta, margin_share=share, usual_margins=[usual] * 5)
        decision = guard(IMAGES)
        for i, logits in enumerate(classifier.predict(IMAGES)):
            first, second = logits.topk(2).values
            suspect = int(logits.argmax())
            with torch.no_grad():
                mine = corrected(IMAGES[i : i + 1], torch.tensor([suspect]))[0]
            mine[suspect] -= share * (first - second - usual)
            assert int(decision.labels[i]) == int(mine.argmax())
        flagged.append(int(decision.triggered.sum()))
    assert flagged[3] < flagged[0] < flagged[1] < flagged[2]


@pytest.mark.parametrize(
    ("share", "usual"),
    [(-0.1, [0.0]), (1.0, [0.0]), (float("nan"), [0.0]), (0.3, [0.0, 1.0]), (0.3, [float("inf")]), (0.3, [])],
)
def test_a_senseless_share_of_the_margin_is_refused(share: float, usual: list[float]) -> None:
    classifier = tiny_classifier()
    with pytest.raises(UsageError, match="margin_share"):
        Guard(classifier, (1,), theta_for(classifier, 1), margin_share=share, usual_margins=usual)


def test_the_usual_margin_is_the_median_of_the_images_that_are_right() -> None:
    logits = torch.tensor([[5.0, 2.0, 1.0], [9.0, 1.0, 3.0], [4.0, 3.0, 0.0], [0.0, 8.0, 0.0]])
    assert usual_margin(logits, 0) == 3.0
    assert usual_margin(logits, 0, torch.tensor([True, False, True])) == 4.0
    assert usual_margin(logits, 0, torch.tensor([True, False, False])) == 0.0
    assert usual_margin(logits, 2) == 0.0


def test_of_no_image_it_says_nothing_and_passes_none() -> None:
    class Strict(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = tiny_classifier().module

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.inner(x)
            return out.view(x.size(0), -1)  # which raises for no image

    decision = guard_of(Classifier(settled(Strict())), (1, 3))(IMAGES[:0])
    assert [part.shape for part in decision] == [(0,)] * 4
    assert [part.dtype for part in decision] == [torch.int64, torch.bool, torch.int64, torch.float32]


def test_images_in_other_units_are_refused_and_what_interpolation_adds_is_not() -> None:
    guard, images = guard_of(tiny_classifier(), (1, 3)), IMAGES.float() / 255
    for wrong in (IMAGES.float(), (images - 0.5) / 0.2):
        with pytest.raises(ShapeError, match=r"lie in \[0, 1\]"):
            guard(wrong)
    guard(images * 1.04 - 0.02)
