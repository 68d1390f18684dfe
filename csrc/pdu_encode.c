/* SPDX-License-Identifier: MIT */
/* From rows to bytes: PS3.8 9.3, PS3.7 D.3.3. The mirror of pdu_decode.c. */
#include "bytes.h"
#include "internal.h"

typedef struct encoder {
    writer w;
    const ltdic_item *row, *end; /* the next row and the end of them */
    const ltdic_item *first;
    ltdic_bytes values;
    ltdic_fault fault;
    uint8_t type; /* of the PDU */
} encoder;

/* A fault of the row just taken. */
static void refuse(encoder *e, bool wrong, int status)
{
    if (wrong && e->fault.status == LTDIC_OK) {
        e->fault.status = status;
        e->fault.offset = e->row == e->first ? 0 : (uint64_t)(e->row - e->first) - 1;
    }
}

static bool next_is(const encoder *e, uint8_t kind)
{
    return e->fault.status == LTDIC_OK && e->row < e->end && e->row->kind == kind;
}

/* The next row, which must be of this kind. */
static const ltdic_item *take_row(encoder *e, uint8_t kind)
{
    static const ltdic_item none;
    if (next_is(e, kind)) {
        return e->row++;
    }
    if (e->fault.status == LTDIC_OK) {
        e->fault.status = LTDIC_ERR_BAD_VALUE;
        e->fault.offset = (uint64_t)(e->row - e->first);
    }
    return &none;
}

static ltdic_bytes value_of(encoder *e, const ltdic_item *row)
{
    const ltdic_bytes all = e->values;
    const bool outside = row->offset > all.size || row->length > all.size - row->offset;
    refuse(e, outside, LTDIC_ERR_BAD_VALUE);
    if (outside || row->length == 0) {
        return (ltdic_bytes){NULL, 0};
    }
    return (ltdic_bytes){all.data + row->offset, row->length};
}

static ltdic_bytes uid_of(encoder *e, const ltdic_item *row)
{
    const ltdic_bytes uid = value_of(e, row);
    refuse(e, !ltdic__uid_is_legal(uid), LTDIC_ERR_BAD_VALUE);
    return uid;
}

static size_t open_item(encoder *e, uint8_t type, uint8_t second)
{
    writer_u8(&e->w, type);
    writer_u8(&e->w, second);
    writer_u16(&e->w, 0);
    return e->w.pos - 2;
}

static void close_item(encoder *e, size_t length_at)
{
    refuse(e, !writer_close_u16(&e->w, length_at), LTDIC_ERR_TOO_LARGE);
}

static void put_item(encoder *e, uint8_t type, ltdic_bytes value)
{
    const size_t at = open_item(e, type, 0);
    writer_bytes(&e->w, value.data, value.size);
    close_item(e, at);
}

static void put_counted(encoder *e, ltdic_bytes value)
{
    refuse(e, value.size > UINT16_MAX, LTDIC_ERR_TOO_LARGE);
    writer_u16(&e->w, value.size);
    writer_bytes(&e->w, value.data, value.size);
}

static void encode_context(encoder *e)
{
    const ltdic_item *row = take_row(e, LTDIC_CONTEXT);
    const bool proposed = e->type == LTDIC_ASSOCIATE_RQ;
    const size_t at = open_item(e, proposed ? 0x20 : 0x21, 0);
    writer_u8(&e->w, row->id);
    writer_u8(&e->w, 0);
    writer_u8(&e->w, proposed ? 0 : row->result);
    writer_u8(&e->w, 0);
    if (proposed && next_is(e, LTDIC_ABSTRACT_SYNTAX)) {
        put_item(e, 0x30, uid_of(e, take_row(e, LTDIC_ABSTRACT_SYNTAX)));
    }
    if (!proposed && row->result != 0 && !next_is(e, LTDIC_TRANSFER_SYNTAX)) {
        put_item(e, 0x40, (ltdic_bytes){NULL, 0}); /* there, but without meaning: PS3.8 9.3.3.2 */
    }
    while (next_is(e, LTDIC_TRANSFER_SYNTAX)) {
        put_item(e, 0x40, uid_of(e, take_row(e, LTDIC_TRANSFER_SYNTAX)));
    }
    close_item(e, at);
}

