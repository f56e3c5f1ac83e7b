"""``import untrojan`` is quick, and every public name is there when it is asked for."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file

import untrojan


def test_every_public_name_has_one_home():
    listed = [name for names in untrojan._ROOMS.values() for name in names]
    assert sorted(listed) == sorted(untrojan.__all__)
    for name in untrojan.__all__:
        assert getattr(untrojan, name).__name__ == name
    assert set(untrojan.__all__) <= set(dir(untrojan))


def test_another_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        untrojan.nothing  # noqa: B018


def test_help_does_not_wait_for_torch():
    code = "import sys, untrojan.cli; print(untrojan.__version__); sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_a_victim_is_loaded_by_name(tmp_path):
    module = untrojan.load_classifier.__globals__["ARCHITECTURES"]["convnet"](width=2, classes=3, channels=1)
    save_file(module.state_dict(), tmp_path / "w.safetensors")
    found = untrojan.load_classifier("convnet?width=2&classes=3&channels=1", tmp_path / "w.safetensors", mean=[0.5])
    assert found(torch.zeros(2, 1, 28, 28)).shape == (2, 3)
