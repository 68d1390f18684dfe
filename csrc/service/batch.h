/* SPDX-License-Identifier: MIT */
/* An ltdic_batch and its memory: rows, and the bytes that they are about. Internal. */
#ifndef LTDIC_BATCH_H
#define LTDIC_BATCH_H

#include "codec/buffer.h"
#include "ltdic.h"

#include <stdbool.h>

enum { BATCH_ROWS = 256 };

typedef struct batch_memory {
    ltdic_event_row rows[BATCH_ROWS];
    size_t count;
    buffer data;
    bool secret; /* `data` holds an A-ASSOCIATE-RQ, and so perhaps a passcode */
    bool given;  /* the user took the data of the last batch: expect as much again */
} batch_memory;

void ltdic__batch_begin(batch_memory *b); /* forgets the last one */
void ltdic__batch_clear(batch_memory *b); /* frees its memory */
bool ltdic__batch_is_full(const batch_memory *b);
/* Reserves memory for so many bytes. Returns false if there is none. */
bool ltdic__batch_reserve(batch_memory *b, size_t size);
/* Adds a row with these bytes, if any. Returns false if there is no memory. */
bool ltdic__batch_put(batch_memory *b, ltdic_event_row row, ltdic_bytes bytes);
/* Adds bytes to the last row. Returns false if there is no memory. */
bool ltdic__batch_append(batch_memory *b, ltdic_bytes bytes);
/* Adds data: to the last row if that is of the same command or data set, else as a row of its own.
 * `row` has what is to be known of it, but for `kind`. Returns false if there is no memory. */
bool ltdic__batch_put_data(batch_memory *b, ltdic_event_row row, ltdic_bytes data);
/* Shows it to the user. */
ltdic_batch ltdic__batch_shown(const batch_memory *b);
/* Gives the data to the user, and takes such memory: ltdic_server_take_data, ltdic_server_use_data.
 */
uint8_t *ltdic__batch_take_data(batch_memory *b, size_t *room);
void ltdic__batch_use_data(batch_memory *b, uint8_t *data, size_t room);

#endif
