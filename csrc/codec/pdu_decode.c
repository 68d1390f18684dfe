/* SPDX-License-Identifier: MIT */
/* Decodes PDUs into rows (PS3.8 9.3, PS3.7 D.3.3). Checks are made in the order of the bytes. */
#include "framing.h"
#include "items.h"
#include "text.h"

static inline ltdic_bytes without_pad(ltdic_bytes uid)
{
    if (uid.size > 0 && uid.size % 2 == 0 && uid.data[uid.size - 1] == 0) {
        uid.size--;
    }
    return uid;
}

/* Offsets of the sub-items 54, 56 and 57 in an item 50, to find repeated UIDs. The smallest one has
 * seven bytes: its header (4), the length of the UID (2), the UID. */
enum { SUB_ITEMS_WITH_UID = UINT16_MAX / 7 };

typedef struct uid_list {
    const uint8_t *base; /* start of the item's value */
    size_t count;
    uint16_t at[SUB_ITEMS_WITH_UID];
} uid_list;

/* Rows that are written. Those beyond `room` are only counted. */
typedef struct rows {
    ltdic_item *items;
    size_t count, room;
    ltdic_item spare; /* written in place of a row that is not kept */
} rows;

static ALWAYS_INLINE void set_row(ltdic_item *row, uint8_t kind, uint8_t type, size_t offset,
                                  size_t size)
{
    *row = (ltdic_item){
        .offset = (uint32_t)offset,
        .length = (uint32_t)size,
        .kind = kind,
        .type = type,
    };
}

static ALWAYS_INLINE ltdic_item *add_row(rows *r, uint8_t kind, uint8_t type, size_t offset,
                                         size_t size)
{
    ltdic_item *row = r->count < r->room ? &r->items[r->count] : &r->spare;
    r->count++;
    set_row(row, kind, type, offset, size);
    return row;
}

/* State of decoding an A-ASSOCIATE-RQ or -AC. */
typedef struct decoder {
    ltdic_fault fault;
    rows out;
    const uint8_t *base;
    uint8_t type;    /* PDU type */
    uint8_t context; /* type of its presentation context items: 20 or 21 */
    bool strict, exact;
    bool silent;     /* no rows are kept: after a fault, or in an item that is ignored */
    uint8_t rank;    /* last item's place in the order 10 (1), 20 or 21 (2), 50 (3) */
    uint32_t seen;   /* kinds of items met so far: SEEN_ bits */
    uint32_t ids[8]; /* context ids met so far: a bit for each */
    uid_list *uids;  /* filled in strict mode */
} decoder;

/* ---- faults: the first one is kept */

static bool failed(const decoder *d)
{
    return d->fault.status != LTDIC_OK;
}

static void fail(decoder *d, int status, size_t offset)
{
    if (!failed(d)) {
        d->fault.status = status;
        d->fault.offset = offset;
        d->silent = true;
    }
}

/* Records a fault of strict mode. */
static inline void forbid(decoder *d, bool wrong, int status, size_t offset)
{
    if (wrong && d->strict) {
        fail(d, status, offset);
    }
}

/* ---- reading */

/* The part of a PDU that is still to be read, as offsets. After a fault, reads give zeros. */
typedef struct cursor {
    size_t pos, end;
} cursor;

static inline size_t left_in(const cursor *c)
{
    return c->end - c->pos;
}

static inline ltdic_bytes slice(const decoder *d, const cursor *c)
{
    return (ltdic_bytes){d->base + c->pos, left_in(c)};
}

/* Reads the next n bytes. Returns NULL if there are fewer; that is a fault at their position. */
static const uint8_t *take(decoder *d, cursor *c, size_t n)
{
    if (failed(d) || n > left_in(c)) {
        fail(d, LTDIC_ERR_ITEM_OVERRUN, c->pos);
        return NULL;
    }
    const uint8_t *p = d->base + c->pos;
    c->pos += n;
    return p;
}

static uint8_t take_u8(decoder *d, cursor *c)
{
    const uint8_t *p = take(d, c, 1);
    return p == NULL ? 0 : *p;
}

static uint32_t take_u16(decoder *d, cursor *c)
{
    const uint8_t *p = take(d, c, 2);
    return p == NULL ? 0 : load_u16(p);
}

