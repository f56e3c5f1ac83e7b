from __future__ import annotations

import os

import pytest
import torch

from untrojan.data import load_data
from untrojan.data.source import align_labels
from untrojan.errors import DataError


def labels_by_value(images):
    """{red value of the image: label}."""
    return dict(zip(images.images[:, 0, 0, 0].tolist(), images.labels.tolist(), strict=True))


def test_sorted_names_give_the_order(write_folder):
    images = load_data(str(write_folder({"dog": [1, 2], "cat": [3], "Ape": [4]})), input_shape=None)
    assert labels_by_value(images) == {4: 0, 3: 1, 1: 2, 2: 2}
    assert images.class_names == ("Ape", "cat", "dog")
    assert images.labels.dtype == torch.int64


def test_numbers_are_labels(write_folder):
    images = load_data(str(write_folder({"10": [1], "2": [2], "007": [3]})), input_shape=None)
    assert labels_by_value(images) == {1: 10, 2: 2, 3: 7}
    assert images.class_names is None


def test_two_folders_of_one_number_are_refused(write_folder):
    with pytest.raises(DataError, match="'01' and '1' are one number"):
        load_data(str(write_folder({"01": [1], "1": [2], "2": [3]})), input_shape=None)


def test_labels_by_order_say_so(write_folder):
    root = str(write_folder({"b": [1], "a": [2]}))
    assert load_data(root, input_shape=None).by_order
    assert load_data(root, input_shape=None).select(torch.tensor([0])).by_order
    assert not load_data(root, input_shape=None, class_names=["a", "b"]).by_order


def test_labels_by_number_are_none_by_order(write_folder):
    assert not load_data(str(write_folder({"1": [1], "0": [2]})), input_shape=None).by_order


def test_long_numbers_are_names(write_folder):
    images = load_data(str(write_folder({"00001500": [1], "00000200": [2]})), input_shape=None)
    assert labels_by_value(images) == {2: 0, 1: 1}


def test_the_classifiers_names_come_first(write_folder):
    root = write_folder({"0": [1], "2": [2]})
    images = load_data(str(root), input_shape=None, class_names=["2", "1", "0"])
    assert labels_by_value(images) == {1: 2, 2: 0}
    assert images.class_names == ("2", "1", "0")


def test_other_names_than_the_classifiers_fall_back_to_the_order(write_folder):
    images = load_data(str(write_folder({"b": [1], "a": [2]})), input_shape=None, class_names=["x", "y"])
    assert labels_by_value(images) == {2: 0, 1: 1}


def test_a_half_match_of_names_is_refused(write_folder):
    with pytest.raises(DataError, match="'dgo' is not; rename"):
        load_data(str(write_folder({"cat": [1], "dgo": [2]})), input_shape=None, class_names=["cat", "dog"])


def test_hidden_and_other_files_are_passed_over(write_folder, png):
    root = write_folder({"a": [1], "b": [2], ".git": [3]})
    (root / "readme.png").write_bytes(png(4))
    (root / "a" / "notes.txt").write_text("no image")
    (root / "a" / ".hidden.png").write_bytes(png(5))
    (root / "a" / "nested").mkdir()
    (root / "a" / "nested" / "deep.png").write_bytes(png(6))
    (root / "a" / "folder.png").mkdir()
    (root / "b" / "UPPER.PNG").write_bytes(png(7))
    assert labels_by_value(load_data(str(root), input_shape=None)) == {1: 0, 2: 1, 7: 1}


def test_links_that_leave_the_folder_are_not_followed(write_folder, png):
    root, other = write_folder({"a": [1], "b": [2]}), write_folder({"x": [8, 9]}, name="other")
    (root / "a" / "inside.png").symlink_to(root / "b" / "00.png")
    (root / "a" / "outside.png").symlink_to(other / "x" / "00.png")
    (root / "a" / "dangling.png").symlink_to(root / "nothing.png")
    (root / "a" / "loop.png").symlink_to(root / "a" / "loop.png")
    images = load_data(str(root), input_shape=None)
    assert images.images[:, 0, 0, 0].tolist() == [1, 2, 2]
    assert images.labels.tolist() == [0, 0, 1]
    (root / "c").symlink_to(other / "x", target_is_directory=True)
    with pytest.raises(DataError, match="'c' holds no images"):
        load_data(str(root), input_shape=None)
    assert len(load_data(str(root), input_shape=None, class_names=["a", "b", "c"])) == 3


