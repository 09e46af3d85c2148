"""Which TensorFlow runs BSHM on which GPU. Pure."""

from __future__ import annotations

# The oldest Linux drivers for each CUDA, from NVIDIA's CUDA release notes (table of toolkit and driver
# versions; for 11.x and 12.x the minimum under minor version compatibility).
_DRIVERS = {"10.0": (410, 48), "11.3": (450, 80), "12": (525, 60)}

_STOCK = "the stock tensorflow-gpu 1.15.5 (CUDA 10.0, cuDNN 7), as environment.yml installs it"
_CU113 = (
    "ModelScope's build tensorflow-gpu 1.15.5+cu113 (CUDA 11.3, cuDNN 8.2); "
    "the stock 1.15.5 fails or hangs on this GPU"
)
_NEWER = "ONNX Runtime (model bshm-onnx, after `hotmatte models convert bshm`) or TensorFlow 2"


def advice(gpu_name: str, compute_capability: str, driver: str) -> str:
    """One sentence on which runtime suits the GPU, as nvidia-smi names it: "8.9", "535.104.05".

    An unknown capability or driver is no error: the advice then says what it could not judge.
    """
    capability = _numbers(compute_capability)
    if not capability:
        return f"{gpu_name}: its compute capability {compute_capability!r} is unknown; use {_NEWER}."
    words, cuda = _suiting(capability)
    return f"{gpu_name} (compute capability {compute_capability}): use {words}.{_driver(driver, cuda)}"


def _suiting(capability: tuple[int, ...]) -> tuple[str, str]:
    """The build in words, and the CUDA it needs."""
    if capability < (3, 5):
        return "the CPU: it is older than any TensorFlow that runs BSHM", ""
    if capability < (8,):
        return _STOCK, "10.0"
    if capability < (9,):
        # Ada (8.9) runs what was compiled for Ampere (8.6): same major version.
        return f"{_CU113}. {_NEWER} will do as well", "11.3"
    return f"{_NEWER}: no build of TensorFlow 1.15 knows this GPU", "12"


def _driver(driver: str, cuda: str) -> str:
    """What is wrong with the driver, if anything."""
    if not cuda:
        return ""
    have, need = _numbers(driver), _DRIVERS[cuda]
    wanted = ".".join(str(part) for part in need)
    if not have:
        return f" Its driver is unknown; CUDA {cuda} needs {wanted} or newer."
    if have[:2] < need:
        return f" Its driver {driver} is too old for CUDA {cuda}: install {wanted} or newer."
    return ""


def _numbers(version: str) -> tuple[int, ...]:
    parts = version.strip().split(".")
    return tuple(int(part) for part in parts) if all(part.isdigit() for part in parts) else ()
