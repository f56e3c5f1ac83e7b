from __future__ import annotations

import pytest
import torch

from untrojan.data import ImageSet, image_hashes
from untrojan.errors import DataError


def make(labels: list[int]) -> ImageSet:
    values = torch.arange(len(labels), dtype=torch.uint8).view(-1, 1, 1, 1)
    return ImageSet(values.expand(-1, 1, 2, 3).clone(), torch.tensor(labels, dtype=torch.int64), None, "a test")


def test_hash_is_pinned_because_guards_store_it():
    images = torch.arange(6, dtype=torch.uint8).view(1, 1, 2, 3)
    assert image_hashes(images) == ("4fba273849f6c0625b46a54a7dc50bc78a54a9fa114b4fae70d0510147640a81",)


def test_hash_depends_on_pixels_and_shape_alone():
    images = torch.arange(12, dtype=torch.uint8).view(2, 1, 2, 3)
    assert image_hashes(images) == image_hashes(images.flip(0))[::-1]
    assert image_hashes(images)[0] != image_hashes(images)[1]
    assert image_hashes(images) != image_hashes(images.view(2, 1, 3, 2))
    assert image_hashes(images.permute(0, 1, 3, 2)) == image_hashes(images.permute(0, 1, 3, 2).contiguous())


def test_hash_refuses_floats():
    with pytest.raises(DataError, match="uint8"):
        image_hashes(torch.zeros(1, 1, 2, 2))


def test_without_leaves_out_and_counts():
    images = make([0, 1, 0, 1])
    rest, left_out = images.without([*images.select(torch.tensor([1, 3])).hashes(), "something else"])
    assert left_out == 2
    assert rest.images[:, 0, 0, 0].tolist() == [0, 2]
    assert rest.labels.tolist() == [0, 0]


def test_without_everything_is_an_empty_set():
    images = make([0, 1])
    rest, left_out = images.without(images.hashes())
    assert (len(rest), left_out) == (0, 2)
    assert rest.without([])[1] == 0


def test_select_takes_indices_and_masks():
    images = make([3, 4, 5])
    assert images.select(torch.tensor([2, 0])).labels.tolist() == [5, 3]
    assert images.select(images.labels > 3).labels.tolist() == [4, 5]


def test_classes_present():
    assert make([5, 2, 5]).classes_present() == (2, 5)


def test_good_labels_pass():
    images = make([0, 9, 3])
    images.require_labels(10)
    assert images.classes_present() == (0, 3, 9)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 10], "label 10 .* 10 classes"),
        ([-1, 0], "label -1 .* 10 classes"),
        ([4, 4], "every image is of class 4"),
        ([], "no images"),
    ],
)
def test_bad_labels_are_refused(labels, message):
    with pytest.raises(DataError, match=message):
        make(labels).require_labels(10)


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        (torch.zeros(2, 1, 2, 2), torch.zeros(2, dtype=torch.int64)),
        (torch.zeros(2, 2, 2, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64)),
        (torch.zeros(2, 1, 2, 2, dtype=torch.uint8), torch.zeros(3, dtype=torch.int64)),
        (torch.zeros(2, 1, 2, 2, dtype=torch.uint8), torch.zeros(2, dtype=torch.int32)),
    ],
)
def test_wrong_tensors_are_refused(images, labels):
    with pytest.raises(DataError, match="expected"):
        ImageSet(images, labels, None, "a test")
