/* Streams and events of the fake libcuda, and what was asked for on a stream and is not done yet.
 *
 * Nothing of a stream is done until somebody waits for it or is ordered after it, which is as late as a GPU may be. So
 * who reads too early, or on another stream without an event, gets what was there before, in every run.
 */
#include "cuda.h"

#include <stdlib.h>
#include <unistd.h>

#define WORK_MAX 1024

static struct work *first;

/* ---- work ---- */

static bool is_default(CUstream stream)
{
    return (uintptr_t)stream <= PER_THREAD_STREAM;
}

bool cuda_is_stream(CUstream stream)
{
    return is_default(stream) || cuda_find(STREAM, stream);
}

/* The legacy stream waits for all others but those that were made not to block, and they for it. */
static bool blocks(CUstream stream)
{
    return is_default(stream) || !(stream->flags & NON_BLOCKING);
}

static bool is_legacy(CUstream stream)
{
    return (uintptr_t)stream < PER_THREAD_STREAM;
}

static bool is_before(CUstream one, CUstream other)
{
    return one == other || (is_legacy(other) && blocks(one)) || (is_legacy(one) && blocks(other));
}

static void finish(struct work *work)
{
    struct call call = {.name = "late"};
    int code = cuda_run(&call, work);
    if (code) {
        fake_note("late pid=%d stream=%p result=%d why=%s", (int)getpid(), (void *)work->stream, code, call.why);
        cuda_lose(ILLEGAL_ADDRESS);
    }
    free(work->held);
    free(work);
}

void cuda_drain_all(void)
{
    while (first) {
        struct work *work = first;
        first = work->next;
        finish(work);
    }
}

void cuda_later(CUstream stream, struct work work)
{
    struct work **last = &first, *kept = malloc(sizeof *kept);
    unsigned count = 0;
    for (; *last; count++)
        last = &(*last)->next;
    if (count == WORK_MAX) { /* nobody waits for a stream: a GPU would have come so far by now, too */
        cuda_drain_all();
        last = &first;
    }
    *kept = work;
    kept->stream = stream;
    kept->next = NULL;
    *last = kept;
}

void cuda_drain(CUstream stream)
{
    for (struct work **place = &first; *place;) {
        struct work *work = *place;
        if (is_before(work->stream, stream)) {
            *place = work->next;
            finish(work);
        } else
            place = &work->next;
    }
}

/* For the fake encoder: its pictures come after what was asked for on the stream that it was given. */
EXPORT void fake_drain(CUstream stream)
{
    fake_lock();
    cuda_drain(stream);
    fake_unlock();
}

/* ---- streams ---- */

#define STREAM_CALL(...)                                                                                               \
    BEGIN(CURRENT, __VA_ARGS__);                                                                                       \
    if (!code && !cuda_is_stream(stream))                                                                              \
    REFUSE(INVALID_HANDLE, "no such stream")

EXPORT CUresult cuStreamCreate(CUstream *stream, unsigned flags)
{
    BEGIN(CURRENT, "flags=%u", flags);
    if (!code) {
        *stream = cuda_new(STREAM, 0);
        (*stream)->flags = flags;
    }
    END;
}

EXPORT CUresult cuStreamCreateWithPriority(CUstream *stream, unsigned flags, int priority)
{
    BEGIN(CURRENT, "flags=%u priority=%d", flags, priority);
    if (!code) {
        *stream = cuda_new(STREAM, 0);
        (*stream)->flags = flags;
    }
    END;
}

EXPORT CUresult cuStreamDestroy_v2(CUstream stream)
{
    STREAM_CALL("stream=%p", (void *)stream);
    if (!code && is_default(stream))
        REFUSE(INVALID_HANDLE, "a default stream");
    if (!code) {
        cuda_drain(stream);
        cuda_drop(stream);
    }
    END;
}

/* As late as it may be: whoever asks whether the work is done is told so when it is. */
#define WAIT_CALL(name)                                                                                                \
    EXPORT CUresult name(CUstream stream)                                                                              \
    {                                                                                                                  \
        STREAM_CALL("stream=%p", (void *)stream);                                                                      \
        if (!code) {                                                                                                   \
            cuda_drain(stream);                                                                                        \
            code = cuda_lost();                                                                                        \
        }                                                                                                              \
        END;                                                                                                           \
    }
WAIT_CALL(cuStreamSynchronize)
WAIT_CALL(cuStreamQuery)

EXPORT CUresult cuStreamGetCtx(CUstream stream, CUcontext *context)
{
    STREAM_CALL("stream=%p", (void *)stream);
    if (!code)
        *context = is_default(stream) ? cuda_current() : stream->context;
    END;
}

EXPORT CUresult cuStreamWaitEvent(CUstream stream, CUevent event, unsigned flags)
{
    STREAM_CALL("stream=%p event=%p flags=%u", (void *)stream, (void *)event, flags);
    if (!code && !cuda_find(EVENT, event))
        REFUSE(INVALID_HANDLE, "no such event");
    if (!code && cuda_is_stream(event->stream))
        cuda_drain(event->stream); /* done now, it is before whatever comes on this stream */
    END;
}

EXPORT CUresult cuStreamAddCallback(CUstream stream, void (*done)(CUstream, CUresult, void *), void *with, unsigned flags)
{
    STREAM_CALL("stream=%p flags=%u", (void *)stream, flags);
    if (!code) {
        cuda_drain(stream);
        done(stream, cuda_lost(), with);
    }
    END;
}

/* ---- events ---- */

EXPORT CUresult cuEventCreate(CUevent *event, unsigned flags)
{
    BEGIN(CURRENT, "flags=%u", flags);
    if (!code)
        *event = cuda_new(EVENT, 0);
    END;
}

EXPORT CUresult cuEventRecord(CUevent event, CUstream stream)
{
    STREAM_CALL("event=%p stream=%p", (void *)event, (void *)stream);
    if (!code && !cuda_find(EVENT, event))
        REFUSE(INVALID_HANDLE, "no such event");
    if (!code)
        event->stream = stream;
    END;
}

#define EVENT_CALL(name)                                                                                               \
    EXPORT CUresult name(CUevent event)                                                                                \
    {                                                                                                                  \
        BEGIN(CURRENT, "event=%p", (void *)event);                                                                     \
        if (!code && !cuda_find(EVENT, event))                                                                         \
            REFUSE(INVALID_HANDLE, "no such event");                                                                   \
        if (!code && cuda_is_stream(event->stream)) {                                                                  \
            cuda_drain(event->stream);                                                                                 \
            code = cuda_lost();                                                                                        \
        }                                                                                                              \
        END;                                                                                                           \
    }
EVENT_CALL(cuEventSynchronize)
EVENT_CALL(cuEventQuery)

EXPORT CUresult cuEventDestroy_v2(CUevent event)
{
    BEGIN(CURRENT, "event=%p", (void *)event);
    if (!code && !cuda_find(EVENT, event))
        REFUSE(INVALID_HANDLE, "no such event");
    if (!code)
        cuda_drop(event);
    END;
}