def test_the_folder_itself_may_be_a_link(write_folder, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(write_folder({"a": [1], "b": [2]}), target_is_directory=True)
    assert len(load_data(str(link), input_shape=None)) == 2


def test_an_empty_class_would_shift_the_others(write_folder):
    root = write_folder({"a": [1], "b": [], "c": [2]})
    with pytest.raises(DataError, match="'b' holds no images, so that the order"):
        load_data(str(root), input_shape=None)
    assert labels_by_value(load_data(str(root), input_shape=None, class_names=["a", "b", "c"])) == {1: 0, 2: 2}


def test_an_empty_numbered_class_shifts_nothing(write_folder):
    assert labels_by_value(load_data(str(write_folder({"0": [1], "1": [], "2": [2]})), input_shape=None)) == {
        1: 0,
        2: 2,
    }


@pytest.mark.parametrize(("classes", "message"), [({}, "no sub-folders"), ({"a": [], "b": []}, "no images in its 2")])
def test_an_empty_folder_says_what_is_expected(write_folder, tmp_path, classes, message):
    write_folder(classes)
    (tmp_path / "set").mkdir(exist_ok=True)
    with pytest.raises(DataError, match=f"{message}.*one sub-folder per class"):
        load_data(str(tmp_path / "set"), input_shape=None)


def test_an_unreadable_image_is_named(write_folder):
    root = write_folder({"a": [1], "b": [2]})
    (root / "b" / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(DataError, match=r"b/broken\.jpg: "):
        load_data(str(root), input_shape=None)


def test_a_pipe_named_like_an_image_is_passed_over(write_folder):
    root = write_folder({"a": [1], "b": [2]})
    os.mkfifo(root / "a" / "pipe.png")
    assert len(load_data(str(root), input_shape=None)) == 2


def test_align_goes_by_name_where_all_are_known():
    labels, names = align_labels(torch.tensor([0, 1, -1]), ("dog", "cat"), ["cat", "cow", "dog"], "here")
    assert labels.tolist() == [2, 0, -1]
    assert names == ("cat", "cow", "dog")


@pytest.mark.parametrize(
    ("own", "wanted"),
    [
        (None, ["a", "b"]),
        (("a", "b"), None),
        (("a", "x"), ["a", "b"]),
        (("u", "v"), ["a", "b"]),
        (("a", "a"), ["b", "a"]),
    ],
)
def test_align_keeps_numbers_where_names_do_not_contradict(own, wanted):
    assert align_labels(torch.tensor([0, 1]), own, wanted, "here")[0].tolist() == [0, 1]


def test_align_refuses_a_contradiction():
    with pytest.raises(DataError, match="class 'b' is number 0 here and 1 in the classifier"):
        align_labels(torch.tensor([0, 1]), ("b", "x"), ["a", "b"], "here")


def test_names_count_without_regard_to_case_where_they_must(write_folder):
    root = write_folder({"airplane": [1], "cat": [2], "dog": [3]})
    found = load_data(str(root), input_shape=None, class_names=["Airplane", "Bird", "Cat", "Dog"])
    assert labels_by_value(found) == {1: 0, 2: 2, 3: 3}


def test_a_misspelt_name_beside_one_in_another_case_is_refused(write_folder):
    with pytest.raises(DataError, match="dgo"):
        load_data(str(write_folder({"Cat": [1], "dgo": [2]})), input_shape=None, class_names=["cat", "dog"])


def test_fewer_folders_than_classes_are_not_numbered_by_their_order(write_folder):
    root = write_folder({"plane": [1], "hen": [2], "hound": [3]})
    with pytest.raises(DataError, match=r"3 sub-folders, none .* 4 classes"):
        load_data(str(root), input_shape=None, class_names=["Airplane", "Bird", "Cat", "Dog"])


def test_a_name_that_is_not_text_is_refused_before_any_work(write_folder, png):
    root = write_folder({"a": [1]})
    broken = os.fsencode(root) + b"/caf\xe9"
    os.mkdir(broken)
    with open(broken + b"/x.png", "wb") as file:
        file.write(png(2))
    with pytest.raises(DataError, match="not UTF-8"):
        load_data(str(root), input_shape=None)


def test_links_that_leave_the_folder_are_spoken_of(write_folder, tmp_path):
    elsewhere, root = write_folder({"a": [1]}), tmp_path / "links"
    root.mkdir()
    (root / "a").symlink_to(elsewhere / "a")
    with pytest.raises(DataError, match="1 of them are links that leave it"):
        load_data(str(root), input_shape=None)
