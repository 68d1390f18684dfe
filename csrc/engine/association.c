/* SPDX-License-Identifier: MIT */
/* One association between its user and its transport, without either: the machine of ul.c, the
 * stream that feeds it, what was negotiated, the PDUs that wait to be sent, and the deadlines.
 *
 * An indication is pulled, never pushed, so that the order of things stands in one function:
 * ltdic_association_next. */
#include "association.h"

#include "codec/framing.h"
#include "codec/items.h"
#include "walk.h"

#include <assert.h>

enum {
    ARTIM_DEFAULT = 30000,
    ECHO_AT = 10, /* bytes of an RQ that its AC repeats (PS3.8 9.3.3) */
    ECHO_SIZE = 64,
    DATA_HEADER = 12,      /* of a P-DATA-TF and of its only PDV */
    LARGEST_PDU = 1048576, /* PDU length sent to a peer that takes any */
    MOST_PARTS = 64,       /* of an ltdic_output */
    MAX_MARKS = 1024,      /* stretches of PDUs that have not been told */
    MAX_ANSWERS = 10240,   /* bytes of A-ABORT that wait for a peer that goes on after its end */
    MAX_COMMAND = 1024,    /* bytes of a command that may be a C-ECHO */
    COMMAND = 1,           /* of a message control header (PS3.8 E.2) */
    LAST = 2
};

/* A stretch of PDUs given to us to send, as far as the user has not been told what became of it. */
typedef struct mark {
    uint64_t start, end; /* in the stream of all bytes sent */
    uint64_t limit;      /* what ends after it has not been sent, and will not be */
    uint32_t each;       /* size of every PDU but the last */
    uint8_t type;
} mark;

/* ---- life -------------------------------------------------------------------------------- */

void ltdic__association_init(ltdic_association *a)
{
    *a = (ltdic_association){.max_associate = LTDIC_MAX_ASSOCIATE};
    ltdic_ul_init(&a->ul, ARTIM_DEFAULT);
}

ltdic_association *ltdic_association_new(void)
{
    ltdic_association *a = malloc(sizeof *a);
    if (a != NULL) {
        ltdic__association_init(a);
    }
    return a;
}

/* A passcode may be in an A-ASSOCIATE-RQ. The rest of a P-DATA-TF that begins with the same byte is
 * wiped, too: harmless, and rare. */
static void free_chunk(chunk *c)
{
    if (c->data[0] == LTDIC_ASSOCIATE_RQ) {
        ltdic__wipe(c->data, c->end);
    }
    free(c);
}

static void drop_queue(ltdic_association *a)
{
    while (a->queue != NULL) {
        chunk *first = a->queue;
        a->queue = first->next;
        free_chunk(first);
    }
    a->queue_last = NULL;
    a->queued = 0;
}

/* A passcode may be in it. */
static void forget_proposal(ltdic_association *a)
{
    ltdic__wipe(a->proposal.data, a->proposal.room);
    buffer_free(&a->proposal);
}

void ltdic__association_clear(ltdic_association *a)
{
    forget_proposal(a);
    buffer_free(&a->command);
    buffer_free(&a->marks);
    drop_queue(a);
}

void ltdic_association_free(ltdic_association *association)
{
    if (association != NULL) {
        ltdic__association_clear(association);
        free(association);
    }
}

void ltdic_association_set_timeouts(ltdic_association *association, const ltdic_timeouts *timeouts)
{
    ltdic_timeouts t = {0};
    memcpy(&t, timeouts, timeouts->size < sizeof t ? timeouts->size : sizeof t);
    association->ul.artim = t.artim != 0 ? t.artim : ARTIM_DEFAULT;
    association->response = t.response;
    association->idle = t.idle;
}

void ltdic_association_limit_associate(ltdic_association *association, uint32_t bytes)
{
    association->max_associate = bytes;
}

int ltdic_association_state(const ltdic_association *association)
{
    return association->ul.state;
}

int ltdic_association_expects_more(const ltdic_association *association)
{
    return association->receiving.place != BETWEEN || association->stream.pdu_left > 0 ||
           association->heard > 0;
}

/* What has not been sent by now never will be. */
static void drop_output(ltdic_association *a)
{
    for (size_t at = a->marks.start; at < a->marks.end; at += sizeof(mark)) {
        mark m;
        memcpy(&m, a->marks.data + at, sizeof m);
        if (m.end > a->sent && m.limit == UINT64_MAX) {
            m.limit = a->sent;
            memcpy(a->marks.data + at, &m, sizeof m);
        }
    }
    a->sent = a->submitted;
    a->lent = (loan){.size = 0};
    drop_queue(a);
}

