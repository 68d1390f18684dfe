/* SPDX-License-Identifier: MIT */
/* The floor of A-ASSOCIATE-RJ: the same row and the same bytes as ltdic, after the same checks. It
 * returns 0 for a PDU with a fault, and does not say which fault it is or where. */
#include "codec.h"

#include <stdbool.h>
#include <string.h>

enum { HEADER = 6, SIZE = 10 };

static const uint8_t header[HEADER] = {LTDIC_ASSOCIATE_RJ, 0, 0, 0, 0, SIZE - HEADER};

/* The second byte is reserved: it is not tested (PS3.8 9.3.4). */
static bool is_reject(const uint8_t *pdu)
{
    return pdu[0] == header[0] && memcmp(pdu + 2, header + 2, 4) == 0;
}

/* PS3.8 table 9-21. */
static bool is_defined(const ltdic_item *row)
{
    static const uint16_t reasons[4] = {0, 0x07FE, 0x0006, 0x00FF}; /* by source; a bit for each */
    return row->result - 1U < 2 && row->source - 1U < 3 && row->reason < 16 &&
           (reasons[row->source] >> row->reason & 1) != 0;
}

size_t contender_decode(ltdic_items *rows, const uint8_t *data, size_t size)
{
    rows->count = 0;
    if (size < SIZE || !is_reject(data)) {
        return 0;
    }
    rows->items[rows->count++] = (ltdic_item){.offset = HEADER,
                                              .length = SIZE - HEADER,
                                              .kind = LTDIC_PDU,
                                              .type = LTDIC_ASSOCIATE_RJ,
                                              .result = data[7],
                                              .source = data[8],
                                              .reason = data[9]};
    return is_defined(rows->items) ? SIZE : 0;
}

size_t contender_rejects(uint8_t *out, const uint8_t *data, size_t size)
{
    size_t count = 0;
    for (size_t at = 0; at + SIZE <= size && is_reject(data + at); at += SIZE, count++) {
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
