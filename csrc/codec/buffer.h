/* SPDX-License-Identifier: MIT */
/* A byte buffer that grows at its end and is consumed from its start. Internal. */
#ifndef LTDIC_BUFFER_H
#define LTDIC_BUFFER_H

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef struct buffer {
    uint8_t *data;
    size_t start, end; /* the bytes in use: from start up to end */
    size_t room;       /* bytes allocated */
} buffer;

static inline size_t buffer_size(const buffer *b)
{
    return b->end - b->start;
}

static inline void buffer_free(buffer *b)
{
    free(b->data);
    *b = (buffer){0};
}

/* Makes room for `size` bytes at the end. Returns false if there is no memory; the bytes in use are
 * unchanged then. */
static inline bool buffer_reserve(buffer *b, size_t size)
{
    if (b->room - b->end >= size) {
        return true;
    }
    if (b->start > 0) {
        memmove(b->data, b->data + b->start, buffer_size(b));
        b->end -= b->start;
        b->start = 0;
    }
    if (b->room - b->end >= size) {
        return true;
    }
    const size_t room = b->room * 2 > b->end + size ? b->room * 2 : b->end + size;
    uint8_t *data = room < size ? NULL : (uint8_t *)realloc(b->data, room);
    if (data == NULL) {
        return false;
    }
    b->data = data;
    b->room = room;
    return true;
}

/* Appends `size` bytes, for which the caller has reserved room. */
static inline void buffer_put(buffer *b, const void *data, size_t size)
{
    if (size > 0) {
        memcpy(b->data + b->end, data, size);
        b->end += size;
    }
}

static inline bool buffer_append(buffer *b, const void *data, size_t size)
{
    if (!buffer_reserve(b, size)) {
        return false;
    }
    buffer_put(b, data, size);
    return true;
}

/* Removes `size` bytes from the start. Frees the memory if none are left. */
static inline void buffer_drop(buffer *b, size_t size)
{
    b->start += size;
    if (b->start == b->end) {
        buffer_free(b);
    }
}

/* Does what buffer_reserve does for a buffer that may hold a passcode: wipes the old memory before
 * it is freed. */
bool ltdic__reserve_secret(buffer *b, size_t size);

#endif
