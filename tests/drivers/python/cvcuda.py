"""A stand-in for CV-CUDA, which starts on no machine without a GPU: the few names that we use, on the fake libcuda.

Put its folder in front of PYTHONPATH of a child that has the fake drivers. It converts at once and by numpy, with the
arithmetic of CV-CUDA 0.19 (its published source; the factors of BT.709 are those in the wheel's library): 14 bits of
fraction, luma of the full range, each chroma sample the mean of four that were rounded before, cut towards 128.
A call is logged as the drivers log theirs, and FAKE_FAIL knows `advcvtcolor_into` too. Besides:

    FAKE_CVCUDA      "broken": it can't be imported; "601": the matrix of another recommendation; "limited": of the
                     range we hope for; "bgr": red and blue in each other's place
"""

import ctypes
import itertools
import os
from enum import Enum
from typing import Any

import numpy as np

_MODE = os.environ.get("FAKE_CVCUDA", "")
if _MODE == "broken":
    raise ImportError("libcuda.so.1: cannot open shared object file: No such file or directory")
_driver = ctypes.CDLL("libcuda.so.1")
_ALIGN = 128  # of rows: other than the fake libcuda's, so that nobody may take one for the other
_BITS = 14
_FACTORS = {"601": (4899, 9617, 1868, 9246, 11686)}.get(_MODE, (3483, 11718, 1183, 8829, 10404))
_calls = itertools.count(1)


class Type(Enum):
    """Of a tensor's elements."""

    U8 = 1
    F32 = 2


class ColorConversion(Enum):
    """Those of RGB to NV12."""

    RGB2YUV_NV12 = 140
    BGR2YUV_NV12 = 141


class ColorSpec(Enum):
    """Matrices; with _ER, of the full range."""

    BT709 = 1
    BT709_ER = 2


class Stream:
    """A CUDA stream of somebody else."""

    def __init__(self, handle: int) -> None:
        self.handle = handle


def as_stream(handle: int) -> Stream:
    """Wrap a stream."""
    if not isinstance(handle, int):
        raise TypeError("as_stream(): incompatible function arguments")
    return Stream(handle)


class _Buffer:
    """A tensor as others see it."""

    def __init__(self, interface: dict[str, object]) -> None:
        self.__cuda_array_interface__ = interface


class Tensor:
    """Rows of device memory, padded."""

    def __init__(self, shape: tuple[int, ...], dtype: Type, layout: str, rowalign: int = 0) -> None:
        if layout != "HWC" or dtype is not Type.U8 or len(shape) != 3 or min(shape) < 1:
            raise ValueError("NVCV_ERROR_INVALID_ARGUMENT: the stand-in makes HWC tensors of U8 only")
        self.shape = shape
        align = rowalign or _ALIGN
        self._pitch = -(-shape[1] * shape[2] // align) * align
        address = ctypes.c_uint64()
        code = _driver.cuMemAlloc_v2(ctypes.byref(address), ctypes.c_size_t(self._pitch * shape[0]))
        if code:
            raise RuntimeError(f"NVCV_ERROR_OUT_OF_MEMORY: {code}\nin a stand-in")
        self._address = address.value
        self.bytes[:] = 0xA5  # so that what nobody has written is seen

    def cuda(self) -> _Buffer:
        """Where it is."""
        strides = (self._pitch, self.shape[2], 1)
        data = (self._address, False)
        return _Buffer({"shape": self.shape, "strides": strides, "typestr": "|u1", "data": data, "version": 3})

    @property
    def bytes(self) -> Any:
        """All of it, which is host memory in truth."""
        padded = (ctypes.c_ubyte * (self._pitch * self.shape[0])).from_address(self._address)
        rows = np.frombuffer(memoryview(padded).cast("B"), np.uint8).reshape(self.shape[0], self._pitch)
        return rows[:, : self.shape[1] * self.shape[2]]


def advcvtcolor_into(
    dst: Tensor, src: Tensor, code: ColorConversion, spec: ColorSpec, *, stream: Stream | None = None
) -> Tensor:
    """RGB or RGBA to NV12."""
    number = next(_calls)
    faults = [fault.split(":") for fault in os.environ.get("FAKE_FAIL", "").split(",") if fault]
    is_due = any(name == "advcvtcolor_into" and number >= int(first) for name, first, _ in faults)
    why = "FAKE_FAIL" if is_due else _refusal(dst, src, code, spec, stream)
    handle = stream.handle if stream else 0
    line = f"advcvtcolor_into pid={os.getpid()} stream={handle:#x} height={src.shape[0]} spec={spec.name} "
    if path := os.environ.get("FAKE_LOG"):
        with open(path, "a") as log:
            log.write(line + (f"result=1 why={why}\n" if why else "result=0\n"))
    if why:
        raise RuntimeError(f"NVCV_ERROR_INVALID_ARGUMENT: {why}\nin a stand-in")
    _convert(dst, src, is_bgr=(code is ColorConversion.BGR2YUV_NV12) != (_MODE == "bgr"))
    return dst


def _refusal(dst: Tensor, src: Tensor, code: object, spec: object, stream: Stream | None) -> str:
    height, width, channels = src.shape
    if not isinstance(code, ColorConversion):
        return "Unsupported conversion code"
    if not isinstance(spec, ColorSpec):
        return "Unsupported color spec"
    if channels not in (3, 4) or height % 2 or width % 2:
        return "Unsupported input shape"
    if dst.shape != (height * 3 // 2, width, 1):
        return "Unsupported output shape given input"
    if not stream or _driver.cuStreamQuery(ctypes.c_void_p(stream.handle)):
        return "no such stream"  # CV-CUDA would take one of its own, and nobody wait for it
    return ""


def _convert(dst: Tensor, src: Tensor, *, is_bgr: bool) -> None:
    height, width, _ = src.shape
    red, green, blue = (
        src.bytes.reshape(src.shape)[..., at].astype(int) for at in ((2, 1, 0) if is_bgr else (0, 1, 2))
    )
    of_red, of_green, of_blue, to_u, to_v = _FACTORS
    luma = _rounded(red * of_red + green * of_green + blue * of_blue)
    planes = [_rounded((blue - luma) * to_u), _rounded((red - luma) * to_v)]
    means = [np.trunc(plane.reshape(height // 2, 2, width // 2, 2).sum((1, 3)) / 4) for plane in planes]
    if _MODE == "limited":
        luma, means = np.round(16 + luma * 219 / 255), [np.round(mean * 224 / 255) for mean in means]
    dst.bytes[:height] = np.clip(luma, 0, 255)
    dst.bytes[height:] = np.stack([np.clip(mean + 128, 0, 255) for mean in means], -1).reshape(height // 2, width)


def _rounded(value: Any) -> Any:
    return (value + (1 << (_BITS - 1))) >> _BITS