/* Reads a length field of two bytes and returns a cursor over the bytes that it counts. `reserve`
 * bytes must be left after those. Too few bytes are a fault of the length field. */
static cursor take_counted(decoder *d, cursor *c, size_t reserve)
{
    const size_t field = c->pos;
    const size_t length = take_u16(d, c);
    if (length + reserve > left_in(c)) { /* both are small */
        fail(d, LTDIC_ERR_ITEM_OVERRUN, field);
    }
    const cursor counted = {c->pos, failed(d) ? c->pos : c->pos + length};
    c->pos = counted.end;
    return counted;
}

/* An item or sub-item and a cursor over its value (PS3.8 9.3.2). */
typedef struct item {
    uint8_t type, second;
    size_t at;
    cursor value;
} item;

/* Reads the next item of a container. Returns false at its end and after a fault. */
static ALWAYS_INLINE bool next_item(decoder *d, cursor *c, item *i)
{
    const size_t at = c->pos, left = c->end - at;
    if (left < ITEM_HEADER || failed(d)) {
        if (left > 0) {
            fail(d, LTDIC_ERR_ITEM_OVERRUN, at);
        }
        return false;
    }
    const uint8_t *header = d->base + at;
    const size_t length = load_u16(header + 2);
    if (length > left - ITEM_HEADER) {
        fail(d, LTDIC_ERR_ITEM_OVERRUN, at + 2);
        return false;
    }
    c->pos = at + ITEM_HEADER + length;
    *i = (item){header[0], header[1], at, {at + ITEM_HEADER, c->pos}};
    return true;
}

/* Checks that the value of an item has at least `length` bytes. Returns false after any fault. */
static inline bool least(decoder *d, const item *i, size_t length)
{
    if (left_in(&i->value) < length) {
        fail(d, LTDIC_ERR_BAD_LENGTH, i->at + 2);
    }
    return !failed(d);
}

/* ---- rows */

/* Appends a row and returns it, so that the caller can set the fields that not every row has. */
static ALWAYS_INLINE ltdic_item *emit(decoder *d, uint8_t kind, uint8_t type, ltdic_bytes value)
{
    const size_t offset = (size_t)(value.data - d->base);
    if (!d->silent) {
        return add_row(&d->out, kind, type, offset, value.size);
    }
    set_row(&d->out.spare, kind, type, offset, value.size);
    return &d->out.spare;
}

/* Appends the row of an item and, in exact mode, the row of its header. */
static ALWAYS_INLINE ltdic_item *emit_item(decoder *d, uint8_t kind, const item *i,
                                           ltdic_bytes value)
{
    ltdic_item *row = emit(d, kind, i->type, value);
    if (d->exact) {
        const size_t size = kind == LTDIC_CONTEXT ? CONTEXT_HEADER : ITEM_HEADER;
        emit(d, LTDIC_HEADER, 0, (ltdic_bytes){d->base + i->at, size});
    }
    return row;
}

/* Appends, in exact mode, a row of bytes that have no meaning. */
static inline void ignore(decoder *d, uint8_t where, size_t from, size_t to)
{
    if (d->exact && to > from) {
        emit(d, LTDIC_IGNORED, 0, (ltdic_bytes){d->base + from, to - from})->id = where;
    }
}

/* Notes an item of which one is allowed. Returns true if there was one before: the first counts. */
static bool repeated(decoder *d, size_t at, uint32_t bit)
{
    const bool again = (d->seen & bit) != 0;
    forbid(d, again, LTDIC_ERR_DUPLICATE_ITEM, at);
    d->seen |= bit;
    return again;
}

/* Ends the reading of an item without rows: in exact mode its bytes get one row, LTDIC_IGNORED. */
static void ignore_item(decoder *d, uint8_t where, size_t from, size_t to)
{
    d->silent = failed(d);
    ignore(d, where, from, to);
}

/* Records the fault of a UID that is not legal, and returns its text for lenient mode. */
static ltdic_bytes forbid_uid(decoder *d, ltdic_bytes whole, ltdic_bytes uid, size_t field)
{
    forbid(d, uid.size == 0 || uid.size > UID_MAX, LTDIC_ERR_BAD_VALUE, field);
    forbid(d, true, LTDIC_ERR_BAD_VALUE, (size_t)(whole.data - d->base));
    return d->exact ? whole : ltdic__trimmed(uid);
}

