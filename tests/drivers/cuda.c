/* A libcuda.so.1 for machines without a GPU: devices and contexts.
 *
 * FAKE_DEVICES, FAKE_DRIVER_VERSION: see __init__.py.
 */
#define _GNU_SOURCE
#include "cuda.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEVICES_MAX 16
#define STACK_MAX 32

static bool initialized;
static int lost; /* the error that stays with a context once a kernel or the device has failed */
static struct object *objects;
static CUcontext primaries[DEVICES_MAX];
static unsigned primary_flags[DEVICES_MAX];
static _Thread_local CUcontext stack[STACK_MAX];
static _Thread_local int depth;

/* ---- objects and the rules of order ---- */

static bool stays(int code)
{
    return code == 700 || code == 702 || code == 710 || (code >= 714 && code <= 719);
}

void cuda_lose(int code)
{
    lost = code;
}

int cuda_lost(void)
{
    return lost;
}

/* For the fake encoder. */
EXPORT bool fake_is_lost(void)
{
    return lost != 0;
}

CUcontext cuda_current(void)
{
    return depth ? stack[depth - 1] : NULL;
}

int cuda_ready(struct call *call, int code, enum need need)
{
    if (stays(code))
        lost = code;
    if (code)
        return code;
    if (need >= INITIALIZED && !initialized)
        return fake_refuse(call, NOT_INITIALIZED, "cuInit was not called");
    if (need < CURRENT)
        return SUCCESS;
    if (!cuda_current())
        return fake_refuse(call, INVALID_CONTEXT, "no context is current in this thread");
    if (!cuda_find(CONTEXT, cuda_current()))
        return fake_refuse(call, CONTEXT_IS_DESTROYED, "the current context was destroyed");
    return lost ? fake_refuse(call, lost, "an earlier error stays with the context") : SUCCESS;
}

struct object *cuda_new(enum kind kind, size_t bytes)
{
    struct object *object = calloc(1, sizeof *object);
    if (bytes) {
        object->bytes = aligned_alloc(512, (bytes + 511) / 512 * 512);
        memset(object->bytes, 0xA5, bytes); /* who reads what nobody wrote shall see it */
    }
    object->kind = kind;
    object->size = bytes;
    object->context = cuda_current();
    object->next = objects;
    return objects = object;
}

struct object *cuda_each(enum kind kind, struct object *after)
{
    struct object *object = after ? after->next : objects;
    while (object && object->kind != kind)
        object = object->next;
    return object;
}

struct object *cuda_find(enum kind kind, const void *handle)
{
    struct object *object = NULL;
    while ((object = cuda_each(kind, object)) && object != handle)
        ;
    return object;
}

void cuda_drop(struct object *object)
{
    struct object **place = &objects;
    while (*place != object)
        place = &(*place)->next;
    *place = object->next;
    if (!object->is_foreign)
        free(object->bytes);
}

CUdevice cuda_device(void)
{
    return cuda_current() ? cuda_current()->device : 0;
}

/* ---- the library and its devices ---- */

static int devices(void)
{
    long wanted = fake_number("FAKE_DEVICES", 1);
    return (int)(wanted < DEVICES_MAX ? wanted : DEVICES_MAX);
}

static bool is_device(CUdevice device)
{
    return device >= 0 && device < devices();
}

EXPORT CUresult cuInit(unsigned flags)
{
    BEGIN(NOTHING, "flags=%u", flags);
    if (!code && !devices())
        REFUSE(NO_DEVICE, "FAKE_DEVICES");
    initialized = initialized || !code;
    END;
}

EXPORT CUresult cuDriverGetVersion(int *version)
{
    BEGIN(NOTHING, "%s", "");
    if (!code)
        *version = (int)fake_number("FAKE_DRIVER_VERSION", 13000);
    END;
}

EXPORT CUresult cuDeviceGetCount(int *count)
{
    BEGIN(INITIALIZED, "%s", "");
    if (!code)
        *count = devices();
    END;
}

