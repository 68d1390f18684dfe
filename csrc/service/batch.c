/* SPDX-License-Identifier: MIT */
/* Batches: what the user of a server or a requestor gets in one call. */
#include "batch.h"

#include "codec/bytes.h"
#include "codec/items.h"

#include <stdlib.h>

enum {
    BATCH_BYTES = 262144, /* a batch with this many bytes of data is full */
    BATCH_ROOM = 524288   /* bytes reserved for a full batch and its last row */
};

static void wipe(const batch_memory *b)
{
    if (b->secret) {
        ltdic__wipe(b->data.data, b->data.end);
    }
}

void ltdic__batch_begin(batch_memory *b)
{
    wipe(b);
    b->count = b->data.start = b->data.end = 0;
    b->secret = false;
    if (b->given) {
        b->given = false;
        buffer_reserve(&b->data, BATCH_ROOM); /* if it fails, the buffer grows later */
    }
}

void ltdic__batch_clear(batch_memory *b)
{
    wipe(b);
    buffer_free(&b->data);
}

bool ltdic__batch_is_full(const batch_memory *b)
{
    return b->count == BATCH_ROWS || buffer_size(&b->data) >= BATCH_BYTES;
}

bool ltdic__batch_reserve(batch_memory *b, size_t size)
{
    return b->secret ? ltdic__reserve_secret(&b->data, size) : buffer_reserve(&b->data, size);
}

static bool add(batch_memory *b, ltdic_bytes bytes)
{
    const bool room = bytes.size == 0 || ltdic__batch_reserve(b, bytes.size);
    if (room) {
        buffer_put(&b->data, bytes.data, bytes.size);
    }
    return room;
}

bool ltdic__batch_put(batch_memory *b, ltdic_event_row row, ltdic_bytes bytes)
{
    row.offset = buffer_size(&b->data);
    row.length = bytes.size;
    if (b->count == BATCH_ROWS || !add(b, bytes)) {
        return false;
    }
    b->rows[b->count++] = row;
    return true;
}

bool ltdic__batch_append(batch_memory *b, ltdic_bytes bytes)
{
    const bool added = add(b, bytes);
    b->rows[b->count - 1].length += added ? bytes.size : 0;
    return added;
}

bool ltdic__batch_put_data(batch_memory *b, ltdic_event_row row, ltdic_bytes data)
{
    ltdic_event_row *last = b->count > 0 ? &b->rows[b->count - 1] : NULL;
    const bool same = last != NULL && last->served == row.served &&
                      last->kind == LTDIC_SERVED_DATA && last->id == row.id &&
                      (last->control | LAST) == (row.control | LAST) && (last->control & LAST) == 0;
    row.kind = LTDIC_SERVED_DATA;
    if (!same) {
        return ltdic__batch_put(b, row, data);
    }
    last->control = row.control;
    last->wire += row.wire;
    return ltdic__batch_append(b, data);
}

ltdic_batch ltdic__batch_shown(const batch_memory *b)
{
    return (ltdic_batch){b->rows, b->count, b->data.data};
}

uint8_t *ltdic__batch_take_data(batch_memory *b, size_t *room)
{
    if (b->secret) {
        return NULL;
    }
    uint8_t *data = b->data.data;
    *room = b->data.room;
    b->data = (buffer){0};
    b->given = data != NULL;
    return data;
}

void ltdic__batch_use_data(batch_memory *b, uint8_t *data, size_t room)
{
    if (b->data.data == NULL) {
        b->data = (buffer){data, 0, 0, room};
    } else {
        free(data);
    }
}

void ltdic_free_data(void *data)
{
    free(data);
}
