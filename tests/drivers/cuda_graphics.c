/* OpenGL interop of the fake libcuda: textures and buffers of the real context that is current in the calling thread.
 *
 * Mapping takes a copy of what OpenGL has drawn so far, and unmapping writes a buffer back unless it was registered
 * for reading only. FAKE_GL_DEVICES=0 says that no CUDA device draws the context; FAKE_GL_ORDINAL which one does.
 */
#define _GNU_SOURCE
#include "cuda.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#define TEXTURE_2D 0x0DE1
#define READ_ONLY 1

static struct {
    const uint8_t *(*GetString)(unsigned);
    void (*GetIntegerv)(unsigned, int *);
    unsigned char (*IsTexture)(unsigned), (*IsBuffer)(unsigned);
    void (*BindTexture)(unsigned, unsigned);
    void (*GetTexLevelParameteriv)(unsigned, int, unsigned, int *);
    void (*GetTexImage)(unsigned, int, unsigned, unsigned, void *);
    void (*PixelStorei)(unsigned, int);
    void (*BindBuffer)(unsigned, unsigned);
    void (*GetBufferParameteriv)(unsigned, unsigned, int *);
    void (*GetBufferSubData)(unsigned, intptr_t, intptr_t, void *);
    void (*BufferSubData)(unsigned, intptr_t, intptr_t, const void *);
} gl;

/* Whether a context is current in this thread. libOpenGL answers all questions with nothing where there is none. */
static bool is_current(void)
{
    static const char *const names[] = {
        "glGetString",     "glGetIntegerv",           "glIsTexture",  "glIsBuffer",
        "glBindTexture",   "glGetTexLevelParameteriv", "glGetTexImage", "glPixelStorei",
        "glBindBuffer",    "glGetBufferParameteriv",  "glGetBufferSubData", "glBufferSubData",
    };
    _Static_assert(sizeof gl == sizeof names, "one name for each");
    if (!gl.GetString) {
        void *library = dlopen("libOpenGL.so.0", RTLD_NOW);
        for (size_t index = 0; library && index < sizeof names / sizeof *names; index++)
            ((void **)&gl)[index] = dlsym(library, names[index]);
    }
    return gl.GetString && gl.GetString(0x1F02);
}

static int asked(unsigned name)
{
    int value = 0;
    gl.GetIntegerv(name, &value);
    return value;
}

/* ---- what a texture or buffer holds ---- */

/* The format in which a texture is read, for those that CUDA takes: it takes none with three channels. */
static unsigned channels_of(unsigned internal, unsigned *format)
{
    switch (internal) {
    case 0x8229: *format = 0x1903; return 1; /* R8 */
    case 0x822B: *format = 0x8227; return 2; /* RG8 */
    case 0x8058: *format = 0x1908; return 4; /* RGBA8 */
    default: return 0;
    }
}

static int level(unsigned parameter)
{
    int value = 0;
    gl.GetTexLevelParameteriv(TEXTURE_2D, 0, parameter, &value);
    return value;
}

/* A new array with the texture's pixels, or with none yet if only its shape is asked for; NULL if CUDA takes no such
 * texture. What was bound, and how pixels are packed, is as before. */
static struct object *texture(unsigned name, bool with_pixels)
{
    static const unsigned packing[] = {0x0D00, 0x0D01, 0x0D02, 0x0D03, 0x0D04, 0x0D05}; /* 0x0D05: alignment */
    int packed[6], bound = asked(0x8069), buffer = asked(0x88ED);
    gl.BindTexture(TEXTURE_2D, name);
    unsigned format, width = (unsigned)level(0x1000), height = (unsigned)level(0x1001);
    unsigned channels = channels_of((unsigned)level(0x1003), &format);
    struct object *array = NULL;
    if (channels && width && height) {
        array = cuda_new(ARRAY, (size_t)width * height * channels);
        array->width = width, array->height = height, array->channels = channels;
        array->row = (size_t)width * channels;
    }
    if (array && with_pixels) {
        for (size_t index = 0; index < 6; index++) {
            packed[index] = asked(packing[index]);
            gl.PixelStorei(packing[index], index == 5 ? 1 : 0);
        }
        gl.BindBuffer(0x88EB, 0);
        gl.GetTexImage(TEXTURE_2D, 0, format, 0x1401, array->bytes);
        gl.BindBuffer(0x88EB, (unsigned)buffer);
        for (size_t index = 0; index < 6; index++)
            gl.PixelStorei(packing[index], packed[index]);
    }
    gl.BindTexture(TEXTURE_2D, (unsigned)bound);
    return array;
}