EXPORT CUresult cuDeviceGet(CUdevice *device, int ordinal)
{
    BEGIN(INITIALIZED, "ordinal=%d", ordinal);
    if (!code && !is_device(ordinal))
        REFUSE(INVALID_DEVICE, "no such device");
    if (!code)
        *device = ordinal;
    END;
}

#define DEVICE_CALL(...)                                                                                               \
    BEGIN(INITIALIZED, __VA_ARGS__);                                                                                   \
    if (!code && !is_device(device))                                                                                   \
    REFUSE(INVALID_DEVICE, "no such device")

EXPORT CUresult cuDeviceGetName(char *name, int bytes, CUdevice device)
{
    DEVICE_CALL("device=%d", device);
    if (!code)
        snprintf(name, (size_t)bytes, "Fake GPU %d", device);
    END;
}

EXPORT CUresult cuDeviceGetAttribute(int *value, int attribute, CUdevice device)
{
    DEVICE_CALL("attribute=%d device=%d", attribute, device);
    if (!code)
        switch (attribute) {
        case 16: *value = 84; break;             /* multiprocessors */
        case 33: *value = device + 1; break;     /* PCI bus */
        case 41: *value = 1; break;              /* unified addressing */
        case 75: *value = 8; break;              /* compute capability */
        case 76: *value = 6; break;
        default: *value = 0;
        }
    END;
}

EXPORT CUresult cuDeviceComputeCapability(int *major, int *minor, CUdevice device)
{
    DEVICE_CALL("device=%d", device);
    if (!code)
        *major = 8, *minor = 6;
    END;
}

EXPORT CUresult cuDeviceGetUuid_v2(uint8_t uuid[16], CUdevice device)
{
    DEVICE_CALL("device=%d", device);
    if (!code) {
        memcpy(uuid, "planaria-fake-0", 16);
        uuid[15] = (uint8_t)device;
    }
    END;
}

EXPORT CUresult cuDeviceGetUuid(uint8_t uuid[16], CUdevice device)
{
    return cuDeviceGetUuid_v2(uuid, device);
}

EXPORT CUresult cuDeviceTotalMem_v2(size_t *bytes, CUdevice device)
{
    DEVICE_CALL("device=%d", device);
    if (!code)
        *bytes = (size_t)fake_number("FAKE_MEMORY_MB", 1024) << 20;
    END;
}

EXPORT CUresult cuDeviceGetPCIBusId(char *id, int bytes, CUdevice device)
{
    DEVICE_CALL("device=%d", device);
    if (!code)
        snprintf(id, (size_t)bytes, "0000:%02x:00.0", device + 1);
    END;
}

EXPORT CUresult cuDeviceGetByPCIBusId(CUdevice *device, const char *id)
{
    BEGIN(INITIALIZED, "id=%.20s", id);
    unsigned domain, bus;
    if (!code && (sscanf(id, "%x:%x:", &domain, &bus) != 2 || !is_device((int)bus - 1)))
        REFUSE(INVALID_DEVICE, "no such device");
    if (!code)
        *device = (int)bus - 1;
    END;
}

/* ---- contexts ---- */

EXPORT CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device)
{
    DEVICE_CALL("device=%d", device);
    if (!code) {
        if (!primaries[device]) {
            primaries[device] = cuda_new(CONTEXT, 0);
            primaries[device]->device = device;
            primaries[device]->primary = true;
        }
        primaries[device]->retained++;
        *context = primaries[device];
    }
    END;
}

EXPORT CUresult cuDevicePrimaryCtxRelease_v2(CUdevice device)
{
    DEVICE_CALL("device=%d", device);
    if (!code && !primaries[device])
        REFUSE(INVALID_CONTEXT, "the primary context is not retained");
    if (!code && !--primaries[device]->retained) {
        cuda_drop(primaries[device]);
        primaries[device] = NULL;
    }
    END;
}

EXPORT CUresult cuDevicePrimaryCtxRelease(CUdevice device)
{
    return cuDevicePrimaryCtxRelease_v2(device);
}

