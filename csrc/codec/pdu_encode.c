/* SPDX-License-Identifier: MIT */
/* Encodes rows into PDUs (PS3.8 9.3, PS3.7 D.3.3): the reverse of pdu_decode.c. */
#include "bytes.h"
#include "framing.h"
#include "items.h"
#include "text.h"

typedef struct encoder {
    writer w;
    const ltdic_item *row, *end; /* the next row and the end of them */
    const ltdic_item *first;
    ltdic_bytes values;
    ltdic_fault fault;
    uint8_t type; /* PDU type */
    bool exact;
} encoder;

/* Records a fault of the row just taken, if it is the first fault. */
static inline void refuse(encoder *e, bool wrong, int status)
{
    if (wrong && e->fault.status == LTDIC_OK) {
        e->fault.status = status;
        e->fault.offset = (uint64_t)(e->row - e->first) - 1;
    }
}

/* Returns the kind of the next row; 0, which is no kind, at the end and after a fault. */
static inline uint8_t next_kind(const encoder *e)
{
    return e->fault.status == LTDIC_OK && e->row < e->end ? e->row->kind : 0;
}

static inline bool next_is(const encoder *e, uint8_t kind)
{
    return next_kind(e) == kind;
}

/* Takes the next row. If it is of another kind, that is a fault, and an empty row is returned. */
static inline const ltdic_item *take_row(encoder *e, uint8_t kind)
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

static inline ltdic_bytes value_of(encoder *e, const ltdic_item *row)
{
    const ltdic_bytes all = e->values;
    const bool outside = row->offset > all.size || row->length > all.size - row->offset;
    refuse(e, outside, LTDIC_ERR_BAD_VALUE);
    if (outside || row->length == 0) {
        return (ltdic_bytes){NULL, 0};
    }
    return (ltdic_bytes){all.data + row->offset, row->length};
}

static inline ltdic_bytes uid_of(encoder *e, const ltdic_item *row)
{
    const ltdic_bytes uid = value_of(e, row);
    refuse(e, !e->exact && !uid_is_legal(uid), LTDIC_ERR_BAD_VALUE);
    return uid;
}

/* Returns the header of the row just taken, for its reserved bytes: zeros if it has no row. */
static const uint8_t *header_of(encoder *e, size_t size)
{
    static const uint8_t zeroes[LTDIC_FIXED_PDU_SIZE];
    if (!e->exact || !next_is(e, LTDIC_HEADER)) {
        return zeroes;
    }
    const ltdic_bytes header = value_of(e, take_row(e, LTDIC_HEADER));
    refuse(e, header.size != size, LTDIC_ERR_BAD_VALUE);
    return header.size == size ? header.data : zeroes;
}

static size_t begin_item(encoder *e, uint8_t type, uint8_t second)
{
    const uint8_t header[ITEM_HEADER] = {type, second, 0, 0};
    writer_bytes(&e->w, header, sizeof header);
    return e->w.pos - 2;
}

/* Begins an item for the row just taken; its second byte is reserved. Returns the offset of its
 * length field. */
static size_t begin_plain_item(encoder *e, uint8_t type)
{
    return begin_item(e, type, header_of(e, ITEM_HEADER)[1]);
}

/* Writes bytes that have no meaning as they were received; `where` is the `id` of their rows. */
static void put_ignored(encoder *e, uint8_t where)
{
    while (e->exact && next_is(e, LTDIC_IGNORED) && e->row->id == where) {
        const ltdic_bytes bytes = value_of(e, take_row(e, LTDIC_IGNORED));
        writer_bytes(&e->w, bytes.data, bytes.size);
    }
}

static void close_item(encoder *e, size_t length_at)
{
    refuse(e, !writer_close_u16(&e->w, length_at), LTDIC_ERR_TOO_LARGE);
}

static void close_sub_item(encoder *e, size_t length_at)
{
    put_ignored(e, IN_SUB_ITEM);
    close_item(e, length_at);
}

/* Writes an item that has no bytes besides its header and value, with a reserved byte of 0. */
static inline void put_plain_item(encoder *e, uint8_t type, ltdic_bytes value)
{
    refuse(e, value.size > UINT16_MAX, LTDIC_ERR_TOO_LARGE);
    if (writer_fits(&e->w, ITEM_HEADER + value.size)) {
        uint8_t *item = e->w.data + e->w.pos;
        item[0] = type;
        item[1] = 0;
        store_u16(item + 2, value.size);
        copy_text(item + ITEM_HEADER, value);
    }
    writer_advance(&e->w, ITEM_HEADER + value.size);
}

static inline void put_item(encoder *e, uint8_t type, ltdic_bytes value)
{
    if (!e->exact) {
        put_plain_item(e, type, value);
        return;
    }
    const size_t at = begin_plain_item(e, type);
    writer_bytes(&e->w, value.data, value.size);
    close_sub_item(e, at);
}