void ltdic__association_reset(ltdic_association *a)
{
    drop_output(a);
    ltdic_ul_init(&a->ul, a->ul.artim);
    a->stream = (ltdic_stream){0};
    a->agreed = (agreement){0};
    a->response_deadline = a->idle_deadline = 0;
    a->sending = a->receiving = (message){0};
    a->odd = (odd_byte){0};
    a->cause = LTDIC_OK;
    a->cause_offset = 0;
    a->lost = a->broken = a->held = a->no_echo = false;
    forget_proposal(a);
    buffer_free(&a->command);
}

/* What the provider refused, and why, stays: its A-ASSOCIATE-RJ may be told of only now. */
static void end(ltdic_association *a, int status)
{
    const ltdic_reject refusal = a->ul.refusal;
    const buffer refused = refusal.result != 0 ? a->proposal : (buffer){0};
    if (refusal.result != 0) {
        a->proposal = (buffer){0};
    }
    a->over_offset = a->cause_offset;
    ltdic__association_reset(a);
    a->ul.refusal = refusal;
    a->proposal = refused;
    a->over = true;
    a->over_status = status;
}

/* ---- deadlines --------------------------------------------------------------------------- */

static bool in_states(const ltdic_association *a, unsigned states)
{
    return (states >> a->ul.state & 1) != 0;
}

/* Only data counts: an empty PDV does not make an association less idle. */
static void restart_idle(ltdic_association *a, uint64_t now)
{
    a->idle_deadline = a->idle != 0 && a->ul.state == 6 ? now + a->idle : 0;
}

/* After each step of the machine. */
static void set_deadlines(ltdic_association *a, uint64_t now)
{
    const unsigned waits_for_peer = 1U << 5 | 1U << 7 | 1U << 10 | 1U << 11;
    if (!in_states(a, waits_for_peer)) {
        a->response_deadline = 0;
    } else if (a->response_deadline == 0 && a->response != 0) {
        a->response_deadline = now + a->response;
    }
    if (a->idle_deadline == 0 || a->ul.state != 6) {
        restart_idle(a, now);
    }
}

uint64_t ltdic_association_deadline(const ltdic_association *association)
{
    const uint64_t deadlines[] = {association->ul.deadline, association->response_deadline,
                                  association->idle_deadline};
    uint64_t first = 0;
    for (size_t i = 0; i < 3; i++) {
        if (deadlines[i] != 0 && (first == 0 || deadlines[i] < first)) {
            first = deadlines[i];
        }
    }
    return first;
}

/* ---- sending ----------------------------------------------------------------------------- */

/* PDUs of the same type and size as those of the last mark make that one longer. */
static bool extend_mark(ltdic_association *a, uint8_t type, uint64_t size, uint64_t each)
{
    mark last;
    if (a->lost || size != each || buffer_size(&a->marks) == 0) {
        return false;
    }
    uint8_t *place = a->marks.data + a->marks.end - sizeof last;
    memcpy(&last, place, sizeof last);
    if (last.type != type || last.each != each || (last.end - last.start) % each != 0 ||
        last.limit != UINT64_MAX) {
        return false;
    }
    last.end = a->submitted += size;
    memcpy(place, &last, sizeof last);
    return true;
}

static bool add_mark(ltdic_association *a, uint8_t type, uint64_t size, uint64_t each)
{
    if (extend_mark(a, type, size, each)) {
        return true;
    }
    const mark m = {.start = a->submitted,
                    .end = a->submitted + size,
                    .limit = a->lost ? a->sent : UINT64_MAX,
                    .each = (uint32_t)each,
                    .type = type};
    if (!buffer_append(&a->marks, &m, sizeof m)) {
        return false;
    }
    a->submitted = m.end;
    a->sent = a->lost ? m.end : a->sent;
    return true;
}

static bool is_full(const ltdic_association *a)
{
    return buffer_size(&a->marks) >= MAX_MARKS * sizeof(mark);
}

/* An empty chunk for so many bytes, or NULL when out of memory. */
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

static void enqueue(ltdic_association *a, chunk *c)
{
    *(a->queue == NULL ? &a->queue : &a->queue_last->next) = c;
    a->queue_last = c;
    a->queued += c->end;
}

/* A copy of a PDU to enqueue, with room for its mark; NULL when out of memory. What is lent goes
 * first, so that the queue can grow behind it. */