EXPORT CUresult cuDevicePrimaryCtxSetFlags_v2(CUdevice device, unsigned flags)
{
    DEVICE_CALL("device=%d flags=%u", device, flags);
    if (!code)
        primary_flags[device] = flags;
    END;
}

EXPORT CUresult cuDevicePrimaryCtxSetFlags(CUdevice device, unsigned flags)
{
    return cuDevicePrimaryCtxSetFlags_v2(device, flags);
}

EXPORT CUresult cuDevicePrimaryCtxGetState(CUdevice device, unsigned *flags, int *active)
{
    DEVICE_CALL("device=%d", device);
    if (!code) {
        *active = primaries[device] != NULL;
        *flags = primary_flags[device];
    }
    END;
}

static int push(struct call *call, CUcontext context)
{
    if (!cuda_find(CONTEXT, context))
        return fake_refuse(call, INVALID_CONTEXT, "no such context");
    if (depth == STACK_MAX)
        return fake_refuse(call, INVALID_VALUE, "contexts were pushed and never popped");
    stack[depth++] = context;
    return SUCCESS;
}

EXPORT CUresult cuCtxCreate_v2(CUcontext *context, unsigned flags, CUdevice device)
{
    DEVICE_CALL("device=%d flags=%u", device, flags);
    if (!code) {
        *context = cuda_new(CONTEXT, 0);
        (*context)->device = device;
        code = push(&call, *context);
    }
    END;
}

EXPORT CUresult cuCtxCreate_v4(CUcontext *context, void *parameters, unsigned flags, CUdevice device)
{
    (void)parameters;
    return cuCtxCreate_v2(context, flags, device);
}

EXPORT CUresult cuCtxDestroy_v2(CUcontext context)
{
    BEGIN(INITIALIZED, "context=%p", (void *)context);
    if (!code && (!cuda_find(CONTEXT, context) || context->primary))
        REFUSE(INVALID_CONTEXT, "not a context of cuCtxCreate");
    if (!code) {
        depth -= cuda_current() == context;
        cuda_drop(context);
    }
    END;
}

EXPORT CUresult cuCtxPushCurrent_v2(CUcontext context)
{
    BEGIN(INITIALIZED, "context=%p", (void *)context);
    if (!code)
        code = push(&call, context);
    END;
}

EXPORT CUresult cuCtxPopCurrent_v2(CUcontext *context)
{
    BEGIN(INITIALIZED, "%s", "");
    if (!code && !depth)
        REFUSE(INVALID_CONTEXT, "nothing to pop");
    if (!code) {
        depth--;
        if (context)
            *context = stack[depth];
    }
    END;
}

EXPORT CUresult cuCtxSetCurrent(CUcontext context)
{
    BEGIN(INITIALIZED, "context=%p", (void *)context);
    if (!code && depth)
        depth--;
    if (!code && context)
        code = push(&call, context);
    END;
}

EXPORT CUresult cuCtxGetCurrent(CUcontext *context)
{
    BEGIN(INITIALIZED, "%s", "");
    if (!code)
        *context = cuda_current();
    END;
}

EXPORT CUresult cuCtxGetDevice(CUdevice *device)
{
    BEGIN(CURRENT, "%s", "");
    if (!code)
        *device = cuda_device();
    END;
}

EXPORT CUresult cuCtxGetApiVersion(CUcontext context, unsigned *version)
{
    BEGIN(INITIALIZED, "context=%p", (void *)context);
    if (!code && !cuda_find(CONTEXT, context ? context : cuda_current()))
        REFUSE(INVALID_CONTEXT, "no such context");
    if (!code)
        *version = 3020; /* what every driver says of a context of cuCtxCreate_v2 */
    END;
}

EXPORT CUresult cuCtxSynchronize(void)
{
    BEGIN(CURRENT, "%s", "");
    if (!code) {
        cuda_drain_all();
        code = lost;
    }
    END;
}

EXPORT CUresult cuCtxSetLimit(int limit, size_t value)
{
    BEGIN(CURRENT, "limit=%d value=%zu", limit, value);
    END;
}
