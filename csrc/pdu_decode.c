/* SPDX-License-Identifier: MIT */
/* From bytes to rows: PS3.8 9.3, PS3.7 D.3.3. Every check stands in the order of the bytes. */
#include "bytes.h"
#include "internal.h"

static ltdic_bytes without_pad(ltdic_bytes uid)
{
    if (uid.size > 0 && uid.size % 2 == 0 && uid.data[uid.size - 1] == 0) {
        uid.size--;
    }
    return uid;
}

/* Where in an item 50 the sub-items 54, 56 and 57 are, to find repeated UIDs. */
enum { SUB_ITEMS_WITH_UID = UINT16_MAX / 7 }; /* no more fit: four bytes, two of length, a UID */

typedef struct uid_list {
    const uint8_t *base; /* of the item's value */
    size_t count;
    uint16_t at[SUB_ITEMS_WITH_UID];
} uid_list;

typedef struct decoder {
    ltdic_fault fault;
    ltdic_items *out; /* NULL: check only */
    ltdic_item spare; /* takes the rows nobody wants */
    const uint8_t *base;
    uint8_t type; /* of the PDU */
    bool strict, exact;
    bool muted;      /* inside an item that does not count */
    uint8_t rank;    /* of the last item in the order 10, 20 or 21, 50 */
    uint32_t seen;   /* single items met so far: a bit for each */
    uint32_t ids[8]; /* context ids met so far: a bit for each */
    uid_list *uids;  /* when strict */
} decoder;

/* An item or sub-item and a cursor over its value (PS3.8 9.3.2). */
typedef struct item {
    uint8_t type, second;
    size_t at;
    cursor value;
} item;

static cursor cursor_over(decoder *d, size_t pos, size_t end)
{
    return (cursor){d->base, pos, end, &d->fault};
}

static ltdic_bytes slice(const cursor *c)
{
    return (ltdic_bytes){c->base + c->pos, cursor_left(c)};
}

/* False at the end of the container and after a fault. */
static bool next_item(cursor *c, item *i)
{
    if (cursor_failed(c) || cursor_left(c) == 0) {
        return false;
    }
    if (cursor_left(c) < ITEM_HEADER) {
        cursor_fail(c, LTDIC_ERR_ITEM_OVERRUN, c->pos);
        return false;
    }
    i->at = c->pos;
    i->type = cursor_u8(c);
    i->second = cursor_u8(c);
    i->value = cursor_counted(c, 0);
    return !cursor_failed(c);
}

static bool least(item *i, size_t length)
{
    if (cursor_left(&i->value) < length) {
        cursor_fail(&i->value, LTDIC_ERR_BAD_LENGTH, i->at + 2);
    }
    return !cursor_failed(&i->value);
}

/* A fault that only strict mode finds. */
static void forbid(decoder *d, bool wrong, int status, size_t offset)
{
    if (wrong && d->strict && d->fault.status == LTDIC_OK) {
        d->fault.status = status;
        d->fault.offset = offset;
    }
}

/* Append a row and return it, for the fields that not every row has. */
static ltdic_item *emit(decoder *d, uint8_t kind, uint8_t type, ltdic_bytes value)
{
    static const ltdic_item empty;
    ltdic_item *row = &d->spare;
    if (d->out != NULL && !d->muted && d->fault.status == LTDIC_OK) {
        if (d->out->count < d->out->room) {
            row = &d->out->items[d->out->count];
        }
        d->out->count++;
    }
    *row = empty;
    row->kind = kind;
    row->type = type;
    row->offset = (uint32_t)(value.data - d->base);
    row->length = (uint32_t)value.size;
    return row;
}

/* The row of an item and, when exact, that of its header. */
static ltdic_item *emit_item(decoder *d, uint8_t kind, const item *i, ltdic_bytes value)
{
    ltdic_item *row = emit(d, kind, i->type, value);
    if (d->exact) {
        const size_t size = kind == LTDIC_CONTEXT ? CONTEXT_HEADER : ITEM_HEADER;
        emit(d, LTDIC_HEADER, 0, (ltdic_bytes){d->base + i->at, size});
    }
    return row;
}

/* Where bytes that mean nothing are: the `id` of their row. */
enum { IN_PDU = 0, IN_ITEM = 1, IN_SUB_ITEM = 2 };

static void ignore(decoder *d, uint8_t where, size_t from, size_t to)
{
    if (d->exact && to > from) {
        emit(d, LTDIC_IGNORED, 0, (ltdic_bytes){d->base + from, to - from})->id = where;
    }
}

