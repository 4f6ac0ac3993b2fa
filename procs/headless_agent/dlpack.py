"""Device memory as DLPack capsules, by which one library hands a tensor to another without a copy.

Source: the DLPack specification, DLManagedTensor of ABI version 0, which is what PyAV takes.
"""

from __future__ import annotations

import ctypes

from procs.headless_agent.cuda import Memory

_CUDA, _UNSIGNED = 2, 1  # kDLCUDA, kDLUInt
_NAME = b"dltensor"  # the capsule keeps the pointer, so this has to last


class _ManagedTensor(ctypes.Structure):
    """DLManagedTensor with DLTensor, DLDevice and DLDataType written out, and behind it what its pointers show."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("byte_offset", ctypes.c_uint64),
        ("manager_ctx", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
        ("sizes", ctypes.c_int64 * 2),
        ("steps", ctypes.c_int64 * 2),
    )


_libc = ctypes.CDLL(None)
_libc.malloc.restype, _libc.malloc.argtypes = ctypes.c_void_p, (ctypes.c_size_t,)
_new_capsule = ctypes.pythonapi.PyCapsule_New
_new_capsule.restype, _new_capsule.argtypes = ctypes.py_object, (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)


class Exporter:
    """Memory as what DLPack's consumers ask, one that asks for every picture too: whether they take a capsule for good
    or only look into it (as PyNvVideoCodec does), nothing is left behind. It must last longer than they."""

    def __init__(self, memory: Memory, device_id: int) -> None:
        self._tensor = _ManagedTensor()
        _describe(self._tensor, ctypes.addressof(self._tensor), memory, device_id)

    def __dlpack_device__(self) -> tuple[int, int]:
        return _CUDA, int(self._tensor.device_id)

    def __dlpack__(self, stream: int | None = None) -> object:
        """The consumer's stream is ours, so there is nothing to wait for."""
        return _new_capsule(ctypes.addressof(self._tensor), _NAME, None)


def capsule(memory: Memory, device_id: int) -> object:
    """A tensor of bytes, rows by columns. The memory stays ours and must last longer than whoever takes this.

    The deleter is C's free, of a block that holds all there is: one of Python's would crash a consumer that lets go
    of it when the interpreter has ended. The capsule itself has none, so one that nobody takes is never freed.
    """
    address = _libc.malloc(ctypes.sizeof(_ManagedTensor))
    tensor = _ManagedTensor.from_address(address)
    _describe(tensor, address, memory, device_id)
    tensor.deleter = ctypes.cast(_libc.free, ctypes.c_void_p)
    return _new_capsule(address, _NAME, None)


def _describe(tensor: _ManagedTensor, address: int, memory: Memory, device_id: int) -> None:
    tensor.data, tensor.device_type, tensor.device_id = memory.address, _CUDA, device_id
    tensor.ndim, tensor.code, tensor.bits, tensor.lanes = 2, _UNSIGNED, 8, 1
    tensor.shape = address + _ManagedTensor.sizes.offset
    tensor.strides = address + _ManagedTensor.steps.offset
    tensor.byte_offset, tensor.manager_ctx, tensor.deleter = 0, None, None
    tensor.sizes[:], tensor.steps[:] = (memory.rows, memory.row_bytes), (memory.pitch, 1)
