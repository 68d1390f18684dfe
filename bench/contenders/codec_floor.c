/* SPDX-License-Identifier: MIT */
/* The floor: the same rows after the same checks, in one loop for each PDU, for those PDUs alone
 * that the cases have. It says yes or no, and not what is wrong where. */
#include "codec.h"

#include <stdbool.h>
#include <string.h>

enum { HEADER = 6, TITLES = 74, TITLE = 16, DIGIT = 1, DOT = 2 };

static const uint8_t classes[256] = {
    ['0'] = DIGIT, ['1'] = DIGIT, ['2'] = DIGIT, ['3'] = DIGIT, ['4'] = DIGIT, ['5'] = DIGIT,
    ['6'] = DIGIT, ['7'] = DIGIT, ['8'] = DIGIT, ['9'] = DIGIT, ['.'] = DOT,
};

static uint32_t load16(const uint8_t *p)
{
    return (uint32_t)p[0] << 8 | p[1];
}

static uint32_t load32(const uint8_t *p)
{
    return load16(p) << 16 | load16(p + 2);
}

static void store16(uint8_t *p, size_t value)
{
    p[0] = (uint8_t)(value >> 8);
    p[1] = (uint8_t)value;
}

static void store32(uint8_t *p, size_t value)
{
    store16(p, value >> 16);
    store16(p + 2, value);
}

static bool is_uid(const uint8_t *p, size_t size)
{
    bool start = true;
    if (size == 0 || size > 64) {
        return false;
    }
    for (size_t i = 0; i < size; i++) {
        const uint8_t class = classes[p[i]];
        const bool alone = i + 1 == size || p[i + 1] == '.';
        if (class == 0 || (start && (class == DOT || (p[i] == '0' && !alone)))) {
            return false;
        }
        start = class == DOT;
    }
    return !start;
}

static ltdic_item *put(ltdic_items *rows, uint8_t kind, size_t offset, size_t length)
{
    ltdic_item *row = &rows->items[rows->count++];
    *row = (ltdic_item){.offset = (uint32_t)offset, .length = (uint32_t)length, .kind = kind};
    return row;
}

static bool uid(ltdic_items *rows, const uint8_t *data, uint8_t kind, size_t at, size_t length)
{
    put(rows, kind, at, length)->type = data[at - 4];
    return is_uid(data + at, length);
}

static bool title(ltdic_items *rows, const uint8_t *data, uint8_t kind, size_t at)
{
    size_t start = at, end = at + TITLE;
    while (start < end && data[start] == ' ') {
        start++;
    }
    while (end > start && data[end - 1] == ' ') {
        end--;
    }
    bool good = end > start;
    for (size_t i = start; i < end; i++) {
        good = good && data[i] >= ' ' && data[i] <= '~' && data[i] != '\\';
    }
    put(rows, kind, start, end - start);
    return good;
}

static bool context(ltdic_items *rows, const uint8_t *data, size_t at, size_t end, uint64_t *ids)
{
    const uint8_t id = data[at];
    const bool proposed = data[at - 4] == 0x20;
    bool good = end - at >= 4 && id % 2 == 1 && (ids[id / 64] >> id % 64 & 1) == 0;
    unsigned abstracts = 0, transfers = 0;
    ids[id / 64] |= (uint64_t)1 << id % 64;
    ltdic_item *row = put(rows, LTDIC_CONTEXT, at, end - at);
    row->type = data[at - 4];
    row->id = id;
    row->result = proposed ? 0 : data[at + 2];
    size_t length = 0;
    for (at += 4; good && at < end; at += 4 + length) {
        if (end - at < 4 || (length = load16(data + at + 2)) > end - at - 4) {
            return false;
        }
        const bool abstract = data[at] == 0x30;
        good = abstract ? proposed && abstracts++ == 0 && transfers == 0 : data[at] == 0x40;
        transfers += !abstract;
        good = good && uid(rows, data, abstract ? LTDIC_ABSTRACT_SYNTAX : LTDIC_TRANSFER_SYNTAX,
                           at + 4, length);
    }
    return good && transfers > 0 && (proposed ? abstracts == 1 : transfers == 1);
}