/* Was there one before? Where only one is allowed, the first counts. */
static bool repeated(decoder *d, const item *i, uint32_t bit)
{
    const bool again = (d->seen & bit) != 0;
    forbid(d, again, LTDIC_ERR_DUPLICATE_ITEM, i->at);
    d->seen |= bit;
    return again;
}

/* The UID in c. `field` is the offset of its length; a pad is legal where PS3.5 is the rule. */
static ltdic_bytes read_uid(decoder *d, const cursor *c, size_t field, bool padded)
{
    const ltdic_bytes whole = slice(c);
    const ltdic_bytes uid = padded ? without_pad(whole) : whole;
    forbid(d, uid.size == 0 || uid.size > UID_MAX, LTDIC_ERR_BAD_VALUE, field);
    forbid(d, !ltdic__uid_is_spelled_right(uid), LTDIC_ERR_BAD_VALUE, c->pos);
    return d->exact ? whole : ltdic__trimmed(uid);
}

static void decode_uid(decoder *d, item *i, uint8_t kind, bool padded)
{
    emit_item(d, kind, i, read_uid(d, &i->value, i->at + 2, padded));
}

/* ---- presentation contexts (PS3.8 9.3.2.2, 9.3.3.2) */

enum { SEEN_ABSTRACT = 1, SEEN_TRANSFER = 2 };

/* One sub-item of a context; `seen` are those before it. */
static void decode_syntax(decoder *d, item *i, bool proposed, uint32_t *seen)
{
    bool ignored = true;
    if (i->type == 0x30) {
        forbid(d, !proposed, LTDIC_ERR_UNEXPECTED_ITEM, i->at);
        forbid(d, (*seen & SEEN_ABSTRACT) != 0, LTDIC_ERR_DUPLICATE_ITEM, i->at);
        forbid(d, (*seen & SEEN_TRANSFER) != 0, LTDIC_ERR_BAD_ORDER, i->at);
        ignored = !proposed || (*seen & SEEN_ABSTRACT) != 0;
        *seen |= SEEN_ABSTRACT;
    } else if (i->type == 0x40) {
        ignored = !proposed && (*seen & SEEN_TRANSFER) != 0;
        forbid(d, ignored, LTDIC_ERR_DUPLICATE_ITEM, i->at);
        *seen |= SEEN_TRANSFER;
    }
    if (ignored) {
        ignore(d, IN_ITEM, i->at, i->value.end);
    } else {
        const uint8_t kind = i->type == 0x30 ? LTDIC_ABSTRACT_SYNTAX : LTDIC_TRANSFER_SYNTAX;
        decode_uid(d, i, kind, false);
    }
}

static void decode_syntaxes(decoder *d, item *context)
{
    const bool proposed = context->type == 0x20;
    uint32_t seen = 0;
    item i;
    while (next_item(&context->value, &i)) {
        decode_syntax(d, &i, proposed, &seen);
    }
    const bool complete = (seen & SEEN_TRANSFER) != 0 && (!proposed || (seen & SEEN_ABSTRACT) != 0);
    forbid(d, !complete, LTDIC_ERR_MISSING_ITEM, context->at);
}

static void decode_context(decoder *d, item *i)
{
    if (!least(i, 4)) {
        return;
    }
    const size_t at = i->value.pos;
    const ltdic_bytes value = slice(&i->value);
    const uint8_t id = value.data[0];
    const uint8_t result = i->type == 0x21 ? value.data[2] : 0;
    const uint32_t bit = 1U << id % 32;
    forbid(d, id % 2 == 0, LTDIC_ERR_BAD_VALUE, at);
    forbid(d, (d->ids[id / 32] & bit) != 0, LTDIC_ERR_DUPLICATE_ITEM, i->at);
    forbid(d, result > 4, LTDIC_ERR_BAD_VALUE, at + 2);
    d->ids[id / 32] |= bit;
    ltdic_item *row = emit_item(d, LTDIC_CONTEXT, i, value);
    row->id = id;
    row->result = result;
    cursor_take(&i->value, 4);
    if (result == 0) {
        decode_syntaxes(d, i);
    } else { /* the rest has no meaning and is not tested */
        ignore(d, IN_ITEM, i->value.pos, i->value.end);
    }
}

/* ---- user information (PS3.8 9.3.2.3, PS3.7 D.3.3) */

