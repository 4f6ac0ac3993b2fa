/* The fake encoder's buffers, the caller's "device memory", and pictures. */
#define _GNU_SOURCE
#include "nvenc_session.h"

#include <dlfcn.h>
#include <stdlib.h>

#define PITCH 256

/* ---- buffers of its own ---- */

NVENCSTATUS nvEncCreateInputBuffer(struct session *session, struct input_request *request)
{
    SESSION("width=%u height=%u format=0x%x", request->width, request->height, request->format);
    if (!code && request->format != NV12)
        REFUSE(NV_UNSUPPORTED_PARAM, "the fake knows NV12 only");
    if (!code) {
        struct item *item = session_new(session, INPUT);
        item->width = request->width, item->height = request->height;
        item->pitch = (request->width + PITCH - 1) / PITCH * PITCH;
        item->bytes = malloc((size_t)item->pitch * (item->height * 3 / 2));
        request->buffer = item;
    }
    END;
}

NVENCSTATUS nvEncCreateBitstreamBuffer(struct session *session, struct output_request *request)
{
    SESSION("%s", "");
    if (!code)
        request->buffer = session_new(session, OUTPUT);
    END;
}

#define ITEM_CALL(of_kind)                                                                                             \
    SESSION("buffer=%p", (void *)item);                                                                                \
    if (!code && !session_find(session, of_kind, item))                                                                \
    REFUSE(NV_INVALID_PTR, "no such buffer or resource")

#define DESTROY(name, of_kind)                                                                                         \
    NVENCSTATUS name(struct session *session, struct item *item)                                                       \
    {                                                                                                                  \
        ITEM_CALL(of_kind);                                                                                            \
        if (!code)                                                                                                     \
            session_drop(session, item);                                                                               \
        END;                                                                                                           \
    }
DESTROY(nvEncDestroyInputBuffer, INPUT)
DESTROY(nvEncDestroyBitstreamBuffer, OUTPUT)

NVENCSTATUS nvEncLockInputBuffer(struct session *session, struct input_lock *request)
{
    struct item *item = request->buffer;
    ITEM_CALL(INPUT);
    if (!code && item->is_locked)
        REFUSE(NV_LOCK_BUSY, "it is locked already");
    if (!code) {
        item->is_locked = true;
        request->bytes = item->bytes;
        request->pitch = item->pitch;
    }
    END;
}

NVENCSTATUS nvEncUnlockInputBuffer(struct session *session, struct item *item)
{
    ITEM_CALL(INPUT);
    if (!code && !item->is_locked)
        REFUSE(NV_INVALID_CALL, "it is not locked");
    if (!code)
        item->is_locked = false;
    END;
}

/* ---- the caller's memory ---- */

/* What the fake libcuda alone knows or does. */
static void *cuda_symbol(const char *name)
{
    void *library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD);
    return library ? dlsym(library, name) : NULL;
}

static bool is_picture_in_device_memory(const struct item *item)
{
    bool (*ask)(uint64_t, size_t) = cuda_symbol("fake_is_device_memory");
    size_t rows = (size_t)item->height * 3 / 2;
    return ask && ask((uint64_t)item->bytes, (rows - 1) * item->pitch + item->width);
}

NVENCSTATUS nvEncRegisterResource(struct session *session, struct registration *request)
{
    SESSION("type=%u width=%u height=%u pitch=%u address=%p format=0x%x", request->type, request->width,
            request->height, request->pitch, request->pointer, request->format);
    struct item wanted = {
        .width = request->width, .height = request->height, .pitch = request->pitch, .bytes = request->pointer};
    if (!code && (request->type != CUDA_DEVICE_POINTER || request->format != NV12))
        REFUSE(NV_UNSUPPORTED_PARAM, "the fake takes NV12 in device memory only");
    if (!code && (request->pitch < request->width || !request->height))
        REFUSE(NV_INVALID_PARAM, "the pitch is smaller than a row");
    if (!code && !is_picture_in_device_memory(&wanted))
        REFUSE(NV_INVALID_PARAM, "not within device memory");
    if (!code) {
        struct item *item = session_new(session, REGISTERED);
        item->width = wanted.width, item->height = wanted.height;
        item->pitch = wanted.pitch, item->bytes = wanted.bytes;
        request->registered = item;
    }
    END;
}

static bool is_mapped(struct session *session, struct item *item)
{
    for (struct item *other = session->items; other; other = other->next)
        if (other->kind == MAPPED && other->of == item)
            return true;
    return false;
}

NVENCSTATUS nvEncUnregisterResource(struct session *session, struct item *item)
{
    ITEM_CALL(REGISTERED);
    if (!code && is_mapped(session, item))
        REFUSE(NV_INVALID_CALL, "it is mapped");
    if (!code)
        session_drop(session, item);
    END;
}

NVENCSTATUS nvEncMapInputResource(struct session *session, struct mapping *request)
{
    SESSION("resource=%p", request->registered);
    struct item *item = request->registered;
    if (!code && !session_find(session, REGISTERED, item))
        REFUSE(NV_NOT_REGISTERED, "no such resource");
    if (!code && is_mapped(session, item))
        REFUSE(NV_MAP_FAILED, "it is mapped already");
    if (!code) {
        struct item *mapped = session_new(session, MAPPED);
        mapped->of = item;
        request->mapped = mapped;
        request->format = NV12;
    }
    END;
}