static void put_counted(encoder *e, ltdic_bytes value)
{
    refuse(e, value.size > UINT16_MAX, LTDIC_ERR_TOO_LARGE);
    writer_u16(&e->w, value.size);
    writer_bytes(&e->w, value.data, value.size);
}

/* Writes the header of a context (PS3.8 tables 9-13, 9-18); returns the offset of its length field.
 */
static size_t begin_context(encoder *e, const ltdic_item *row, bool proposed)
{
    const uint8_t *header = header_of(e, CONTEXT_HEADER);
    const uint8_t fields[CONTEXT_HEADER] = {
        proposed ? PROPOSED : ANSWERED, /* type */
        header[1],
        0, /* length */
        0,
        row->id,
        header[5],
        proposed ? header[6] : row->result,
        header[7],
    };
    writer_bytes(&e->w, fields, sizeof fields);
    return e->w.pos - CONTEXT_HEADER + 2;
}

static void encode_context(encoder *e)
{
    const ltdic_item *row = take_row(e, LTDIC_CONTEXT);
    const bool proposed = e->type == LTDIC_ASSOCIATE_RQ;
    const size_t at = begin_context(e, row, proposed);
    if (!proposed && row->result != 0 && !e->exact && !next_is(e, LTDIC_TRANSFER_SYNTAX)) {
        put_item(e, TRANSFER_SYNTAX,
                 (ltdic_bytes){NULL, 0}); /* required, not significant: PS3.8 9.3.3.2 */
    }
    for (;;) {
        put_ignored(e, IN_ITEM);
        const uint8_t kind = next_kind(e);
        if (kind != LTDIC_TRANSFER_SYNTAX && (kind != LTDIC_ABSTRACT_SYNTAX || !proposed)) {
            break;
        }
        put_item(e, kind == LTDIC_TRANSFER_SYNTAX ? TRANSFER_SYNTAX : ABSTRACT_SYNTAX,
                 uid_of(e, e->row++));
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
    refuse(e, !e->exact && !name_is_legal(name), LTDIC_ERR_BAD_VALUE);
    put_item(e, VERSION_NAME, name);
}

static void encode_role(encoder *e)
{
    const ltdic_item *row = take_row(e, LTDIC_ROLE);
    const ltdic_bytes uid = uid_of(e, row);
    const size_t at = begin_plain_item(e, ROLE);
    put_counted(e, uid);
    writer_u8(&e->w, row->id);
    writer_u8(&e->w, row->result);
    close_sub_item(e, at);
}

static void encode_extended(encoder *e)
{
    const ltdic_bytes uid = uid_of(e, take_row(e, LTDIC_EXTENDED));
    const size_t at = begin_plain_item(e, EXTENDED);
    put_counted(e, uid);
    const ltdic_bytes info = value_of(e, take_row(e, LTDIC_EXTENDED_INFO));
    writer_bytes(&e->w, info.data, info.size);
    close_sub_item(e, at);
}

/* Tells whether a sub-item of this type is defined in this PDU (PS3.7 D.3.3). */
static bool has_sub_item(const encoder *e, uint8_t type)
{
    const bool request = e->type == LTDIC_ASSOCIATE_RQ;
    return (type >= MAX_LENGTH && type <= EXTENDED) ||
           ((type == COMMON_EXTENDED || type == USER_IDENTITY) && request) ||
           (type == USER_IDENTITY_RESPONSE && !request);
}

static void encode_common_extended(encoder *e)
{
    const ltdic_item *row = take_row(e, LTDIC_COMMON_EXTENDED);
    refuse(e, !has_sub_item(e, COMMON_EXTENDED), LTDIC_ERR_BAD_VALUE);
    const ltdic_bytes uid = uid_of(e, row);
    refuse(e, row->version > UINT8_MAX, LTDIC_ERR_BAD_VALUE);
    header_of(e, ITEM_HEADER); /* no byte of it is reserved: the second one is the version */
    const size_t at = begin_item(e, COMMON_EXTENDED, (uint8_t)row->version);
    put_counted(e, uid);
    put_counted(e, uid_of(e, take_row(e, LTDIC_COMMON_SERVICE)));
    writer_u16(&e->w, 0);
    const size_t related_at = e->w.pos - 2;
    while (next_is(e, LTDIC_COMMON_RELATED)) {
        put_counted(e, uid_of(e, take_row(e, LTDIC_COMMON_RELATED)));
    }
    close_item(e, related_at);
    close_sub_item(e, at);
}

static void encode_identity(encoder *e)
{
    const ltdic_item *row = take_row(e, LTDIC_USER_IDENTITY);
    refuse(e, !has_sub_item(e, USER_IDENTITY), LTDIC_ERR_BAD_VALUE);
    const ltdic_bytes primary = value_of(e, row);
    const size_t at = begin_plain_item(e, USER_IDENTITY);
    writer_u8(&e->w, row->id);
    writer_u8(&e->w, row->result);
    put_counted(e, primary);
    put_counted(e, value_of(e, take_row(e, LTDIC_USER_IDENTITY_SECOND)));
    close_sub_item(e, at);
}

static void encode_identity_response(encoder *e)
{
    const ltdic_bytes response = value_of(e, take_row(e, LTDIC_USER_IDENTITY_RESPONSE));
    refuse(e, !has_sub_item(e, USER_IDENTITY_RESPONSE), LTDIC_ERR_BAD_VALUE);
    const size_t at = begin_plain_item(e, USER_IDENTITY_RESPONSE);
    put_counted(e, response);
    close_sub_item(e, at);
}

/* Tells whether an item of this type is defined in this PDU (PS3.8 9.3.2, 9.3.3). */
static bool has_item(const encoder *e, uint8_t type)
{
    return type == APPLICATION_CONTEXT_ITEM || type == USER_INFORMATION ||
           type == (e->type == LTDIC_ASSOCIATE_RQ ? PROPOSED : ANSWERED);
}

static void encode_unknown(encoder *e, uint8_t kind, bool (*is_known)(const encoder *, uint8_t))
{
    const ltdic_item *row = take_row(e, kind);
    refuse(e, is_known(e, row->type), LTDIC_ERR_BAD_VALUE);
    put_item(e, row->type, value_of(e, row));
}

/* Encodes the next row. Returns false if it is no sub-item of user information. */
static bool encode_sub_item(encoder *e)
{
    switch (e->row->kind) {
    case LTDIC_MAX_LENGTH:
        encode_four_bytes(e, LTDIC_MAX_LENGTH, MAX_LENGTH);
        return true;
    case LTDIC_CLASS_UID:
        put_item(e, CLASS_UID, uid_of(e, take_row(e, LTDIC_CLASS_UID)));
        return true;
    case LTDIC_ASYNC_OPERATIONS:
        encode_four_bytes(e, LTDIC_ASYNC_OPERATIONS, ASYNC_OPERATIONS);
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
        encode_unknown(e, LTDIC_UNKNOWN_SUB_ITEM, has_sub_item);
        return true;
    default:
        return false;
    }
}

static void encode_user_information(encoder *e)
{
    take_row(e, LTDIC_USER_INFORMATION);
    const size_t at = begin_plain_item(e, USER_INFORMATION);
    do {
        put_ignored(e, IN_ITEM);
    } while (e->fault.status == LTDIC_OK && e->row < e->end && encode_sub_item(e));
    close_item(e, at);
}

/* Writes a title, padded with spaces. An AC only returns those of the RQ, so any are legal there.
 */
static void encode_title(encoder *e, uint8_t kind)
{
    const ltdic_bytes field = value_of(e, take_row(e, kind));
    const bool as_it_is =
        e->exact || (field.size > 0 && field.size <= TITLE_SIZE && field.data[0] != ' ');
    const ltdic_bytes title = as_it_is ? field : ltdic__without_spaces(field);
    const bool any = e->exact || e->type == LTDIC_ASSOCIATE_AC;
    uint8_t padded[TITLE_SIZE];
    memset(padded, ' ', sizeof padded);
    if (title.size > TITLE_SIZE) {
        refuse(e, true, LTDIC_ERR_BAD_VALUE);
    } else {
        copy_text(padded, title);
    }
    refuse(e, !any && (title.size == 0 || !title_is_printable(padded)), LTDIC_ERR_BAD_VALUE);
    writer_bytes(&e->w, padded, sizeof padded);
}

/* Writes the reserved bytes after the titles. */
static void encode_reserved(encoder *e)
{
    const size_t at = e->w.pos;
    put_ignored(e, IN_PDU);
    if (e->w.pos == at) {
        writer_fill(&e->w, 0, TITLES_RESERVED);
    }
    refuse(e, e->w.pos - at != TITLES_RESERVED, LTDIC_ERR_BAD_VALUE);
}

static void encode_associate(encoder *e)
{
    encode_title(e, LTDIC_CALLED_AE);
    encode_title(e, LTDIC_CALLING_AE);
    encode_reserved(e);
    while (e->fault.status == LTDIC_OK && e->row < e->end) {
        if (next_is(e, LTDIC_CONTEXT)) {
            encode_context(e);
        } else if (next_is(e, LTDIC_USER_INFORMATION)) {
            encode_user_information(e);
        } else if (next_is(e, LTDIC_APPLICATION_CONTEXT)) {
            put_item(e, APPLICATION_CONTEXT_ITEM,
                     uid_of(e, take_row(e, LTDIC_APPLICATION_CONTEXT)));
        } else {
            encode_unknown(e, LTDIC_UNKNOWN_ITEM, has_item);
        }
        put_ignored(e, IN_PDU);
    }
}

static void encode_data(encoder *e)
{
    do {
        const ltdic_item *row = take_row(e, LTDIC_PDV);
        const ltdic_bytes data = value_of(e, row);
        refuse(e, data.size > UINT32_MAX - 6, LTDIC_ERR_TOO_LARGE);
        uint8_t header[6] = {0, 0, 0, 0, row->id, row->result};
        store_u32(header, data.size + 2);
        writer_bytes(&e->w, header, sizeof header);
        writer_bytes(&e->w, data.data, data.size);
    } while (e->fault.status == LTDIC_OK && e->row < e->end);
}

/* Writes a PDU up to its first value, with its reserved bytes. Its length is stored at the end. */
static void encode_header(encoder *e, const ltdic_item *pdu)
{
    const size_t size = ltdic__values_start(e->type);
    const uint8_t *header = header_of(e, size);
    const uint8_t start[HEADER] = {e->type, header[1], 0, 0, 0, 0};
    writer_bytes(&e->w, start, sizeof start);
    if (e->type == LTDIC_ASSOCIATE_RQ || e->type == LTDIC_ASSOCIATE_AC) {
        writer_u16(&e->w, pdu->version);
    }
    writer_bytes(&e->w, header + e->w.pos, size - e->w.pos);
}

static void encode_body(encoder *e, const ltdic_item *pdu)
{
    switch (e->type) {
    case LTDIC_ASSOCIATE_RQ:
    case LTDIC_ASSOCIATE_AC:
        encode_associate(e);
        break;
    case LTDIC_ASSOCIATE_RJ:
        writer_u8(&e->w, pdu->result);
        writer_u8(&e->w, pdu->source);
        writer_u8(&e->w, pdu->reason);
        break;
    case LTDIC_DATA_TF:
        encode_data(e);
        break;
    case LTDIC_ABORT:
        writer_u8(&e->w, pdu->source);
        writer_u8(&e->w, pdu->reason);
        break;
    default: /* RELEASE: reserved bytes alone */
        break;
    }
    if (e->row < e->end) {
        take_row(e, 0); /* a row is left: a fault, as no row has this kind */
    }
}

static void encode_pdu(encoder *e)
{
    const ltdic_item *pdu = take_row(e, LTDIC_PDU);
    const bool known = pdu->type >= LTDIC_ASSOCIATE_RQ && pdu->type <= LTDIC_ABORT;
    refuse(e, !known, LTDIC_ERR_BAD_VALUE);
    if (known) {
        e->type = pdu->type;
        e->exact = next_is(e, LTDIC_HEADER);
        encode_header(e, pdu);
        encode_body(e, pdu);
        refuse(e, e->w.pos - HEADER > UINT32_MAX, LTDIC_ERR_TOO_LARGE);
    }
}

/* Tells whether a row is that of a PDU of fixed size, which has codes alone. */
static bool is_fixed(const ltdic_item *row)
{
    return row->kind == LTDIC_PDU && row->type >= LTDIC_ASSOCIATE_RJ && row->type <= LTDIC_ABORT &&
           row->type != LTDIC_DATA_TF;
}

static void encode_fixed(ltdic_buffer *out, const ltdic_item *row)
{
    const bool reject = row->type == LTDIC_ASSOCIATE_RJ, abort = row->type == LTDIC_ABORT;
    const uint8_t pdu[LTDIC_FIXED_PDU_SIZE] = {
        row->type,
        0,
        0,
        0,
        0,
        4,
        0,
        reject ? row->result : 0,
        reject || abort ? row->source : 0,
        reject || abort ? row->reason : 0,
    };
    memcpy(out->data, pdu, sizeof pdu);
    out->size = sizeof pdu;
}

int ltdic_encode(ltdic_buffer *out, const ltdic_items *rows, ltdic_bytes values, ltdic_fault *fault)
{
    out->size = 0;
    if (rows->count == 0) {
        return ltdic__fault_at(fault, LTDIC_ERR_BAD_VALUE, 0, 0);
    }
    if (rows->count == 1 && is_fixed(rows->items) && out->room >= LTDIC_FIXED_PDU_SIZE) {
        encode_fixed(out, rows->items);
        return ltdic__fault_at(fault, LTDIC_OK, 0, 0);
    }
    encoder e = {
        .w = {out->data, out->room, 0},
        .row = rows->items,
        .end = rows->items + rows->count,
        .first = rows->items,
        .values = values,
    };
    encode_pdu(&e);
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
