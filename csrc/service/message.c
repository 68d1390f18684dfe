/* SPDX-License-Identifier: MIT */
/* Finds C-ECHO messages (PS3.7 6.3.1) among those that an association receives. */
#include "codec/bytes.h"
#include "codec/items.h"

#include <stdlib.h>

enum { MOST_COMMAND = 1024 }; /* bytes of a command set that are kept; a C-ECHO has fewer */

void ltdic_echo_reader_clear(ltdic_echo_reader *reader)
{
    free(reader->command);
    *reader = (ltdic_echo_reader){0};
}

/* Adds bytes to the command set. Returns false if there is no memory. */
static bool gather(ltdic_echo_reader *reader, ltdic_bytes data)
{
    if (reader->command == NULL) {
        reader->command = malloc(MOST_COMMAND);
    }
    if (reader->command == NULL) {
        return false;
    }
    if (data.size > 0) {
        memcpy(reader->command + reader->size, data.data, data.size);
        reader->size += (uint32_t)data.size;
    }
    return true;
}

int ltdic_echo_reader_take(ltdic_echo_reader *reader, ltdic_echo *echo, const ltdic_piece *piece)
{
    const bool ends = piece->last && (piece->control & LAST) != 0;
    ltdic_bytes command = piece->data;
    echo->field = 0;
    if ((piece->control & COMMAND) == 0) {
        return LTDIC_NEED_MORE;
    }
    reader->too_long = reader->too_long || command.size > MOST_COMMAND - reader->size;
    if (!reader->too_long && (reader->size > 0 || !ends)) {
        if (!gather(reader, command)) {
            return LTDIC_ERR_MEMORY;
        }
        command = (ltdic_bytes){reader->command, reader->size};
    }
    const bool found = ends && !reader->too_long && ltdic_decode_echo(echo, command) == LTDIC_OK;
    if (ends) {
        ltdic_echo_reader_clear(reader);
    }
    return found ? LTDIC_OK : LTDIC_NEED_MORE;
}