/* Copy a buffer of OpenGL to new device memory, or what is there back to it. */
static struct object *buffer(unsigned name, struct object *back)
{
    int bound = asked(0x88ED), bytes = 0;
    struct object *memory = back;
    gl.BindBuffer(0x88EB, name);
    gl.GetBufferParameteriv(0x88EB, 0x8764, &bytes);
    if (back)
        gl.BufferSubData(0x88EB, 0, (intptr_t)back->size, back->bytes);
    else if (bytes) {
        memory = cuda_new(MEMORY, (size_t)bytes);
        gl.GetBufferSubData(0x88EB, 0, bytes, memory->bytes);
    }
    gl.BindBuffer(0x88EB, (unsigned)bound);
    return memory;
}

/* ---- registering ---- */

static CUgraphicsResource resource_of(unsigned name, bool is_buffer, unsigned flags)
{
    CUgraphicsResource resource = cuda_new(RESOURCE, 0);
    resource->name = name;
    resource->is_buffer = is_buffer;
    resource->flags = flags;
    return resource;
}

EXPORT CUresult cuGraphicsGLRegisterImage(CUgraphicsResource *resource, unsigned name, unsigned target, unsigned flags)
{
    BEGIN(CURRENT, "texture=%u target=0x%x flags=%u", name, target, flags);
    struct object *shape;
    if (!code && !is_current())
        REFUSE(INVALID_GRAPHICS_CONTEXT, "no OpenGL context is current in this thread");
    if (!code && (target != TEXTURE_2D || !gl.IsTexture(name)))
        REFUSE(INVALID_VALUE, "no such 2D texture");
    if (!code && !(shape = texture(name, false)))
        REFUSE(INVALID_VALUE, "not a format that CUDA takes");
    if (!code) {
        cuda_drop(shape);
        *resource = resource_of(name, false, flags);
    }
    END;
}

EXPORT CUresult cuGraphicsGLRegisterBuffer(CUgraphicsResource *resource, unsigned name, unsigned flags)
{
    BEGIN(CURRENT, "buffer=%u flags=%u", name, flags);
    if (!code && !is_current())
        REFUSE(INVALID_GRAPHICS_CONTEXT, "no OpenGL context is current in this thread");
    if (!code && !gl.IsBuffer(name))
        REFUSE(INVALID_VALUE, "no such buffer");
    if (!code)
        *resource = resource_of(name, true, flags);
    END;
}

static void unmap(CUgraphicsResource resource)
{
    if (resource->is_buffer && resource->flags != READ_ONLY)
        buffer(resource->name, resource->mapped);
    cuda_drop(resource->mapped);
    resource->mapped = NULL;
}

EXPORT CUresult cuGraphicsUnregisterResource(CUgraphicsResource resource)
{
    BEGIN(CURRENT, "resource=%p", (void *)resource);
    if (!code && !cuda_find(RESOURCE, resource))
        REFUSE(INVALID_HANDLE, "no such resource");
    if (!code) {
        if (resource->mapped)
            unmap(resource);
        cuda_drop(resource);
    }
    END;
}

/* ---- mapping ---- */

static int each(struct call *call, unsigned count, CUgraphicsResource *resources, CUstream stream, bool mapped)
{
    if (!cuda_is_stream(stream))
        return fake_refuse(call, INVALID_HANDLE, "no such stream");
    if (!is_current())
        return fake_refuse(call, INVALID_GRAPHICS_CONTEXT, "no OpenGL context is current in this thread");
    for (unsigned index = 0; index < count; index++) {
        if (!cuda_find(RESOURCE, resources[index]))
            return fake_refuse(call, INVALID_HANDLE, "no such resource");
        if (!!resources[index]->mapped != mapped)
            return mapped ? fake_refuse(call, NOT_MAPPED, "it is not mapped")
                          : fake_refuse(call, ALREADY_MAPPED, "it is mapped already");
    }
    return SUCCESS;
}

