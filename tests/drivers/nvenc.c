/* A libnvidia-encode.so.1 for machines without a GPU: H.264 only, NV12 only, each picture ready at once.
 *
 * FAKE_NVENC, FAKE_NVENC_SESSIONS, FAKE_NVENC_VERSION: see __init__.py.
 */
#include "nvenc_session.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What NVENC takes at most, and at least since Turing. */
enum { WIDTH_MAX = 4096, HEIGHT_MAX = 4096, WIDTH_MIN = 145, HEIGHT_MIN = 49 };

static const GUID h264 = {0x6bc82762, 0x4e63, 0x4ca4, {0xaa, 0x85, 0x1e, 0x50, 0xf3, 0x21, 0xf6, 0xbf}};
static const GUID presets[] = {
    {0xfc0a8d3e, 0x45f8, 0x4cf8, {0x80, 0xc7, 0x29, 0x88, 0x71, 0x59, 0x0e, 0xbf}},
    {0xf581cfb8, 0x88d6, 0x4381, {0x93, 0xf0, 0xdf, 0x13, 0xf9, 0xc2, 0x7d, 0xab}},
    {0x36850110, 0x3a07, 0x441f, {0x94, 0xd5, 0x36, 0x70, 0x63, 0x1f, 0x91, 0xf6}},
    {0x90a7b826, 0xdf06, 0x4862, {0xb9, 0xd2, 0xcd, 0x6d, 0x73, 0xa0, 0x86, 0x81}},
    {0x21c6e6b4, 0x297a, 0x4cba, {0x99, 0x8f, 0xb6, 0xcb, 0xde, 0x72, 0xad, 0xe3}},
    {0x8e75c279, 0x6299, 0x4ab6, {0x83, 0x02, 0x0b, 0x21, 0x5a, 0x33, 0x5c, 0xf5}},
    {0x84848c12, 0x6f71, 0x4c13, {0x93, 0x1b, 0x53, 0xe2, 0x83, 0xf5, 0x79, 0x74}},
};
static const GUID profiles[] = {
    {0x0727bcaa, 0x78c4, 0x4c83, {0x8c, 0x2f, 0xef, 0x3d, 0xff, 0x26, 0x7c, 0x6a}}, /* baseline */
    {0x60b5c1d4, 0x67fe, 0x4790, {0x94, 0xd5, 0xc4, 0x72, 0x6d, 0x7b, 0x6e, 0x6d}}, /* main */
    {0xe7cbc309, 0x4f7a, 0x4b89, {0xaf, 0x2a, 0xd5, 0x37, 0xc9, 0x2b, 0xe3, 0x10}}, /* high */
};
static const char *const tunings[] = {"none", "high_quality", "low_latency", "ultra_low_latency", "lossless"};
enum { LOW_LATENCY = 2, ULTRA_LOW_LATENCY = 3 };

static struct session *sessions;

/* ---- sessions and what belongs to them ---- */

int session_check(struct call *call, struct session *session)
{
    for (struct session *open = sessions; open; open = open->next)
        if (open == session)
            return NV_SUCCESS;
    return fake_refuse(call, NV_INVALID_PTR, "no such session");
}

int session_end(struct call *call, int code, struct session *session)
{
    struct call quiet;
    if (code && call->why && !session_check(&quiet, session))
        session->why = call->why;
    return fake_end(call, code);
}

struct item *session_new(struct session *session, enum kind kind)
{
    struct item *item = calloc(1, sizeof *item);
    item->kind = kind;
    item->next = session->items;
    return session->items = item;
}

struct item *session_find(struct session *session, enum kind kind, const void *handle)
{
    struct item *item = session->items;
    while (item && (item != handle || item->kind != kind))
        item = item->next;
    return item;
}

/* Its header is never freed, so that a stale handle can't become another item's. */
void session_drop(struct session *session, struct item *item)
{
    struct item **place = &session->items;
    while (*place != item)
        place = &(*place)->next;
    *place = item->next;
    if (item->kind == INPUT)
        free(item->bytes);
    free(item->coded.at);
}

