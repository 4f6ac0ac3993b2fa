"""An OpenGL context with neither window nor display: on an EGL device, else on Mesa's surfaceless platform.

There is no surface, so there is no default framebuffer either: whoever draws brings a framebuffer of his own.
Source: EGL_EXT_platform_device, EGL_EXT_device_enumeration, EGL_MESA_platform_surfaceless, EGL_KHR_create_context.
"""

from __future__ import annotations

import ctypes
import os
from typing import Any, NamedTuple

from procs.errors import NotHere

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
_OPENGL_API = 0x30A2
_GL_RENDERER = 0x1F01


class Context(NamedTuple):
    """The context that is current in this thread."""

    platform: str  # device or surfaceless
    renderer: str  # what draws, in the driver's words

    @property
    def is_software(self) -> bool:
        """Whether the CPU draws."""
        return self.renderer.startswith(SOFTWARE)

    @property
    def is_slow(self) -> bool:
        """Whether even the quicker of Mesa's software renderers is missing."""
        return self.renderer.startswith(SLOW)


def open_context(device_idx: int) -> Context:
    """Make a core 3.3 context current, on EGL device number `device_idx` where there are devices.

    Raises NotHere with the packages to install where there is no EGL, no OpenGL or no driver.
    """
    need_libraries()
    try:
        from OpenGL.error import Error
        from OpenGL.raw.EGL.VERSION import EGL_1_0 as egl
        from OpenGL.raw.EGL.VERSION import EGL_1_2 as egl_1_2
        from OpenGL.raw.GL.VERSION import GL_1_0 as gl
    except ModuleNotFoundError:
        raise NotHere("renderer egl: the Python package PyOpenGL is missing: make up installs it") from None
    devices = _devices(egl)
    if device_idx and not devices:
        raise NotHere(f"device_idx={device_idx}: this machine's EGL lists no devices; leave it at 0")
    if device_idx and device_idx >= len(devices):
        raise NotHere(f"device_idx={device_idx}: this machine has EGL devices 0 to {len(devices) - 1}")
    choices: list[tuple[str, int, Any]] = [("surfaceless", _PLATFORM_SURFACELESS, None)]
    if devices:
        choices.insert(0, ("device", _PLATFORM_DEVICE, devices[device_idx]))
    refusals = []
    for platform, number, native in choices:
        try:
            _make_current(egl, egl_1_2, number, native)
        except (NotHere, Error) as error:
            refusals.append(f"{platform}: {_short(error)}")
            continue
        return Context(platform, ctypes.string_at(gl.glGetString(_GL_RENDERER)).decode(errors="replace"))
    raise NotHere(f"renderer egl: no driver serves ({'; '.join(refusals)}); without a GPU: {PACKAGES}")


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


def _devices(egl: Any) -> list[int]:
    """The EGLDeviceEXT handles; [] where the driver can't list them."""
    try:
        query = _entry(egl, b"eglQueryDevicesEXT", ctypes.c_uint, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
    except NotHere:
        return []
    handles, count = (ctypes.c_void_p * _DEVICES_MAX)(), ctypes.c_int()
    if not query(_DEVICES_MAX, handles, ctypes.byref(count)):
        return []
    return [handle for handle in handles[: count.value] if handle]


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
    attributes = _ints(_MAJOR, 3, _MINOR, 3, _PROFILE, _CORE, _NONE)
    context = egl.eglCreateContext(display, config[0], None, attributes)
    if not egl.eglMakeCurrent(display, None, None, context):
        raise NotHere("its context cannot be made current")


def _ints(*values: int) -> ctypes.Array[ctypes.c_int32]:
    return (ctypes.c_int32 * len(values))(*values)


def _short(error: Exception) -> str:
    """One line of an error: PyOpenGL's are a whole call with its arguments."""
    name = getattr(getattr(error, "err", None), "name", "")
    return str(name or error).splitlines()[0] if str(name or error) else type(error).__name__