EXPORT CUresult cuGraphicsMapResources(unsigned count, CUgraphicsResource *resources, CUstream stream)
{
    BEGIN(CURRENT, "count=%u stream=%p", count, (void *)stream);
    if (!code)
        code = each(&call, count, resources, stream, false);
    for (unsigned index = 0; !code && index < count; index++) {
        CUgraphicsResource resource = resources[index];
        resource->mapped = resource->is_buffer ? buffer(resource->name, NULL) : texture(resource->name, true);
        if (!resource->mapped)
            REFUSE(INVALID_VALUE, "the texture or buffer was deleted");
    }
    END;
}

EXPORT CUresult cuGraphicsUnmapResources(unsigned count, CUgraphicsResource *resources, CUstream stream)
{
    BEGIN(CURRENT, "count=%u stream=%p", count, (void *)stream);
    if (!code)
        code = each(&call, count, resources, stream, true);
    if (!code)
        cuda_drain(stream); /* work of this stream comes before; that of others would come too late */
    for (unsigned index = 0; !code && index < count; index++)
        unmap(resources[index]);
    END;
}

EXPORT CUresult cuGraphicsSubResourceGetMappedArray(CUarray *array, CUgraphicsResource resource, unsigned index,
                                                    unsigned mip)
{
    BEGIN(CURRENT, "resource=%p", (void *)resource);
    if (!code && !cuda_find(RESOURCE, resource))
        REFUSE(INVALID_HANDLE, "no such resource");
    if (!code && !resource->mapped)
        REFUSE(NOT_MAPPED, "it is not mapped");
    if (!code && resource->is_buffer)
        REFUSE(NOT_MAPPED_AS_ARRAY, "it is a buffer");
    if (!code && (index || mip))
        REFUSE(INVALID_VALUE, "it has one image");
    if (!code)
        *array = resource->mapped;
    END;
}

EXPORT CUresult cuGraphicsResourceGetMappedPointer_v2(CUdeviceptr *address, size_t *bytes, CUgraphicsResource resource)
{
    BEGIN(CURRENT, "resource=%p", (void *)resource);
    if (!code && !cuda_find(RESOURCE, resource))
        REFUSE(INVALID_HANDLE, "no such resource");
    if (!code && !resource->mapped)
        REFUSE(NOT_MAPPED, "it is not mapped");
    if (!code && !resource->is_buffer)
        REFUSE(NOT_MAPPED_AS_POINTER, "it is a texture");
    if (!code) {
        *address = (CUdeviceptr)resource->mapped->bytes;
        *bytes = resource->mapped->size;
    }
    END;
}

/* ---- questions ---- */

EXPORT CUresult cuArrayGetDescriptor_v2(size_t *description, CUarray array)
{
    BEGIN(CURRENT, "array=%p", (void *)array);
    if (!code && !cuda_find(ARRAY, array))
        REFUSE(INVALID_HANDLE, "no such array: perhaps it is no longer mapped");
    if (!code) {
        description[0] = array->width, description[1] = array->height;
        ((unsigned *)description)[4] = 1; /* unsigned bytes */
        ((unsigned *)description)[5] = array->channels;
    }
    END;
}

EXPORT CUresult cuGLGetDevices_v2(unsigned *count, CUdevice *devices, unsigned most, int list)
{
    BEGIN(INITIALIZED, "most=%u list=%d", most, list);
    if (!code && !is_current())
        REFUSE(INVALID_GRAPHICS_CONTEXT, "no OpenGL context is current in this thread");
    if (!code && !fake_number("FAKE_GL_DEVICES", 1)) {
        *count = 0;
        REFUSE(NO_DEVICE, "FAKE_GL_DEVICES");
    }
    if (!code) {
        *count = 1;
        if (most)
            devices[0] = (CUdevice)fake_number("FAKE_GL_ORDINAL", 0);
    }
    END;
}