/* ---- versions ---- */

static void newest(unsigned *major, unsigned *minor)
{
    const char *set = getenv("FAKE_NVENC_VERSION");
    if (!set || sscanf(set, "%u.%u", major, minor) != 2)
        *major = 13, *minor = 1;
}

/* A version of the API, or of a structure: major | minor << 24, and for a structure more in between. */
int session_check_version(struct call *call, uint32_t version)
{
    unsigned major, minor;
    newest(&major, &minor);
    unsigned its_major = version & 0xFF, its_minor = version >> 24 & 0xF;
    if (its_major && (its_major < major || (its_major == major && its_minor <= minor)))
        return NV_SUCCESS;
    return fake_refuse(call, NV_INVALID_VERSION, "a version of the API that the driver does not know");
}

EXPORT NVENCSTATUS NvEncodeAPIGetMaxSupportedVersion(uint32_t *version)
{
    BEGIN("%s", "");
    unsigned major, minor;
    newest(&major, &minor);
    if (!code)
        *version = major << 4 | minor;
    return fake_end(&call, code);
}

/* ---- opening ---- */

static NVENCSTATUS nvEncOpenEncodeSessionEx(const struct opening *request, struct session **opened)
{
    BEGIN("api=%u.%u", request->api_version & 0xFF, request->api_version >> 24);
    const char *kind = getenv("FAKE_NVENC");
    long count = 0;
    for (struct session *open = sessions; open; open = open->next)
        count++;
    if (!code)
        code = session_check_version(&call, request->api_version);
    if (!code && kind && !strcmp(kind, "none"))
        REFUSE(NV_UNSUPPORTED_DEVICE, "FAKE_NVENC");
    if (!code && (request->device_type != CUDA_DEVICE || !request->device))
        REFUSE(NV_INVALID_DEVICE, "not a CUDA context");
    if (!code && count >= fake_number("FAKE_NVENC_SESSIONS", 64))
        REFUSE(NV_OUT_OF_MEMORY, "FAKE_NVENC_SESSIONS");
    if (!code) {
        struct session *session = calloc(1, sizeof *session);
        session->next = sessions;
        *opened = sessions = session;
    }
    return fake_end(&call, code);
}

static NVENCSTATUS nvEncDestroyEncoder(struct session *session)
{
    SESSION("%s", "");
    if (!code) {
        while (session->items)
            session_drop(session, session->items);
        struct session **place = &sessions;
        while (*place != session)
            place = &(*place)->next;
        *place = session->next;
        free(session->stream.before);
        free(session);
    }
    return fake_end(&call, code);
}

static const char *nvEncGetLastErrorString(struct session *session)
{
    struct call quiet;
    return !session_check(&quiet, session) && session->why ? session->why : "";
}

/* ---- questions ---- */

static void list(const GUID *from, uint32_t count, GUID *to, uint32_t room, uint32_t *counted)
{
    *counted = count < room ? count : room;
    memcpy(to, from, *counted * sizeof *to);
}

static NVENCSTATUS nvEncGetEncodeGUIDCount(struct session *session, uint32_t *count)
{
    SESSION("%s", "");
    if (!code)
        *count = 1;
    END;
}

static NVENCSTATUS nvEncGetEncodeGUIDs(struct session *session, GUID *to, uint32_t room, uint32_t *count)
{
    SESSION("room=%u", room);
    if (!code)
        list(&h264, 1, to, room, count);
    END;
}

#define CODEC_CALL(...)                                                                                                \
    SESSION(__VA_ARGS__);                                                                                              \
    if (!code && memcmp(&codec, &h264, sizeof codec))                                                                  \
    REFUSE(NV_UNSUPPORTED_PARAM, "the fake knows H.264 only")

static NVENCSTATUS nvEncGetEncodeProfileGUIDCount(struct session *session, GUID codec, uint32_t *count)
{
    CODEC_CALL("%s", "");
    if (!code)
        *count = sizeof profiles / sizeof *profiles;
    END;
}

