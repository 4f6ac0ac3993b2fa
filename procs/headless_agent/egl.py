"""An OpenGL context with neither window nor display: on an EGL device, else on Mesa's surfaceless platform.

There is no surface, so there is no default framebuffer either: whoever draws brings a framebuffer of his own.
Source: EGL_EXT_platform_device, EGL_EXT_device_enumeration, EGL_EXT_device_query, EGL_NV_device_cuda,
EGL_MESA_platform_surfaceless, EGL_KHR_create_context; GL_KHR_robustness.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from procs.errors import GpuLost, NotHere

os.environ["PYOPENGL_PLATFORM"] = "egl"  # PyOpenGL reads it when it is first imported, which nobody does but us
os.environ.setdefault("EGL_LOG_LEVEL", "fatal")  # Mesa's warnings would come before our own first line
os.environ.setdefault("LP_NUM_THREADS", "0")  # llvmpipe draws in our thread: handing work over costs CPU

PACKAGES = "apt-get install libegl1 libegl-mesa0 libgl1-mesa-dri libopengl0"
LIBRARIES = (("libEGL.so.1",), ("libOpenGL.so.0", "libGL.so.1"))  # of each row, one; PyOpenGL loads them by these names
SLOW = ("softpipe",)  # 40 times slower than llvmpipe
SOFTWARE = ("llvmpipe", "swrast", *SLOW)

_DEVICES_MAX = 64
_PLATFORM_DEVICE, _PLATFORM_SURFACELESS = 0x313F, 0x31DD
_SURFACE_TYPE, _RENDERABLE_TYPE, _OPENGL_BIT, _NONE = 0x3033, 0x3040, 0x0008, 0x3038
_MAJOR, _MINOR, _PROFILE, _CORE = 0x3098, 0x30FB, 0x30FD, 0x0001
_RESET_NOTIFICATION, _LOSE_CONTEXT = 0x31BD, 0x31BF
_OPENGL_API = 0x30A2
_EXTENSIONS = 0x3055
_CUDA_DEVICE = 0x323A
_RESETS = {0x8253: "by what we drew", 0x8254: "by what others drew"}


class Device(NamedTuple):
    """One of EGL's devices."""

    handle: int  # EGLDeviceEXT
    cuda: int | None = None  # the ordinal by which CUDA knows it
    is_software: bool = False


def ordered(devices: Sequence[Device]) -> list[Device]:
    """As `device_idx` counts them: CUDA's by their ordinals, then the rest as EGL lists them, which may mix vendors."""
    return sorted(devices, key=lambda device: (device.cuda is None, device.cuda or 0))


def list_devices() -> list[Device]:
    """This machine's, as `device_idx` counts them. Raises NotHere where EGL or OpenGL is missing."""
    need_libraries()
    from OpenGL.raw.EGL.VERSION import EGL_1_0 as egl

    return ordered(_devices(egl))


def described(devices: Sequence[Device]) -> str:
    """For people: "0 (cuda 0), 1 (software)"."""

    def kind(device: Device) -> str:
        return f"cuda {device.cuda}" if device.cuda is not None else "software" if device.is_software else "no cuda"

    return ", ".join(f"{index} ({kind(device)})" for index, device in enumerate(devices))


class Context(NamedTuple):
    """The context that is current in this thread."""

    platform: str  # device or surfaceless
    renderer: str  # what draws, in the driver's words
    reset_status: Callable[[], int] = int  # 0: nothing was reset, or the driver does not say

    @property
    def is_software(self) -> bool:
        """Whether the CPU draws."""
        return self.renderer.startswith(SOFTWARE)

    @property
    def is_slow(self) -> bool:
        """Whether even the quicker of Mesa's software renderers is missing."""
        return self.renderer.startswith(SLOW)

    def check(self) -> None:
        """Raise GpuLost if the GPU was reset, after which nothing is drawn any more and no call fails."""
        if status := self.reset_status():
            raise GpuLost(f"OpenGL: the GPU was reset {_RESETS.get(status, 'for a reason it does not know')}")


def open_context(device_idx: int) -> Context:
    """Make a core 3.3 context current, on EGL device number `device_idx` where there are devices.

    Raises NotHere with the packages to install where there is no EGL, no OpenGL or no driver.
    """
    need_libraries()
    try:
        from OpenGL.error import Error
        from OpenGL.raw.EGL.VERSION import EGL_1_0 as egl
        from OpenGL.raw.EGL.VERSION import EGL_1_2 as egl_1_2

        from procs.headless_agent import gl
    except ModuleNotFoundError:
        raise NotHere("renderer egl: the Python package PyOpenGL is missing: make up installs it") from None
    refusals = []
    for platform, number, native in _choices(ordered(_devices(egl)), device_idx):
        try:
            _make_current(egl, egl_1_2, number, native)
        except (NotHere, Error) as error:  # a GPU whose driver is broken leaves the choice of another vendor's
            refusals.append(f"{platform}: {_short(error)}")
            continue
        return Context(platform, gl.renderer(), _reset_status(egl))
    raise NotHere(f"renderer egl: no driver serves ({'; '.join(refusals)}); without a GPU: {PACKAGES}")


