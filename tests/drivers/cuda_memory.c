/* The "device memory" of the fake libcuda: host memory with a bound, whose every use is checked.
 *
 * FAKE_MEMORY_MB bounds it. Copies out of range, from an array that is no longer mapped or through a pointer that was
 * freed are refused, where a real GPU would perhaps fail later.
 */
#include "cuda.h"

#include <stdlib.h>
#include <string.h>

#define PITCH 512

enum { HOST = 1, DEVICE, ARRAY_MEMORY, UNIFIED };

struct object *cuda_holding(enum kind kind, CUdeviceptr address, size_t bytes)
{
    struct object *memory = NULL;
    while ((memory = cuda_each(kind, memory))) {
        CUdeviceptr start = (CUdeviceptr)memory->bytes;
        if (address >= start && address - start <= memory->size && bytes <= memory->size - (address - start))
            return memory;
    }
    return NULL;
}

/* For the fake encoder, which reads a caller's "device memory". */
EXPORT bool fake_is_device_memory(CUdeviceptr address, size_t bytes)
{
    fake_lock();
    bool is_there = cuda_holding(MEMORY, address, bytes) != NULL;
    fake_unlock();
    return is_there;
}

static size_t limit(void)
{
    return (size_t)fake_number("FAKE_MEMORY_MB", 1024) << 20;
}

static size_t used(void)
{
    size_t sum = 0;
    for (struct object *memory = NULL; (memory = cuda_each(MEMORY, memory));)
        sum += memory->size;
    return sum;
}

/* ---- allocation ---- */

static int allocate(struct call *call, CUdeviceptr *address, size_t bytes)
{
    if (!bytes)
        return fake_refuse(call, INVALID_VALUE, "no bytes");
    if (bytes > limit() - used())
        return fake_refuse(call, OUT_OF_MEMORY, "FAKE_MEMORY_MB");
    *address = (CUdeviceptr)cuda_new(MEMORY, bytes)->bytes;
    return SUCCESS;
}

EXPORT CUresult cuMemAlloc_v2(CUdeviceptr *address, size_t bytes)
{
    BEGIN(CURRENT, "bytes=%zu", bytes);
    if (!code)
        code = allocate(&call, address, bytes);
    END;
}

EXPORT CUresult cuMemAllocAsync(CUdeviceptr *address, size_t bytes, CUstream stream)
{
    BEGIN(CURRENT, "bytes=%zu stream=%p", bytes, (void *)stream);
    if (!code && !cuda_is_stream(stream))
        REFUSE(INVALID_HANDLE, "no such stream");
    if (!code)
        code = allocate(&call, address, bytes);
    END;
}

EXPORT CUresult cuMemAllocPitch_v2(CUdeviceptr *address, size_t *pitch, size_t width, size_t height, unsigned element)
{
    BEGIN(CURRENT, "width=%zu height=%zu element=%u", width, height, element);
    if (!code && element != 4 && element != 8 && element != 16)
        REFUSE(INVALID_VALUE, "elements have 4, 8 or 16 bytes");
    if (!code) {
        *pitch = (width + PITCH - 1) / PITCH * PITCH;
        code = allocate(&call, address, *pitch * height);
    }
    END;
}

static int give_back(struct call *call, enum kind kind, CUdeviceptr address)
{
    for (struct object *memory = NULL; (memory = cuda_each(kind, memory));)
        if ((CUdeviceptr)memory->bytes == address) {
            cuda_drop(memory);
            return SUCCESS;
        }
    return fake_refuse(call, INVALID_VALUE, "not the start of an allocation, or freed before");
}

EXPORT CUresult cuMemFree_v2(CUdeviceptr address)
{
    BEGIN(CURRENT, "address=0x%lx", address);
    if (!code)
        cuda_drain_all();
    if (!code && address)
        code = give_back(&call, MEMORY, address);
    END;
}

EXPORT CUresult cuMemFreeAsync(CUdeviceptr address, CUstream stream)
{
    BEGIN(CURRENT, "address=0x%lx stream=%p", address, (void *)stream);
    if (!code && !cuda_is_stream(stream))
        REFUSE(INVALID_HANDLE, "no such stream");
    if (!code) {
        cuda_drain(stream);
        code = give_back(&call, MEMORY, address);
    }
    END;
}