static NVENCSTATUS nvEncGetEncodeProfileGUIDs(struct session *session, GUID codec, GUID *to, uint32_t room,
                                              uint32_t *count)
{
    CODEC_CALL("room=%u", room);
    if (!code)
        list(profiles, sizeof profiles / sizeof *profiles, to, room, count);
    END;
}

static NVENCSTATUS nvEncGetInputFormatCount(struct session *session, GUID codec, uint32_t *count)
{
    CODEC_CALL("%s", "");
    if (!code)
        *count = 1;
    END;
}

static NVENCSTATUS nvEncGetInputFormats(struct session *session, GUID codec, uint32_t *to, uint32_t room,
                                        uint32_t *count)
{
    CODEC_CALL("room=%u", room);
    if (!code) {
        *count = room ? 1 : 0;
        if (room)
            *to = NV12;
    }
    END;
}

static NVENCSTATUS nvEncGetEncodeCaps(struct session *session, GUID codec, const struct capability *capability,
                                      int *value)
{
    CODEC_CALL("capability=%u", capability->which);
    if (!code)
        switch (capability->which) {
        case 0: *value = 4; break;      /* B pictures */
        case 1: *value = 63; break;     /* rate control modes */
        case 13: *value = 62; break;    /* level */
        case 16: *value = WIDTH_MAX; break;
        case 17: *value = HEIGHT_MAX; break;
        case 20: case 25: case 26: *value = 1; break; /* new bit rate, intra refresh, VBV size */
        case 31: *value = WIDTH_MAX * HEIGHT_MAX / 256; break;
        case 32: *value = 983040; break; /* macroblocks a second */
        case 45: *value = WIDTH_MIN; break;
        case 46: *value = HEIGHT_MIN; break;
        case 49: *value = 1; break; /* engines */
        default: *value = 0;
        }
    END;
}

static NVENCSTATUS nvEncGetEncodePresetCount(struct session *session, GUID codec, uint32_t *count)
{
    CODEC_CALL("%s", "");
    if (!code)
        *count = sizeof presets / sizeof *presets;
    END;
}

static NVENCSTATUS nvEncGetEncodePresetGUIDs(struct session *session, GUID codec, GUID *to, uint32_t room,
                                             uint32_t *count)
{
    CODEC_CALL("room=%u", room);
    if (!code)
        list(presets, sizeof presets / sizeof *presets, to, room, count);
    END;
}

/* P1 to P7, as 1 to 7. */
static unsigned preset_of(const GUID *guid)
{
    unsigned index = sizeof presets / sizeof *presets;
    while (index && memcmp(&presets[index - 1], guid, sizeof *guid))
        index--;
    return index;
}

static NVENCSTATUS nvEncGetEncodePresetConfigEx(struct session *session, GUID codec, GUID preset, uint32_t tuning,
                                                struct preset *request)
{
    CODEC_CALL("preset=P%u tuning=%u", preset_of(&preset), tuning);
    if (!code && (!preset_of(&preset) || tuning < 1 || tuning > 4))
        REFUSE(NV_UNSUPPORTED_PARAM, "no such preset or tuning");
    if (!code) {
        bool is_live = tuning == LOW_LATENCY || tuning == ULTRA_LOW_LATENCY;
        struct config *config = &request->config;
        config->profile = profiles[2];
        config->gop = is_live ? INFINITE_GOP : 250;
        config->interval = is_live ? 1 : 3; /* B pictures, unless the caller says that he wants none */
        config->rate.mode = is_live ? 2 : 1;
        config->rate.average = config->rate.maximum = 2000000;
        config->h264.idr_period = config->gop;
    }
    END;
}

static NVENCSTATUS nvEncGetEncodePresetConfig(struct session *session, GUID codec, GUID preset, struct preset *request)
{
    return nvEncGetEncodePresetConfigEx(session, codec, preset, 1, request);
}

/* ---- starting and changing ---- */

