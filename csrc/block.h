/* SPDX-License-Identifier: MIT */
/* Memory that grows at its end and is used up from its start. Internal. */
#ifndef LTDIC_BLOCK_H
#define LTDIC_BLOCK_H

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef struct block {
    uint8_t *data;
    size_t start, end, room; /* in use: from start to end */
} block;

static inline size_t block_size(const block *b)
{
    return b->end - b->start;
}

static inline void block_free(block *b)
{
    free(b->data);
    *b = (block){0};
}

/* Make room for `size` bytes at the end. False when out of memory, and nothing has changed. */
static inline bool block_reserve(block *b, size_t size)
{
    if (b->room - b->end >= size) {
        return true;
    }
    if (b->start > 0) {
        memmove(b->data, b->data + b->start, block_size(b));
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
static inline void block_put(block *b, const void *data, size_t size)
{
    if (size > 0) {
        memcpy(b->data + b->end, data, size);
        b->end += size;
    }
}

static inline bool block_append(block *b, const void *data, size_t size)
{
    if (!block_reserve(b, size)) {
        return false;
    }
    block_put(b, data, size);
    return true;
}

/* The first bytes are used up; with the last of them goes the memory. */
static inline void block_drop(block *b, size_t size)
{
    b->start += size;
    if (b->start == b->end) {
        block_free(b);
    }
}

#endif