NVENCSTATUS nvEncUnmapInputResource(struct session *session, struct item *item)
{
    SESSION("resource=%p", (void *)item);
    if (!code && !session_find(session, MAPPED, item))
        REFUSE(NV_NOT_MAPPED, "it is not mapped");
    if (!code)
        session_drop(session, item);
    END;
}

/* ---- pictures ---- */

/* The picture that a caller hands over, or NULL with the reason in `call`. */
static const struct item *input_of(struct call *call, struct session *session, void *handle, int *code)
{
    struct item *item = session_find(session, INPUT, handle);
    if (item && item->is_locked)
        return *code = fake_refuse(call, NV_LOCK_BUSY, "the input is locked"), NULL;
    if (!item) {
        struct item *mapped = session_find(session, MAPPED, handle);
        if (!mapped)
            return *code = fake_refuse(call, NV_NOT_MAPPED, "no such input, or it is not mapped"), NULL;
        item = mapped->of;
        void (*drain)(void *) = cuda_symbol("fake_drain");
        if (drain)
            drain(session->cuda_stream);
        if (!is_picture_in_device_memory(item))
            return *code = fake_refuse(call, NV_GENERIC, "its device memory was freed"), NULL;
    }
    if (item->width < session->stream.width || item->height < session->stream.height)
        return *code = fake_refuse(call, NV_INVALID_PARAM, "the input is smaller than the picture"), NULL;
    return item;
}

static bool is_idr(struct session *session, uint32_t flags)
{
    bool is_due = session->idr_period != INFINITE_GOP && session->since_idr >= session->idr_period;
    return !session->pictures || session->must_be_idr || flags & FORCE_IDR || is_due;
}

static void encode(struct session *session, const struct picture *picture, const struct item *input,
                   struct item *output, bool idr)
{
    output->coded.size = 0;
    if (session->has_delimiters)
        h264_delimiter(&output->coded);
    bool wanted = picture->flags & OUTPUT_PARAMETERS;
    if (wanted || (!session->no_parameters && idr && (!session->pictures || session->repeats_parameters)))
        h264_parameters(&session->stream, &output->coded);
    for (uint32_t index = 0; index < picture->messages_count; index++)
        h264_message(picture->messages[index].type, picture->messages[index].payload, picture->messages[index].size,
                     &output->coded);
    enum h264_kind kind = idr ? H264_IDR : picture->flags & FORCE_INTRA ? H264_INTRA : H264_PREDICTED;
    h264_picture(&session->stream, kind, input->bytes, input->pitch, input->height, &output->coded);
    output->is_written = true;
    output->type = idr ? PICTURE_IDR : kind == H264_INTRA ? PICTURE_I : PICTURE_P;
    output->index = (uint32_t)session->pictures++;
    output->time = picture->time;
    output->duration = picture->duration;
    session->since_idr = idr ? 1 : session->since_idr + 1;
    session->must_be_idr = false;
}

NVENCSTATUS nvEncEncodePicture(struct session *session, const struct picture *picture)
{
    struct call quiet;
    bool idr = !session_check(&quiet, session) && is_idr(session, picture->flags);
    bool is_end = picture->flags & END_OF_STREAM;
    SESSION("flags=0x%x pts=%lu idr=%d end=%d messages=%u", picture->flags, picture->time, idr && !is_end, is_end,
            is_end ? 0 : picture->messages_count);
    if (!code && !session->is_initialized)
        REFUSE(NV_NOT_INITIALIZED, "it is not initialized");
    bool (*is_lost)(void) = cuda_symbol("fake_is_lost");
    if (!code && is_lost && is_lost())
        REFUSE(NV_GENERIC, "the CUDA context is lost");
    if (!code && !is_end) {
        const struct item *input = input_of(&call, session, picture->input, &code);
        struct item *output = session_find(session, OUTPUT, picture->output);
        if (!code && !output)
            REFUSE(NV_INVALID_PTR, "no such output");
        if (!code && output->is_locked)
            REFUSE(NV_LOCK_BUSY, "the output is locked");
        if (!code)
            encode(session, picture, input, output, idr);
    }
    END;
}

NVENCSTATUS nvEncLockBitstream(struct session *session, struct output_lock *request)
{
    struct item *item = request->buffer;
    ITEM_CALL(OUTPUT);
    if (!code && (item->is_locked || !item->is_written))
        REFUSE(NV_LOCK_BUSY, item->is_locked ? "it is locked already" : "no picture was encoded into it");
    if (!code) {
        item->is_locked = true;
        request->bytes = item->coded.at;
        request->size = (uint32_t)item->coded.size;
        request->index = item->index;
        request->type = item->type;
        request->structure = 1; /* a frame */
        request->slices = 1;
        request->status = 0;
        request->time = item->time;
        request->duration = item->duration;
    }
    END;
}

NVENCSTATUS nvEncUnlockBitstream(struct session *session, struct item *item)
{
    ITEM_CALL(OUTPUT);
    if (!code && !item->is_locked)
        REFUSE(NV_INVALID_CALL, "it is not locked");
    if (!code)
        item->is_locked = item->is_written = false;
    END;
}
