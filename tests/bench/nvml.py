"""How busy a GPU is, asked of NVIDIA's management library by ctypes: three calls are no reason for a package."""

from __future__ import annotations

import ctypes


class _Utilization(ctypes.Structure):
    _fields_ = (("gpu", ctypes.c_uint), ("memory", ctypes.c_uint))


class _Memory(ctypes.Structure):
    _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))


class Nvml:
    """The first GPU. Raises OSError where there is no such library, or it refuses."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL("libnvidia-ml.so.1")
        self._device = ctypes.c_void_p()
        self._ask("nvmlInit_v2")
        self._ask("nvmlDeviceGetHandleByIndex_v2", 0, ctypes.byref(self._device))

    def _ask(self, call: str, *arguments: object) -> None:
        if code := getattr(self._library, call)(*arguments):
            raise OSError(f"{call}: error {code}")

    def busy_pct(self) -> int:
        """Part of the last moments in which something ran on it."""
        answer = _Utilization()
        self._ask("nvmlDeviceGetUtilizationRates", self._device, ctypes.byref(answer))
        return int(answer.gpu)

    def used_mb(self) -> float:
        """Memory that somebody has, in MiB."""
        answer = _Memory()
        self._ask("nvmlDeviceGetMemoryInfo", self._device, ctypes.byref(answer))
        return int(answer.used) / (1 << 20)


def opened() -> Nvml | None:
    """It, where it can be had."""
    try:
        return Nvml()
    except (OSError, AttributeError):
        return None