static chunk *copy_of(ltdic_association *a, ltdic_bytes pdu)
{
    chunk *c = NULL;
    if (ltdic_association_keep(a) == LTDIC_OK && buffer_reserve(&a->marks, sizeof(mark))) {
        c = new_chunk(pdu.size);
    }
    if (c != NULL) {
        put_bytes(c, pdu);
    }
    return c;
}

/* Send what copy_of gave. */
static void send_copy(ltdic_association *a, chunk *c)
{
    add_mark(a, c->data[0], c->end, c->end);
    if (a->lost) {
        free_chunk(c);
    } else {
        enqueue(a, c);
    }
}

void ltdic_association_lost(ltdic_association *association)
{
    if (!association->lost) {
        drop_output(association);
        association->lost = true;
        association->held = false;
    }
}

static size_t put_part(ltdic_output *out, const uint8_t *data, size_t size)
{
    out->parts[out->count++] = (ltdic_bytes){data, size};
    return size;
}

/* The header of the P-DATA-TF whose data begins at `from`. */
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

/* Of what is lent, as many parts as there is room for. */
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

void ltdic_association_output(const ltdic_association *association, ltdic_output *output)
{
    output->count = 0;
    for (const chunk *c = association->queue; c != NULL && output->count < MOST_PARTS;
         c = c->next) {
        put_part(output, c->data + c->start, c->end - c->start);
    }
    put_loan(output, &association->lent);
}

size_t ltdic__output_size(const ltdic_output *output)
{
    size_t size = 0;
    for (size_t i = 0; i < output->count; i++) {
        size += output->parts[i].size;
    }
    return size;
}

static void take_from_loan(ltdic_association *a, size_t size)
{
    a->lent.done += size;
    if (a->lent.done == a->lent.size) {
        a->lent = (loan){.size = 0};
    }
}

/* The first bytes of the queue have gone; how many there were of `size`. */
static size_t take_from_queue(ltdic_association *a, size_t size)
{
    size_t left = size;
    while (a->queue != NULL && left > 0) {
        chunk *first = a->queue;
        const size_t taken = left < first->end - first->start ? left : first->end - first->start;
        first->start += taken;
        left -= taken;
        if (first->start == first->end) {
            a->queue = first->next;
            free_chunk(first);
        }
    }
    a->queued -= size - left;
    return size - left;
}

void ltdic_association_sent(ltdic_association *association, size_t size, uint64_t now)
{
    take_from_loan(association, size - take_from_queue(association, size));
    association->sent += size;
    if (size > 0) {
        restart_idle(association, now);
    }
}

static size_t waiting(const ltdic_association *a)
{
    return a->queued + (size_t)(a->lent.size - a->lent.done);
}

bool ltdic__association_has_room(const ltdic_association *a)
{
    return waiting(a) <= LTDIC_MAX_QUEUE / 2 && !is_full(a);
}

size_t ltdic_association_take(ltdic_association *association, ltdic_buffer *out, uint64_t now)
{
    ltdic_output output = {.count = 1};
    out->size = 0;
    while (output.count > 0 && out->size < out->room) {
        const size_t before = out->size;
        ltdic_association_output(association, &output);
        for (size_t i = 0; i < output.count; i++) {
            const ltdic_bytes part = output.parts[i];
            const size_t left = out->room - out->size;
            const size_t size = part.size < left ? part.size : left;
            memcpy(out->data + out->size, part.data, size);
            out->size += size;
        }
        ltdic_association_sent(association, out->size - before, now);
    }
    return waiting(association);
}

int ltdic_association_keep(ltdic_association *association)
{
    const loan *l = &association->lent;
    if (l->size == 0) {
        return LTDIC_OK;
    }
    chunk *c = new_chunk(l->size - l->done);
    if (c == NULL) {
        ltdic_association_lost(association);
        return LTDIC_ERR_MEMORY;
    }
    while (l->size > 0) {
        ltdic_output out = {.count = 0};
        put_loan(&out, l);
        for (size_t i = 0; i < out.count; i++) {
            put_bytes(c, out.parts[i]);
        }
        take_from_loan(association, ltdic__output_size(&out));
    }
    enqueue(association, c);
    return LTDIC_OK;
}

/* Of what was submitted up to the horizon. */
static bool report_sent(ltdic_association *a, ltdic_indication *indication, uint64_t horizon)
{
    mark m;
    if (buffer_size(&a->marks) == 0) {
        return false;
    }
    memcpy(&m, a->marks.data + a->marks.start, sizeof m);
    const uint64_t until = m.end - m.start < m.each ? m.end : m.start + m.each;
    if (until > a->sent || m.start >= horizon) {
        return false;
    }
    *indication = (ltdic_indication){.kind = LTDIC_SENT,
                                     .status = until <= m.limit ? LTDIC_OK : LTDIC_ERR_CLOSED,
                                     .type = m.type,
                                     .size = until - m.start};
    m.start = until;
    if (m.start == m.end) {
        buffer_drop(&a->marks, sizeof m);
    } else {
        memcpy(a->marks.data + a->marks.start, &m, sizeof m);
    }
    return true;
}

