"""The CUDA device that draws our OpenGL context, by the driver's API: memory, one stream, textures.

Everything is asked of the driver in one stream, and nothing waits for it here: mapping orders what OpenGL has drawn
before the copies, and unmapping orders the copies before what OpenGL draws next.
Source: CUDA driver API, sections graphics interoperability and OpenGL interoperability.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import os
from glob import glob
from typing import Any, NamedTuple

from procs.errors import GpuLost, NotHere
from procs.headless_agent import gl

DRIVER_MIN = 12000  # the first whose entry points cuda-bindings 13 can ask for: 1000 * major + 10 * minor
_OUT_OF_MEMORY = 2
_NO_DEVICES = (100, 304, 999)  # what cuInit says where there is no device, or no right to it
_NOT_OURS = (219, *_NO_DEVICES)  # what is said of a context that another driver, such as Mesa, has made
_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING: no order with what others do in the default stream
_READ_ONLY = 1  # CU_GRAPHICS_REGISTER_FLAGS_READ_ONLY
_TEXTURE_2D = 0x0DE1
_HOST, _DEVICE, _ARRAY = 1, 2, 3  # CUmemorytype
_WORD = 16  # bytes of the widest access: cuMemAllocPitch then pads rows for every kernel
_DEVICES_MAX, _NAME_BYTES = 16, 100


class Memory(NamedTuple):
    """Rows of bytes on the device (or pinned in our memory), `pitch` bytes from one to the next."""

    address: int
    pitch: int
    row_bytes: int
    rows: int


class Part(NamedTuple):
    """Rows [top, top + rows) of a source, and where their copy begins."""

    top: int
    rows: int
    address: int
    pitch: int


class Gpu:
    """The device that draws the current OpenGL context: its primary context, made current in this thread, and a stream.

    Raises NotHere where no CUDA device draws it, or the driver is missing, too old or refuses us.
    """

    def __init__(self) -> None:
        self._driver = _open_driver()
        self.is_serving = False
        """Whether an encoder serves from it. Until then what fails is NotHere, so that another encoder may be tried,
        and from then on GpuLost."""
        self.ordinal = self._drawing()
        self._device = self.ask("cuDeviceGet", self.ordinal)
        self.name = self.ask("cuDeviceGetName", _NAME_BYTES, self._device).split(b"\0")[0].decode(errors="replace")
        self._context = self.ask("cuDevicePrimaryCtxRetain", self._device)
        try:
            self.ask("cuCtxSetCurrent", self._context)
            self.stream = int(self.ask("cuStreamCreate", _NON_BLOCKING))
        except NotHere:
            self.release()
            raise

    def _drawing(self) -> int:
        """The ordinal of the device that draws."""
        code, _ = self._try("cuInit", 0)
        if code:
            raise NotHere((code in _NO_DEVICES and _forbidden()) or self._words("cuInit", code))
        every = self._driver.CUGLDeviceList.CU_GL_DEVICE_LIST_ALL
        code, given = self._try("cuGLGetDevices", _DEVICES_MAX, every)
        if code and code not in _NOT_OURS:
            raise NotHere(self._words("cuGLGetDevices", code))
        if code or not given[0]:
            raise NotHere(f"{gl.renderer().split(' (')[0]} draws, which is no CUDA device")
        return int(given[1][0])

    def release(self) -> None:
        """Give back what we hold of the device, for a process that goes on without it. Nothing of it may be used."""
        code, current = self._try("cuCtxGetCurrent")
        if not code and int(current[0]) not in (0, int(self._context)):
            self._try("cuCtxDestroy", current[0])  # PyNvVideoCodec leaves one of its own when it is refused
        self._try("cuCtxSetCurrent", 0)
        self._try("cuDevicePrimaryCtxRelease", self._device)

    def ask(self, call: str, *arguments: object) -> Any:
        """The first thing that a call of the driver's gives. Raises NotHere, and GpuLost once an encoder serves."""
        code, given = self._try(call, *arguments)
        if code:
            raise GpuLost(f"CUDA: {code.name} at {call}") if self.is_serving else NotHere(self._words(call, code))
        return given[0] if given else None

    def _try(self, call: str, *arguments: object) -> tuple[Any, list[Any]]:
        """The code of a call, and what it gives."""
        try:
            code, *given = getattr(self._driver, call)(*arguments)
        except (RuntimeError, ValueError) as error:  # an entry point that is missing, or a code without a name
            raise (GpuLost if self.is_serving else NotHere)(f"CUDA: {error} at {call}") from None
        return code, given

    def _words(self, call: str, code: Any) -> str:
        """One line for people, without addresses."""
        if code == _OUT_OF_MEMORY:
            return f"CUDA: out of memory at {call}"
        words = self._driver.cuGetErrorString(code)[1] or b""
        return f"CUDA: {code.name} at {call}: {words.decode(errors='replace')}"

    def allocate(self, row_bytes: int, rows: int) -> Memory:
        """Rows on the device, each as wide as it likes. Raises NotHere when there is no room."""
        code, given = self._try("cuMemAllocPitch", row_bytes, rows, _WORD)
        if code:
            raise NotHere(self._words("cuMemAllocPitch", code))
        return Memory(int(given[0]), given[1], row_bytes, rows)

    def pin(self, row_bytes: int, rows: int) -> Memory:
        """Rows in our memory, from which the device reads without a copy by the CPU."""
        return Memory(int(self.ask("cuMemAllocHost", row_bytes * rows)), row_bytes, row_bytes, rows)

    def upload(self, source: Memory, part: Part) -> None:
        """Copy rows of pinned memory to the device, in the stream. They must not change until that is done."""
        self._copy(_HOST, part, source.row_bytes, srcHost=source.address, srcPitch=source.pitch)

    def copy(self, source: Memory, part: Part) -> None:
        """Copy rows of device memory within the device, in the stream."""
        self._copy(_DEVICE, part, source.row_bytes, srcDevice=source.address, srcPitch=source.pitch)

    def copy_array(self, array: object, part: Part, row_bytes: int) -> None:
        """Copy rows of a mapped texture, in the stream."""
        self._copy(_ARRAY, part, row_bytes, srcArray=array)

    def read(self, source: Memory) -> bytes:
        """Rows of device memory without what pads them, when the stream has done all. It waits, so not for pictures."""
        found = ctypes.create_string_buffer(source.row_bytes * source.rows)
        copy = self._driver.CUDA_MEMCPY2D()
        copy.srcMemoryType, copy.dstMemoryType = map(self._driver.CUmemorytype, (_DEVICE, _HOST))
        copy.srcDevice, copy.srcPitch = source.address, source.pitch
        copy.dstHost, copy.dstPitch = ctypes.addressof(found), source.row_bytes
        copy.WidthInBytes, copy.Height = source.row_bytes, source.rows
        self.ask("cuMemcpy2DAsync", copy, self.stream)
        self.wait()
        return found.raw

    def _copy(self, kind: int, part: Part, row_bytes: int, **source: object) -> None:
        copy = self._driver.CUDA_MEMCPY2D()
        copy.srcMemoryType = self._driver.CUmemorytype(kind)
        for name, value in source.items():
            setattr(copy, name, value)
        copy.srcY, copy.WidthInBytes, copy.Height = part.top, row_bytes, part.rows
        copy.dstMemoryType = self._driver.CUmemorytype(_DEVICE)
        copy.dstDevice, copy.dstPitch = part.address, part.pitch
        self.ask("cuMemcpy2DAsync", copy, self.stream)

    def wait(self) -> None:
        """Until the stream has done all. Raises GpuLost."""
        self.ask("cuStreamSynchronize", self.stream)