/* Bits of decoder.seen. */
enum {
    SEEN_10 = 1 << 0,
    SEEN_CONTEXT = 1 << 1,
    SEEN_50 = 1 << 2,
    SEEN_51 = 1 << 3,
    SEEN_52 = 1 << 4,
    SEEN_53 = 1 << 5,
    SEEN_55 = 1 << 6,
    SEEN_58 = 1 << 7,
    SEEN_59 = 1 << 8
};

/* What is left of a sub-item after its last field. */
static void forbid_rest(decoder *d, const cursor *c)
{
    forbid(d, cursor_left(c) > 0, LTDIC_ERR_TRAILING_BYTES, c->pos);
}

static void ignore_rest(decoder *d, const cursor *c)
{
    ignore(d, IN_SUB_ITEM, c->pos, c->end);
}

/* A sub-item of which the first four bytes count. */
static void decode_four_bytes(decoder *d, item *i, uint8_t kind)
{
    if (!least(i, 4)) {
        return;
    }
    forbid(d, cursor_left(&i->value) > 4, LTDIC_ERR_BAD_LENGTH, i->at + 2);
    emit_item(d, kind, i, (ltdic_bytes){slice(&i->value).data, 4});
    cursor_take(&i->value, 4);
    ignore_rest(d, &i->value);
}

static void decode_version_name(decoder *d, item *i)
{
    const ltdic_bytes name = slice(&i->value);
    forbid(d, name.size == 0 || name.size > 16, LTDIC_ERR_BAD_VALUE, i->at + 2);
    forbid(d, !ltdic__version_name_is_legal(name), LTDIC_ERR_BAD_VALUE, i->value.pos);
    emit_item(d, LTDIC_VERSION_NAME, i, d->exact ? name : ltdic__until_nul(name));
}

/* A UID behind a length of its own, with `reserve` bytes left after it. */
static ltdic_bytes read_counted_uid(decoder *d, cursor *c, size_t reserve)
{
    const size_t field = c->pos;
    const cursor uid = cursor_counted(c, reserve);
    if (cursor_failed(c)) {
        return (ltdic_bytes){c->base, 0};
    }
    return read_uid(d, &uid, field, true);
}

static ltdic_bytes uid_of_sub_item(const uint8_t *sub_item)
{
    return without_pad((ltdic_bytes){sub_item + 6, load_u16(sub_item + 4)});
}

static void remember_uid(decoder *d, const item *i)
{
    if (d->strict && d->fault.status == LTDIC_OK) {
        d->uids->at[d->uids->count++] = (uint16_t)(d->base + i->at - d->uids->base);
    }
}

static void decode_role(decoder *d, item *i)
{
    cursor *c = &i->value;
    if (!least(i, 4)) {
        return;
    }
    const ltdic_bytes uid = read_counted_uid(d, c, 2);
    const size_t at = c->pos;
    const uint8_t scu = cursor_u8(c);
    const uint8_t scp = cursor_u8(c);
    forbid(d, scu > 1, LTDIC_ERR_BAD_VALUE, at);
    forbid(d, scp > 1, LTDIC_ERR_BAD_VALUE, at + 1);
    forbid_rest(d, c);
    remember_uid(d, i);
    ltdic_item *row = emit_item(d, LTDIC_ROLE, i, uid);
    row->id = scu;
    row->result = scp;
    ignore_rest(d, c);
}

static void decode_extended(decoder *d, item *i)
{
    if (!least(i, 2)) {
        return;
    }
    const ltdic_bytes uid = read_counted_uid(d, &i->value, 0);
    remember_uid(d, i);
    emit_item(d, LTDIC_EXTENDED, i, uid);
    emit(d, LTDIC_EXTENDED_INFO, 0, slice(&i->value));
}

static void decode_common_extended(decoder *d, item *i)
{
    cursor *c = &i->value;
    if (!least(i, 6)) {
        return;
    }
    const ltdic_bytes sop_class = read_counted_uid(d, c, 0);
    emit_item(d, LTDIC_COMMON_EXTENDED, i, sop_class)->version = i->second;
    emit(d, LTDIC_COMMON_SERVICE, 0, read_counted_uid(d, c, 0));
    cursor related = cursor_counted(c, 0);
    while (!cursor_failed(c) && cursor_left(&related) > 0) {
        const ltdic_bytes uid = read_counted_uid(d, &related, 0);
        emit(d, LTDIC_COMMON_RELATED, 0, uid);
    }
    if (i->second == 0) { /* later versions may have more fields */
        forbid_rest(d, c);
    }
    ignore_rest(d, c);
    remember_uid(d, i);
}