static bool user_information(ltdic_items *rows, const uint8_t *data, size_t at, size_t end)
{
    unsigned seen = 0;
    size_t length = 0;
    put(rows, LTDIC_USER_INFORMATION, at, end - at)->type = 0x50;
    for (bool good = true; good && at < end; at += 4 + length) {
        if (end - at < 4 || (length = load16(data + at + 2)) > end - at - 4) {
            return false;
        }
        const uint8_t type = data[at];
        if (type == 0x51 && length == 4) {
            put(rows, LTDIC_MAX_LENGTH, at + 4, 4)->type = type;
        } else if (type == 0x52) {
            good = uid(rows, data, LTDIC_CLASS_UID, at + 4, length);
        } else if (type == 0x55 && length > 0 && length <= 16) {
            for (size_t i = 0; i < length; i++) {
                good = good && data[at + 4 + i] >= ' ' && data[at + 4 + i] <= '~';
            }
            put(rows, LTDIC_VERSION_NAME, at + 4, length)->type = type;
        } else {
            return false;
        }
        if (!good || (seen >> (type - 0x51) & 1) != 0) {
            return false;
        }
        seen |= 1U << (type - 0x51);
    }
    return (seen & 3) == 3;
}

static bool associate(ltdic_items *rows, const uint8_t *data, size_t total)
{
    const bool proposed = data[0] == LTDIC_ASSOCIATE_RQ;
    uint64_t ids[4] = {0};
    unsigned seen = 0;
    size_t length = 0;
    rows->items->version = (uint16_t)load16(data + 6);
    bool good = title(rows, data, LTDIC_CALLED_AE, 10) || !proposed;
    good = (title(rows, data, LTDIC_CALLING_AE, 10 + TITLE) || !proposed) && good;
    for (size_t at = TITLES; good && at < total; at += 4 + length) {
        if (total - at < 4 || (length = load16(data + at + 2)) > total - at - 4) {
            return false;
        }
        const uint8_t type = data[at];
        if (type == 0x10 && seen == 0) {
            good = uid(rows, data, LTDIC_APPLICATION_CONTEXT, at + 4, length);
            seen = 1;
        } else if (type == (proposed ? 0x20 : 0x21) && seen < 7) {
            good = context(rows, data, at + 4, at + 4 + length, ids);
            seen |= 2;
        } else if (type == 0x50 && seen < 7) {
            good = user_information(rows, data, at + 4, at + 4 + length);
            seen |= 4;
        } else {
            return false;
        }
    }
    return good && seen == 7;
}

static bool reject(ltdic_item *row, const uint8_t *data)
{
    static const uint16_t reasons[4] = {0, 0x07FE, 0x0006, 0x00FF};
    row->result = data[7];
    row->source = data[8];
    row->reason = data[9];
    return row->result - 1U < 2 && row->source - 1U < 3 && row->reason < 16 &&
           (reasons[row->source] >> row->reason & 1) != 0;
}

static bool values(ltdic_items *rows, const uint8_t *data, size_t total)
{
    size_t length = 0;
    for (size_t at = HEADER; at < total; at += 4 + length) {
        if (total - at < 6 || (length = load32(data + at)) > total - at - 4 || length < 2 ||
            length % 2 != 0 || data[at + 4] % 2 == 0) {
            return false;
        }
        ltdic_item *row = put(rows, LTDIC_PDV, at + 6, length - 2);
        row->id = data[at + 4];
        row->result = data[at + 5];
    }
    return true;
}

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
    ltdic_item *row = put(rows, LTDIC_PDU, HEADER, length);
    row->type = type;
    if (type <= LTDIC_ASSOCIATE_AC) {
        return length >= TITLES - HEADER && length <= LTDIC_MAX_ASSOCIATE &&
                       associate(rows, data, total)
                   ? total
                   : 0;
    }
    if (type == LTDIC_DATA_TF) {
        return length >= 6 && values(rows, data, total) ? total : 0;
    }
    if (length != 4 || (type == LTDIC_ASSOCIATE_RJ && !reject(row, data))) {
        return 0;
    }
    if (type == LTDIC_ABORT) {
        row->source = data[8];
        row->reason = data[9];
        return row->source <= 2 && (row->source != 2 || row->reason <= 6) ? total : 0;
    }
    return total;
}

size_t contender_rejects(uint8_t *out, const uint8_t *data, size_t size)
{
    size_t count = 0;
    for (size_t at = 0; at + 10 <= size; at += 10, count++) {
        if (data[at] != LTDIC_ASSOCIATE_RJ || load32(data + at + 2) != 4) {
            return count;
        }
        memcpy(out + 3 * count, data + at + 7, 3);
    }
    return count;
}

/* ---- encode ---------------------------------------------------------------------------------- */

typedef struct output {
    uint8_t *out;
    size_t at, room;
    const uint8_t *data;
} output;