class Texture:
    """A target's texture as CUDA sees it. It is registered once, which is slow, and mapped for each picture."""

    def __init__(self, gpu: Gpu, target: gl.Target) -> None:
        self._gpu = gpu
        self._row_bytes = target.row_bytes
        self._resource = gpu.ask("cuGraphicsGLRegisterImage", target.texture, _TEXTURE_2D, _READ_ONLY)

    def copy(self, *parts: Part) -> None:
        """Copy rows of what OpenGL has drawn, in the stream. Raises GpuLost."""
        ask, stream = self._gpu.ask, self._gpu.stream
        ask("cuGraphicsMapResources", 1, self._resource, stream)
        try:
            array = ask("cuGraphicsSubResourceGetMappedArray", self._resource, 0, 0)  # another each time
            for part in parts:
                self._gpu.copy_array(array, part, self._row_bytes)
        except NotHere:  # the next encoder wants what is drawn, and OpenGL may not touch a texture that is mapped
            with contextlib.suppress(NotHere):
                ask("cuGraphicsUnmapResources", 1, self._resource, stream)
            raise
        ask("cuGraphicsUnmapResources", 1, self._resource, stream)


def _open_driver() -> Any:
    """The driver's API in Python. Raises NotHere where there is none of ours."""
    version = ctypes.c_int()
    try:  # by hand: cuda-bindings takes 100 ms, and does not say what is wrong with an old driver
        failed = ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(version))
    except (OSError, AttributeError):
        raise NotHere("libcuda.so.1 is no CUDA driver") from None
    if failed or version.value < DRIVER_MIN:
        found, needed = (f"{number // 1000}.{number % 1000 // 10}" for number in (version.value, DRIVER_MIN))
        raise NotHere(f"the NVIDIA driver is too old: it is for CUDA {found}, and {needed} or newer is needed")
    try:
        return importlib.import_module("cuda.bindings.driver")  # so that nobody is asked for types it does not have
    except (ImportError, RuntimeError) as error:
        raise NotHere(f"cuda-bindings does not load: {str(error).splitlines()[0]}") from None


def _forbidden() -> str:
    """Which of the driver's device nodes is there and may not be opened by us; '' if none."""
    import grp  # here: only a refusal needs it

    for node in (*sorted(glob("/dev/nvidia[0-9]*")), "/dev/nvidiactl"):
        try:
            os.close(os.open(node, os.O_RDWR | os.O_CLOEXEC))
        except PermissionError:
            number = os.stat(node).st_gid
            group = next((entry.gr_name for entry in grp.getgrall() if entry.gr_gid == number), str(number))
            return f"no permission on {node}, which belongs to group {group}"
        except OSError:  # it is not there, or broken, of which CUDA has words
            continue
    return ""