static void decode_identity(decoder *d, item *i)
{
    cursor *c = &i->value;
    if (!least(i, 6)) {
        return;
    }
    const size_t at = c->pos;
    const uint8_t type = cursor_u8(c);
    const uint8_t response = cursor_u8(c);
    forbid(d, type < 1 || type > 5, LTDIC_ERR_BAD_VALUE, at);
    forbid(d, response > 1, LTDIC_ERR_BAD_VALUE, at + 1);
    const cursor primary = cursor_counted(c, 2);
    const cursor second = cursor_counted(c, 0);
    forbid(d, type != 2 && cursor_left(&second) > 0, LTDIC_ERR_BAD_VALUE, second.pos - 2);
    forbid_rest(d, c);
    ltdic_item *row = emit_item(d, LTDIC_USER_IDENTITY, i, slice(&primary));
    row->id = type;
    row->result = response;
    emit(d, LTDIC_USER_IDENTITY_SECOND, 0, slice(&second));
    ignore_rest(d, c);
}

static void decode_identity_response(decoder *d, item *i)
{
    if (!least(i, 2)) {
        return;
    }
    const cursor response = cursor_counted(&i->value, 0);
    forbid_rest(d, &i->value);
    emit_item(d, LTDIC_USER_IDENTITY_RESPONSE, i, slice(&response));
    ignore_rest(d, &i->value);
}

/* 57 and 58 belong into an RQ, 59 into an AC; elsewhere they are unknown sub-items. */
static bool sub_item_is_foreign(const decoder *d, uint8_t type)
{
    return d->type == LTDIC_ASSOCIATE_RQ ? type == 0x59 : type == 0x57 || type == 0x58;
}

/* The bit of a sub-item that may be there once; 0 for the others. */
static uint32_t single(uint8_t type)
{
    switch (type) {
    case 0x51:
        return SEEN_51;
    case 0x52:
        return SEEN_52;
    case 0x53:
        return SEEN_53;
    case 0x55:
        return SEEN_55;
    case 0x58:
        return SEEN_58;
    case 0x59:
        return SEEN_59;
    default:
        return 0;
    }
}

static void decode_known_sub_item(decoder *d, item *i, uint8_t type)
{
    switch (type) {
    case 0x51:
        decode_four_bytes(d, i, LTDIC_MAX_LENGTH);
        break;
    case 0x52:
        decode_uid(d, i, LTDIC_CLASS_UID, true);
        break;
    case 0x53:
        decode_four_bytes(d, i, LTDIC_ASYNC_OPERATIONS);
        break;
    case 0x54:
        decode_role(d, i);
        break;
    case 0x55:
        decode_version_name(d, i);
        break;
    case 0x56:
        decode_extended(d, i);
        break;
    case 0x57:
        decode_common_extended(d, i);
        break;
    case 0x58:
        decode_identity(d, i);
        break;
    case 0x59:
        decode_identity_response(d, i);
        break;
    default:
        emit_item(d, LTDIC_UNKNOWN_SUB_ITEM, i, slice(&i->value));
    }
}

static void decode_sub_item(decoder *d, item *i)
{
    const bool foreign = sub_item_is_foreign(d, i->type);
    const uint8_t type = foreign ? 0 : i->type;
    forbid(d, foreign, LTDIC_ERR_UNEXPECTED_ITEM, i->at);
    d->muted = repeated(d, i, single(type));
    decode_known_sub_item(d, i, type);
    if (d->muted) {
        d->muted = false;
        ignore(d, IN_ITEM, i->at, i->value.end);
    }
}

static int compare_uids(const uid_list *l, uint16_t a, uint16_t b)
{
    const uint8_t *x = l->base + a, *y = l->base + b;
    const ltdic_bytes u = uid_of_sub_item(x), v = uid_of_sub_item(y);
    if (*x != *y) {
        return *x - *y;
    }
    return u.size != v.size ? (u.size < v.size ? -1 : 1) : memcmp(u.data, v.data, u.size);
}

static void swap(uid_list *l, size_t i, size_t j)
{
    const uint16_t at = l->at[i];
    l->at[i] = l->at[j];
    l->at[j] = at;
}

/* By type and UID, equal ones by place. */
static bool is_before(const uid_list *l, size_t i, size_t j)
{
    const int order = compare_uids(l, l->at[i], l->at[j]);
    return order != 0 ? order < 0 : l->at[i] < l->at[j];
}