static const char *mode_name(uint32_t mode)
{
    return mode == 0 ? "constqp" : mode == 1 ? "vbr" : mode == 2 ? "cbr" : "other";
}

static int take(struct call *call, struct session *session, const struct initialization *start)
{
    if (start->width > WIDTH_MAX || start->height > HEIGHT_MAX)
        return fake_refuse(call, NV_INVALID_PARAM, "the picture is larger than the encoder takes");
    if (start->width < WIDTH_MIN || start->height < HEIGHT_MIN || start->width % 2 || start->height % 2)
        return fake_refuse(call, NV_INVALID_PARAM, "the picture is smaller than the encoder takes, or odd");
    if (!start->fps_num || !start->fps_den || !start->config)
        return fake_refuse(call, NV_INVALID_PARAM, "no frame rate, or no configuration");
    const struct config *config = start->config;
    struct h264 *stream = &session->stream;
    stream->width = start->width, stream->height = start->height;
    stream->fps_num = start->fps_num, stream->fps_den = start->fps_den;
    stream->has_signal = config->h264.vui.has_signal;
    stream->video_format = config->h264.vui.video_format;
    stream->is_full_range = config->h264.vui.is_full_range;
    stream->has_colours = config->h264.vui.has_colours;
    stream->primaries = config->h264.vui.primaries;
    stream->transfer = config->h264.vui.transfer;
    stream->matrix = config->h264.vui.matrix;
    session->has_delimiters = config->h264.flags & HAS_DELIMITERS;
    session->no_parameters = config->h264.flags & NO_PARAMETERS;
    session->repeats_parameters = config->h264.flags & REPEATS_PARAMETERS;
    session->idr_period = config->h264.idr_period ? config->h264.idr_period : config->gop;
    return NV_SUCCESS;
}

#define START_WORDS                                                                                                    \
    "width=%u height=%u fps=%u/%u preset=P%u tuning=%s rc=%s bitrate=%u maxbitrate=%u vbv=%u gop=%d idr=%d "           \
    "b_frames=%d aud=%d repeat=%d full_range=%d matrix=%u"
#define START_VALUES(start, config)                                                                                    \
    (start)->width, (start)->height, (start)->fps_num, (start)->fps_den, preset_of(&(start)->preset),                  \
        (start)->tuning < 5 ? tunings[(start)->tuning] : "other", mode_name((config)->rate.mode),                      \
        (config)->rate.average, (config)->rate.maximum, (config)->rate.vbv_size, (int)(config)->gop,                   \
        (int)(config)->h264.idr_period, (config)->interval - 1, !!((config)->h264.flags & HAS_DELIMITERS),             \
        !!((config)->h264.flags & REPEATS_PARAMETERS), (int)(config)->h264.vui.is_full_range,                          \
        (config)->h264.vui.has_colours ? (config)->h264.vui.matrix : 2

static const struct config nothing;

static NVENCSTATUS nvEncInitializeEncoder(struct session *session, const struct initialization *start)
{
    const struct config *config = start->config ? start->config : &nothing;
    SESSION(START_WORDS, START_VALUES(start, config));
    if (!code && session->is_initialized)
        REFUSE(NV_INVALID_CALL, "it is initialized already");
    if (!code)
        code = session_check_version(&call, start->version);
    if (!code && memcmp(&start->codec, &h264, sizeof h264))
        REFUSE(NV_UNSUPPORTED_PARAM, "the fake knows H.264 only");
    if (!code)
        code = take(&call, session, start);
    session->is_initialized = session->is_initialized || !code;
    END;
}

