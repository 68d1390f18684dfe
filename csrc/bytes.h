/* SPDX-License-Identifier: MIT */
/* Reading and writing big-endian fields (PS3.8 9.3.1) inside bounds. Internal. */
#ifndef LTDIC_BYTES_H
#define LTDIC_BYTES_H

#include "ltdic.h"

#include <stdbool.h>
#include <string.h>

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

/* A stretch of a PDU that is being read. The fault is shared by all cursors over one PDU and
 * sticky: the first one stays, and every read after it gives zero bytes. */
typedef struct cursor {
    const uint8_t *base; /* first byte of the PDU, so that positions are offsets */
    size_t pos, end;
    ltdic_fault *fault;
} cursor;

static inline bool cursor_failed(const cursor *c)
{
    return c->fault->status != LTDIC_OK;
}

static inline void cursor_fail(cursor *c, int status, size_t offset)
{
    if (!cursor_failed(c)) {
        c->fault->status = status;
        c->fault->offset = offset;
    }
}

static inline size_t cursor_left(const cursor *c)
{
    return c->end - c->pos;
}

/* The next n bytes, or NULL and a fault at the position where they should be. */
static inline const uint8_t *cursor_take(cursor *c, size_t n)
{
    if (cursor_failed(c) || n > cursor_left(c)) {
        cursor_fail(c, LTDIC_ERR_ITEM_OVERRUN, c->pos);
        return NULL;
    }
    const uint8_t *p = c->base + c->pos;
    c->pos += n;
    return p;
}

static inline uint8_t cursor_u8(cursor *c)
{
    const uint8_t *p = cursor_take(c, 1);
    return p == NULL ? 0 : *p;
}

static inline uint32_t cursor_u16(cursor *c)
{
    const uint8_t *p = cursor_take(c, 2);
    return p == NULL ? 0 : load_u16(p);
}

/* A length field of two bytes and a child cursor over what it counts. `reserve` bytes must be left
 * behind the child; the fault for too little room lies on the length field. */
static inline cursor cursor_counted(cursor *c, size_t reserve)
{
    const size_t field = c->pos;
    const size_t length = cursor_u16(c);
    if (!cursor_failed(c) && length + reserve > cursor_left(c)) { /* both are small */
        cursor_fail(c, LTDIC_ERR_ITEM_OVERRUN, field);
    }
    cursor child = {c->base, c->pos, c->pos, c->fault};
    if (!cursor_failed(c)) {
        c->pos += length;
        child.end = c->pos;
    }
    return child;
}

/* Output into memory of the caller. What does not fit is counted, not written, so that the size
 * needed is known at the end. */
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
    if (size > 0 && writer_fits(w, size)) {
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

/* Write into the length field at `at` how many bytes came after it. False if they are too many. */
static inline bool writer_close_u16(writer *w, size_t at)
{
    const size_t size = w->pos - at - 2;
    if (w->pos <= w->room) {
        store_u16(w->data + at, size);
    }
    return size <= UINT16_MAX;
}

#endif
