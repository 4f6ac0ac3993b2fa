/* The layouts of NVENC's API that the fake encoder reads or writes: of each structure the start, up to the last field
 * that matters. They are the same from version 11.1 to 13.1, and callers give the rest. */
#pragma once
#include <stddef.h>
#include <stdint.h>

typedef int NVENCSTATUS;

enum {
    NV_SUCCESS = 0,
    NV_UNSUPPORTED_DEVICE = 2,
    NV_INVALID_DEVICE = 4,
    NV_INVALID_PTR = 6,
    NV_INVALID_PARAM = 8,
    NV_INVALID_CALL = 9,
    NV_OUT_OF_MEMORY = 10,
    NV_NOT_INITIALIZED = 11,
    NV_UNSUPPORTED_PARAM = 12,
    NV_LOCK_BUSY = 13,
    NV_INVALID_VERSION = 15,
    NV_MAP_FAILED = 16,
    NV_GENERIC = 20,
    NV_UNIMPLEMENTED = 22,
    NV_NOT_REGISTERED = 24,
    NV_NOT_MAPPED = 25,
};

enum { FORCE_INTRA = 1, FORCE_IDR = 2, OUTPUT_PARAMETERS = 4, END_OF_STREAM = 8 };
enum { PICTURE_P = 0, PICTURE_I = 2, PICTURE_IDR = 3 };
enum { NV12 = 1, CUDA_DEVICE = 1, CUDA_DEVICE_POINTER = 1 };
#define INFINITE_GOP 0xFFFFFFFFu

typedef struct {
    uint32_t a;
    uint16_t b, c;
    uint8_t d[8];
} GUID;

struct rate_control {
    uint32_t version, mode, constant_qp[3], average, maximum, vbv_size, vbv_delay;
    uint32_t rest[23];
};
_Static_assert(offsetof(struct rate_control, average) == 20 && sizeof(struct rate_control) == 128, "rate control");

struct vui {
    uint32_t has_overscan, overscan, has_signal, video_format, is_full_range, has_colours, primaries, transfer, matrix;
};

struct h264_config {
    uint32_t flags, level, idr_period;
    uint32_t unused[15];
    struct vui vui;
};
_Static_assert(offsetof(struct h264_config, idr_period) == 8 && offsetof(struct h264_config, vui) == 72, "H.264");
enum { HAS_DELIMITERS = 1 << 6, NO_PARAMETERS = 1 << 7, REPEATS_PARAMETERS = 1 << 12 };

struct config {
    uint32_t version;
    GUID profile;
    uint32_t gop;
    int32_t interval; /* from P picture to P picture: 1 without B pictures */
    uint32_t unused[3];
    struct rate_control rate;
    struct h264_config h264;
};
_Static_assert(offsetof(struct config, gop) == 20 && offsetof(struct config, rate) == 40, "configuration");
_Static_assert(offsetof(struct config, h264) == 168, "configuration of a codec");

struct initialization {
    uint32_t version;
    GUID codec, preset;
    uint32_t width, height, shown_width, shown_height, fps_num, fps_den, is_async, decides_types, flags, private_size;
    void *private;
    struct config *config;
    uint32_t unused[10];
    uint32_t tuning;
};
_Static_assert(offsetof(struct initialization, width) == 36 && offsetof(struct initialization, config) == 88, "start");
_Static_assert(offsetof(struct initialization, tuning) == 136, "start");

struct preset {
    uint32_t version, unused;
    struct config config;
};
_Static_assert(offsetof(struct preset, config) == 8, "preset");

struct opening {
    uint32_t version, device_type;
    void *device, *unused;
    uint32_t api_version;
};
_Static_assert(offsetof(struct opening, api_version) == 24, "opening a session");

struct capability {
    uint32_t version, which;
};

struct input_request {
    uint32_t version, width, height, heap, format, unused;
    void *buffer;
};
_Static_assert(offsetof(struct input_request, buffer) == 24, "input buffer");

struct output_request {
    uint32_t version, size, heap, unused;
    void *buffer;
};
_Static_assert(offsetof(struct output_request, buffer) == 16, "output buffer");

struct registration {
    uint32_t version, type, width, height, pitch, index;
    void *pointer, *registered;
    uint32_t format;
};
_Static_assert(offsetof(struct registration, pointer) == 24 && offsetof(struct registration, format) == 40, "resource");

struct mapping {
    uint32_t version, index;
    void *unused, *registered, *mapped;
    uint32_t format;
};
_Static_assert(offsetof(struct mapping, registered) == 16 && offsetof(struct mapping, format) == 32, "mapping");

struct input_lock {
    uint32_t version, flags;
    void *buffer, *bytes;
    uint32_t pitch;
};
_Static_assert(offsetof(struct input_lock, buffer) == 8 && offsetof(struct input_lock, pitch) == 24, "input lock");

struct message {
    uint32_t size, type;
    const uint8_t *payload;
};

struct picture {
    uint32_t version, width, height, pitch, flags, index;
    uint64_t time, duration;
    void *input, *output, *event;
    uint32_t format, structure, type, unused;
    uint32_t h264_unused[9];
    uint32_t messages_count;
    const struct message *messages;
};
_Static_assert(offsetof(struct picture, time) == 24 && offsetof(struct picture, input) == 40, "picture");
_Static_assert(offsetof(struct picture, h264_unused) == 80, "picture");
_Static_assert(offsetof(struct picture, messages) == 80 + 40, "picture");

struct output_lock {
    uint32_t version, flags;
    void *buffer;
    uint32_t *offsets;
    uint32_t index, status, slices, size;
    uint64_t time, duration;
    void *bytes;
    uint32_t type, structure;
};
_Static_assert(offsetof(struct output_lock, size) == 36 && offsetof(struct output_lock, type) == 64, "output lock");

struct parameters {
    uint32_t version, room, unused[2];
    void *buffer;
    uint32_t *size;
};
_Static_assert(offsetof(struct parameters, size) == 24, "parameter sets");

struct reconfiguration {
    uint32_t version, unused;
    struct initialization start;
};
_Static_assert(offsetof(struct reconfiguration, start) == 8, "reconfiguration");
/* Its flags follow the whole of the initialization, of which we declare the start only; from version 7 of that on, it
 * is 8 bytes shorter. */
enum { FLAGS_OFFSET = 8 + 1800, OLD_FLAGS_OFFSET = 8 + 1808, SHORTER_SINCE = 7 };
enum { RESET_ENCODER = 1, RECONFIGURED_IDR = 2 };