static void sift_down(uid_list *l, size_t root, size_t end)
{
    for (size_t child = 2 * root + 1; child < end; root = child, child = 2 * root + 1) {
        if (child + 1 < end && is_before(l, child, child + 1)) {
            child++;
        }
        if (!is_before(l, root, child)) {
            return;
        }
        swap(l, root, child);
    }
}

/* A heap sort: no peer can make it slow, as it could a hash table. */
static void sort_uids(uid_list *l)
{
    for (size_t root = l->count / 2; root > 0; root--) {
        sift_down(l, root - 1, l->count);
    }
    for (size_t end = l->count; end > 1; end--) {
        swap(l, 0, end - 1);
        sift_down(l, 0, end - 1);
    }
}

/* The first repeat comes before whatever fault the decoder has met since. */
static void forbid_repeated_uids(decoder *d, uid_list *l)
{
    sort_uids(l);
    uint32_t first = UINT32_MAX;
    for (size_t i = 1; i < l->count; i++) {
        if (l->at[i] < first && compare_uids(l, l->at[i - 1], l->at[i]) == 0) {
            first = l->at[i];
        }
    }
    if (first != UINT32_MAX) {
        d->fault.status = LTDIC_ERR_DUPLICATE_ITEM;
        d->fault.offset = (uint64_t)(l->base - d->base) + first;
    }
}

static void decode_user_information(decoder *d, item *user_information)
{
    const uint32_t required = SEEN_51 | SEEN_52;
    uid_list uids;
    uids.base = slice(&user_information->value).data;
    uids.count = 0;
    d->uids = &uids;
    item i;
    emit_item(d, LTDIC_USER_INFORMATION, user_information, slice(&user_information->value));
    while (next_item(&user_information->value, &i)) {
        decode_sub_item(d, &i);
    }
    forbid_repeated_uids(d, &uids);
    forbid(d, (d->seen & required) != required, LTDIC_ERR_MISSING_ITEM, user_information->at);
}

/* ---- A-ASSOCIATE-RQ and -AC (PS3.8 9.3.2, 9.3.3) */

static void forbid_disorder(decoder *d, const item *i, uint8_t rank)
{
    forbid(d, rank < d->rank, LTDIC_ERR_BAD_ORDER, i->at);
    d->rank = rank;
}

static void decode_item(decoder *d, item *i)
{
    const uint8_t context = d->type == LTDIC_ASSOCIATE_RQ ? 0x20 : 0x21;
    if (i->type == 0x10) {
        d->muted = repeated(d, i, SEEN_10);
        forbid_disorder(d, i, 1);
        decode_uid(d, i, LTDIC_APPLICATION_CONTEXT, false);
    } else if (i->type == context) {
        d->seen |= SEEN_CONTEXT;
        forbid_disorder(d, i, 2);
        decode_context(d, i);
    } else if (i->type == 0x50) {
        repeated(d, i, SEEN_50); /* the sub-items of another one follow those of the first */
        forbid_disorder(d, i, 3);
        decode_user_information(d, i);
    } else {
        forbid(d, i->type == 0x20 || i->type == 0x21, LTDIC_ERR_UNEXPECTED_ITEM, i->at);
        emit_item(d, LTDIC_UNKNOWN_ITEM, i, slice(&i->value));
    }
    if (d->muted) {
        d->muted = false;
        ignore(d, IN_PDU, i->at, i->value.end);
    }
}

/* Only the titles of an RQ are tested. */
static void decode_title(decoder *d, cursor *c, uint8_t kind)
{
    const size_t at = c->pos;
    const ltdic_bytes field = {cursor_take(c, TITLE_SIZE), TITLE_SIZE};
    if (field.data == NULL) { /* the title before this one was at fault */
        return;
    }
    ltdic_bytes title = ltdic__without_spaces(field);
    if (!d->strict || d->type != LTDIC_ASSOCIATE_RQ) {
        title = ltdic__trimmed(field);
    } else {
        forbid(d, !ltdic__title_is_legal(title), LTDIC_ERR_BAD_VALUE, at);
    }
    emit(d, kind, 0, d->exact ? field : title);
}

static void decode_associate(decoder *d, cursor c, ltdic_item *row)
{
    const uint32_t required = SEEN_10 | SEEN_CONTEXT | SEEN_50;
    item i;
    row->version = (uint16_t)cursor_u16(&c);
    cursor_take(&c, 2);
    decode_title(d, &c, LTDIC_CALLED_AE);
    decode_title(d, &c, LTDIC_CALLING_AE);
    ignore(d, IN_PDU, c.pos, c.pos + TITLES_RESERVED);
    cursor_take(&c, TITLES_RESERVED);
    while (next_item(&c, &i)) {
        decode_item(d, &i);
    }
    forbid(d, (d->seen & required) != required, LTDIC_ERR_MISSING_ITEM, 0);
}

