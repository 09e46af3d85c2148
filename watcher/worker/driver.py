"""What NVIDIA's driver is asked for itself, before a framework starts it. Python 3.7 syntax; imports no framework."""

import ctypes
from typing import Any, Optional, Tuple

LIBRARY = "libcuda.so.1"
# Of CUctx_flags in cuda.h: the bits that say how a thread waits for the GPU, and the one for sleeping until it is told.
_HOW, _ASLEEP = 0x07, 0x04


def wait_asleep(index: int, library: str = LIBRARY) -> bool:
    """Let threads of this process sleep while they wait for GPU `index`; False where the driver would not have it.

    As it is, they ask again and again where there are more cores than GPUs in use: they know a little earlier, and keep a
    core from everybody else. To be asked before anything computes there.
    """
    found = _found(index, library)
    if found is None:
        return False
    driver, device, flags = found
    asked = getattr(driver, "cuDevicePrimaryCtxSetFlags_v2", None)  # drivers of CUDA 11 and newer
    return asked is not None and asked(device, flags & ~_HOW | _ASLEEP) == 0


def waits_asleep(index: int, library: str = LIBRARY) -> bool:
    """Whether threads of this process sleep while they wait for GPU `index`."""
    found = _found(index, library)
    return found is not None and found[2] & _HOW == _ASLEEP


def _found(index: int, library: str) -> Optional[Tuple[Any, int, int]]:
    """The driver, what it calls the GPU, and the flags of what all of this process shares there; None: there is none."""
    device, flags, active = ctypes.c_int(), ctypes.c_uint(), ctypes.c_int()
    try:
        driver = ctypes.CDLL(library)
        failed = (
            driver.cuInit(0)
            or driver.cuDeviceGet(ctypes.byref(device), index)
            or driver.cuDevicePrimaryCtxGetState(device.value, ctypes.byref(flags), ctypes.byref(active))
        )
    except (OSError, AttributeError):
        return None
    return None if failed else (driver, device.value, flags.value)
