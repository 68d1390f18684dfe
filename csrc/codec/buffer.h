/* SPDX-License-Identifier: MIT */
/* A buffer that grows at its end and is consumed from its start; also one that may hold a
 * passcode. Internal. */
#ifndef LTDIC_BUFFER_H
#define LTDIC_BUFFER_H

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef struct buffer {
    uint8_t *data;
    size_t start, end, room; /* in use: from start to end */
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

/* Make room for `size` bytes at the end. False when out of memory, and nothing has changed. */
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

/* Where there is room. */
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

/* The first bytes are used up; with the last of them goes the memory. */
static inline void buffer_drop(buffer *b, size_t size)
{
    b->start += size;
    if (b->start == b->end) {
        buffer_free(b);
    }
}

/* Does the same as buffer_reserve for memory that may hold a passcode: the old memory is wiped. */
bool ltdic__reserve_secret(buffer *b, size_t size);

#endif
