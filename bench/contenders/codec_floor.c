/* SPDX-License-Identifier: MIT */
/* The floor of A-ASSOCIATE-RJ: the same row and the same bytes as ltdic, after the same checks. It
 * returns 0 for a PDU with a fault, and does not say which fault it is or where. */
#include "codec.h"

#include <stdbool.h>
#include <string.h>

enum { HEADER = 6, SIZE = 10 };

static const uint8_t header[HEADER] = {LTDIC_ASSOCIATE_RJ, 0, 0, 0, 0, SIZE - HEADER};

static uint32_t load32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* PS3.8 table 9-21. */
static bool is_defined(const ltdic_item *row)
{
    static const uint16_t reasons[4] = {0, 0x07FE, 0x0006, 0x00FF}; /* by source; a bit for each */
    return row->result - 1U < 2 && row->source - 1U < 3 && row->reason < 16 &&
           (reasons[row->source] >> row->reason & 1) != 0;
}

/* It finds the end of any PDU first, as a decoder must that does not know what comes. */
size_t contender_decode(ltdic_items *rows, const uint8_t *data, size_t size)
{
    rows->count = 0;
    if (size < HEADER) {
        return 0;
    }
    const uint8_t type = data[0];
    const size_t length = load32(data + 2), total = length + HEADER;
    if (type < LTDIC_ASSOCIATE_RQ || type > LTDIC_ABORT || total > size) {
        return 0;
    }
    ltdic_item *row = &rows->items[rows->count++];
    *row =
        (ltdic_item){.offset = HEADER, .length = (uint32_t)length, .kind = LTDIC_PDU, .type = type};
    if (type != LTDIC_ASSOCIATE_RJ || total != SIZE) {
        return 0;
    }
    row->result = data[7];
    row->source = data[8];
    row->reason = data[9];
    return is_defined(row) ? SIZE : 0;
}

size_t contender_rejects(uint8_t *out, const uint8_t *data, size_t size)
{
    size_t count = 0;
    for (size_t at = 0; at + SIZE <= size; at += SIZE, count++) {
        if (data[at] != LTDIC_ASSOCIATE_RJ || load32(data + at + 2) != SIZE - HEADER) {
            return count;
        }
        memcpy(out + 3 * count, data + at + 7, 3);
    }
    return count;
}

size_t contender_encode(uint8_t *out, size_t room, const ltdic_items *rows, const uint8_t *data,
                        size_t size)
{
    const ltdic_item *row = rows->items;
    const uint8_t codes[4] = {0, row->result, row->source, row->reason};
    (void)data;
    (void)size;
    if (room < SIZE) {
        return 0;
    }
    memcpy(out, header, HEADER);
    memcpy(out + HEADER, codes, sizeof codes);
    return SIZE;
}

size_t contender_refuse(uint8_t *out, const uint8_t *data, size_t size)
{
    (void)out;
    (void)data;
    (void)size;
    return 0; /* the floor cannot do it */
}
