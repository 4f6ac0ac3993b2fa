/* What the parts of the fake encoder share: sessions and what belongs to them. */
#pragma once
#include "fake.h"
#include "h264.h"
#include "nvenc.h"

enum kind { INPUT = 1, OUTPUT, REGISTERED, MAPPED };

/* A buffer or resource of a session. */
struct item {
    struct item *next;
    enum kind kind;
    uint32_t width, height, pitch;
    uint8_t *bytes;         /* of an input; of registered memory, the caller's */
    struct item *of;        /* what is mapped */
    bool is_locked;         /* by the caller */
    bool is_written;        /* an output with a picture in it */
    struct bytes coded;     /* of an output */
    uint32_t index, type;   /* of the picture in it */
    uint64_t time, duration;
};

struct session {
    struct session *next;
    struct item *items;
    struct h264 stream;
    bool is_initialized, must_be_idr;
    bool has_delimiters, no_parameters, repeats_parameters;
    uint32_t idr_period;
    uint64_t since_idr, pictures;
    void *cuda_stream;      /* after whose work pictures come */
    const char *why; /* the last refusal, for nvEncGetLastErrorString */
};

#define BEGIN(...)                                                                                                     \
    struct call call;                                                                                                  \
    int code = fake_begin(&call, __func__, __VA_ARGS__)
/* In a call on a session. */
#define SESSION(...)                                                                                                   \
    BEGIN(__VA_ARGS__);                                                                                                \
    if (!code)                                                                                                         \
    code = session_check(&call, session)
#define REFUSE(number, words) (code = fake_refuse(&call, number, words))
#define END return session_end(&call, code, session)

int session_check(struct call *call, struct session *session);
int session_check_version(struct call *call, uint32_t version);
int session_end(struct call *call, int code, struct session *session);
struct item *session_new(struct session *session, enum kind kind);
struct item *session_find(struct session *session, enum kind kind, const void *handle);
void session_drop(struct session *session, struct item *item);

NVENCSTATUS nvEncCreateInputBuffer(struct session *session, struct input_request *request);
NVENCSTATUS nvEncDestroyInputBuffer(struct session *session, struct item *item);
NVENCSTATUS nvEncCreateBitstreamBuffer(struct session *session, struct output_request *request);
NVENCSTATUS nvEncDestroyBitstreamBuffer(struct session *session, struct item *item);
NVENCSTATUS nvEncLockInputBuffer(struct session *session, struct input_lock *request);
NVENCSTATUS nvEncUnlockInputBuffer(struct session *session, struct item *item);
NVENCSTATUS nvEncRegisterResource(struct session *session, struct registration *request);
NVENCSTATUS nvEncUnregisterResource(struct session *session, struct item *item);
NVENCSTATUS nvEncMapInputResource(struct session *session, struct mapping *request);
NVENCSTATUS nvEncUnmapInputResource(struct session *session, struct item *item);
NVENCSTATUS nvEncEncodePicture(struct session *session, const struct picture *picture);
NVENCSTATUS nvEncLockBitstream(struct session *session, struct output_lock *request);
NVENCSTATUS nvEncUnlockBitstream(struct session *session, struct item *item);