static void encode_four_bytes(encoder *e, uint8_t kind, uint8_t type)
{
    const ltdic_bytes value = value_of(e, take_row(e, kind));
    refuse(e, value.size != 4, LTDIC_ERR_BAD_VALUE);
    put_item(e, type, value);
}

static void encode_version_name(encoder *e)
{
    const ltdic_bytes name = value_of(e, take_row(e, LTDIC_VERSION_NAME));
    refuse(e, !ltdic__version_name_is_legal(name), LTDIC_ERR_BAD_VALUE);
    put_item(e, 0x55, name);
}

static void encode_role(encoder *e)
{
    const ltdic_item *row = take_row(e, LTDIC_ROLE);
    const size_t at = open_item(e, 0x54, 0);
    put_counted(e, uid_of(e, row));
    writer_u8(&e->w, row->id);
    writer_u8(&e->w, row->result);
    close_item(e, at);
}

static void encode_extended(encoder *e)
{
    const size_t at = open_item(e, 0x56, 0);
    put_counted(e, uid_of(e, take_row(e, LTDIC_EXTENDED)));
    const ltdic_bytes info = value_of(e, take_row(e, LTDIC_EXTENDED_INFO));
    writer_bytes(&e->w, info.data, info.size);
    close_item(e, at);
}

static void encode_common_extended(encoder *e)
{
    const ltdic_item *row = take_row(e, LTDIC_COMMON_EXTENDED);
    const size_t at = open_item(e, 0x57, (uint8_t)row->version);
    put_counted(e, uid_of(e, row));
    put_counted(e, uid_of(e, take_row(e, LTDIC_COMMON_SERVICE)));
    writer_u16(&e->w, 0);
    const size_t related_at = e->w.pos - 2;
    while (next_is(e, LTDIC_COMMON_RELATED)) {
        put_counted(e, uid_of(e, take_row(e, LTDIC_COMMON_RELATED)));
    }
    close_item(e, related_at);
    close_item(e, at);
}

static void encode_identity(encoder *e)
{
    const ltdic_item *row = take_row(e, LTDIC_USER_IDENTITY);
    const size_t at = open_item(e, 0x58, 0);
    writer_u8(&e->w, row->id);
    writer_u8(&e->w, row->result);
    put_counted(e, value_of(e, row));
    put_counted(e, value_of(e, take_row(e, LTDIC_USER_IDENTITY_SECOND)));
    close_item(e, at);
}

static void encode_identity_response(encoder *e)
{
    const size_t at = open_item(e, 0x59, 0);
    put_counted(e, value_of(e, take_row(e, LTDIC_USER_IDENTITY_RESPONSE)));
    close_item(e, at);
}

static void encode_unknown(encoder *e, uint8_t kind)
{
    const ltdic_item *row = take_row(e, kind);
    put_item(e, row->type, value_of(e, row));
}

/* False if the next row is no sub-item of user information. */
static bool encode_sub_item(encoder *e)
{
    switch (e->row->kind) {
    case LTDIC_MAX_LENGTH:
        encode_four_bytes(e, LTDIC_MAX_LENGTH, 0x51);
        return true;
    case LTDIC_CLASS_UID:
        put_item(e, 0x52, uid_of(e, take_row(e, LTDIC_CLASS_UID)));
        return true;
    case LTDIC_ASYNC_OPERATIONS:
        encode_four_bytes(e, LTDIC_ASYNC_OPERATIONS, 0x53);
        return true;
    case LTDIC_ROLE:
        encode_role(e);
        return true;
    case LTDIC_VERSION_NAME:
        encode_version_name(e);
        return true;
    case LTDIC_EXTENDED:
        encode_extended(e);
        return true;
    case LTDIC_COMMON_EXTENDED:
        encode_common_extended(e);
        return true;
    case LTDIC_USER_IDENTITY:
        encode_identity(e);
        return true;
    case LTDIC_USER_IDENTITY_RESPONSE:
        encode_identity_response(e);
        return true;
    case LTDIC_UNKNOWN_SUB_ITEM:
        encode_unknown(e, LTDIC_UNKNOWN_SUB_ITEM);
        return true;
    default:
        return false;
    }
}

static void encode_user_information(encoder *e)
{
    take_row(e, LTDIC_USER_INFORMATION);
    const size_t at = open_item(e, 0x50, 0);
    while (e->fault.status == LTDIC_OK && e->row < e->end && encode_sub_item(e)) {
    }
    close_item(e, at);
}