/* ---- the machine's effects ---------------------------------------------------------------- */

static int cause_or(const ltdic_association *a, int status)
{
    return a->cause != LTDIC_OK ? a->cause : status;
}

/* What the machine does by itself; `cause` is why, if the association ends by this. What comes
 * after its end (AA-7) is not why, and a peer that does not read gets only so many answers. */
static void apply(ltdic_association *a, const ltdic_effects *effects, int cause, uint64_t now)
{
    const bool again = effects->action == LTDIC_AA_7;
    if (effects->send != 0 && !(again && (is_full(a) || waiting(a) >= MAX_ANSWERS))) {
        uint8_t pdu[LTDIC_FIXED_PDU_SIZE];
        ltdic_encode_fixed(pdu, effects->send, effects->codes);
        a->cause = again ? a->cause : cause;
        chunk *copy = copy_of(a, (ltdic_bytes){pdu, sizeof pdu});
        if (copy != NULL) {
            send_copy(a, copy);
        } else {
            a->cause = cause_or(a, LTDIC_ERR_MEMORY);
            ltdic_association_lost(a);
        }
    }
    if (effects->close) {
        end(a, cause);
    }
    set_deadlines(a, now);
}

int ltdic_association_opened(ltdic_association *association, ltdic_event event, uint64_t now)
{
    ltdic_effects effects;
    const int status = ltdic_ul_event(&association->ul, &effects, event, now);
    if (status == LTDIC_OK) {
        association->ul.refusal = (ltdic_reject){0, 0, 0};
    }
    set_deadlines(association, now);
    return status;
}

/* Where the end was agreed on, or made by us, that is the cause. */
void ltdic_association_closed(ltdic_association *association, int status, uint64_t now)
{
    ltdic_effects effects;
    if (association->over && association->ul.state == 1) { /* it has ended, and is yet to be told */
        return;
    }
    ltdic_ul_event(&association->ul, &effects, LTDIC_EVT_CLOSED, now);
    const bool agreed = status != LTDIC_OK && effects.action == LTDIC_AR_5;
    end(association, agreed ? association->cause : status);
}

/* ---- what the user sends ------------------------------------------------------------------ */

static bool message_takes(message *m, uint8_t id, uint8_t control)
{
    const bool command = (control & COMMAND) != 0, last = (control & LAST) != 0;
    const bool same = id == m->id;
    const bool command_may_come = m->place != IN_DATA && (m->place != IN_COMMAND || same);
    const bool data_may_come = (m->place == AFTER_COMMAND || m->place == IN_DATA) && same;
    if (command ? !command_may_come : !data_may_come) {
        return false;
    }
    const uint8_t inside = command ? IN_COMMAND : IN_DATA,
                  after = command ? AFTER_COMMAND : BETWEEN;
    *m = (message){id, last ? after : inside};
    return true;
}

static bool is_accepted(const ltdic_association *a, uint8_t id)
{
    return (a->agreed.accepted[id / 8] >> id % 8 & 1) != 0;
}

static ltdic_bytes proposal_of(const ltdic_association *a)
{
    return (ltdic_bytes){a->proposal.data, buffer_size(&a->proposal)};
}

/* Nothing is sent that would cost the peer its place in the stream. */
static bool is_one_pdu(ltdic_bytes pdu)
{
    const ltdic_options any = {.size = sizeof any};
    ltdic_fault fault;
    return ltdic_decode(NULL, pdu, &any, &fault) == LTDIC_OK &&
           pdu.size - HEADER == load_u32(pdu.data + 2);
}

static int check_associate(ltdic_association *a, ltdic_bytes pdu)
{
    if (pdu.data[0] == LTDIC_ASSOCIATE_AC) {
        return ltdic__agree(&a->agreed, proposal_of(a), pdu, true);
    }
    forget_proposal(a);
    return buffer_append(&a->proposal, pdu.data, pdu.size) ? LTDIC_OK : LTDIC_ERR_MEMORY;
}