/* Checks a UID and returns its text. `field` is the offset of its length; `padded`: one NUL at the
 * end is legal (PS3.5 9.1). */
static ALWAYS_INLINE ltdic_bytes read_uid(decoder *d, ltdic_bytes whole, size_t field, bool padded)
{
    const ltdic_bytes uid = padded ? without_pad(whole) : whole;
    if (!uid_is_legal(uid)) {
        return forbid_uid(d, whole, uid, field);
    }
    return d->exact ? whole : uid;
}

static void decode_uid(decoder *d, item i, uint8_t kind, bool padded)
{
    emit_item(d, kind, &i, read_uid(d, slice(d, &i.value), i.at + 2, padded));
}

/* ---- presentation contexts (PS3.8 9.3.2.2, 9.3.3.2) */

enum { SEEN_ABSTRACT = 1, SEEN_TRANSFER = 2 };

/* Decodes a sub-item of a context; `seen` has bits for the kinds before it. */
static ALWAYS_INLINE void decode_syntax(decoder *d, item *i, bool proposed, uint32_t *seen)
{
    bool ignored = true;
    if (i->type == ABSTRACT_SYNTAX) {
        forbid(d, !proposed, LTDIC_ERR_UNEXPECTED_ITEM, i->at);
        forbid(d, (*seen & SEEN_ABSTRACT) != 0, LTDIC_ERR_DUPLICATE_ITEM, i->at);
        forbid(d, (*seen & SEEN_TRANSFER) != 0, LTDIC_ERR_BAD_ORDER, i->at);
        ignored = !proposed || (*seen & SEEN_ABSTRACT) != 0;
        *seen |= SEEN_ABSTRACT;
    } else if (i->type == TRANSFER_SYNTAX) {
        ignored = !proposed && (*seen & SEEN_TRANSFER) != 0;
        forbid(d, ignored, LTDIC_ERR_DUPLICATE_ITEM, i->at);
        *seen |= SEEN_TRANSFER;
    }
    if (ignored) {
        ignore(d, IN_ITEM, i->at, i->value.end);
    } else {
        const uint8_t kind =
            i->type == ABSTRACT_SYNTAX ? LTDIC_ABSTRACT_SYNTAX : LTDIC_TRANSFER_SYNTAX;
        emit_item(d, kind, i, read_uid(d, slice(d, &i->value), i->at + 2, false));
    }
}

static ALWAYS_INLINE void decode_syntaxes(decoder *d, item *context)
{
    const bool proposed = context->type == PROPOSED;
    uint32_t seen = 0;
    item i;
    while (next_item(d, &context->value, &i)) {
        decode_syntax(d, &i, proposed, &seen);
    }
    const bool complete = (seen & SEEN_TRANSFER) != 0 && (!proposed || (seen & SEEN_ABSTRACT) != 0);
    forbid(d, !complete, LTDIC_ERR_MISSING_ITEM, context->at);
}

