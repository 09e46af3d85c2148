"""How to wait for a GPU: NVIDIA's driver, played."""

from __future__ import annotations

import ctypes

import pytest

from watcher.worker import driver

SPINNING, ASLEEP, MAPPED = 1, 4, 8


class Cuda:
    """libcuda.so.1 with two GPUs."""

    def __init__(self, *, start=0, refuses=False):
        self.flags = [SPINNING | MAPPED, MAPPED]
        self.start, self.refuses = start, refuses

    def cuInit(self, flags):
        assert flags == 0
        return self.start

    def cuDeviceGet(self, device, index):
        ctypes.cast(device, ctypes.POINTER(ctypes.c_int))[0] = index
        return 0 if index < len(self.flags) else 101

    def cuDevicePrimaryCtxGetState(self, device, flags, active):
        ctypes.cast(flags, ctypes.POINTER(ctypes.c_uint))[0] = self.flags[device]
        return 0

    def cuDevicePrimaryCtxSetFlags_v2(self, device, flags):
        if self.refuses:
            return 708
        self.flags[device] = flags
        return 0


@pytest.fixture
def cuda(monkeypatch):
    def play(**more):
        played = Cuda(**more)
        monkeypatch.setattr(driver.ctypes, "CDLL", lambda name: played)
        return played

    return play


def test_only_how_it_waits_for_this_gpu_is_changed(cuda):
    played = cuda()
    assert driver.wait_asleep(0)
    assert played.flags == [ASLEEP | MAPPED, MAPPED]
    assert (driver.waits_asleep(0), driver.waits_asleep(1)) == (True, False)


def test_a_driver_that_will_not_have_it_is_left_alone(cuda):
    for played in (cuda(start=100), cuda(refuses=True)):
        assert not driver.wait_asleep(0)
        assert played.flags == [SPINNING | MAPPED, MAPPED]
    cuda()
    assert not driver.wait_asleep(7)
    assert not driver.waits_asleep(7)


def test_an_older_driver_cannot_be_asked(cuda, monkeypatch):
    played = cuda()
    monkeypatch.delattr(Cuda, "cuDevicePrimaryCtxSetFlags_v2")
    assert not driver.wait_asleep(0)
    assert played.flags[0] & SPINNING


@pytest.mark.parametrize("library", ["libno-such-driver.so.1", "libc.so.6"])
def test_without_a_driver_nothing_happens(library):
    assert not driver.wait_asleep(0, library)
    assert not driver.waits_asleep(0, library)
