"""A scan that was cut off goes on with the same result."""

from __future__ import annotations

import pytest
import torch

import untrojan
from planted import planted_classifier, planted_images
from untrojan.detection.inversion import Budget, Inversion
from untrojan.detection.plan import PairWise, ScanSettings, TargetWise, Untargeted
from untrojan.errors import UsageError
from untrojan.scan_state import FOLDER, ScanState, scan_key
from untrojan.triggers import PatchTrigger

QUICK = ScanSettings(
    kinds=("patch", "warp"),
    target_wise=TargetWise(
        first={kind: Budget(steps=40, images=16, level=0.75) for kind in ("patch", "warp")}, again={}
    ),
    pair_wise=PairWise(first={"patch": Budget(steps=30, images=6)}),
    untargeted=Untargeted(search=Budget(steps=30, images=24, level=0.6)),
)


class CutOffError(Exception):
    """As good as kill -9: nothing is written afterwards."""


class Fragile(ScanState):
    """Stops for good before the n-th share is written."""

    left = 0

    def save(self, name, found):
        if self.left == 0:
            raise CutOffError
        self.left -= 1
        super().save(name, found)


def scanned(store=None, **options):
    images, labels = planted_images()
    return untrojan.scan(planted_classifier(), images, labels, settings=QUICK, store=store, **options)


def found():
    trigger = PatchTrigger(torch.full((1, 4, 4), 0.3), torch.linspace(0, 1, 32).view(2, 4, 4))
    return [Inversion(trigger, 1.5, 0.9, 12), Inversion(None, None, 0.25, 40)]


def test_shares_come_back_as_they_were(tmp_path):
    ScanState(tmp_path, "k", resume=False).save("each pair-patch-0", found())
    first, second = ScanState(tmp_path, "k", resume=True).load("each pair-patch-0")
    assert first.trigger.sha256() == found()[0].trigger.sha256()
    assert (first.size, first.success, first.steps) == (1.5, 0.9, 12)
    assert second == found()[1]


def test_without_resume_a_scan_begins_anew(tmp_path):
    ScanState(tmp_path, "k", resume=False).save("a", found())
    assert ScanState(tmp_path, "k", resume=False).load("a") is None
    assert not (tmp_path / FOLDER).exists()


def test_another_scans_shares_are_refused(tmp_path):
    ScanState(tmp_path, "k", resume=False).save("a", found())
    with pytest.raises(UsageError, match="another classifier"):
        ScanState(tmp_path, "other", resume=True)


@pytest.mark.parametrize("damage", [b"", b"rubbish", None])
def test_a_damaged_share_is_searched_again(tmp_path, damage):
    state = ScanState(tmp_path, "k", resume=False)
    state.save("a", found())
    path = tmp_path / FOLDER / "a.safetensors"
    path.write_bytes(path.read_bytes()[:-20] if damage is None else damage)
    assert ScanState(tmp_path, "k", resume=True).load("a") is None


def test_the_key_holds_everything_that_matters():
    labels = torch.tensor([0, 1])
    base = ("v", ("a", "b"), labels, 0, ScanSettings())
    others = [
        ("w", *base[1:]),
        ("v", ("a", "c"), *base[2:]),
        (*base[:2], labels.flip(0), *base[3:]),
        (*base[:3], 1, base[4]),
        (*base[:4], QUICK),
    ]
    assert len({scan_key(*case) for case in [base, *others]}) == 6
    assert scan_key(*base) == scan_key("v", ("a", "b"), labels.clone(), 0, ScanSettings())


@pytest.mark.parametrize("after", [0, 1, 3, 4])
def test_a_scan_that_was_cut_off_goes_on_with_the_same_result(tmp_path, after):
    whole = scanned()
    state = Fragile(tmp_path, "k", resume=False)
    state.left = after
    with pytest.raises(CutOffError):
        scanned(state)
    again = scanned(ScanState(tmp_path, "k", resume=True))
    plain = {"cost"}
    assert again.model_dump(exclude=plain) == whole.model_dump(exclude=plain)
    assert {k: t.sha256() for k, t in again.triggers.items()} == {k: t.sha256() for k, t in whole.triggers.items()}
    if after:
        assert again.cost.images_forward_backward < whole.cost.images_forward_backward


def test_what_the_time_did_not_suffice_for_is_never_called_clean():
    report = scanned(budget=1e-6)
    assert report.verdict == "inconclusive"
    assert report.unreached
    assert "time allowed" in report.reason