static ALWAYS_INLINE void decode_context(decoder *d, item *i)
{
    if (!least(d, i, 4)) {
        return;
    }
    const size_t at = i->value.pos;
    const ltdic_bytes value = slice(d, &i->value);
    const uint8_t id = value.data[0];
    const uint8_t result = i->type == ANSWERED ? value.data[2] : 0;
    const uint32_t bit = 1U << id % 32;
    forbid(d, id % 2 == 0, LTDIC_ERR_BAD_VALUE, at);
    forbid(d, (d->ids[id / 32] & bit) != 0, LTDIC_ERR_DUPLICATE_ITEM, i->at);
    forbid(d, result > 4, LTDIC_ERR_BAD_VALUE, at + 2);
    d->ids[id / 32] |= bit;
    ltdic_item *row = emit_item(d, LTDIC_CONTEXT, i, value);
    row->id = id;
    row->result = result;
    i->value.pos += 4;
    if (result == 0) {
        decode_syntaxes(d, i);
    } else { /* the transfer syntax is not significant and not to be tested (PS3.8 9.3.3.2) */
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

/* Forbids bytes in a sub-item after its last field. */
static void forbid_rest(decoder *d, const cursor *c)
{
    forbid(d, left_in(c) > 0, LTDIC_ERR_TRAILING_BYTES, c->pos);
}

static void ignore_rest(decoder *d, const cursor *c)
{
    ignore(d, IN_SUB_ITEM, c->pos, c->end);
}

/* Decodes a sub-item whose value is four bytes; lenient mode ignores more. */
static void decode_four_bytes(decoder *d, item *i, uint8_t kind)
{
    if (!least(d, i, 4)) {
        return;
    }
    forbid(d, left_in(&i->value) > 4, LTDIC_ERR_BAD_LENGTH, i->at + 2);
    emit_item(d, kind, i, (ltdic_bytes){slice(d, &i->value).data, 4});
    take(d, &i->value, 4);
    ignore_rest(d, &i->value);
}

static void decode_version_name(decoder *d, item *i)
{
    const ltdic_bytes name = slice(d, &i->value);
    forbid(d, name.size == 0 || name.size > 16, LTDIC_ERR_BAD_VALUE, i->at + 2);
    const bool legal = name_is_legal(name);
    forbid(d, !legal, LTDIC_ERR_BAD_VALUE, i->value.pos);
    emit_item(d, LTDIC_VERSION_NAME, i, d->exact || legal ? name : ltdic__until_nul(name));
}

/* Reads a UID after a length field of its own. `reserve` bytes must be left after it. */
static ltdic_bytes read_counted_uid(decoder *d, cursor *c, size_t reserve)
{
    const size_t field = c->pos;
    const cursor uid = take_counted(d, c, reserve);
    if (failed(d)) {
        return (ltdic_bytes){d->base, 0};
    }
    return read_uid(d, slice(d, &uid), field, true);
}

static ltdic_bytes uid_of_sub_item(const uint8_t *sub_item)
{
    return without_pad((ltdic_bytes){sub_item + 6, load_u16(sub_item + 4)});
}

static void remember_uid(decoder *d, const item *i)
{
    if (d->strict && !failed(d)) {
        d->uids->at[d->uids->count++] = (uint16_t)(d->base + i->at - d->uids->base);
    }
}

static void decode_role(decoder *d, item *i)
{
    cursor *c = &i->value;
    if (!least(d, i, 4)) {
        return;
    }
    const ltdic_bytes uid = read_counted_uid(d, c, 2);
    const size_t at = c->pos;
    const uint8_t scu = take_u8(d, c);
    const uint8_t scp = take_u8(d, c);
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
    if (!least(d, i, 2)) {
        return;
    }
    const ltdic_bytes uid = read_counted_uid(d, &i->value, 0);
    remember_uid(d, i);
    emit_item(d, LTDIC_EXTENDED, i, uid);
    emit(d, LTDIC_EXTENDED_INFO, 0, slice(d, &i->value));
}

static void decode_common_extended(decoder *d, item *i)
{
    cursor *c = &i->value;
    if (!least(d, i, 6)) {
        return;
    }
    const ltdic_bytes sop_class = read_counted_uid(d, c, 0);
    emit_item(d, LTDIC_COMMON_EXTENDED, i, sop_class)->version = i->second;
    emit(d, LTDIC_COMMON_SERVICE, 0, read_counted_uid(d, c, 0));
    cursor related = take_counted(d, c, 0);
    while (!failed(d) && left_in(&related) > 0) {
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
    if (!least(d, i, 6)) {
        return;
    }
    const size_t at = c->pos;
    const uint8_t type = take_u8(d, c);
    const uint8_t response = take_u8(d, c);
    forbid(d, type < 1 || type > 5, LTDIC_ERR_BAD_VALUE, at);
    forbid(d, response > 1, LTDIC_ERR_BAD_VALUE, at + 1);
    const cursor primary = take_counted(d, c, 2);
    const cursor second = take_counted(d, c, 0);
    forbid(d, type != 2 && left_in(&second) > 0, LTDIC_ERR_BAD_VALUE, second.pos - 2);
    forbid_rest(d, c);
    ltdic_item *row = emit_item(d, LTDIC_USER_IDENTITY, i, slice(d, &primary));
    row->id = type;
    row->result = response;
    emit(d, LTDIC_USER_IDENTITY_SECOND, 0, slice(d, &second));
    ignore_rest(d, c);
}

static void decode_identity_response(decoder *d, item *i)
{
    if (!least(d, i, 2)) {
        return;
    }
    const cursor response = take_counted(d, &i->value, 0);
    forbid_rest(d, &i->value);
    emit_item(d, LTDIC_USER_IDENTITY_RESPONSE, i, slice(d, &response));
    ignore_rest(d, &i->value);
}

/* Tells whether a sub-item belongs in the other PDU: 57 and 58 in an RQ, 59 in an AC. It is then
 * decoded as an unknown one. */
static bool sub_item_is_foreign(const decoder *d, uint8_t type)
{
    return d->type == LTDIC_ASSOCIATE_RQ ? type == USER_IDENTITY_RESPONSE
                                         : type == COMMON_EXTENDED || type == USER_IDENTITY;
}

/* Returns the SEEN_ bit of a sub-item that may occur once, 0 for the others. */
static uint32_t single(uint8_t type)
{
    switch (type) {
    case MAX_LENGTH:
        return SEEN_51;
    case CLASS_UID:
        return SEEN_52;
    case ASYNC_OPERATIONS:
        return SEEN_53;
    case VERSION_NAME:
        return SEEN_55;
    case USER_IDENTITY:
        return SEEN_58;
    case USER_IDENTITY_RESPONSE:
        return SEEN_59;
    default:
        return 0;
    }
}

static void decode_known_sub_item(decoder *d, item *i, uint8_t type)
{
    switch (type) {
    case MAX_LENGTH:
        decode_four_bytes(d, i, LTDIC_MAX_LENGTH);
        break;
    case CLASS_UID:
        decode_uid(d, *i, LTDIC_CLASS_UID, true);
        break;
    case ASYNC_OPERATIONS:
        decode_four_bytes(d, i, LTDIC_ASYNC_OPERATIONS);
        break;
    case ROLE:
        decode_role(d, i);
        break;
    case VERSION_NAME:
        decode_version_name(d, i);
        break;
    case EXTENDED:
        decode_extended(d, i);
        break;
    case COMMON_EXTENDED:
        decode_common_extended(d, i);
        break;
    case USER_IDENTITY:
        decode_identity(d, i);
        break;
    case USER_IDENTITY_RESPONSE:
        decode_identity_response(d, i);
        break;
    default:
        emit_item(d, LTDIC_UNKNOWN_SUB_ITEM, i, slice(d, &i->value));
    }
}

static void decode_sub_item(decoder *d, item *i)
{
    const bool foreign = sub_item_is_foreign(d, i->type);
    const uint8_t type = foreign ? 0 : i->type;
    forbid(d, foreign, LTDIC_ERR_UNEXPECTED_ITEM, i->at);
    const bool again = repeated(d, i->at, single(type));
    d->silent |= again;
    decode_known_sub_item(d, i, type);
    if (again) {
        ignore_item(d, IN_ITEM, i->at, i->value.end);
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

/* Orders sub-items by type and UID, and equal ones by offset. */
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

/* Sorts as a heap: no input makes it slow, while a peer can choose UIDs that collide in a hash
 * table.
 */
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

/* Records the first repeated UID. It replaces a fault met since: UIDs are only remembered until the
 * first fault, so the repeat stands before it. */
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
        d->fault.status = LTDIC_OK;
        fail(d, LTDIC_ERR_DUPLICATE_ITEM, (size_t)(l->base - d->base) + first);
    }
}

static void decode_user_information(decoder *d, item whole)
{
    const uint32_t required = SEEN_51 | SEEN_52;
    uid_list uids;
    uids.base = slice(d, &whole.value).data;
    uids.count = 0;
    d->uids = &uids;
    item i;
    emit_item(d, LTDIC_USER_INFORMATION, &whole, slice(d, &whole.value));
    while (next_item(d, &whole.value, &i)) {
        decode_sub_item(d, &i);
    }
    forbid_repeated_uids(d, &uids);
    forbid(d, (d->seen & required) != required, LTDIC_ERR_MISSING_ITEM, whole.at);
}

/* ---- A-ASSOCIATE-RQ and -AC (PS3.8 9.3.2, 9.3.3) */

static inline void forbid_disorder(decoder *d, const item *i, uint8_t rank)
{
    forbid(d, rank < d->rank, LTDIC_ERR_BAD_ORDER, i->at);
    d->rank = rank;
}

static ALWAYS_INLINE void decode_item(decoder *d, item *i)
{
    bool again = false;
    if (i->type == d->context) {
        if (d->rank != 2) { /* the item before it was no context */
            d->seen |= SEEN_CONTEXT;
            forbid_disorder(d, i, 2);
        }
        decode_context(d, i);
    } else if (i->type == APPLICATION_CONTEXT_ITEM) {
        again = repeated(d, i->at, SEEN_10);
        d->silent |= again;
        forbid_disorder(d, i, 1);
        decode_uid(d, *i, LTDIC_APPLICATION_CONTEXT, false);
    } else if (i->type == USER_INFORMATION) {
        repeated(d, i->at, SEEN_50); /* in lenient mode the sub-items of all of them count */
        forbid_disorder(d, i, 3);
        decode_user_information(d, *i);
    } else {
        forbid(d, i->type == PROPOSED || i->type == ANSWERED, LTDIC_ERR_UNEXPECTED_ITEM, i->at);
        emit_item(d, LTDIC_UNKNOWN_ITEM, i, slice(d, &i->value));
    }
    if (again) {
        ignore_item(d, IN_PDU, i->at, i->value.end);
    }
}

/* Decodes a title. Strict mode checks those of an RQ; those of an AC are reserved and not to be
 * tested (PS3.8 9.3.3). */
static void decode_title(decoder *d, cursor *c, uint8_t kind)
{
    const size_t at = c->pos;
    const ltdic_bytes field = {take(d, c, TITLE_SIZE), TITLE_SIZE};
    if (field.data == NULL) { /* after a fault of the title before */
        return;
    }
    ltdic_bytes title = ltdic__without_spaces(field);
    if (!d->strict || d->type != LTDIC_ASSOCIATE_RQ) {
        title = ltdic__trimmed(field);
    } else { /* spaces are legal, so the whole field can be checked */
        forbid(d, title.size == 0 || !title_is_printable(field.data), LTDIC_ERR_BAD_VALUE, at);
    }
    emit(d, kind, 0, d->exact ? field : title);
}

static void decode_associate(decoder *d, cursor c, ltdic_item *row)
{
    const uint32_t required = SEEN_10 | SEEN_CONTEXT | SEEN_50;
    item i;
    row->version = (uint16_t)take_u16(d, &c);
    take(d, &c, 2);
    decode_title(d, &c, LTDIC_CALLED_AE);
    decode_title(d, &c, LTDIC_CALLING_AE);
    ignore(d, IN_PDU, c.pos, c.pos + TITLES_RESERVED);
    take(d, &c, TITLES_RESERVED);
    while (next_item(d, &c, &i)) {
        decode_item(d, &i);
    }
    forbid(d, (d->seen & required) != required, LTDIC_ERR_MISSING_ITEM, 0);
}

/* ---- all PDUs */

/* Arguments of the decoder of one PDU type: the rows so far, and the row of the PDU. */
typedef struct task {
    rows out;
    ltdic_item *row;
    ltdic_bytes pdu;
    const ltdic_options *options;
    ltdic_fault *fault;
} task;

static void decode_associate_pdu(task *t)
{
    decoder d; /* each field is set alone: zeroing it first takes longer than a small PDU */
    d.fault = (ltdic_fault){0};
    d.out = t->out;
    d.base = t->pdu.data;
    d.type = t->pdu.data[0];
    d.context = d.type == LTDIC_ASSOCIATE_RQ ? PROPOSED : ANSWERED;
    d.strict = t->options->strict != 0;
    d.exact = t->options->exact != 0;
    d.silent = false;
    d.rank = 0;
    d.seen = 0;
    memset(d.ids, 0, sizeof d.ids);
    decode_associate(&d, (cursor){HEADER, t->pdu.size}, t->row);
    t->out.count = d.out.count;
    *t->fault = d.fault;
}

/* Checks the PDV at `at` (PS3.8 9.3.5.1; annex E.1: fragments are even) and appends its row.
 * Returns its status. */
static int decode_pdv(task *t, size_t at, uint32_t length)
{
    const uint8_t *pdv = t->pdu.data + at;
    if (length < 2) {
        return ltdic__fault_at(t->fault, LTDIC_ERR_BAD_LENGTH, at, 0);
    }
    if (t->options->strict && (length % 2 != 0 || pdv[4] % 2 == 0)) {
        const size_t wrong = length % 2 != 0 ? at : at + 4;
        return ltdic__fault_at(t->fault, LTDIC_ERR_BAD_VALUE, wrong, 0);
    }
    ltdic_item *row = add_row(&t->out, LTDIC_PDV, 0, at + 6, length - 2);
    row->id = pdv[4];
    row->result = pdv[5];
    return LTDIC_OK;
}

static void decode_data(task *t)
{
    size_t at = HEADER;
    while (at < t->pdu.size) {
        const size_t left = t->pdu.size - at;
        const uint32_t length = left < 4 ? 0 : load_u32(t->pdu.data + at);
        if (left < 4 || length > left - 4) {
            ltdic__fault_at(t->fault, LTDIC_ERR_ITEM_OVERRUN, at, 0);
            return;
        }
        if (decode_pdv(t, at, length) != LTDIC_OK) {
            return;
        }
        at += 4 + (size_t)length;
    }
}

/* Reasons that PS3.8 table 9-21 lists, reserved ones too: for each source, a bit for each reason.
 */
static const uint16_t reasons_listed[4] = {0, 0x07FE, 0x0006, 0x00FF};

/* Decodes an A-ASSOCIATE-RJ (PS3.8 9.3.4). Strict mode refuses codes that are not listed. */
static void decode_reject(task *t)
{
    const uint8_t *pdu = t->pdu.data;
    const uint8_t result = pdu[7], source = pdu[8], reason = pdu[9];
    t->row->result = result;
    t->row->source = source;
    t->row->reason = reason;
    const size_t wrong = result < 1 || result > 2                   ? 7
                         : source < 1 || source > 3                 ? 8
                         : !has_bit(reasons_listed[source], reason) ? 9
                                                                    : 0;
    if (wrong > 0 && t->options->strict) {
        ltdic__fault_at(t->fault, LTDIC_ERR_BAD_VALUE, wrong, 0);
    }
}

/* Decodes an A-ABORT (PS3.8 9.3.8). Only the reason of a service-provider is significant. */
static void decode_abort(task *t)
{
    const uint8_t source = t->pdu.data[8], reason = t->pdu.data[9];
    t->row->source = source;
    t->row->reason = reason;
    const size_t wrong = source > 2 ? 8 : source == 2 && reason > 6 ? 9 : 0;
    if (wrong > 0 && t->options->strict) {
        ltdic__fault_at(t->fault, LTDIC_ERR_BAD_VALUE, wrong, 0);
    }
}

static void decode_by_type(task *t)
{
    switch (t->pdu.data[0]) {
    case LTDIC_ASSOCIATE_RQ:
    case LTDIC_ASSOCIATE_AC:
        decode_associate_pdu(t);
        break;
    case LTDIC_ASSOCIATE_RJ:
        decode_reject(t);
        break;
    case LTDIC_DATA_TF:
        decode_data(t);
        break;
    case LTDIC_ABORT:
        decode_abort(t);
        break;
    default: /* RELEASE: four reserved bytes */
        break;
    }
}

int ltdic_decode(ltdic_items *out, ltdic_bytes in, const ltdic_options *options, ltdic_fault *fault)
{
    ltdic_options room;
    task t = {.options = ltdic__effective(options, &room), .fault = fault};
    if (out != NULL) {
        out->count = 0;
        t.out.items = out->items;
        t.out.room = out->room;
    }
    if (frame(&t.pdu, in, t.options, fault) != LTDIC_OK) {
        return fault->status;
    }
    t.row = add_row(&t.out, LTDIC_PDU, in.data[0], HEADER, t.pdu.size - HEADER);
    if (t.options->exact) {
        add_row(&t.out, LTDIC_HEADER, 0, 0, ltdic__values_start(in.data[0]));
    }
    decode_by_type(&t);
    if (out != NULL) {
        const bool full = t.out.count > out->room;
        out->count = full && fault->status != LTDIC_OK ? out->room : t.out.count;
        fault->status = full && fault->status == LTDIC_OK ? LTDIC_ERR_ROOM : fault->status;
    }
    return fault->status;
}

int ltdic_next_pdv(ltdic_bytes *rest, ltdic_pdv *pdv)
{
    if (rest->size < 6) {
        return LTDIC_NEED_MORE;
    }
    const size_t length = load_u32(rest->data);
    pdv->id = rest->data[4];
    pdv->control = rest->data[5];
    pdv->data = (ltdic_bytes){rest->data + 6, length - 2};
    rest->data += 4 + length;
    rest->size -= 4 + length;
    return LTDIC_OK;
}
