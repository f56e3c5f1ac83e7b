"""Clean models of one's own beside those of the package."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from search_tables import network, reference_by_hand, table
from untrojan.detection.reference import built_in, read_reference
from untrojan.detection.table_files import write_tables


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """What three scans left, the third of the same model as the second."""
    for name, seed in (("a", 1), ("b", 2), ("again", 2)):
        write_tables(tmp_path / "scans" / name / "search.parquet", [table(seed=seed)])
    return tmp_path / "scans"


def test_scans_of_clean_models_become_a_reference_file(run, scans, tmp_path):
    ended = run("calibrate", scans, "--out", tmp_path / "mine.json")
    assert ended.code == 0
    made = read_reference(tmp_path / "mine.json")
    assert [one.family for one in made.models].count("own") == 2
    assert len(made.models) == len(built_in().models) + 2
    assert "2 models of your own" in ended.out
    assert "there twice; it counts once" in ended.err


def test_what_would_be_called_backdoored_counts_as_clean_and_is_told(run, tmp_path, monkeypatch):
    monkeypatch.setattr("untrojan.detection.reference.built_in", reference_by_hand)
    write_tables(tmp_path / "attacked" / "search.parquet", [table(seed=9, target=3, shrink=0.02)])
    ended = run("calibrate", tmp_path / "attacked", "--out", tmp_path / "mine.json")
    assert ended.code == 0
    assert "counts as clean because you say so" in ended.err


def test_scans_that_tell_nothing_of_clean_models_are_left_out(run, scans, tmp_path):
    late = replace(table(seed=5), unreached=("patch triggers: each pair (3 of 90)",))
    fed = replace(table(seed=6), network=network(accuracy=0.5, alternatives=(("values of 0 to 255", 0.95),)))
    write_tables(tmp_path / "scans" / "more" / "search.parquet", [late, fed, table(2, seed=7)])
    ended = run("calibrate", scans, "--out", tmp_path / "mine.json")
    assert "2 models of your own" in ended.out
    for why in ("did not suffice for patch triggers", "95% with values of 0 to 255", "it has two classes"):
        assert why in ended.err
    write_tables(tmp_path / "late" / "search.parquet", [late])
    assert run("calibrate", tmp_path / "late", "--out", tmp_path / "none.json").code == 4
    assert not (tmp_path / "none.json").exists()


def test_a_scan_is_compared_with_it(run, scanned, victim_folder, images_folder, scans, tmp_path):
    run("calibrate", scans, "--out", tmp_path / "mine.json")
    calls = scanned("clean")
    ended = run("scan", victim_folder, "--clean", images_folder, "--reference", tmp_path / "mine.json")
    assert ended.code == 0
    assert calls[0]["reference"] == read_reference(tmp_path / "mine.json")


def test_a_victim_that_cannot_be_scanned_does_not_cost_the_others(run, scans, victim_folder, images_folder, tmp_path):
    damaged = shutil.copytree(victim_folder, tmp_path / "damaged")
    (damaged / "victim.safetensors").write_bytes(b"damaged")
    ended = run("calibrate", damaged, scans, "--clean", images_folder, "--out", tmp_path / "mine.json")
    assert ended.code == 0
    assert f"{damaged}: left out, since" in ended.err
    assert "2 models of your own" in ended.out


def test_victims_without_a_scan_need_images(run, victim_folder, tmp_path):
    ended = run("calibrate", victim_folder, "--out", tmp_path / "mine.json")
    assert ended.code == 4
    assert "give --clean DATA" in ended.error
    assert not (tmp_path / "mine.json").exists()


def test_a_folder_without_either_and_a_wrong_file_are_one_line(run, scanned, victim_folder, images_folder, tmp_path):
    (tmp_path / "empty").mkdir()
    assert run("calibrate", tmp_path / "empty", "--out", tmp_path / "x.json").code == 4
    assert run("calibrate", tmp_path / "missing", "--out", tmp_path / "x.json").code == 4
    (tmp_path / "wrong.json").write_text("{}")
    scanned("clean")
    ended = run("scan", victim_folder, "--clean", images_folder, "--reference", tmp_path / "wrong.json")
    assert ended.code == 2
    assert "not a reference set" in ended.error