EXPORT CUresult cuMemHostAlloc(void **address, size_t bytes, unsigned flags)
{
    BEGIN(CURRENT, "bytes=%zu flags=%u", bytes, flags);
    if (!code && !bytes)
        REFUSE(INVALID_VALUE, "no bytes");
    if (!code)
        *address = cuda_new(PINNED, bytes)->bytes;
    END;
}

EXPORT CUresult cuMemAllocHost_v2(void **address, size_t bytes)
{
    return cuMemHostAlloc(address, bytes, 0);
}

EXPORT CUresult cuMemFreeHost(void *address)
{
    BEGIN(CURRENT, "address=%p", address);
    if (!code)
        cuda_drain_all();
    if (!code)
        code = give_back(&call, PINNED, (CUdeviceptr)address);
    END;
}

EXPORT CUresult cuMemHostRegister_v2(void *address, size_t bytes, unsigned flags)
{
    BEGIN(CURRENT, "bytes=%zu flags=%u", bytes, flags);
    if (!code && (!bytes || cuda_holding(PINNED, (CUdeviceptr)address, 1)))
        REFUSE(INVALID_VALUE, "no bytes, or pinned already");
    if (!code) {
        struct object *memory = cuda_new(PINNED, 0);
        memory->is_foreign = true;
        memory->bytes = address;
        memory->size = bytes;
    }
    END;
}

EXPORT CUresult cuMemHostUnregister(void *address)
{
    BEGIN(CURRENT, "address=%p", address);
    if (!code)
        cuda_drain_all();
    if (!code)
        code = give_back(&call, PINNED, (CUdeviceptr)address);
    END;
}

EXPORT CUresult cuMemGetInfo_v2(size_t *left, size_t *all)
{
    BEGIN(CURRENT, "%s", "");
    if (!code) {
        *all = limit();
        *left = *all - used();
    }
    END;
}

/* ---- copies ---- */

/* Host memory, or memory of the device: the same addresses name both. */
static int type_of(const struct side *side)
{
    return side->type != UNIFIED ? side->type : cuda_holding(MEMORY, side->device, 1) ? DEVICE : HOST;
}

/* Where the rows of one side start, and how far they are apart. */
static int rows(struct call *call, const struct side *side, size_t width, size_t height, uint8_t **start, size_t *step)
{
    size_t offset = side->y * side->pitch + side->x;
    *step = side->pitch;
    if (type_of(side) != ARRAY_MEMORY && height > 1 && side->pitch < side->x + width)
        return fake_refuse(call, INVALID_VALUE, "the pitch is smaller than a row");
    switch (type_of(side)) {
    case HOST:
        *start = (side->type == UNIFIED ? (uint8_t *)side->device : (uint8_t *)side->host) + offset;
        return SUCCESS;
    case DEVICE:
        *start = (uint8_t *)side->device + offset;
        if (!cuda_holding(MEMORY, (CUdeviceptr)*start, height ? (height - 1) * side->pitch + width : 0))
            return fake_refuse(call, INVALID_VALUE, "not within device memory");
        return SUCCESS;
    case ARRAY_MEMORY:
        if (!cuda_find(ARRAY, side->array))
            return fake_refuse(call, INVALID_HANDLE, "no such array: perhaps it is no longer mapped");
        if (side->x + width > side->array->row || side->y + height > side->array->height)
            return fake_refuse(call, INVALID_VALUE, "not within the array");
        *step = side->array->row;
        *start = side->array->bytes + side->y * *step + side->x;
        return SUCCESS;
    default:
        return fake_refuse(call, INVALID_VALUE, "no such type of memory");
    }
}

/* Do it, or with `only_check` see whether it can be done. */
static int run(struct call *call, const struct work *work, bool only_check)
{
    const struct copy *copy = &work->copy;
    uint8_t *from, *to;
    size_t from_step, to_step;
    int code = rows(call, &copy->to, copy->width, copy->height, &to, &to_step);
    if (!code && !work->is_filling)
        code = rows(call, &copy->from, copy->width, copy->height, &from, &from_step);
    for (size_t row = 0; !code && !only_check && row < copy->height; row++)
        if (work->is_filling)
            memset(to + row * to_step, work->value, copy->width);
        else
            memmove(to + row * to_step, from + row * from_step, copy->width);
    return code;
}