static void copy(output *o, const ltdic_item *row, size_t size)
{
    memcpy(o->out + o->at, o->data + row->offset, row->length);
    memset(o->out + o->at + row->length, ' ', size - row->length);
    o->at += size;
}

/* A whole item for this row, but for those that contain others. */
static bool put_item(output *o, uint8_t type, const ltdic_item *row, bool is_text)
{
    uint8_t *p = o->out + o->at;
    p[0] = type;
    p[1] = 0;
    store16(p + 2, row->length);
    o->at += 4;
    copy(o, row, row->length);
    return !is_text || is_uid(o->data + row->offset, row->length);
}

static size_t open_item(output *o, uint8_t type)
{
    o->out[o->at] = type;
    o->out[o->at + 1] = 0;
    o->at += 4;
    return o->at;
}

static void close_item(output *o, size_t start)
{
    if (start > 0) {
        store16(o->out + start - 2, o->at - start);
    }
}

static size_t put_context(output *o, const ltdic_item *row, bool proposed)
{
    const size_t start = open_item(o, proposed ? 0x20 : 0x21);
    const uint8_t fields[4] = {row->id, 0, proposed ? 0 : row->result, 0};
    memcpy(o->out + o->at, fields, 4);
    o->at += 4;
    return start;
}

static bool put_row(output *o, const ltdic_item *row, bool proposed, size_t *open)
{
    switch (row->kind) {
    case LTDIC_APPLICATION_CONTEXT:
        return put_item(o, 0x10, row, true);
    case LTDIC_CONTEXT:
        close_item(o, *open);
        *open = put_context(o, row, proposed);
        return true;
    case LTDIC_ABSTRACT_SYNTAX:
        return put_item(o, 0x30, row, true);
    case LTDIC_TRANSFER_SYNTAX:
        return put_item(o, 0x40, row, true);
    case LTDIC_USER_INFORMATION:
        close_item(o, *open);
        *open = open_item(o, 0x50);
        return true;
    case LTDIC_MAX_LENGTH:
        return put_item(o, 0x51, row, false);
    case LTDIC_CLASS_UID:
        return put_item(o, 0x52, row, true);
    case LTDIC_VERSION_NAME:
        return put_item(o, 0x55, row, false);
    default:
        return false;
    }
}

static bool put_associate(output *o, const ltdic_items *rows)
{
    const bool proposed = rows->items->type == LTDIC_ASSOCIATE_RQ;
    size_t open = 0;
    bool good = true;
    store16(o->out + 6, rows->items->version);
    memset(o->out + 8, 0, TITLES - 8);
    o->at = 10;
    copy(o, &rows->items[1], TITLE);
    copy(o, &rows->items[2], TITLE);
    o->at = TITLES;
    for (size_t i = 3; good && i < rows->count; i++) {
        const ltdic_item *row = &rows->items[i];
        good = o->at + row->length + 16 <= o->room && put_row(o, row, proposed, &open);
    }
    close_item(o, open);
    return good;
}

static bool put_data(output *o, const ltdic_items *rows)
{
    for (size_t i = 1; i < rows->count; i++) {
        const ltdic_item *row = &rows->items[i];
        if (o->room - o->at < row->length + 6) {
            return false;
        }
        uint8_t *p = o->out + o->at;
        store32(p, row->length + 2);
        p[4] = row->id;
        p[5] = row->result;
        o->at += 6;
        copy(o, row, row->length);
    }
    return true;
}

size_t contender_encode(uint8_t *out, size_t room, const ltdic_items *rows, const uint8_t *data,
                        size_t size)
{
    const ltdic_item *row = rows->items;
    output o = {out, HEADER, room, data};
    bool good = room >= TITLES;
    (void)size;
    if (good && row->type <= LTDIC_ASSOCIATE_AC) {
        good = put_associate(&o, rows);
    } else if (good && row->type == LTDIC_DATA_TF) {
        good = put_data(&o, rows);
    } else if (good) {
        const uint8_t codes[4] = {0, row->result, row->source, row->reason};
        memcpy(out + HEADER, codes, 4);
        o.at = HEADER + 4;
    }
    out[0] = row->type;
    out[1] = 0;
    store32(out + 2, o.at - HEADER);
    return good ? o.at : 0;
}

size_t contender_refuse(uint8_t *out, const uint8_t *data, size_t size)
{
    (void)out;
    (void)data;
    (void)size;
    return 0; /* no case has a floor for it */
}
