#include "h264.h"

#include <stdlib.h>
#include <string.h>

#define FRAME_NUM_BITS 8

/* ---- bits and NAL units ---- */

/* The unit being written: bits are collected in `pending`, and bytes go out with emulation prevention. */
struct unit {
    struct bytes *out;
    unsigned pending, bits, zeros;
};

static void append(struct bytes *out, uint8_t byte)
{
    if (out->size == out->room) {
        out->room = out->room ? 2 * out->room : 4096;
        out->at = realloc(out->at, out->room);
        if (!out->at)
            abort();
    }
    out->at[out->size++] = byte;
}

static void byte(struct unit *unit, uint8_t value)
{
    if (unit->zeros >= 2 && value <= 3) {
        append(unit->out, 3);
        unit->zeros = 0;
    }
    append(unit->out, value);
    unit->zeros = value ? 0 : unit->zeros + 1;
}

static void put(struct unit *unit, unsigned count, uint32_t value)
{
    while (count--) {
        unit->pending = unit->pending << 1 | (value >> count & 1);
        if (++unit->bits == 8) {
            byte(unit, (uint8_t)unit->pending);
            unit->pending = unit->bits = 0;
        }
    }
}

/* ue(v): as many zeros as bits follow the first one of value + 1. */
static void golomb(struct unit *unit, uint32_t value)
{
    unsigned length = 0;
    while ((value + 1) >> (length + 1))
        length++;
    put(unit, length, 0);
    put(unit, length + 1, value + 1);
}

static struct unit begin(struct bytes *out, unsigned importance, unsigned type)
{
    static const uint8_t start[] = {0, 0, 0, 1};
    for (size_t index = 0; index < sizeof start; index++)
        append(out, start[index]);
    append(out, (uint8_t)(importance << 5 | type));
    return (struct unit){.out = out};
}

static void align(struct unit *unit)
{
    while (unit->bits)
        put(unit, 1, 0);
}

static void end(struct unit *unit)
{
    put(unit, 1, 1);
    align(unit);
}

/* ---- parameter sets ---- */

static unsigned macroblocks(unsigned size)
{
    return (size + 15) / 16;
}

static unsigned level(const struct h264 *stream)
{
    unsigned size = macroblocks(stream->width) * macroblocks(stream->height);
    return size <= 3600 ? 31 : size <= 8192 ? 40 : size <= 36864 ? 51 : 62;
}

static void usability(struct unit *unit, const struct h264 *stream)
{
    put(unit, 1, 0); /* aspect ratio */
    put(unit, 1, 0); /* overscan */
    put(unit, 1, stream->has_signal);
    if (stream->has_signal) {
        put(unit, 3, stream->video_format);
        put(unit, 1, stream->is_full_range);
        put(unit, 1, stream->has_colours);
        if (stream->has_colours) {
            put(unit, 8, stream->primaries);
            put(unit, 8, stream->transfer);
            put(unit, 8, stream->matrix);
        }
    }
    put(unit, 1, 0); /* place of chroma samples */
    put(unit, 1, 1); /* timing: two ticks a frame */
    put(unit, 32, stream->fps_den);
    put(unit, 32, 2 * stream->fps_num);
    put(unit, 1, 1);
    put(unit, 3, 0); /* no hypothetical decoders, no structure of pictures */
    put(unit, 1, 1); /* a decoder need not hold pictures back */
    put(unit, 1, 1);
    golomb(unit, 0), golomb(unit, 0), golomb(unit, 16), golomb(unit, 16);
    golomb(unit, 0), golomb(unit, 1);
}

void h264_parameters(const struct h264 *stream, struct bytes *out)
{
    struct unit unit = begin(out, 3, 7);
    put(&unit, 8, 66);   /* baseline, */
    put(&unit, 8, 0xC0); /* constrained */
    put(&unit, 8, level(stream));
    golomb(&unit, 0);
    golomb(&unit, FRAME_NUM_BITS - 4);
    golomb(&unit, 2); /* shown in the order in which they are sent */
    golomb(&unit, 1);
    put(&unit, 1, 0);
    unsigned width = macroblocks(stream->width), height = macroblocks(stream->height);
    golomb(&unit, width - 1);
    golomb(&unit, height - 1);
    put(&unit, 2, 3); /* frames only, and a flag that says nothing without B pictures */
    unsigned right = (width * 16 - stream->width) / 2, bottom = (height * 16 - stream->height) / 2;
    put(&unit, 1, right || bottom);
    if (right || bottom)
        golomb(&unit, 0), golomb(&unit, right), golomb(&unit, 0), golomb(&unit, bottom);
    put(&unit, 1, 1);
    usability(&unit, stream);
    end(&unit);
    unit = begin(out, 3, 8);
    golomb(&unit, 0), golomb(&unit, 0);
    put(&unit, 2, 0); /* CAVLC */
    golomb(&unit, 0), golomb(&unit, 0), golomb(&unit, 0);
    put(&unit, 3, 0);
    golomb(&unit, 0), golomb(&unit, 0), golomb(&unit, 0); /* quantizers */
    put(&unit, 3, 4); /* slices may turn deblocking off */
    end(&unit);
}

/* ---- pictures ---- */

