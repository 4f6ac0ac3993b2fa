/* H.264 that decodes to the byte to what was encoded: a macroblock is I_PCM, or skipped where it is as in the picture
 * before (ITU-T H.264, 7.3 and 9). */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct h264 {
    unsigned width, height, fps_num, fps_den;
    bool has_signal, is_full_range, has_colours; /* of the VUI */
    unsigned video_format, primaries, transfer, matrix;
    unsigned frame_num, idr_id;
    uint8_t *before; /* the last picture, without padding */
};

enum h264_kind { H264_IDR, H264_INTRA, H264_PREDICTED };

struct bytes {
    uint8_t *at;
    size_t size, room;
};

/* Append an access unit delimiter, the parameter sets, a supplemental message, or a picture: NV12, with
 * its chroma under `rows` rows of luma. */
void h264_delimiter(struct bytes *out);
void h264_parameters(const struct h264 *stream, struct bytes *out);
void h264_message(unsigned type, const uint8_t *payload, size_t size, struct bytes *out);
void h264_picture(struct h264 *stream, enum h264_kind kind, const uint8_t *nv12, size_t pitch, unsigned rows,
                  struct bytes *out);
