"""What the tests of the fake drivers run in processes of their own: `python -m tests.drivers.clients NAME`.

Each asserts what it sees, so a client that ends with 0 saw it. What was called is in the log.
"""

from __future__ import annotations

import ctypes
import random
import sys
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from typing import Any

import av
from av.video.codeccontext import VideoCodecContext
from av.video.frame import CudaContext, PictureType, VideoFrame
from cuda.bindings import driver

WIDTH, HEIGHT = 322, 182  # no multiples of 16: pictures are cropped
PITCH = 512
ROWS = HEIGHT * 3 // 2
INVALID = driver.CUresult.CUDA_ERROR_INVALID_VALUE
LOW_LATENCY = {"delay": "0", "zerolatency": "1", "tune": "ull", "preset": "p1", "rc": "cbr", "forced-idr": "1"}

_CLIENTS: dict[str, Callable[[], None]] = {}


def client(function: Callable[[], None]) -> Callable[[], None]:
    """Let it be run by its name."""
    _CLIENTS[function.__name__] = function
    return function


def done(answer: tuple[Any, ...]) -> Any:
    """What a call of the driver gave. It must not have failed."""
    assert not answer[0], answer[0]
    return answer[1] if len(answer) > 1 else None


def code(answer: tuple[Any, ...]) -> int:
    return int(answer[0])


def began() -> Any:
    """The primary context of the first device, current in this thread. FFmpeg takes it with these flags only."""
    done(driver.cuInit(0))
    first = done(driver.cuDeviceGet(0))
    done(driver.cuDevicePrimaryCtxSetFlags(first, driver.CUctx_flags.CU_CTX_SCHED_BLOCKING_SYNC))
    context = done(driver.cuDevicePrimaryCtxRetain(first))
    done(driver.cuCtxSetCurrent(context))
    return context


# ---- pictures ----


def pictures(count: int) -> list[bytes]:
    """NV12 without padding: noise, but the second is zeros, which need the most emulation prevention, and the fifth
    differs from the fourth by one sample in the last corner."""
    noise = random.Random(12)
    drawn = [noise.randbytes(WIDTH * ROWS) if index != 1 else bytes(WIDTH * ROWS) for index in range(count)]
    if count > 4:
        drawn[4] = drawn[3][:-1] + bytes((drawn[3][-1] ^ 1,))
    return drawn


def new_stream() -> Any:
    return done(driver.cuStreamCreate(driver.CUstream_flags.CU_STREAM_NON_BLOCKING))


def upload(nv12: bytes, stream: Any) -> int:
    """Device memory with these rows, PITCH apart, once what is asked for on this stream is done."""
    address = int(done(driver.cuMemAlloc(PITCH * ROWS)))
    copy = driver.CUDA_MEMCPY2D()
    copy.srcMemoryType, copy.srcHost, copy.srcPitch = host(), pinned(nv12), WIDTH
    copy.dstMemoryType, copy.dstDevice, copy.dstPitch = device(), address, PITCH
    copy.WidthInBytes, copy.Height = WIDTH, ROWS
    done(driver.cuMemcpy2DAsync(copy, stream))
    return address


def pinned(data: bytes) -> int:
    """The address of host memory with this in it, of which the driver takes no copy of its own."""
    address = int(done(driver.cuMemHostAlloc(len(data), 0)))
    ctypes.memmove(address, data, len(data))
    return address


def host() -> Any:
    return driver.CUmemorytype.CU_MEMORYTYPE_HOST


def device() -> Any:
    return driver.CUmemorytype.CU_MEMORYTYPE_DEVICE


def decoded(units: Iterable[bytes]) -> list[bytes]:
    """NV12 without padding of a stream."""
    decoder = av.CodecContext.create("h264", "r")
    frames = [frame for unit in units for frame in decoder.decode(av.Packet(unit))] + decoder.decode(None)
    return [_nv12(frame) for frame in frames]


