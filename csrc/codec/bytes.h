/* SPDX-License-Identifier: MIT */
/* Big-endian fields (PS3.8 9.3.1), and a writer that checks bounds. Internal. */
#ifndef LTDIC_BYTES_H
#define LTDIC_BYTES_H

#include "ltdic.h"

#include <stdbool.h>
#include <string.h>

/* Marks functions that run once for each of many items, to save the call. The measurement of branch
 * coverage defines it as `inline`, so that each branch is counted once. */
#ifndef ALWAYS_INLINE
#ifdef __GNUC__
#define ALWAYS_INLINE inline __attribute__((always_inline))
#else
#define ALWAYS_INLINE inline
#endif
#endif

static inline bool has_bit(uint16_t set, uint8_t bit)
{
    return bit < 16 && (set >> bit & 1) != 0;
}

/* Sets memory that may hold a passcode to 0, in a way that no compiler removes. Call it before the
 * memory is freed. Does nothing with NULL. */
void ltdic__wipe(void *data, size_t size);

static inline uint32_t load_u16(const uint8_t *p)
{
    return (uint32_t)p[0] << 8 | p[1];
}

static inline uint32_t load_u32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static inline void store_u16(uint8_t *p, size_t value)
{
    p[0] = (uint8_t)(value >> 8);
    p[1] = (uint8_t)value;
}

static inline void store_u32(uint8_t *p, size_t value)
{
    store_u16(p, value >> 16);
    store_u16(p + 2, value);
}

/* Copies a text of `part` to 2 * `part` bytes as two blocks of a constant size, its first and its
 * last bytes. The blocks may overlap. */
#define COPY_ENDS(to, text, part) \
    do { \
        uint8_t first[part], last[part]; \
        memcpy(first, (text).data, part); \
        memcpy(last, (text).data + (text).size - (part), part); \
        memcpy(to, first, part); \
        memcpy((to) + (text).size - (part), last, part); \
    } while (0)

/* Copies a text. For 4 to 32 bytes, the length of most texts, this needs no call of memcpy. */
static inline void copy_text(uint8_t *to, ltdic_bytes text)
{
    if (text.size >= 16 && text.size <= 32) {
        COPY_ENDS(to, text, 16);
    } else if (text.size >= 8 && text.size < 16) {
        COPY_ENDS(to, text, 8);
    } else if (text.size >= 4 && text.size < 8) {
        COPY_ENDS(to, text, 4);
    } else if (text.size > 0) {
        memcpy(to, text.data, text.size);
    }
}

/* Writes into memory of the caller. Bytes that do not fit are counted but not written: at the end
 * `pos` is the size needed. */
typedef struct writer {
    uint8_t *data;
    size_t room, pos;
} writer;

static inline bool writer_fits(const writer *w, size_t size)
{
    return w->pos <= w->room && size <= w->room - w->pos;
}

static inline void writer_advance(writer *w, size_t size)
{
    w->pos = size > SIZE_MAX - w->pos ? SIZE_MAX : w->pos + size;
}

static inline void writer_bytes(writer *w, const uint8_t *data, size_t size)
{
    if (size > 0 && writer_fits(w, size)) {
        memcpy(w->data + w->pos, data, size);
    }
    writer_advance(w, size);
}

static inline void writer_fill(writer *w, uint8_t value, size_t size)
{
    if (writer_fits(w, size)) {
        memset(w->data + w->pos, value, size);
    }
    writer_advance(w, size);
}

static inline void writer_u8(writer *w, uint8_t value)
{
    writer_bytes(w, &value, 1);
}

static inline void writer_u16(writer *w, size_t value)
{
    uint8_t field[2];
    store_u16(field, value);
    writer_bytes(w, field, sizeof field);
}

static inline void writer_u32(writer *w, size_t value)
{
    uint8_t field[4];
    store_u32(field, value);
    writer_bytes(w, field, sizeof field);
}

/* Stores in the length field at `at` (two bytes) how many bytes were written after it. Returns
 * false if they are more than 65535. */
static inline bool writer_close_u16(writer *w, size_t at)
{
    const size_t size = w->pos - at - 2;
    if (w->pos <= w->room) {
        store_u16(w->data + at, size);
    }
    return size <= UINT16_MAX;
}

#endif
