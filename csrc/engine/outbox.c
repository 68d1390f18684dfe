/* SPDX-License-Identifier: MIT */
/* Queue, loan and marks of an association's output: see outbox.h. */
#include "outbox.h"

#include "codec/bytes.h"

enum {
    MOST_PARTS = 64, /* in an ltdic_output */
    MAX_MARKS = 1024 /* for one association */
};

/* Consecutive PDUs of one type and size for which LTDIC_SENT has not been reported yet. */
typedef struct mark {
    uint64_t start, end; /* in the stream of all bytes submitted */
    uint64_t limit;      /* PDUs that end after it will never be sent; UINT64_MAX: none */
    uint32_t each;       /* size of every PDU but the last */
    uint8_t type;
} mark;

/* ---- life -------------------------------------------------------------------------------- */

/* Wipes an A-ASSOCIATE-RQ, which may hold a passcode. A chunk with the rest of a P-DATA-TF that
 * begins with the same byte is wiped, too. */
void ltdic__outbox_discard(chunk *copy)
{
    if (copy->data[0] == LTDIC_ASSOCIATE_RQ) {
        ltdic__wipe(copy->data, copy->end);
    }
    free(copy);
}

static void drop_queue(outbox *o)
{
    while (o->queue != NULL) {
        chunk *first = o->queue;
        o->queue = first->next;
        ltdic__outbox_discard(first);
    }
    o->queue_last = NULL;
    o->queued = 0;
}

void ltdic__outbox_clear(outbox *o)
{
    buffer_free(&o->marks);
    drop_queue(o);
}

void ltdic__outbox_drop(outbox *o)
{
    for (size_t at = o->marks.start; at < o->marks.end; at += sizeof(mark)) {
        mark m;
        memcpy(&m, o->marks.data + at, sizeof m);
        if (m.end > o->sent && m.limit == UINT64_MAX) {
            m.limit = o->sent;
            memcpy(o->marks.data + at, &m, sizeof m);
        }
    }
    o->sent = o->submitted;
    o->lent = (loan){.size = 0};
    drop_queue(o);
}

void ltdic__outbox_lose(outbox *o)
{
    if (!o->lost) {
        ltdic__outbox_drop(o);
        o->lost = true;
    }
}

size_t ltdic__outbox_size(const outbox *o)
{
    return o->queued + (size_t)(o->lent.size - o->lent.done);
}

/* ---- marks ------------------------------------------------------------------------------- */

bool ltdic__outbox_is_full(const outbox *o)
{
    return buffer_size(&o->marks) >= MAX_MARKS * sizeof(mark);
}

bool ltdic__outbox_reserve_mark(outbox *o)
{
    return buffer_reserve(&o->marks, sizeof(mark));
}

/* Adds PDUs to the last mark, if they have the type and size of its PDUs. Returns false if not. */
static bool extend_mark(outbox *o, uint8_t type, uint64_t size, uint64_t each)
{
    mark last;
    if (o->lost || size != each || buffer_size(&o->marks) == 0) {
        return false;
    }
    uint8_t *stored = o->marks.data + o->marks.end - sizeof last;
    memcpy(&last, stored, sizeof last);
    if (last.type != type || last.each != each || (last.end - last.start) % each != 0 ||
        last.limit != UINT64_MAX) {
        return false;
    }
    last.end = o->submitted += size;
    memcpy(stored, &last, sizeof last);
    return true;
}

/* Adds a mark, for which the caller has reserved room. */
static void add_mark(outbox *o, uint8_t type, uint64_t size, uint64_t each)
{
    if (extend_mark(o, type, size, each)) {
        return;
    }
    const mark m = {.start = o->submitted,
                    .end = o->submitted + size,
                    .limit = o->lost ? o->sent : UINT64_MAX,
                    .each = (uint32_t)each,
                    .type = type};
    buffer_put(&o->marks, &m, sizeof m);
    o->submitted = m.end;
    o->sent = o->lost ? m.end : o->sent;
}

bool ltdic__outbox_report(outbox *o, ltdic_indication *indication, uint64_t horizon)
{
    mark m;
    if (buffer_size(&o->marks) == 0) {
        return false;
    }
    memcpy(&m, o->marks.data + o->marks.start, sizeof m);
    const uint64_t until = m.end - m.start < m.each ? m.end : m.start + m.each;
    if (until > o->sent || m.start >= horizon) {
        return false;
    }
    *indication = (ltdic_indication){.kind = LTDIC_SENT,
                                     .status = until <= m.limit ? LTDIC_OK : LTDIC_ERR_CLOSED,
                                     .type = m.type,
                                     .size = until - m.start};
    m.start = until;
    if (m.start == m.end) {
        buffer_drop(&o->marks, sizeof m);
    } else {
        memcpy(o->marks.data + o->marks.start, &m, sizeof m);
    }
    return true;
}

/* ---- PDUs that are copied ----------------------------------------------------------------- */

/* Makes an empty chunk for `size` bytes. Returns NULL if there is no memory. */
static chunk *new_chunk(uint64_t size)
{
    chunk *c = size > SIZE_MAX - sizeof *c ? NULL : malloc(sizeof *c + (size_t)size);
    if (c != NULL) {
        c->next = NULL;
        c->start = c->end = 0;
    }
    return c;
}

