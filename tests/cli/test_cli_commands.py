"""The commands on a tiny victim: what they print, what they write, how they end."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from tiny_cli import guard_of, report_of, stripes, write_folder

from untrojan.guard import MARGIN_SHARE, load_card, save_guard
from untrojan.records import Evaluation, ScanReport
from untrojan.report import render_json
from untrojan.scan_files import load_scan, save_scan
from untrojan.storage import read_safetensors


@pytest.mark.parametrize(("verdict", "code"), [("clean", 0), ("backdoor", 1), ("inconclusive", 2)])
def test_scan_ends_with_its_verdict(run, scanned, victim_folder, images_folder, verdict, code):
    calls = scanned(verdict)
    ended = run("scan", victim_folder, "--clean", images_folder, "--format", "json", "--seed", "5")
    assert ended.code == code
    found = json.loads(ended.out)
    assert (found["schema"], found["verdict"]) == ("untrojan-scan-2", verdict)
    assert calls[0]["seed"] == 5
    assert calls[0]["images"].shape == (48, 1, 8, 8)
    assert sorted(calls[0]["labels"].unique().tolist()) == [0, 1, 2]


def test_scan_writes_what_it_prints_and_only_under_out(
    run, scanned, victim_folder, images_folder, tmp_path, monkeypatch
):
    scanned("backdoor")
    monkeypatch.chdir(tmp_path)
    printed = run("scan", victim_folder, "--clean", images_folder, "--format", "json")
    assert list(tmp_path.iterdir()) == []
    ended = run("scan", victim_folder, "--clean", images_folder, "--out", "result", "--format", "html")
    assert sorted(p.name for p in (tmp_path / "result").iterdir()) == [
        "report.html",
        "scan.json",
        "triggers.safetensors",
    ]
    assert (tmp_path / "result/scan.json").read_text() == printed.out
    assert (tmp_path / "result/report.html").read_text() == ended.out
    assert load_scan(tmp_path / "result").triggers[1, "patch"].kind == "patch"
    assert ended.out.startswith("<!")
    assert "untrojan scan" in ended.out
    assert "--out result" in ended.out


def test_scan_as_text(run, scanned, victim_folder, images_folder):
    scanned("backdoor")
    ended = run("scan", victim_folder, "--clean", images_folder)
    assert "Backdoor found" in ended.out
    assert "1 (b)" in ended.out
    assert ended.err == "inverting (0/2)\n"


def test_quiet_says_nothing_on_stderr(run, scanned, victim_folder, images_folder):
    scanned("clean")
    assert run("scan", victim_folder, "--clean", images_folder, "--quiet").err == ""
    assert run("scan", victim_folder, "--clean", images_folder, "-q").err == ""


def test_limit_draws_evenly(run, scanned, victim_folder, images_folder):
    calls = scanned("clean")
    run("scan", victim_folder, "--clean", images_folder, "--limit", "9")
    assert calls[0]["labels"].bincount().tolist() == [3, 3, 3]


def test_model_and_weights_name_the_same_victim_as_its_folder(run, scanned, victim_folder, images_folder, tmp_path):
    calls = scanned("clean")
    shutil.copy(victim_folder / "victim.safetensors", tmp_path / "w.safetensors")
    one = run("scan", victim_folder, "--clean", images_folder, "--format", "json")
    model = ["--model", "convnet?width=4&classes=3", "--weights", tmp_path / "w.safetensors"]
    two = run("scan", *model, "--clean", images_folder, "--format", "json")
    assert json.loads(one.out)["victim"] == json.loads(two.out)["victim"]
    assert json.loads(two.out)["victim"]["class_names"] == ["a", "b", "c"]
    resized = run("scan", *model, "--clean", images_folder, "--input", "1x16x12", "--mean", "0.5", "--format", "json")
    assert calls[-1]["images"].shape == (48, 1, 16, 12)
    assert json.loads(resized.out)["victim"]["sha256"] != json.loads(one.out)["victim"]["sha256"]


def test_interrupted_scan_leaves_nothing(run, victim_folder, images_folder, tmp_path, monkeypatch):
    def interrupted(*_arguments, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr("untrojan.pipeline.scan", interrupted)
    ended = run("scan", victim_folder, "--clean", images_folder, "--out", tmp_path / "out")
    assert ended.code == 130
    assert "interrupted" in ended.error
    assert list(tmp_path.iterdir()) == []


def test_full_disk_during_a_scan_leaves_nothing(run, scanned, victim_folder, images_folder, tmp_path, monkeypatch):
    scanned("backdoor")

    def full(*_arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    ended = run("scan", victim_folder, "--clean", images_folder, "--out", tmp_path / "out")
    assert ended.code == 2
    assert "No space left" in ended.error
    assert ".untrojan-" not in ended.error
    assert ended.out == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("5m", 300), ("1.5h", 5400), ("45", 45)])
def test_a_budget_is_a_time(run, scanned, victim_folder, images_folder, text, seconds):
    calls = scanned("clean")
    assert run("scan", victim_folder, "--clean", images_folder, "--budget", text).code == 0
    assert calls[0]["budget"] == seconds


@pytest.mark.parametrize("text", ["0", "-5", "soon", "5 m m", "1d", ""])
def test_what_is_no_time_is_a_wrong_usage(run, scanned, victim_folder, images_folder, text):
    scanned("clean")
    ended = run("scan", victim_folder, "--clean", images_folder, f"--budget={text}")
    assert ended.code == 4
    assert "90s" in ended.error


def test_a_finished_scan_keeps_no_state(run, victim_folder, images_folder, tmp_path, scanned):
    calls = scanned("clean")
    assert run("scan", victim_folder, "--clean", images_folder, "--out", tmp_path / "o").code == 0
    calls[0]["store"].save("a", [])
    assert (tmp_path / "o/scan-state").is_dir()
    assert run("scan", victim_folder, "--clean", images_folder, "--out", tmp_path / "o", "--resume").code == 0
    assert calls[1]["store"].resumed
    assert not (tmp_path / "o/scan-state").exists()


def test_resume_asks_for_the_folder_and_refuses_another_scans(run, victim_folder, images_folder, tmp_path, scanned):
    calls = scanned("clean")
    ended = run("scan", victim_folder, "--clean", images_folder, "--resume")
    assert ended.code == 4
    assert "--out" in ended.error
    out = tmp_path / "o"
    assert run("scan", victim_folder, "--clean", images_folder, "--out", out).code == 0
    calls[0]["store"].save("a", [])
    ended = run("scan", victim_folder, "--clean", images_folder, "--out", out, "--resume", "--seed", "9")
    assert ended.code == 4
    assert "another" in ended.error


def test_repair_writes_a_guard_and_prints_its_card(
    run, victim_folder, images_folder, scan_folder, tmp_path, monkeypatch
):
    recipes = []

    def repair(classifier, images, labels, report, *, seed, settings, method, options, margin_share, progress):
        assert report.triggers
        recipes.append((settings.restarts, (options or {}).get("epochs"), margin_share))
        return guard_of(classifier, stripes(48, seed=2).images)

    monkeypatch.setattr("untrojan.pipeline.repair", repair)
    command = ["repair", victim_folder, "--clean", images_folder, "--scan", scan_folder, "-q"]
    ended = run(*command, "--out", tmp_path / "g", "--format", "json")
    assert (ended.code, ended.err) == (0, "")
    assert json.loads(ended.out)["schema"] == "untrojan-guard-1"
    assert sorted(p.name for p in (tmp_path / "g").iterdir()) == ["guard.json", "guard.safetensors"]
    assert render_json(load_card(tmp_path / "g")) == ended.out
    assert "Guard made" in run(*command, "--out", tmp_path / "g").out
    assert "Backdoor found" in run(*command, "--out", tmp_path / "g", "--format", "html").out
    assert run(*command, "--out", tmp_path / "g", "--recipe", "paper").code == 0
    assert recipes[0][0] > 1
    assert recipes == [(recipes[0][0], None, MARGIN_SHARE)] * 3 + [(1, 30, 0.0)]


def test_another_method_replaces_the_network(run, victim_folder, images_folder, scan_folder, tmp_path):
    command = ["repair", victim_folder, "--clean", images_folder, "--scan", scan_folder, "-q", "--out", tmp_path / "g"]
    ended = run(*command, "--method", "nc", "--method-option", "epochs=2", "--method-option", "share=0.5")
    assert (ended.code, ended.err) == (0, "")
    assert "Network replaced" in ended.out
    card = load_card(tmp_path / "g")
    assert (card.method, card.form, card.settings["tuning"]["share"]) == ("nc", "replacement", 0.5)
    ended = run("evaluate", victim_folder, "--test", images_folder, "--guard", tmp_path / "g", "--format", "json", "-q")
    assert ended.code == 2, "all images were used to make it"
    save_png = tmp_path / "one.png"
    save_png.write_bytes(next(images_folder.rglob("*.png")).read_bytes())
    ended = run("predict", victim_folder, save_png, "--guard", tmp_path / "g", "--format", "json", "-q")
    assert ended.code == 0
    row = json.loads(ended.out)[0]
    assert (row["triggered"], row["score"]) == (None, None)
    assert row["label"] in range(3)
    assert "not checked for a trigger" in run("predict", victim_folder, save_png, "--guard", tmp_path / "g", "-q").out


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--method", "magic"], "is not one of bna, ft"),
        (["--method", "ft", "--method-option", "epoch=2"], "no option 'epoch'"),
        (["--method", "ft", "--method-option", "epochs=two"], "epochs cannot be 'two'"),
        (["--method", "ft", "--method-option", "epochs"], "expected KEY=VALUE"),
        (["--method", "ft", "--recipe", "paper"], "either it or --method"),
        (["--method", "bna", "--method-option", "steps=0"], "steps"),
    ],
)
def test_a_wrong_method_is_wrong_usage(run, victim_folder, images_folder, scan_folder, tmp_path, more, said):
    command = ["repair", victim_folder, "--clean", images_folder, "--scan", scan_folder, "--out", tmp_path / "g"]
    ended = run(*command, *more)
    assert ended.code == 4
    assert said in ended.error
    assert not (tmp_path / "g").exists()


def test_repair_of_a_clean_scan_has_nothing_to_do(run, classifier, victim, victim_folder, tmp_path):
    save_scan(tmp_path / "scan", report_of(classifier, victim, "clean"))
    command = ["repair", victim_folder, "--clean", "nowhere", "--scan", tmp_path / "scan", "--out", tmp_path / "guard"]
    ended = run(*command)
    assert (ended.code, ended.err) == (0, "")
    assert "nothing to repair" in ended.out
    assert json.loads(run(*command, "--format", "json").out)["guard"] is None
    assert not (tmp_path / "guard").exists()


def test_repair_of_a_clean_scan_checks_its_options_and_tells_of_an_earlier_guard(
    run, classifier, victim, victim_folder, guard_folder, tmp_path
):
    save_scan(tmp_path / "scan", report_of(classifier, victim, "clean"))
    command = ["repair", victim_folder, "--clean", "nowhere", "--scan", tmp_path / "scan", "--out", guard_folder]
    assert run(*command, "--method", "magic").code == 4
    assert run(*command, "--method-option", "tau=x").code == 4
    ended = run(*command)
    assert ended.code == 0
    assert "an earlier run" in ended.err
    assert sorted(p.name for p in guard_folder.iterdir()) == ["guard.json", "guard.safetensors"]


def test_repair_of_an_inconclusive_scan_is_an_error(run, classifier, victim, victim_folder, tmp_path):
    save_scan(tmp_path / "scan", report_of(classifier, victim, "inconclusive"))
    ended = run("repair", victim_folder, "--clean", "digits", "--scan", tmp_path / "scan", "--out", tmp_path / "guard")
    assert ended.code == 2
    assert "inconclusive" in ended.error
    assert not (tmp_path / "guard").exists()


def test_a_scan_of_another_classifier_is_refused(run, victim_folder, images_folder, scan_folder, tmp_path):
    model = ["--model", "convnet?width=4&classes=3", "--weights", victim_folder / "victim.safetensors", "--std", "0.5"]
    for command in (
        ["repair", *model, "--clean", images_folder, "--scan", scan_folder, "--out", tmp_path / "g"],
        ["evaluate", *model, "--test", images_folder, "--scan", scan_folder],
    ):
        ended = run(*command)
        assert ended.code == 2
        assert "--mean and --std" in ended.error


def test_evaluate_measures_before_and_behind_the_guard(run, victim_folder, images_folder, guard_folder, tmp_path):
    command = ["evaluate", victim_folder, "--test", images_folder, "--guard", guard_folder, "-q"]
    ended = run(*command, "--trigger", victim_folder / "trigger.safetensors", "--format", "json")
    assert (ended.code, ended.err) == (0, "")
    found = json.loads(ended.out)
    assert found["schema"] == "untrojan-evaluation-1"
    assert found["before"]["acc"]["value"] > 0.9
    assert found["before"]["asr"]["value"] > 0.9
    assert found["after"]["tpr"] is not None
    assert found["setting"] == "a2o:1"
    assert found["counts"]["left_out"] == 12
    assert found["counts"]["clean"] == 36
    without = json.loads(run(*command, "--format", "json").out)
    assert without["before"]["asr"] is None
    assert without["after"]["fpr"] is not None


def test_evaluate_writes_a_report_with_the_scan(run, victim_folder, images_folder, guard_folder, scan_folder, tmp_path):
    ended = run(
        *("evaluate", victim_folder, "--test", images_folder, "--guard", guard_folder, "--scan", scan_folder),
        *("--trigger", victim_folder / "trigger.safetensors", "--out", tmp_path / "out"),
    )
    assert ended.code == 0
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["evaluation.json", "report.html"]
    Evaluation.model_validate_json((tmp_path / "out/evaluation.json").read_text())
    page = (tmp_path / "out/report.html").read_text()
    assert "Backdoor found" in page
    assert "data:image/png" in page
    assert "Backdoor found" in ended.out
    assert "ASR" in ended.out


def test_evaluate_needs_images_that_the_guard_has_not_seen(run, victim_folder, classifier, images_folder, tmp_path):
    save_guard(tmp_path / "guard", guard_of(classifier, stripes(48, seed=2).images))
    ended = run("evaluate", victim_folder, "--test", images_folder, "--guard", tmp_path / "guard")
    assert ended.code == 2
    assert "all 48 images" in ended.error


def test_predict_says_each_image_in_order(run, victim, victim_folder, guard_folder, tmp_path):
    images = stripes(9, seed=4)
    stamped = victim.trigger.stamp(images.images[:1].float() / 255)
    folder = tmp_path / "images"
    folder.mkdir()
    for name, image in (("z", images.images[0]), ("m", images.images[2]), ("a", (stamped[0] * 255).to(torch.uint8))):
        Image.fromarray(image[0].numpy()).save(folder / f"{name}.png")
    command = ["predict", victim_folder, folder / "z.png", folder, "--guard", guard_folder, "-q"]
    ended = run(*command, "--format", "json", "--out", tmp_path / "out")
    assert (ended.code, ended.err) == (0, "")
    rows = json.loads(ended.out)
    assert [Path(row["image"]).stem for row in rows] == ["z", "a", "m", "z"]
    assert rows[0] == rows[3]
    assert (rows[0]["label"], rows[0]["class"], rows[0]["triggered"], rows[0]["score"]) == (0, "a", False, 0.0)
    assert rows[1]["suspect_label"] == 1
    assert rows[1]["triggered"] == (rows[1]["label"] != 1)
    assert set(rows[1]) == {"image", "label", "class", "triggered", "suspect_label", "score"}
    assert (tmp_path / "out/predictions.json").read_text() == ended.out
    lines = run(*command).out.splitlines()
    assert len(lines) == 4
    assert lines[0] == f"{folder}/z.png: 0 (a), no trigger, score 0.000"
    assert run(*command, "--seed", 7).out.splitlines() == lines, "nothing is drawn"


def test_predict_with_a_named_model_takes_every_path_for_an_image(run, victim_folder, guard_folder, images_folder):
    model = ["--model", "convnet?width=4&classes=3", "--weights", victim_folder / "victim.safetensors"]
    ended = run("predict", *model, "--guard", guard_folder, images_folder / "a", "--format", "json")
    assert ended.code == 0
    rows = json.loads(ended.out)
    assert len(rows) == 16
    assert {row["class"] for row in rows} == {"a"}


def test_an_image_of_another_size_is_resized_as_the_guard_knows(run, victim_folder, guard_folder, tmp_path):
    Image.new("RGB", (30, 20)).save(tmp_path / "large.png")
    model = ["--model", "convnet?width=4&classes=3", "--weights", victim_folder / "victim.safetensors"]
    assert run("predict", *model, "--guard", guard_folder, tmp_path / "large.png").code == 0


def test_predict_shows_no_control_characters(run, victim_folder, guard_folder, images_folder, tmp_path):
    shutil.copy(images_folder / "a/0.png", tmp_path / "\x1b[31mred\n.png")
    ended = run("predict", victim_folder, tmp_path / "\x1b[31mred\n.png", "--guard", guard_folder)
    assert ended.code == 0
    assert "\x1b" not in ended.out
    assert ended.out.count("\n") == 1


def test_poison_makes_a_victim_that_scan_takes(run, scanned, tmp_path):
    scanned("clean")
    train = write_folder(tmp_path / "train", stripes(60))
    command = [
        *("poison", "--dataset", train, "--test", train, "--setting", "s2t:0>1", "--arch", "convnet", "--width", "2"),
        *("--count", "5", "--attack-option", "size=2", "--epochs", "1", "--batch-size", "16", "--input", "1x10x10"),
    ]
    ended = run(*command, "--out", tmp_path / "v", "--format", "json", "-q")
    assert (ended.code, ended.err) == (0, "")
    assert sorted(p.name for p in (tmp_path / "v").iterdir()) == [
        "trigger.safetensors",
        "victim.json",
        "victim.safetensors",
    ]
    card = json.loads((tmp_path / "v/victim.json").read_text())
    assert card == json.loads(ended.out)
    assert card["input_shape"] == [1, 10, 10]
    assert card["training"]["augmentation"] == "none"
    assert card["recipe"]["dataset"] == str(train)
    assert [row["epoch"] for row in card["history"]] == [1]
    assert (card["attack_options"], card["trigger"]["size"]) == ({"size": 2}, 4.0)
    assert card["asr"] is not None
    assert run("scan", tmp_path / "v", "--clean", train).code == 0
    text = run(*command, "--out", tmp_path / "v")
    assert "s2t:0>1, 11 images added" in text.out  # 5 and, of both other classes, 3 that keep their label
    assert "training (0/" in text.err


def test_poison_clean_removes_the_trigger_of_an_earlier_victim(run, tmp_path):
    train = write_folder(tmp_path / "train", stripes(30))
    common = ["--dataset", train, "--arch", "convnet", "--width", "2", "--epochs", "1", "--out", tmp_path / "v", "-q"]
    assert run("poison", *common, "--setting", "a2a", "--attack-option", "size=2").code == 0
    assert run("poison", *common, "--attack", "none").code == 0
    assert sorted(p.name for p in (tmp_path / "v").iterdir()) == ["victim.json", "victim.safetensors"]


def test_poison_on_digits_takes_their_splits(run, tmp_path, monkeypatch):
    asked = []

    def load(spec, **options):
        asked.append((spec, options.get("class_names")))
        return stripes(30)

    monkeypatch.setattr("untrojan.victims.recipe.load_data", load)
    common = ["--attack", "none", "--width", "2", "--epochs", "1", "--arch", "convnet", "-q"]
    assert run("poison", "--dataset", "digits", "--out", tmp_path / "v", *common).code == 0
    assert asked == [("digits?split=train", None), ("digits?split=test", ("a", "b", "c"))]


def test_doctor_knows_this_environment(run):
    found = json.loads(run("doctor", "--format", "json").out)
    assert found["packages"]["torch"] == torch.__version__
    assert found["devices"][0]["name"] == "cpu"
    assert set(found["extras"]) >= {"demo", "test"}
    ended = run("doctor")
    assert (ended.code, ended.err) == (0, "")
    assert f"torch {torch.__version__}" in ended.out


def test_doctor_says_how_to_install_what_is_missing(run, monkeypatch):
    from untrojan.cli import doctor

    known = doctor._installed
    monkeypatch.setattr(doctor, "_installed", lambda name: None if name == "mlxtend" else known(name))
    ended = run("doctor")
    assert ended.code == 0
    assert 'missing mlxtend; pip install "untrojan[demo]"' in ended.out


def test_records_of_a_test_scan_are_what_the_format_promises(classifier, victim):
    report = report_of(classifier, victim, "backdoor")
    assert ScanReport.model_validate_json(render_json(report)).targets == (1,)
    assert read_safetensors.__module__ == "untrojan.storage"
