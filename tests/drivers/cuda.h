/* What the parts of the fake libcuda share: its objects and the rules of order.
 *
 * ABI facts (names, numbers, layouts) are those of the CUDA driver API 13; everything else is ours.
 */
#pragma once
#include "fake.h"

typedef int CUresult;
typedef int CUdevice;
typedef uint64_t CUdeviceptr;
typedef struct object *CUcontext, *CUstream, *CUevent, *CUarray, *CUgraphicsResource;

enum {
    SUCCESS = 0,
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    NOT_INITIALIZED = 3,
    NO_DEVICE = 100,
    INVALID_DEVICE = 101,
    INVALID_CONTEXT = 201,
    ALREADY_MAPPED = 208,
    NOT_MAPPED = 211,
    NOT_MAPPED_AS_ARRAY = 212,
    NOT_MAPPED_AS_POINTER = 213,
    INVALID_GRAPHICS_CONTEXT = 219,
    INVALID_HANDLE = 400,
    NOT_FOUND = 500,
    ILLEGAL_ADDRESS = 700,
    CONTEXT_IS_DESTROYED = 709,
    NOT_SUPPORTED = 801,
};

enum kind { CONTEXT = 1, STREAM, EVENT, MEMORY, PINNED, ARRAY, RESOURCE };

/* All handles that callers hold. Only those in the list are good: one that was given back is found no more. The
 * headers are never freed, so a stale handle can't become another object's by chance. */
struct object {
    struct object *next;
    enum kind kind;
    CUcontext context; /* in which it was made */
    uint8_t *bytes;    /* of memory and arrays */
    bool is_foreign;   /* the caller's memory, which he pinned */
    size_t size;
    /* Arrays */
    size_t row; /* bytes */
    unsigned width, height, channels;
    /* Contexts */
    CUdevice device;
    unsigned retained;
    bool primary;
    unsigned flags;  /* of streams and of graphics resources */
    CUstream stream; /* on which an event was recorded */
    /* Graphics resources */
    unsigned name; /* of the texture or buffer */
    bool is_buffer;
    struct object *mapped; /* an array or memory, while it is mapped */
};

/* CUDA_MEMCPY2D of the second version of the API. */
struct side {
    size_t x, y;
    int type;
    void *host;
    CUdeviceptr device;
    CUarray array;
    size_t pitch;
};
struct copy {
    struct side from, to;
    size_t width, height;
};
_Static_assert(offsetof(struct side, host) == 24 && offsetof(struct side, pitch) == 48, "one side of a 2D copy");
_Static_assert(sizeof(struct copy) == 128, "a 2D copy");

enum need { NOTHING, INITIALIZED, CURRENT };

#define BEGIN(need, ...)                                                                                               \
    struct call call;                                                                                                  \
    int code = cuda_ready(&call, fake_begin(&call, __func__, __VA_ARGS__), need)
#define REFUSE(number, why) (code = fake_refuse(&call, number, why))
#define END return fake_end(&call, code)

int cuda_ready(struct call *call, int code, enum need need);
struct object *cuda_new(enum kind kind, size_t bytes);
struct object *cuda_find(enum kind kind, const void *handle);
struct object *cuda_each(enum kind kind, struct object *after);
void cuda_drop(struct object *object);
CUdevice cuda_device(void);
CUcontext cuda_current(void);
void cuda_lose(int code); /* the context, for good */
int cuda_lost(void);      /* the error with which it was lost, or 0 */

/* ---- work on streams (cuda_streams.c) ---- */

enum { PER_THREAD_STREAM = 2, NON_BLOCKING = 1 }; /* streams 0 and 1 are the legacy one */

/* A copy, or a filling of its destination with one value. */
struct work {
    struct work *next;
    CUstream stream;
    struct copy copy;
    bool is_filling;
    uint8_t value;
    void *held; /* a copy of the source, where the driver takes one at once */
};

bool cuda_is_stream(CUstream stream);
void cuda_later(CUstream stream, struct work work);
void cuda_drain(CUstream stream);
void cuda_drain_all(void);
int cuda_run(struct call *call, const struct work *work);

/* The allocation that holds [address, address + bytes), or NULL. */
struct object *cuda_holding(enum kind kind, CUdeviceptr address, size_t bytes);