int cuda_run(struct call *call, const struct work *work)
{
    return run(call, work, false);
}

/* At once, as on the legacy stream. */
static int now(struct call *call, struct work work)
{
    cuda_drain(NULL);
    return run(call, &work, false);
}

static bool is_pageable(const struct side *side, const uint8_t *start)
{
    return type_of(side) == HOST && !cuda_holding(PINNED, (CUdeviceptr)start, 1);
}

/* In its turn. With host memory that is not pinned the driver takes a copy of the source at once, or waits until it
 * has written the destination. */
static int later(struct call *call, struct work work, CUstream stream)
{
    if (!cuda_is_stream(stream))
        return fake_refuse(call, INVALID_HANDLE, "no such stream");
    int code = run(call, &work, true);
    if (code)
        return code;
    struct copy *copy = &work.copy;
    uint8_t *start;
    size_t step;
    rows(call, &copy->to, copy->width, copy->height, &start, &step);
    if (is_pageable(&copy->to, start)) {
        cuda_drain(stream);
        return run(call, &work, false);
    }
    if (!work.is_filling)
        rows(call, &copy->from, copy->width, copy->height, &start, &step);
    if (!work.is_filling && is_pageable(&copy->from, start)) {
        uint8_t *held = work.held = malloc(copy->width * copy->height + 1);
        for (size_t row = 0; row < copy->height; row++)
            memcpy(held + row * copy->width, start + row * step, copy->width);
        copy->from = (struct side){.type = HOST, .host = held, .pitch = copy->width};
    }
    cuda_later(stream, work);
    return SUCCESS;
}

/* ---- the functions that copy ---- */

#define COPY_WORDS "from=%s to=%s width=%zu height=%zu from_pitch=%zu to_pitch=%zu to_y=%zu"
#define COPY_VALUES(copy)                                                                                              \
    type_name((copy)->from.type), type_name((copy)->to.type), (copy)->width, (copy)->height, (copy)->from.pitch,       \
        (copy)->to.pitch, (copy)->to.y

static const char *type_name(int type)
{
    static const char *const names[] = {"none", "host", "device", "array", "unified"};
    return type >= HOST && type <= UNIFIED ? names[type] : names[0];
}

EXPORT CUresult cuMemcpy2D_v2(const struct copy *copy)
{
    BEGIN(CURRENT, COPY_WORDS, COPY_VALUES(copy));
    if (!code)
        code = now(&call, (struct work){.copy = *copy});
    END;
}

EXPORT CUresult cuMemcpy2DUnaligned_v2(const struct copy *copy)
{
    return cuMemcpy2D_v2(copy);
}

EXPORT CUresult cuMemcpy2DAsync_v2(const struct copy *copy, CUstream stream)
{
    BEGIN(CURRENT, COPY_WORDS " stream=%p", COPY_VALUES(copy), (void *)stream);
    if (!code)
        code = later(&call, (struct work){.copy = *copy}, stream);
    END;
}

static struct work line(int to_type, CUdeviceptr to, int from_type, CUdeviceptr from, size_t bytes)
{
    return (struct work){.copy = {
                             .from = {.type = from_type, .host = (void *)from, .device = from, .pitch = bytes},
                             .to = {.type = to_type, .host = (void *)to, .device = to, .pitch = bytes},
                             .width = bytes,
                             .height = 1,
                         }};
}

/* A copy of a line of bytes, and the same on a stream. */
#define LINE(name, suffix, to_kind, to_declared, from_kind, from_declared)                                             \
    EXPORT CUresult name##suffix(to_declared to, from_declared from, size_t bytes)                                     \
    {                                                                                                                  \
        BEGIN(CURRENT, "bytes=%zu", bytes);                                                                            \
        if (!code)                                                                                                     \
            code = now(&call, line(to_kind, (CUdeviceptr)to, from_kind, (CUdeviceptr)from, bytes));                    \
        END;                                                                                                           \
    }                                                                                                                  \
    EXPORT CUresult name##Async##suffix(to_declared to, from_declared from, size_t bytes, CUstream stream)             \
    {                                                                                                                  \
        BEGIN(CURRENT, "bytes=%zu stream=%p", bytes, (void *)stream);                                                  \
        if (!code)                                                                                                     \
            code = later(&call, line(to_kind, (CUdeviceptr)to, from_kind, (CUdeviceptr)from, bytes), stream);          \
        END;                                                                                                           \
    }