static void put_bytes(chunk *c, ltdic_bytes bytes)
{
    memcpy(c->data + c->end, bytes.data, bytes.size);
    c->end += bytes.size;
}

static void enqueue(outbox *o, chunk *c)
{
    *(o->queue == NULL ? &o->queue : &o->queue_last->next) = c;
    o->queue_last = c;
    o->queued += c->end;
}

chunk *ltdic__outbox_copy(outbox *o, ltdic_bytes pdu)
{
    chunk *c = NULL;
    if (ltdic__outbox_keep(o) == LTDIC_OK && ltdic__outbox_reserve_mark(o)) {
        c = new_chunk(pdu.size);
    }
    if (c != NULL) {
        put_bytes(c, pdu);
    }
    return c;
}

void ltdic__outbox_send(outbox *o, chunk *copy)
{
    add_mark(o, copy->data[0], copy->end, copy->end);
    if (o->lost) {
        ltdic__outbox_discard(copy);
    } else {
        enqueue(o, copy);
    }
}

/* ---- data that is lent -------------------------------------------------------------------- */

void ltdic__outbox_lend(outbox *o, const loan *lent, uint64_t pdus)
{
    const uint64_t each = (uint64_t)lent->fragment + DATA_HEADER;
    add_mark(o, LTDIC_DATA_TF, lent->size, pdus == 1 ? lent->size : each);
    if (!o->lost) {
        o->lent = *lent;
    }
}

static size_t put_part(ltdic_output *out, const uint8_t *data, size_t size)
{
    out->parts[out->count++] = (ltdic_bytes){data, size};
    return size;
}

/* Writes the header of the P-DATA-TF that has `size` bytes of the data, from `from` on, and after
 * it the odd byte, which only the first one sends. */
static void write_header(uint8_t *h, const loan *l, uint64_t from, size_t size)
{
    const bool last = from + size == l->before.count + l->data.size;
    h[0] = LTDIC_DATA_TF;
    h[1] = 0;
    store_u32(h + 2, size + 6);
    store_u32(h + 6, size + 2);
    h[10] = l->id;
    h[11] = last ? l->control : (uint8_t)(l->control & ~LAST);
    h[DATA_HEADER] = l->before.value;
}

/* Adds parts of the loan to the output while it has room for two. */
static void put_loan(ltdic_output *out, const loan *l)
{
    size_t headers = 0;
    for (uint64_t at = l->done; at < l->size && out->count + 2 <= MOST_PARTS;) {
        const uint64_t from = at / (l->fragment + DATA_HEADER) * l->fragment;
        const uint64_t left = l->before.count + l->data.size - from;
        const size_t size = left < l->fragment ? (size_t)left : l->fragment;
        const size_t head = DATA_HEADER + (from == 0 ? l->before.count : 0U);
        size_t inside = (size_t)(at % (l->fragment + DATA_HEADER));
        if (inside < head) {
            uint8_t *header = out->headers[headers++];
            write_header(header, l, from, size);
            at += put_part(out, header + inside, head - inside);
            inside = head;
        }
        inside -= DATA_HEADER;
        if (size > inside) {
            const uint8_t *data = l->data.data + (from + inside - l->before.count);
            at += put_part(out, data, size - inside);
        }
    }
}

static void take_from_loan(outbox *o, size_t size)
{
    o->lent.done += size;
    if (o->lent.done == o->lent.size) {
        o->lent = (loan){.size = 0};
    }
}

int ltdic__outbox_keep(outbox *o)
{
    const loan *l = &o->lent;
    if (l->size == 0) {
        return LTDIC_OK;
    }
    chunk *c = new_chunk(l->size - l->done);
    if (c == NULL) {
        ltdic__outbox_lose(o);
        return LTDIC_ERR_MEMORY;
    }
    while (l->size > 0) {
        ltdic_output out = {.count = 0};
        put_loan(&out, l);
        for (size_t i = 0; i < out.count; i++) {
            put_bytes(c, out.parts[i]);
        }
        take_from_loan(o, ltdic__output_size(&out));
    }
    enqueue(o, c);
    return LTDIC_OK;
}

/* ---- the transport ------------------------------------------------------------------------ */

void ltdic__outbox_next(const outbox *o, ltdic_output *output)
{
    output->count = 0;
    for (const chunk *c = o->queue; c != NULL && output->count < MOST_PARTS; c = c->next) {
        put_part(output, c->data + c->start, c->end - c->start);
    }
    put_loan(output, &o->lent);
}

size_t ltdic__output_size(const ltdic_output *output)
{
    size_t size = 0;
    for (size_t i = 0; i < output->count; i++) {
        size += output->parts[i].size;
    }
    return size;
}

/* Removes bytes that were sent from the queue, `size` at most. Returns how many. */
static size_t take_from_queue(outbox *o, size_t size)
{
    size_t left = size;
    while (o->queue != NULL && left > 0) {
        chunk *first = o->queue;
        const size_t removed = left < first->end - first->start ? left : first->end - first->start;
        first->start += removed;
        left -= removed;
        if (first->start == first->end) {
            o->queue = first->next;
            ltdic__outbox_discard(first);
        }
    }
    o->queued -= size - left;
    return size - left;
}

void ltdic__outbox_sent(outbox *o, size_t size)
{
    take_from_loan(o, size - take_from_queue(o, size));
    o->sent += size;
}