/* What may go wrong, before anything is changed. */
static int check(ltdic_association *a, ltdic_bytes pdu)
{
    const uint8_t type = pdu.data[0];
    const int needed_state = type == LTDIC_ASSOCIATE_RQ ? 1 : type == LTDIC_ASSOCIATE_AC ? 3 : 0;
    if (is_full(a) && type < LTDIC_RELEASE_RQ) { /* what ends it always goes */
        return LTDIC_ERR_ROOM;
    }
    if (needed_state != 0 && a->ul.state != needed_state) {
        return LTDIC_ERR_WRONG_STATE;
    }
    if (!is_one_pdu(pdu)) {
        return LTDIC_ERR_BAD_VALUE;
    }
    return needed_state != 0 ? check_associate(a, pdu) : LTDIC_OK;
}

static int send_event(ltdic_association *a, ltdic_effects *effects, chunk *copy, uint64_t now)
{
    static const uint8_t events[] = {
        [LTDIC_ASSOCIATE_RQ] = LTDIC_EVT_REQUEST,        [LTDIC_ASSOCIATE_AC] = LTDIC_EVT_ACCEPT,
        [LTDIC_ASSOCIATE_RJ] = LTDIC_EVT_REJECT,         [LTDIC_RELEASE_RQ] = LTDIC_EVT_RELEASE,
        [LTDIC_RELEASE_RP] = LTDIC_EVT_RELEASE_RESPONSE, [LTDIC_ABORT] = LTDIC_EVT_ABORT,
    };
    const uint8_t type = copy->data[0];
    const int status = ltdic_ul_event(&a->ul, effects, (ltdic_event)events[type], now);
    if (type == LTDIC_ASSOCIATE_AC) {
        memcpy(copy->data + ECHO_AT, a->proposal.data + ECHO_AT, ECHO_SIZE);
        forget_proposal(a);
    }
    const bool goes = effects->send != 0 || type == LTDIC_ASSOCIATE_RQ; /* AE-2 comes later */
    if (status == LTDIC_OK && goes) {
        send_copy(a, copy);
    } else {
        free_chunk(copy);
    }
    return status;
}

int ltdic_association_send(ltdic_association *association, ltdic_bytes pdu, uint64_t now)
{
    ltdic_effects effects;
    assert(pdu.size >= LTDIC_FIXED_PDU_SIZE && pdu.data[0] != LTDIC_DATA_TF);
    assert(pdu.data[0] >= LTDIC_ASSOCIATE_RQ && pdu.data[0] <= LTDIC_ABORT);
    int status = check(association, pdu);
    if (status != LTDIC_OK) {
        return status;
    }
    chunk *copy = copy_of(association, pdu);
    status = copy == NULL ? LTDIC_ERR_MEMORY : send_event(association, &effects, copy, now);
    if (status != LTDIC_OK) {
        return status;
    }
    if (effects.close) {
        end(association, LTDIC_OK);
    }
    set_deadlines(association, now);
    return LTDIC_OK;
}

uint32_t ltdic__fragment_size(const ltdic_association *a)
{
    const uint32_t peer_max = a->ul.requestor ? a->agreed.acceptor_max : a->agreed.requestor_max;
    const uint32_t most = peer_max == 0 ? LARGEST_PDU : peer_max < INT32_MAX ? peer_max : INT32_MAX;
    return most < 6 ? 0 : (most - 6) & ~1U;
}

/* What may go wrong, before anything is changed. */
static int check_data(ltdic_association *a, const ltdic_pdv *data, uint64_t wire)
{
    const uint64_t before = waiting(a);
    message after = a->sending;
    if (a->ul.state != 6 && a->ul.state != 8) {
        return LTDIC_ERR_WRONG_STATE;
    }
    const bool odd = (a->odd.count + data->data.size) % 2 != 0;
    if (!is_accepted(a, data->id) || data->control > (COMMAND | LAST) ||
        (odd && (data->control & LAST) != 0)) {
        return LTDIC_ERR_BAD_VALUE;
    }
    if (!message_takes(&after, data->id, data->control)) {
        return LTDIC_ERR_WRONG_STATE;
    }
    if (ltdic__fragment_size(a) == 0) {
        return LTDIC_ERR_TOO_LARGE;
    }
    if (is_full(a) || (before > 0 && before + wire > LTDIC_MAX_QUEUE)) {
        return LTDIC_ERR_ROOM;
    }
    return ltdic_association_keep(a) == LTDIC_OK && buffer_reserve(&a->marks, sizeof(mark))
               ? LTDIC_OK
               : LTDIC_ERR_MEMORY;
}