/* ---- the others */

/* PS3.8 9.3.4; strict refuses what table 9-21 does not list. */
static void decode_reject(decoder *d, cursor c, ltdic_item *row)
{
    cursor_take(&c, 1);
    row->result = cursor_u8(&c);
    row->source = cursor_u8(&c);
    row->reason = cursor_u8(&c);
    forbid(d, row->result < 1 || row->result > 2, LTDIC_ERR_BAD_VALUE, 7);
    forbid(d, row->source < 1 || row->source > 3, LTDIC_ERR_BAD_VALUE, 8);
    forbid(d, !ltdic__reason_is_listed(row->source, row->reason), LTDIC_ERR_BAD_VALUE, 9);
}

/* PS3.8 9.3.8; the reason of a service-user is not tested. */
static void decode_abort(decoder *d, cursor c, ltdic_item *row)
{
    cursor_take(&c, 2);
    row->source = cursor_u8(&c);
    row->reason = cursor_u8(&c);
    forbid(d, row->source > 2, LTDIC_ERR_BAD_VALUE, 8);
    forbid(d, row->source == 2 && row->reason > 6, LTDIC_ERR_BAD_VALUE, 9);
}

/* PS3.8 9.3.5.1 and annex E.1 (even fragments). */
static void decode_pdv(decoder *d, const uint8_t *pdv, uint32_t length)
{
    const size_t at = (size_t)(pdv - d->base);
    forbid(d, length % 2 != 0, LTDIC_ERR_BAD_VALUE, at - 4);
    forbid(d, pdv[0] % 2 == 0, LTDIC_ERR_BAD_VALUE, at);
    ltdic_item *row = emit(d, LTDIC_PDV, 0, (ltdic_bytes){pdv + 2, length - 2});
    row->id = pdv[0];
    row->result = pdv[1];
}

static void decode_data(decoder *d, cursor c)
{
    while (!cursor_failed(&c) && cursor_left(&c) > 0) {
        const size_t at = c.pos;
        const uint8_t *field = cursor_take(&c, 4);
        const uint32_t length = field == NULL ? 0 : load_u32(field);
        if (length > cursor_left(&c)) {
            cursor_fail(&c, LTDIC_ERR_ITEM_OVERRUN, at);
        } else if (length < 2) {
            cursor_fail(&c, LTDIC_ERR_BAD_LENGTH, at);
        } else {
            decode_pdv(d, cursor_take(&c, length), length);
        }
    }
}

static void decode_body(decoder *d, cursor c)
{
    ltdic_item *row = emit(d, LTDIC_PDU, d->type, slice(&c));
    if (d->exact) {
        emit(d, LTDIC_HEADER, 0, (ltdic_bytes){d->base, ltdic__values_start(d->type)});
    }
    switch (d->type) {
    case LTDIC_ASSOCIATE_RQ:
    case LTDIC_ASSOCIATE_AC:
        decode_associate(d, c, row);
        break;
    case LTDIC_ASSOCIATE_RJ:
        decode_reject(d, c, row);
        break;
    case LTDIC_DATA_TF:
        decode_data(d, c);
        break;
    case LTDIC_ABORT:
        decode_abort(d, c, row);
        break;
    default: /* RELEASE: four reserved bytes */
        break;
    }
}

int ltdic_decode(ltdic_items *out, ltdic_bytes in, const ltdic_options *options, ltdic_fault *fault)
{
    const ltdic_options effect = ltdic__effective(options);
    ltdic_bytes pdu;
    if (out != NULL) {
        out->count = 0;
    }
    const int status = ltdic__frame(&pdu, in, &effect, fault);
    if (status != LTDIC_OK) {
        return status;
    }
    decoder d = {
        .out = out,
        .base = pdu.data,
        .type = pdu.data[0],
        .strict = effect.strict != 0,
        .exact = effect.exact != 0,
    };
    decode_body(&d, cursor_over(&d, HEADER, pdu.size));
    if (out != NULL && out->count > out->room) {
        if (d.fault.status == LTDIC_OK) {
            d.fault.status = LTDIC_ERR_ROOM;
        } else {
            out->count = out->room;
        }
    }
    *fault = d.fault;
    return fault->status;
}