LINE(cuMemcpyHtoD, _v2, DEVICE, CUdeviceptr, HOST, const void *)
LINE(cuMemcpyDtoH, _v2, HOST, void *, DEVICE, CUdeviceptr)
LINE(cuMemcpyDtoD, _v2, DEVICE, CUdeviceptr, DEVICE, CUdeviceptr)
LINE(cuMemcpy, , UNIFIED, CUdeviceptr, UNIFIED, CUdeviceptr)

static struct work filling(CUdeviceptr to, size_t pitch, uint8_t value, size_t width, size_t height)
{
    struct copy copy = {.to = {.type = DEVICE, .device = to, .pitch = pitch}, .width = width, .height = height};
    return (struct work){.copy = copy, .is_filling = true, .value = value};
}

EXPORT CUresult cuMemsetD8_v2(CUdeviceptr to, uint8_t value, size_t bytes)
{
    BEGIN(CURRENT, "value=%u bytes=%zu", value, bytes);
    if (!code)
        code = now(&call, filling(to, bytes, value, bytes, 1));
    END;
}

EXPORT CUresult cuMemsetD8Async(CUdeviceptr to, uint8_t value, size_t bytes, CUstream stream)
{
    BEGIN(CURRENT, "value=%u bytes=%zu stream=%p", value, bytes, (void *)stream);
    if (!code)
        code = later(&call, filling(to, bytes, value, bytes, 1), stream);
    END;
}

EXPORT CUresult cuMemsetD2D8_v2(CUdeviceptr to, size_t pitch, uint8_t value, size_t width, size_t height)
{
    BEGIN(CURRENT, "value=%u width=%zu height=%zu pitch=%zu", value, width, height, pitch);
    if (!code)
        code = now(&call, filling(to, pitch, value, width, height));
    END;
}

EXPORT CUresult cuMemsetD2D8Async(CUdeviceptr to, size_t pitch, uint8_t value, size_t width, size_t height,
                                  CUstream stream)
{
    BEGIN(CURRENT, "value=%u width=%zu height=%zu pitch=%zu stream=%p", value, width, height, pitch, (void *)stream);
    if (!code)
        code = later(&call, filling(to, pitch, value, width, height), stream);
    END;
}

/* ---- what a pointer is ---- */

static bool describe(struct object *memory, int attribute, CUdeviceptr address, void *value)
{
    switch (attribute) {
    case 1: *(CUcontext *)value = memory->context; return true;
    case 2: *(unsigned *)value = DEVICE; return true;
    case 3: *(CUdeviceptr *)value = address; return true;
    case 8: *(unsigned *)value = 0; return true; /* is it managed */
    case 9: *(int *)value = memory->context->device; return true;
    case 11: *(CUdeviceptr *)value = (CUdeviceptr)memory->bytes; return true;
    case 12: *(size_t *)value = memory->size; return true;
    case 13: *(unsigned *)value = 1; return true; /* is it mapped */
    default: return false;
    }
}

EXPORT CUresult cuPointerGetAttribute(void *value, int attribute, CUdeviceptr address)
{
    BEGIN(INITIALIZED, "attribute=%d", attribute);
    struct object *memory = cuda_holding(MEMORY, address, 1);
    if (!code && (!memory || !describe(memory, attribute, address, value)))
        REFUSE(INVALID_VALUE, memory ? "the fake does not know it" : "not device memory");
    END;
}

EXPORT CUresult cuPointerGetAttributes(unsigned count, const int *attributes, void **values, CUdeviceptr address)
{
    BEGIN(INITIALIZED, "count=%u", count);
    struct object *memory = cuda_holding(MEMORY, address, 1);
    for (unsigned index = 0; !code && memory && index < count; index++)
        if (!describe(memory, attributes[index], address, values[index]))
            REFUSE(INVALID_VALUE, "the fake does not know it");
    END;
}