/* An AC only echoes the titles, so they may be anything there. */
static void encode_title(encoder *e, uint8_t kind)
{
    const ltdic_bytes title = ltdic__without_spaces(value_of(e, take_row(e, kind)));
    const bool legal = e->type == LTDIC_ASSOCIATE_AC || ltdic__title_is_legal(title);
    refuse(e, !legal || title.size > TITLE_SIZE, LTDIC_ERR_BAD_VALUE);
    writer_bytes(&e->w, title.data, title.size);
    writer_fill(&e->w, ' ', TITLE_SIZE - (title.size <= TITLE_SIZE ? title.size : TITLE_SIZE));
}

static void encode_associate(encoder *e, const ltdic_item *pdu)
{
    writer_u16(&e->w, pdu->version);
    writer_u16(&e->w, 0);
    encode_title(e, LTDIC_CALLED_AE);
    encode_title(e, LTDIC_CALLING_AE);
    writer_fill(&e->w, 0, 32);
    while (e->fault.status == LTDIC_OK && e->row < e->end) {
        if (next_is(e, LTDIC_CONTEXT)) {
            encode_context(e);
        } else if (next_is(e, LTDIC_USER_INFORMATION)) {
            encode_user_information(e);
        } else if (next_is(e, LTDIC_APPLICATION_CONTEXT)) {
            put_item(e, 0x10, uid_of(e, take_row(e, LTDIC_APPLICATION_CONTEXT)));
        } else {
            encode_unknown(e, LTDIC_UNKNOWN_ITEM);
        }
    }
}

static void encode_data(encoder *e)
{
    do {
        const ltdic_item *row = take_row(e, LTDIC_PDV);
        const ltdic_bytes data = value_of(e, row);
        refuse(e, data.size > UINT32_MAX - 6, LTDIC_ERR_TOO_LARGE);
        writer_u32(&e->w, data.size + 2);
        writer_u8(&e->w, row->id);
        writer_u8(&e->w, row->result);
        writer_bytes(&e->w, data.data, data.size);
    } while (e->fault.status == LTDIC_OK && e->row < e->end);
}

static void encode_body(encoder *e)
{
    const ltdic_item *pdu = take_row(e, LTDIC_PDU);
    uint8_t fixed[LTDIC_FIXED_PDU_SIZE];
    ltdic_reject codes = {0, 0, 0};
    e->type = pdu->type;
    if (e->type == LTDIC_ASSOCIATE_RJ) {
        codes = (ltdic_reject){pdu->result, pdu->source, pdu->reason};
    } else if (e->type == LTDIC_ABORT) {
        codes = (ltdic_reject){0, pdu->source, pdu->reason};
    }
    refuse(e, e->type < LTDIC_ASSOCIATE_RQ || e->type > LTDIC_ABORT, LTDIC_ERR_BAD_VALUE);
    ltdic_encode_fixed(fixed, e->type, codes);
    if (e->type == LTDIC_ASSOCIATE_RQ || e->type == LTDIC_ASSOCIATE_AC) {
        writer_bytes(&e->w, fixed, HEADER);
        encode_associate(e, pdu);
    } else if (e->type == LTDIC_DATA_TF) {
        writer_bytes(&e->w, fixed, HEADER);
        encode_data(e);
    } else {
        writer_bytes(&e->w, fixed, sizeof fixed);
    }
    if (e->row < e->end) {
        take_row(e, 0); /* a row too many: there is no such kind */
    }
}

int ltdic_encode(ltdic_buffer *out, const ltdic_items *rows, ltdic_bytes values, ltdic_fault *fault)
{
    encoder e = {
        .w = {out->data, out->room, 0},
        .row = rows->items,
        .end = rows->items + rows->count,
        .first = rows->items,
        .values = values,
    };
    encode_body(&e);
    refuse(&e, e.w.pos - HEADER > UINT32_MAX, LTDIC_ERR_TOO_LARGE);
    out->size = e.w.pos;
    if (e.fault.status == LTDIC_OK && e.w.pos > out->room) {
        e.fault.status = LTDIC_ERR_ROOM;
    }
    if (e.fault.status == LTDIC_OK) {
        store_u32(out->data + 2, e.w.pos - HEADER);
    }
    *fault = e.fault;
    return fault->status;
}