/* Lend it, but for a last byte that makes it odd: that goes before what comes next. */
static void lend(ltdic_association *a, const ltdic_pdv *data, uint64_t wire, uint32_t fragment)
{
    const size_t over = (a->odd.count + data->data.size) % 2;
    const size_t size = data->data.size > over ? data->data.size - over : 0;
    if (!a->lost) {
        a->lent = (loan){.before = a->odd,
                         .data = {data->data.data, size},
                         .size = wire,
                         .fragment = fragment,
                         .id = data->id,
                         .control = data->control};
    }
    a->odd = (odd_byte){over != 0 ? data->data.data[size] : 0, (uint8_t)over};
}

int ltdic_association_send_data(ltdic_association *association, const ltdic_pdv *data, uint64_t now)
{
    ltdic_effects effects;
    const uint32_t fragment = ltdic__fragment_size(association);
    const uint64_t given = association->odd.count + (uint64_t)data->data.size;
    const uint64_t size = given & ~(uint64_t)1;
    const uint64_t pdus = size == 0 || fragment == 0 ? 1 : (size - 1) / fragment + 1;
    const uint64_t wire = size + pdus * DATA_HEADER;
    const int status = check_data(association, data, wire);
    if (status != LTDIC_OK) {
        return status;
    }
    ltdic_ul_event(&association->ul, &effects, LTDIC_EVT_DATA, now);
    message_takes(&association->sending, data->id, data->control);
    if (given == 1) { /* it waits for the next byte */
        association->odd =
            data->data.size == 1 ? (odd_byte){data->data.data[0], 1} : association->odd;
        return LTDIC_OK;
    }
    add_mark(association, LTDIC_DATA_TF, wire, pdus == 1 ? wire : (uint64_t)fragment + DATA_HEADER);
    lend(association, data, wire, fragment);
    return LTDIC_OK;
}

/* ---- what the peer sends ------------------------------------------------------------------ */

static void set_received(ltdic_indication *indication, int status, uint8_t type, ltdic_bytes pdu)
{
    *indication =
        (ltdic_indication){.kind = LTDIC_RECEIVED, .status = status, .type = type, .pdu = pdu};
}

/* Turn the machine with what is no good PDU of this type, or of type 0 where it has none. */
static bool receive_fault(ltdic_association *a, ltdic_indication *indication, uint8_t type,
                          ltdic_bytes bytes, ltdic_fault fault, uint64_t now)
{
    ltdic_effects effects;
    ltdic_ul_fault(&a->ul, &effects, fault.status, now);
    set_received(indication, fault.status, type, bytes);
    indication->offset = fault.offset;
    a->cause_offset = a->cause == LTDIC_OK ? fault.offset : a->cause_offset;
    apply(a, &effects, fault.status, now);
    return effects.tell;
}

/* What is not about a field. */
static ltdic_fault fault_of(int status)
{
    return (ltdic_fault){.status = status};
}

/* An RQ is needed until it is answered. The provider refuses what it cannot serve. */
static void remember_request(ltdic_association *a, ltdic_bytes rq)
{
    forget_proposal(a);
    if (!buffer_append(&a->proposal, rq.data, rq.size)) {
        a->ul.refusal = (ltdic_reject){2, 3, 1};
    } else if (!ltdic__has_application_context(rq)) {
        a->ul.refusal = (ltdic_reject){1, 1, 2};
    }
}

static int look_into(ltdic_association *a, ltdic_bytes pdu, ltdic_fault *fault)
{
    const ltdic_options any = {.size = sizeof any};
    int status = ltdic_decode(NULL, pdu, &any, fault);
    if (status != LTDIC_OK) {
        return status;
    }
    if (pdu.data[0] == LTDIC_ASSOCIATE_RQ && a->ul.state == 2) {
        remember_request(a, pdu);
    }
    if (pdu.data[0] == LTDIC_ASSOCIATE_AC && a->ul.state == 5) {
        status = ltdic__agree(&a->agreed, proposal_of(a), pdu, false);
        forget_proposal(a);
    }
    *fault = fault_of(status);
    return status;
}

static bool receive_pdu(ltdic_association *a, ltdic_indication *indication, ltdic_bytes pdu,
                        uint64_t now)
{
    ltdic_effects effects;
    ltdic_fault fault;
    const bool had_ended = a->ul.state == 13;
    int status = look_into(a, pdu, &fault);
    if (status != LTDIC_OK) {
        return receive_fault(a, indication, pdu.data[0], pdu, fault, now);
    }
    status = ltdic_ul_receive(&a->ul, &effects, pdu, now);
    const bool aborted = pdu.data[0] == LTDIC_ABORT && !had_ended;
    set_received(indication, status, pdu.data[0], pdu);
    apply(a, &effects, status != LTDIC_OK ? status : cause_or(a, aborted ? LTDIC_ERR_ABORTED : 0),
          now);
    return effects.tell;
}