def _nv12(frame: VideoFrame) -> bytes:
    assert (frame.width, frame.height) == (WIDTH, HEIGHT)
    luma, blue, red = (
        b"".join(bytes(plane)[y * plane.line_size :][: plane.width] for y in range(plane.height))
        for plane in frame.planes
    )
    chroma = bytearray(2 * len(blue))
    chroma[0::2], chroma[1::2] = blue, red
    return luma + chroma


# ---- DLPack, of which PyAV and PyNvVideoCodec take device memory ----


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("dimensions", ctypes.c_int32),
        ("kind", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("offset", ctypes.c_uint64),
        ("manager", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
    )


_HELD: list[Plane] = []  # whoever took one may look at it until the process ends


_DELETER = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(lambda _: None)  # PyAV calls it without asking whether there is one


class Plane:
    """Rows of device memory, as others take them."""

    def __init__(self, address: int, shape: Sequence[int], strides: Sequence[int]) -> None:
        sizes = ctypes.c_int64 * len(shape)
        deleter = ctypes.cast(_DELETER, ctypes.c_void_p)
        self._tensor = _Tensor(address, 2, 0, len(shape), 1, 8, 1, sizes(*shape), sizes(*strides), 0, None, deleter)
        _HELD.append(self)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._tensor.device_type, self._tensor.device_id

    def __dlpack__(self, *_: object, **__: object) -> object:
        new = ctypes.pythonapi.PyCapsule_New
        new.restype, new.argtypes = ctypes.py_object, (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
        return new(ctypes.addressof(self._tensor), b"dltensor", None)

    def cuda(self) -> Plane:
        """What PyNvVideoCodec asks of a picture."""
        return self


# ---- PyAV ----


def encoder(pix_fmt: str, options: dict[str, str] = LOW_LATENCY) -> VideoCodecContext:
    made = av.CodecContext.create("h264_nvenc", "w")
    made.width, made.height, made.pix_fmt = WIDTH, HEIGHT, pix_fmt
    made.framerate, made.time_base, made.gop_size, made.max_b_frames = Fraction(30), Fraction(1, 30), 4, 0
    made.bit_rate, made.options = 1_000_000, options
    made.color_range, made.colorspace = 1, 1
    return made


def on_device(address: int, ours: CudaContext, stream: Any) -> VideoFrame:
    """A frame of what lies there."""
    luma = Plane(address, (HEIGHT, WIDTH), (PITCH, 1))
    chroma = Plane(address + PITCH * HEIGHT, (HEIGHT // 2, WIDTH), (PITCH, 1))
    return VideoFrame.from_dlpack((luma, chroma), format="nv12", cuda_context=ours, stream=int(stream))


@client
def cuda_frames() -> None:
    """Device memory through h264_nvenc, one packet a picture."""
    began()
    stream = new_stream()
    ours = CudaContext(device_id=0, primary_ctx=True, cuda_stream=int(stream))
    nvenc, units, sent = encoder("cuda"), [], pictures(6)
    for index, nv12 in enumerate(sent):
        frame = on_device(upload(nv12, stream), ours, stream)
        frame.pts = 10 * index
        if index == 2:
            frame.pict_type = PictureType.I
        (packet,) = nvenc.encode(frame)
        assert (packet.pts, packet.is_keyframe) == (10 * index, index in (0, 2))
        units.append(bytes(packet))
    assert not nvenc.encode(None)
    assert decoded(units) == sent
    print(int(stream))


@client
def other_stream() -> None:
    """A picture that another stream uploads is too late, unless the encoder's stream waits for it."""
    began()
    stream, other = new_stream(), new_stream()
    ours = CudaContext(device_id=0, primary_ctx=True, cuda_stream=int(stream))
    nvenc, sent = encoder("cuda"), pictures(2)
    units: list[bytes] = []
    for index, nv12 in enumerate(sent):
        frame = on_device(upload(nv12, other), ours, stream)
        frame.pts = index
        if index == 1:
            event = done(driver.cuEventCreate(0))
            done(driver.cuEventRecord(event, other))
            done(driver.cuStreamWaitEvent(stream, event, 0))
        units += map(bytes, nvenc.encode(frame))
    assert decoded(units) == [bytes((0xA5,)) * len(sent[0]), sent[1]]


@client
def host_frames() -> None:
    """NV12 that the CPU has through h264_nvenc; its bit rate changes on the way."""
    nvenc, packets, sent = encoder("nv12"), [], pictures(6)
    for index, nv12 in enumerate(sent):
        frame = VideoFrame(WIDTH, HEIGHT, "nv12")
        for plane, at in zip(frame.planes, (0, WIDTH * HEIGHT), strict=True):
            pad = bytes(plane.line_size - WIDTH)
            rows = [nv12[at + y * WIDTH :][:WIDTH] + pad for y in range(plane.height)]
            plane.update(b"".join(rows))
        frame.pts = index
        if index == 3:
            nvenc.bit_rate = 500_000
        packets += nvenc.encode(frame)
    assert len(packets) == len(sent)
    assert decoded(map(bytes, packets)) == sent


@client
def lost() -> None:
    """h264_nvenc, and the GPU fails on the way."""
    began()
    stream = new_stream()
    ours = CudaContext(device_id=0, primary_ctx=True, cuda_stream=int(stream))
    nvenc, frames = encoder("cuda"), [on_device(upload(nv12, stream), ours, stream) for nv12 in pictures(2)]
    for index, frame in enumerate(frames):
        frame.pts = index
    assert len(nvenc.encode(frames[0])) == 1
    assert code(driver.cuStreamSynchronize(stream)) == 719
    try:
        nvenc.encode(frames[1])
    except av.FFmpegError as error:
        print(type(error).__name__)
        return
    raise AssertionError("it went on")


@client
def refused() -> None:
    """h264_nvenc where it can't be opened."""
    try:
        encoder("nv12").open()
    except av.FFmpegError as error:
        print(type(error).__name__)
        return
    raise AssertionError("it was opened")


# ---- PyNvVideoCodec ----


@client
def pynvvideocodec() -> None:
    """It holds three pictures back."""
    import PyNvVideoCodec

    began()
    stream = new_stream()
    options = {"codec": "h264", "preset": "P1", "tuning_info": "ultra_low_latency", "rc": "cbr", "fps": 30, "bf": 0}
    nvenc = PyNvVideoCodec.CreateEncoder(
        WIDTH, HEIGHT, "NV12", False, cudastream=int(stream), gop=4, bitrate=1_000_000, **options
    )
    sent, counts, units = pictures(6), [], []
    planes = [Plane(upload(nv12, stream), (ROWS, WIDTH), (PITCH, 1)) for nv12 in sent]
    for plane in planes:
        got = nvenc.Encode(plane)
        counts.append(len(got))
        units += [bytes(unit["data"]) for unit in got]
    rest = nvenc.EndEncode()
    assert (counts, len(rest)) == ([0, 0, 0, 1, 1, 1], 3)
    assert decoded(units + [bytes(unit["data"]) for unit in rest]) == sent
    print(int(stream))


# ---- OpenGL ----


@client
def texture() -> None:
    """What OpenGL drew, as CUDA sees it: RGBA and one channel."""
    from OpenGL.raw.GL.VERSION import GL_1_1

    from procs.headless_agent import egl, gl

    egl.open_context(0)
    began()
    error, count, devices = driver.cuGLGetDevices(4, driver.CUGLDeviceList.CU_GL_DEVICE_LIST_ALL)
    assert (int(error), list(map(int, devices[:count]))) == (0, [0])
    for internal, pixels, size in ((gl.RGBA8, gl.RGBA, 4), (gl.R8, gl.RED, 1)):
        target = gl.Target(67, 35, internal=internal, pixels=pixels)
        target.begin((0.25, 0.5, 0.75))
        GL_1_1.glEnable(0x0C11)  # a scissor, so that not all pixels are alike
        GL_1_1.glScissor(5, 3, 40, 20)
        GL_1_1.glClearColor(0.9, 0.1, 0.2, 0.3)
        GL_1_1.glClear(0x4000)
        GL_1_1.glDisable(0x0C11)
        drawn = ctypes.create_string_buffer(67 * 35 * size)
        target.read(0, 35, ctypes.addressof(drawn), 67 * size)
        assert len(set(drawn.raw)) > 1
        assert mapped_pixels(target.texture, 67 * size, 35) == drawn.raw


@client
def unmapped_too_soon() -> None:
    """A texture unmapped on another stream than the one that copies from it: an illegal access, which stays."""
    from procs.headless_agent import egl, gl

    egl.open_context(0)
    began()
    one, other = new_stream(), new_stream()
    target = gl.Target(16, 16, internal=gl.RGBA8, pixels=gl.RGBA)
    flags = driver.CUgraphicsRegisterFlags.CU_GRAPHICS_REGISTER_FLAGS_READ_ONLY
    resource = done(driver.cuGraphicsGLRegisterImage(target.texture, 0x0DE1, flags))
    done(driver.cuGraphicsMapResources(1, resource, one))
    copy = driver.CUDA_MEMCPY2D()
    copy.srcMemoryType = driver.CUmemorytype.CU_MEMORYTYPE_ARRAY
    copy.srcArray = done(driver.cuGraphicsSubResourceGetMappedArray(resource, 0, 0))
    copy.dstMemoryType, copy.dstDevice, copy.dstPitch = device(), done(driver.cuMemAlloc(16 * 64)), 64
    copy.WidthInBytes, copy.Height = 64, 16
    done(driver.cuMemcpy2DAsync(copy, other))
    done(driver.cuGraphicsUnmapResources(1, resource, one))
    assert code(driver.cuStreamSynchronize(other)) == driver.CUresult.CUDA_ERROR_ILLEGAL_ADDRESS
    assert code(driver.cuMemAlloc(1)) == driver.CUresult.CUDA_ERROR_ILLEGAL_ADDRESS


@client
def buffer() -> None:
    """A buffer of OpenGL, as CUDA sees it, and what CUDA writes into it."""
    from OpenGL.raw.GL.VERSION import GL_1_5

    from procs.headless_agent import egl

    egl.open_context(0)
    began()
    name, content = ctypes.c_uint(), bytes(range(200))
    GL_1_5.glGenBuffers(1, ctypes.byref(name))
    GL_1_5.glBindBuffer(0x88EB, name)
    GL_1_5.glBufferData(0x88EB, 200, content, 0x88E1)
    flags = driver.CUgraphicsRegisterFlags.CU_GRAPHICS_REGISTER_FLAGS_NONE
    resource = done(driver.cuGraphicsGLRegisterBuffer(name.value, flags))
    done(driver.cuGraphicsMapResources(1, resource, 0))
    error, address, size = driver.cuGraphicsResourceGetMappedPointer(resource)
    assert (int(error), size) == (0, 200)
    back = ctypes.create_string_buffer(200)
    done(driver.cuMemcpyDtoH(ctypes.addressof(back), address, 200))
    assert back.raw == content
    done(driver.cuMemsetD8Async(address, 7, 200, 0))
    done(driver.cuGraphicsUnmapResources(1, resource, 0))
    GL_1_5.glGetBufferSubData(0x88EB, 0, 200, ctypes.c_void_p(ctypes.addressof(back)))
    assert back.raw == bytes((7,)) * 200


def mapped_pixels(texture: int, row: int, height: int) -> bytes:
    """By way of an array and device memory. The array is none any more once it is unmapped."""
    flags = driver.CUgraphicsRegisterFlags.CU_GRAPHICS_REGISTER_FLAGS_READ_ONLY
    resource = done(driver.cuGraphicsGLRegisterImage(texture, 0x0DE1, flags))
    early = driver.cuGraphicsSubResourceGetMappedArray(resource, 0, 0)
    assert code(early) == driver.CUresult.CUDA_ERROR_NOT_MAPPED
    done(driver.cuGraphicsMapResources(1, resource, 0))
    assert code(driver.cuGraphicsMapResources(1, resource, 0)) == driver.CUresult.CUDA_ERROR_ALREADY_MAPPED
    copy = driver.CUDA_MEMCPY2D()
    copy.srcMemoryType = driver.CUmemorytype.CU_MEMORYTYPE_ARRAY
    copy.srcArray = done(driver.cuGraphicsSubResourceGetMappedArray(resource, 0, 0))
    copy.dstMemoryType, copy.dstPitch = device(), PITCH
    copy.dstDevice = done(driver.cuMemAlloc(PITCH * height))
    copy.WidthInBytes, copy.Height = row, height
    done(driver.cuMemcpy2DAsync(copy, 0))
    done(driver.cuGraphicsUnmapResources(1, resource, 0))
    assert code(driver.cuMemcpy2DAsync(copy, 0)) == driver.CUresult.CUDA_ERROR_INVALID_HANDLE
    done(driver.cuGraphicsUnregisterResource(resource))
    held = ctypes.create_string_buffer(PITCH * height)
    done(driver.cuMemcpyDtoH(ctypes.addressof(held), copy.dstDevice, PITCH * height))
    return b"".join(held.raw[y * PITCH :][:row] for y in range(height))


# ---- order and faults ----


@client
def order() -> None:
    """The driver's rules: initialized, a context, one's own memory, and no more than there is."""
    result = driver.CUresult
    assert code(driver.cuDeviceGetCount()) == result.CUDA_ERROR_NOT_INITIALIZED
    done(driver.cuInit(0))
    assert code(driver.cuMemAlloc(64)) == result.CUDA_ERROR_INVALID_CONTEXT
    began()
    assert code(driver.cuGraphicsGLRegisterImage(1, 0x0DE1, 1)) == result.CUDA_ERROR_INVALID_GRAPHICS_CONTEXT
    memory = done(driver.cuMemAlloc(3 << 20))
    assert code(driver.cuMemAlloc(2 << 20)) == result.CUDA_ERROR_OUT_OF_MEMORY  # of FAKE_MEMORY_MB=4
    assert done(driver.cuMemGetInfo()) == 1 << 20
    held = ctypes.create_string_buffer(64)
    past = int(memory) + (3 << 20) - 63
    assert code(driver.cuMemcpyDtoH(ctypes.addressof(held), past, 64)) == INVALID
    done(driver.cuMemcpyDtoH(ctypes.addressof(held), past, 63))
    done(driver.cuMemFree(memory))
    assert code(driver.cuMemFree(memory)) == INVALID
    assert code(driver.cuMemcpyDtoH(ctypes.addressof(held), memory, 1)) == INVALID


@client
def waiting() -> None:
    """What is asked for on a stream is done when somebody waits; of pageable memory a copy is taken at once."""
    began()
    stream, memory = new_stream(), done(driver.cuMemAlloc(64))
    back = ctypes.create_string_buffer(64)
    early, source = pinned(bytes(64)), ctypes.create_string_buffer(b"p" * 64, 64)
    done(driver.cuMemcpyDtoHAsync(early, memory, 64, stream))
    done(driver.cuMemcpyHtoDAsync(memory, ctypes.addressof(source), 64, stream))
    source.raw = bytes(64)
    done(driver.cuMemcpyDtoH(ctypes.addressof(back), memory, 64))  # on the legacy stream, for which ours does not wait
    assert back.raw == bytes((0xA5,)) * 64
    assert ctypes.string_at(early, 64) == bytes(64)
    done(driver.cuStreamSynchronize(stream))
    assert ctypes.string_at(early, 64) == bytes((0xA5,)) * 64
    done(driver.cuMemcpyDtoH(ctypes.addressof(back), memory, 64))
    assert back.raw == b"p" * 64


@client
def faults() -> None:
    """A call that fails from its third time on, with an error that stays with the context."""
    began()
    answers = [code(driver.cuMemAlloc(64)) for _ in range(4)]
    assert answers == [0, 0, 719, 719]
    assert code(driver.cuStreamCreate(0)) == 719
    assert done(driver.cuGetErrorName(driver.CUresult.CUDA_ERROR_LAUNCH_FAILED)) == b"CUDA_ERROR_LAUNCH_FAILED"


if __name__ == "__main__":
    _CLIENTS[sys.argv[1]]()