void h264_delimiter(struct bytes *out)
{
    struct unit unit = begin(out, 0, 9);
    put(&unit, 3, 0);
    end(&unit);
}

void h264_message(unsigned type, const uint8_t *payload, size_t size, struct bytes *out)
{
    struct unit unit = begin(out, 0, 6);
    for (; type >= 255; type -= 255)
        put(&unit, 8, 255);
    put(&unit, 8, type);
    size_t left = size;
    for (; left >= 255; left -= 255)
        put(&unit, 8, 255);
    put(&unit, 8, (uint32_t)left);
    for (size_t index = 0; index < size; index++)
        put(&unit, 8, payload[index]);
    end(&unit);
}

/* A sample of the picture; beyond its edges, which are cropped away, the nearest. */
static const uint8_t *nearest(const uint8_t *plane, size_t pitch, unsigned x, unsigned y, unsigned width,
                              unsigned height, unsigned bytes)
{
    return plane + (size_t)(y < height ? y : height - 1) * pitch + (size_t)(x < width ? x : width - 1) * bytes;
}

/* NV12 whose chroma lies somewhere below its luma. */
struct planes {
    const uint8_t *luma, *chroma;
    size_t pitch;
};

static void macroblock(struct unit *unit, const struct h264 *stream, const struct planes *from, unsigned left,
                       unsigned top)
{
    align(unit);
    for (unsigned index = 0; index < 256; index++)
        byte(unit, *nearest(from->luma, from->pitch, left + index % 16, top + index / 16, stream->width,
                            stream->height, 1));
    for (unsigned plane = 0; plane < 2; plane++)
        for (unsigned index = 0; index < 64; index++)
            byte(unit, nearest(from->chroma, from->pitch, left / 2 + index % 8, top / 2 + index / 8,
                               stream->width / 2, stream->height / 2, 2)[plane]);
}

static bool is_same(const uint8_t *one, size_t one_pitch, const uint8_t *other, size_t other_pitch, size_t bytes,
                    unsigned rows)
{
    while (rows-- && !memcmp(one + rows * one_pitch, other + rows * other_pitch, bytes))
        ;
    return rows == (unsigned)-1;
}

static unsigned least(unsigned one, unsigned other)
{
    return one < other ? one : other;
}

static bool is_as_before(const struct h264 *stream, const struct planes *from, unsigned left, unsigned top)
{
    unsigned columns = least(16, stream->width - left), rows = least(16, stream->height - top), wide = stream->width;
    const uint8_t *luma = stream->before + (size_t)top * wide + left;
    const uint8_t *chroma = stream->before + (size_t)wide * stream->height + (size_t)top / 2 * wide + left;
    return is_same(luma, wide, from->luma + top * from->pitch + left, from->pitch, columns, rows) &&
           is_same(chroma, wide, from->chroma + top / 2 * from->pitch + left, from->pitch, columns, rows / 2);
}

static void keep(struct h264 *stream, const struct planes *from)
{
    size_t wide = stream->width;
    if (!stream->before)
        stream->before = malloc(wide * stream->height * 3 / 2);
    for (unsigned row = 0; row < stream->height; row++)
        memcpy(stream->before + row * wide, from->luma + row * from->pitch, wide);
    for (unsigned row = 0; row < stream->height / 2; row++)
        memcpy(stream->before + (stream->height + row) * wide, from->chroma + row * from->pitch, wide);
}

static void slice_header(struct unit *unit, struct h264 *stream, enum h264_kind kind)
{
    stream->frame_num = kind == H264_IDR ? 0 : (stream->frame_num + 1) % (1 << FRAME_NUM_BITS);
    golomb(unit, 0);
    golomb(unit, kind == H264_PREDICTED ? 5 : 7);
    golomb(unit, 0);
    put(unit, FRAME_NUM_BITS, stream->frame_num);
    if (kind == H264_IDR) {
        golomb(unit, stream->idr_id); /* differs between IDR pictures that follow each other */
        stream->idr_id = (stream->idr_id + 1) % 16;
    }
    put(unit, kind == H264_INTRA ? 1 : 2, 0); /* the usual references, and how long they stay */
    if (kind == H264_PREDICTED)
        put(unit, 1, 0);
    golomb(unit, 0);
    golomb(unit, 1); /* no deblocking */
}

void h264_picture(struct h264 *stream, enum h264_kind kind, const uint8_t *nv12, size_t pitch, unsigned rows,
                  struct bytes *out)
{
    struct planes from = {nv12, nv12 + pitch * rows, pitch};
    struct unit unit = begin(out, 3, kind == H264_IDR ? 5 : 1);
    slice_header(&unit, stream, kind);
    unsigned skipped = 0;
    for (unsigned top = 0; top < stream->height; top += 16)
        for (unsigned left = 0; left < stream->width; left += 16) {
            if (kind == H264_PREDICTED && is_as_before(stream, &from, left, top)) {
                skipped++;
                continue;
            }
            if (kind == H264_PREDICTED)
                golomb(&unit, skipped);
            skipped = 0;
            golomb(&unit, kind == H264_PREDICTED ? 30 : 25); /* I_PCM, after the types of P slices */
            macroblock(&unit, stream, &from, left, top);
        }
    if (skipped)
        golomb(&unit, skipped);
    end(&unit);
    keep(stream, &from);
}