/* Does this piece end a command set that is a C-ECHO? Longer ones are not looked at. False when out
 * of memory. */
static bool look_for_echo(ltdic_association *a, ltdic_indication *indication)
{
    const ltdic_piece *p = &indication->piece;
    const bool ends = p->last && (p->control & LAST) != 0;
    const size_t before = buffer_size(&a->command);
    ltdic_bytes command = p->data;
    if ((p->control & COMMAND) == 0) {
        return true;
    }
    a->no_echo = a->no_echo || p->data.size > MAX_COMMAND - before;
    if (!a->no_echo && (before > 0 || !ends)) {
        if (!buffer_append(&a->command, p->data.data, p->data.size)) {
            return false;
        }
        command = (ltdic_bytes){a->command.data, buffer_size(&a->command)};
    }
    if (ends) {
        if (!a->no_echo) {
            ltdic_decode_echo(&indication->echo, command);
        }
        a->no_echo = false;
        buffer_free(&a->command);
    }
    return true;
}

/* A piece of a P-DATA-TF, `raw` on the wire. */
static bool receive_data(ltdic_association *a, ltdic_indication *indication, ltdic_bytes raw,
                         const ltdic_piece *piece, uint64_t now)
{
    static const uint8_t type[] = {LTDIC_DATA_TF};
    ltdic_effects effects;
    const bool expected = a->ul.state == 6 || a->ul.state == 7;
    if (expected && piece->first &&
        (!is_accepted(a, piece->id) || !message_takes(&a->receiving, piece->id, piece->control))) {
        return receive_fault(a, indication, type[0], raw, fault_of(LTDIC_ERR_UNEXPECTED_PDV), now);
    }
    const int status = ltdic_ul_receive(&a->ul, &effects, (ltdic_bytes){type, 1}, now);
    set_received(indication, status, type[0], raw);
    apply(a, &effects, status, now);
    if (effects.tell && status == LTDIC_OK) {
        if (piece->data.size > 0) {
            restart_idle(a, now);
        }
        indication->piece = *piece;
        if (!look_for_echo(a, indication)) {
            return receive_fault(a, indication, type[0], raw, fault_of(LTDIC_ERR_MEMORY), now);
        }
        if (!piece->last) {
            indication->piece.control &= (uint8_t)~LAST;
        }
    }
    return effects.tell;
}

/* The next piece of what has been received. Where data cannot come, the header of a P-DATA-TF is
 * one; else the headers are not, and stay in front of their data. */
static int next_piece(ltdic_association *a, ltdic_piece *piece, ltdic_bytes *in, ltdic_fault *fault)
{
    const bool data_may_come = a->ul.state == 6 || a->ul.state == 7;
    const uint32_t own_max = a->ul.requestor ? a->agreed.requestor_max : a->agreed.acceptor_max;
    const ltdic_options options = {.size = sizeof options,
                                   .max_pdata = data_may_come ? own_max : 0,
                                   .max_associate = a->max_associate};
    const bool begins = a->stream.pdu_left == 0 && in->data[0] == LTDIC_DATA_TF;
    if (begins && !data_may_come && in->size >= HEADER) {
        ltdic_bytes header = {in->data, HEADER};
        *in = (ltdic_bytes){in->data + HEADER, in->size - HEADER};
        *piece = (ltdic_piece){.type = LTDIC_DATA_TF};
        const int status = ltdic_stream_next(&a->stream, piece, &header, &options, fault);
        return status == LTDIC_NEED_MORE ? LTDIC_OK : status;
    }
    const int status = ltdic_stream_next(&a->stream, piece, in, &options, fault);
    const bool no_data =
        status == LTDIC_OK && piece->type == LTDIC_DATA_TF && piece->data.size == 0 && !piece->last;
    return no_data ? LTDIC_NEED_MORE : status;
}

/* Data waits, and a release, which must not come before what is still to be sent. An abort is
 * looked at, as far as it comes before them. */
static bool is_held(const ltdic_association *a, ltdic_bytes in)
{
    return a->held && in_states(a, 1U << 6 | 1U << 7) &&
           (a->stream.pdu_left > 0 || in.data[0] == LTDIC_DATA_TF ||
            in.data[0] == LTDIC_RELEASE_RQ);
}