static NVENCSTATUS nvEncReconfigureEncoder(struct session *session, const struct reconfiguration *request)
{
    const struct initialization *start = &request->start;
    const struct config *config = start->config ? start->config : &nothing;
    size_t offset = (start->version >> 16 & 0xFF) >= SHORTER_SINCE ? FLAGS_OFFSET : OLD_FLAGS_OFFSET;
    uint32_t flags = *(const uint32_t *)((const char *)request + offset);
    SESSION(START_WORDS " reset=%d force_idr=%d", START_VALUES(start, config), !!(flags & RESET_ENCODER),
            !!(flags & RECONFIGURED_IDR));
    if (!code && !session->is_initialized)
        REFUSE(NV_NOT_INITIALIZED, "it is not initialized");
    if (!code && (start->width != session->stream.width || start->height != session->stream.height))
        REFUSE(NV_INVALID_PARAM, "the fake does not change the size");
    if (!code && start->config)
        code = take(&call, session, start);
    if (!code && flags & RECONFIGURED_IDR)
        session->must_be_idr = true;
    END;
}

static NVENCSTATUS nvEncGetSequenceParams(struct session *session, struct parameters *request)
{
    SESSION("room=%u", request->room);
    if (!code && !session->is_initialized)
        REFUSE(NV_NOT_INITIALIZED, "it is not initialized");
    if (!code) {
        struct bytes coded = {0};
        h264_parameters(&session->stream, &coded);
        if (coded.size > request->room)
            REFUSE(NV_INVALID_PARAM, "no room for the parameter sets");
        else
            memcpy(request->buffer, coded.at, *request->size = (uint32_t)coded.size);
        free(coded.at);
    }
    END;
}

static NVENCSTATUS nvEncSetIOCudaStreams(struct session *session, void **input, void **output)
{
    SESSION("input=%p output=%p", input ? *input : NULL, output ? *output : NULL);
    if (!code)
        session->cuda_stream = input ? *input : NULL;
    END;
}

/* ---- the list of functions ---- */

static NVENCSTATUS unknown(void)
{
    BEGIN("%s", "");
    if (!code)
        REFUSE(NV_UNIMPLEMENTED, "the fake has no such function");
    return fake_end(&call, code);
}

/* Their places in the list of functions are part of the ABI. */
static void *const functions[41] = {
    [1] = nvEncGetEncodeGUIDCount,
    [2] = nvEncGetEncodeProfileGUIDCount,
    [3] = nvEncGetEncodeProfileGUIDs,
    [4] = nvEncGetEncodeGUIDs,
    [5] = nvEncGetInputFormatCount,
    [6] = nvEncGetInputFormats,
    [7] = nvEncGetEncodeCaps,
    [8] = nvEncGetEncodePresetCount,
    [9] = nvEncGetEncodePresetGUIDs,
    [10] = nvEncGetEncodePresetConfig,
    [11] = nvEncInitializeEncoder,
    [12] = nvEncCreateInputBuffer,
    [13] = nvEncDestroyInputBuffer,
    [14] = nvEncCreateBitstreamBuffer,
    [15] = nvEncDestroyBitstreamBuffer,
    [16] = nvEncEncodePicture,
    [17] = nvEncLockBitstream,
    [18] = nvEncUnlockBitstream,
    [19] = nvEncLockInputBuffer,
    [20] = nvEncUnlockInputBuffer,
    [22] = nvEncGetSequenceParams,
    [25] = nvEncMapInputResource,
    [26] = nvEncUnmapInputResource,
    [27] = nvEncDestroyEncoder,
    [29] = nvEncOpenEncodeSessionEx,
    [30] = nvEncRegisterResource,
    [31] = nvEncUnregisterResource,
    [32] = nvEncReconfigureEncoder,
    [37] = nvEncGetLastErrorString,
    [38] = nvEncSetIOCudaStreams,
    [39] = nvEncGetEncodePresetConfigEx,
};

struct instance {
    uint32_t version, unused;
    void *functions[41];
};
_Static_assert(offsetof(struct instance, functions[29]) == 240, "list of functions");

EXPORT NVENCSTATUS NvEncodeAPICreateInstance(struct instance *instance)
{
    BEGIN("%s", "");
    if (!code)
        code = session_check_version(&call, instance->version);
    for (size_t index = 0; !code && index < sizeof functions / sizeof *functions; index++)
        instance->functions[index] = functions[index] ? functions[index] : (void *)unknown;
    return fake_end(&call, code);
}
