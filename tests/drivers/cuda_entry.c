/* How callers find the entry points of the fake libcuda, and the words for its errors. */
#define _GNU_SOURCE
#include "cuda.h"

#include <dlfcn.h>
#include <stdio.h>

static const struct {
    int code;
    const char *name, *words;
} errors[] = {
    {SUCCESS, "CUDA_SUCCESS", "no error"},
    {INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
    {OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
    {NOT_INITIALIZED, "CUDA_ERROR_NOT_INITIALIZED", "initialization error"},
    {NO_DEVICE, "CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"},
    {INVALID_DEVICE, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"},
    {INVALID_CONTEXT, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context"},
    {ALREADY_MAPPED, "CUDA_ERROR_ALREADY_MAPPED", "resource already mapped"},
    {NOT_MAPPED, "CUDA_ERROR_NOT_MAPPED", "resource not mapped"},
    {NOT_MAPPED_AS_ARRAY, "CUDA_ERROR_NOT_MAPPED_AS_ARRAY", "resource not mapped as array"},
    {NOT_MAPPED_AS_POINTER, "CUDA_ERROR_NOT_MAPPED_AS_POINTER", "resource not mapped as pointer"},
    {INVALID_GRAPHICS_CONTEXT, "CUDA_ERROR_INVALID_GRAPHICS_CONTEXT", "invalid OpenGL or DirectX context"},
    {304, "CUDA_ERROR_OPERATING_SYSTEM", "OS call failed or operation not supported on this OS"},
    {INVALID_HANDLE, "CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"},
    {NOT_FOUND, "CUDA_ERROR_NOT_FOUND", "named symbol not found"},
    {700, "CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access was encountered"},
    {CONTEXT_IS_DESTROYED, "CUDA_ERROR_CONTEXT_IS_DESTROYED", "context is destroyed"},
    {719, "CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure"},
    {NOT_SUPPORTED, "CUDA_ERROR_NOT_SUPPORTED", "operation not supported"},
    {999, "CUDA_ERROR_UNKNOWN", "unknown error"},
};

static size_t row_of(CUresult error)
{
    size_t row = sizeof errors / sizeof *errors;
    while (row-- && errors[row].code != error)
        ;
    return row;
}

EXPORT CUresult cuGetErrorName(CUresult error, const char **name)
{
    size_t row = row_of(error);
    *name = row == (size_t)-1 ? NULL : errors[row].name;
    return *name ? SUCCESS : INVALID_VALUE;
}

EXPORT CUresult cuGetErrorString(CUresult error, const char **words)
{
    size_t row = row_of(error);
    *words = row == (size_t)-1 ? NULL : errors[row].words;
    return *words ? SUCCESS : INVALID_VALUE;
}

/* cuda-bindings asks for all entry points by name and version of the API, always the newest: so the newest that we
 * have is the right one. What we don't have is not found, and calling it is refused on the side of Python. */
EXPORT CUresult cuGetProcAddress_v2(const char *symbol, void **address, int version, uint64_t flags, int *status)
{
    (void)version, (void)flags;
    static void *self;
    if (!self) {
        Dl_info info;
        if (!dladdr((void *)cuGetProcAddress_v2, &info))
            return NOT_FOUND;
        self = dlopen(info.dli_fname, RTLD_NOW | RTLD_NOLOAD);
    }
    static const char *const versions[] = {"_v4", "_v2", ""};
    *address = NULL;
    for (size_t index = 0; !*address && index < 3; index++) {
        char name[128];
        snprintf(name, sizeof name, "%s%s", symbol, versions[index]);
        *address = dlsym(self, name);
    }
    if (status)
        *status = *address ? 0 : 1;
    return *address ? SUCCESS : NOT_FOUND;
}

/* Entry points that PyAV's FFmpeg insists on finding, and that we don't use. */
#define UNUSED(name)                                                                                                   \
    EXPORT CUresult name(void)                                                                                         \
    {                                                                                                                  \
        BEGIN(NOTHING, "%s", "");                                                                                      \
        if (!code)                                                                                                     \
            REFUSE(NOT_SUPPORTED, "the fake has no such thing");                                                       \
        END;                                                                                                           \
    }
UNUSED(cuArray3DCreate_v2)
UNUSED(cuArrayCreate_v2)
UNUSED(cuArrayDestroy)
UNUSED(cuDevicePrimaryCtxReset)
UNUSED(cuLaunchKernel)
UNUSED(cuLinkAddData)
UNUSED(cuLinkComplete)
UNUSED(cuLinkCreate)
UNUSED(cuLinkDestroy)
UNUSED(cuMemAllocManaged)
UNUSED(cuModuleGetFunction)
UNUSED(cuModuleGetGlobal)
UNUSED(cuModuleLoadData)
UNUSED(cuModuleUnload)
UNUSED(cuTexObjectCreate)
UNUSED(cuTexObjectDestroy)
