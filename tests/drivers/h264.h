/* H.264 with every macroblock as I_PCM: what is decoded is to the byte what was encoded (ITU-T H.264, 7.3 and 9). */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct h264 {
    unsigned width, height, fps_num, fps_den;
    bool has_signal, is_full_range, has_colours; /* of the VUI */
    unsigned video_format, primaries, transfer, matrix;
    unsigned frame_num, idr_id;
};

struct bytes {
    uint8_t *at;
    size_t size, room;
};

/* Append an access unit delimiter, the parameter sets, a supplemental message, or a picture: NV12, with
 * its chroma under `rows` rows of luma. */
void h264_delimiter(struct bytes *out);
void h264_parameters(const struct h264 *stream, struct bytes *out);
void h264_message(unsigned type, const uint8_t *payload, size_t size, struct bytes *out);
void h264_picture(struct h264 *stream, bool idr, const uint8_t *nv12, size_t pitch, unsigned rows,
                  struct bytes *out);