def _choices(devices: Sequence[Device], device_idx: int) -> list[tuple[str, int, int | None]]:
    """Platforms in the order in which they are tried: (name, number, native display). One device that was named is
    not replaced by another."""
    if device_idx and not devices:
        raise NotHere(f"device_idx={device_idx}: this machine's EGL lists no devices; leave it at 0")
    if device_idx and device_idx >= len(devices):
        raise NotHere(f"device_idx={device_idx}: this machine has EGL devices {described(devices)}")
    if device_idx:
        return [("device", _PLATFORM_DEVICE, devices[device_idx].handle)]
    first = [("device", _PLATFORM_DEVICE, device.handle) for device in devices[:1]]
    return [*first, ("surfaceless", _PLATFORM_SURFACELESS, None)]


def need_libraries() -> None:
    """Raise NotHere, with the packages to install, where EGL or OpenGL is missing."""
    for names in LIBRARIES:
        if not any(_loads(name) for name in names):
            raise NotHere(f"renderer egl: {' or '.join(names)} is missing: {PACKAGES}")


def _loads(name: str) -> bool:
    try:
        ctypes.CDLL(name, mode=ctypes.RTLD_GLOBAL)
    except OSError:
        return False
    return True


def _entry(egl: Any, name: bytes, result: Any, *arguments: Any) -> Any:
    """An extension's function. PyOpenGL has wrappers for these, but they ask a display that is not there yet."""
    address = ctypes.cast(egl.eglGetProcAddress(name), ctypes.c_void_p).value
    if not address:
        raise NotHere(f"{name.decode()} is missing")
    return ctypes.CFUNCTYPE(result, *arguments)(address)


def _devices(egl: Any) -> list[Device]:
    """EGL's devices in its order; [] where the driver can't list them."""
    handle = ctypes.c_void_p
    try:
        query = _entry(egl, b"eglQueryDevicesEXT", ctypes.c_uint, ctypes.c_int, handle, handle)
        string = _entry(egl, b"eglQueryDeviceStringEXT", ctypes.c_char_p, handle, ctypes.c_int)
        attribute = _entry(egl, b"eglQueryDeviceAttribEXT", ctypes.c_uint, handle, ctypes.c_int, handle)
    except NotHere:
        return []
    handles, count = (handle * _DEVICES_MAX)(), ctypes.c_int()
    if not query(_DEVICES_MAX, handles, ctypes.byref(count)):
        return []

    def device(handle: int) -> Device:
        extensions = (string(handle, _EXTENSIONS) or b"").split()
        ordinal = ctypes.c_ssize_t()
        is_cuda = b"EGL_NV_device_cuda" in extensions and attribute(handle, _CUDA_DEVICE, ctypes.byref(ordinal))
        return Device(handle, ordinal.value if is_cuda else None, b"EGL_MESA_device_software" in extensions)

    return [device(handle) for handle in handles[: count.value] if handle]


def _make_current(egl: Any, egl_1_2: Any, platform: int, native: Any) -> None:
    get = _entry(egl, b"eglGetPlatformDisplayEXT", ctypes.c_void_p, ctypes.c_uint, ctypes.c_void_p, ctypes.c_void_p)
    display = ctypes.cast(get(platform, native, None), egl._cs.EGLDisplay)
    if not display:
        raise NotHere("no such display")
    major, minor = egl._cs.EGLint(), egl._cs.EGLint()
    egl.eglInitialize(display, major, minor)
    config, count = (egl._cs.EGLConfig * 1)(), egl._cs.EGLint()
    egl.eglChooseConfig(
        display, _ints(_SURFACE_TYPE, 0, _RENDERABLE_TYPE, _OPENGL_BIT, _NONE), config, 1, ctypes.byref(count)
    )
    if not count.value:
        raise NotHere("it has no OpenGL")
    egl_1_2.eglBindAPI(_OPENGL_API)
    says_resets = (major.value, minor.value) >= (1, 5) or b"EGL_EXT_create_context_robustness" in (
        ctypes.string_at(egl.eglQueryString(display, _EXTENSIONS)).split()
    )
    context = _new_context(egl, display, config[0], says_resets)
    if not egl.eglMakeCurrent(display, None, None, context):
        raise NotHere("its context cannot be made current")


def _new_context(egl: Any, display: Any, config: Any, says_resets: bool) -> Any:
    """One that tells of a reset of the GPU, where the driver makes such."""
    from OpenGL.error import Error

    core = (_MAJOR, 3, _MINOR, 3, _PROFILE, _CORE)
    if says_resets:
        with contextlib.suppress(Error):
            return egl.eglCreateContext(display, config, None, _ints(*core, _RESET_NOTIFICATION, _LOSE_CONTEXT, _NONE))
    return egl.eglCreateContext(display, config, None, _ints(*core, _NONE))


def _reset_status(egl: Any) -> Callable[[], int]:
    """What asks the current context whether the GPU was reset."""
    for name in (b"glGetGraphicsResetStatus", b"glGetGraphicsResetStatusARB"):
        with contextlib.suppress(NotHere):
            ask: Callable[[], int] = _entry(egl, name, ctypes.c_uint)
            return ask
    return int


def _ints(*values: int) -> ctypes.Array[ctypes.c_int32]:
    return (ctypes.c_int32 * len(values))(*values)


def _short(error: Exception) -> str:
    """One line of an error: PyOpenGL's are a whole call with its arguments."""
    name = getattr(getattr(error, "err", None), "name", "")
    return str(name or error).splitlines()[0] if str(name or error) else type(error).__name__