/* One step over what has been received. False when nothing is left of it that can be used. */
static bool receive(ltdic_association *a, ltdic_indication *indication, ltdic_bytes *in,
                    uint64_t now, bool *tell)
{
    const ltdic_stream before = a->stream;
    const ltdic_bytes all = *in;
    ltdic_piece piece;
    ltdic_fault fault;
    if (in->size == 0 || is_held(a, *in)) {
        return false;
    }
    if (a->broken) {
        *in = (ltdic_bytes){all.data + all.size, 0};
        return false;
    }
    const int status = next_piece(a, &piece, in, &fault);
    if (status == LTDIC_NEED_MORE) {
        a->stream = before;
        *in = all;
        return false;
    }
    const ltdic_bytes raw = {all.data, all.size - in->size};
    if (status != LTDIC_OK) { /* there are no boundaries from here on */
        const uint8_t type = before.pdu_left > 0 ? LTDIC_DATA_TF : all.data[0];
        a->broken = true;
        *in = (ltdic_bytes){all.data + all.size, 0};
        *tell = receive_fault(a, indication, status == LTDIC_ERR_BAD_PDU_TYPE ? 0 : type, all,
                              fault, now);
    } else if (piece.type == LTDIC_DATA_TF) {
        *tell = receive_data(a, indication, raw, &piece, now);
    } else {
        *tell = receive_pdu(a, indication, raw, now);
    }
    return true;
}

void ltdic_association_fail(ltdic_association *association, int status, uint64_t now)
{
    ltdic_effects effects;
    if (association->ul.state == 1 || association->ul.state == 4) {
        return;
    }
    ltdic_ul_fault(&association->ul, &effects, status, now);
    association->broken = true;
    apply(association, &effects, status, now);
}

uint64_t ltdic_association_needs(const ltdic_association *association, ltdic_bytes left)
{
    const bool whole =
        association->stream.pdu_left == 0 && left.size >= HEADER && left.data[0] != LTDIC_DATA_TF;
    const uint64_t size = whole ? (uint64_t)HEADER + load_u32(left.data + 2) : 0;
    return association->broken || size > (uint64_t)HEADER + association->max_associate ? 0 : size;
}

/* ---- what happened ------------------------------------------------------------------------ */

static bool report_over(ltdic_association *a, ltdic_indication *indication)
{
    if (!a->over) {
        return false;
    }
    a->over = false;
    *indication = (ltdic_indication){
        .kind = LTDIC_CLOSED, .status = a->over_status, .offset = a->over_offset};
    return true;
}

/* ARTIM closes; the deadlines above it abort, as the user would (PS3.8 9.1.4). */
static bool expire(ltdic_association *a, ltdic_indication *indication, uint64_t now)
{
    ltdic_effects effects;
    const uint64_t deadline = ltdic_association_deadline(a);
    if (deadline == 0 || deadline > now) {
        return false;
    }
    if (a->ul.deadline == deadline) {
        ltdic_ul_event(&a->ul, &effects, LTDIC_EVT_ARTIM, now);
        apply(a, &effects, cause_or(a, LTDIC_ERR_TIMEOUT), now);
        return false;
    }
    ltdic_ul_event(&a->ul, &effects, LTDIC_EVT_ABORT, now);
    set_received(indication, LTDIC_ERR_TIMEOUT, 0, (ltdic_bytes){NULL, 0});
    apply(a, &effects, LTDIC_ERR_TIMEOUT, now);
    return true;
}

/* Sends that were submitted before the peer's latest bytes came are told before them, later ones
 * after them: one who sends on whenever something has gone must hear the peer. The bound in the
 * stream of all bytes sent. */
static uint64_t horizon_of(ltdic_association *a, size_t received)
{
    if (a->over || received == 0) {
        a->heard = 0;
        return UINT64_MAX;
    }
    if (received > a->heard) {
        a->horizon = a->submitted;
    }
    a->heard = received;
    return a->horizon;
}

int ltdic_association_next(ltdic_association *association, ltdic_indication *indication,
                           ltdic_bytes *in, uint64_t now)
{
    bool tell = false;
    if (report_sent(association, indication, horizon_of(association, in->size)) ||
        report_over(association, indication)) {
        return LTDIC_OK;
    }
    while (!tell && association->ul.state != 1 &&
           receive(association, indication, in, now, &tell)) {
    }
    association->heard = association->over ? 0 : in->size;
    tell = tell || expire(association, indication, now);
    tell = tell || report_sent(association, indication, UINT64_MAX) ||
           report_over(association, indication);
    return tell ? LTDIC_OK : LTDIC_NEED_MORE;
}
