"""Which TensorFlow suits which GPU."""

from __future__ import annotations

import pytest

from watcher.engine.tensorflow_builds import advice


@pytest.mark.parametrize(
    ("gpu", "capability", "build"),
    [
        ("Tesla K80", "3.7", "stock"),
        ("Tesla V100", "7.0", "stock"),
        ("GeForce RTX 2080 Ti", "7.5", "stock"),
        ("A100", "8.0", "+cu113"),
        ("GeForce RTX 3090", "8.6", "+cu113"),
        ("GeForce RTX 4090", "8.9", "+cu113"),
        ("H200", "9.0", "no build of TensorFlow 1.15 knows this GPU"),
        ("GeForce RTX 5090", "12.0", "no build of TensorFlow 1.15 knows this GPU"),
        ("Quadro K2000", "3.0", "the CPU"),
    ],
)
def test_each_generation_has_its_build(gpu, capability, build):
    said = advice(gpu, capability, "580.65.06")
    assert said.startswith(f"{gpu} (compute capability {capability}): use ")
    assert build in said
    assert "driver" not in said


def test_up_to_turing_nothing_else_is_recommended_and_from_hopper_on_not_tensorflow_1():
    assert "cu113" not in advice("T4", "7.5", "580.65.06")
    assert "bshm-onnx" in advice("H100", "9.0", "580.65.06")
    assert "1.15.5" not in advice("H100", "9.0", "580.65.06")


@pytest.mark.parametrize(
    ("capability", "driver", "words"),
    [
        ("7.5", "390.157", "390.157 is too old for CUDA 10.0: install 410.48"),
        ("7.5", "410.48", ""),
        ("8.6", "440.33.01", "too old for CUDA 11.3: install 450.80"),
        ("8.9", "535.104.05", ""),
        ("9.0", "470.82", "too old for CUDA 12: install 525.60"),
    ],
)
def test_a_driver_that_is_too_old_is_named(capability, driver, words):
    said = advice("GPU", capability, driver)
    assert words in said
    assert ("too old" in said) == bool(words)


@pytest.mark.parametrize("strange", ["", "N/A", "[Not Supported]", "8.", "eight"])
def test_what_cannot_be_judged_is_said_and_no_error(strange):
    assert "is unknown; use ONNX Runtime" in advice("GPU", strange, "535.104.05")
    assert "Its driver is unknown; CUDA 11.3 needs 450.80" in advice("GPU", "8.6", strange)
