/* SPDX-License-Identifier: MIT */
/* ltdic through its C header. */
#include "codec.h"

static const ltdic_options strictly = {
    .size = sizeof strictly, .max_associate = LTDIC_MAX_ASSOCIATE, .strict = 1};

size_t contender_decode(ltdic_items *rows, const uint8_t *data, size_t size)
{
    ltdic_fault fault;
    if (ltdic_decode(rows, (ltdic_bytes){data, size}, &strictly, &fault) != LTDIC_OK) {
        return 0;
    }
    return rows->items->length + 6;
}

size_t contender_rejects(uint8_t *out, const uint8_t *data, size_t size)
{
    ltdic_fault fault;
    ltdic_buffer into = {out, size, 0};
    ltdic_decode_rejects(&into, (ltdic_bytes){data, size}, &fault);
    return into.size / 3;
}

size_t contender_encode(uint8_t *out, size_t room, const ltdic_items *rows, const uint8_t *data,
                        size_t size)
{
    ltdic_fault fault;
    ltdic_buffer into = {out, room, 0};
    ltdic_encode(&into, rows, (ltdic_bytes){data, size}, &fault);
    return into.size;
}
