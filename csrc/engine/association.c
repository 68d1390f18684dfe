/* SPDX-License-Identifier: MIT */
/* One association between its user and its transport. It does no I/O and has no callbacks. It
 * joins the state machine (ul.c), the stream, the agreement, the outbox and the deadlines.
 *
 * The caller asks for each indication, so that one function decides their order:
 * ltdic_association_next. */
#include "association.h"

#include "codec/framing.h"
#include "codec/items.h"
#include "negotiation.h"
#include "outbox.h"
#include "walk.h"

#include <assert.h>

enum {
    ARTIM_DEFAULT = 30000,
    ECHO_AT = 10, /* bytes of an RQ that its AC repeats (PS3.8 9.3.3) */
    ECHO_SIZE = 64,
    LARGEST_PDU = 1048576, /* PDU length sent to a peer without a limit */
    MAX_ANSWERS = 10240    /* bytes of A-ABORT that may wait for a peer that sends after the end */
};

/* Stages of the messages of one direction (PS3.8 E.1). A data set may follow a command. */
enum { BETWEEN = 0, IN_COMMAND, AFTER_COMMAND, IN_DATA };

typedef struct message {
    uint8_t id;
    uint8_t stage;
} message;

/* A copy of an A-ASSOCIATE-RQ, sent or received. It may hold a passcode. */
typedef struct proposal {
    request_view parts;  /* requestor: `pdu` alone is set */
    size_t size;         /* bytes of this structure, its contexts and the PDU after them */
    uint32_t contexts[]; /* the contexts that `parts` points to */
} proposal;

struct ltdic_association {
    ltdic_ul ul;
    ltdic_stream stream;
    agreement agreed;
    uint32_t max_associate;  /* largest PDU length of an RQ or AC that is accepted */
    uint32_t response, idle; /* ms; 0: no limit */
    uint64_t response_deadline, idle_deadline;
    message sending, receiving;
    odd_byte odd; /* from the command or data set that is being sent */
    outbox out;
    proposal *proposal;    /* the RQ, until it is answered, or NULL */
    uint64_t horizon;      /* bytes submitted when the last bytes of the peer arrived */
    size_t unconsumed;     /* input left at the last call; more now means that bytes arrived */
    int cause;             /* why the association will end; LTDIC_OK: not known yet */
    uint64_t cause_offset; /* offset of the field at fault in its PDU */
    int over_status;
    uint64_t over_offset;
    bool over;   /* LTDIC_CLOSED is still to be returned */
    bool broken; /* PDU boundaries are lost: all later input is ignored */
    bool held;   /* data and releases of the peer stay unread until the user has sent what waits */
};

/* ---- life -------------------------------------------------------------------------------- */

size_t ltdic__association_size(void)
{
    return sizeof(ltdic_association);
}

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

static void forget_proposal(ltdic_association *a)
{
    if (a->proposal != NULL) {
        ltdic__wipe(a->proposal, a->proposal->size);
        free(a->proposal);
        a->proposal = NULL;
    }
}

/* Keeps an RQ instead of the one before, and reserves memory for this number of contexts of its
 * view. Returns false, and keeps none, if there is no memory. */
static bool keep_proposal(ltdic_association *a, ltdic_bytes rq, size_t contexts)
{
    const size_t size = sizeof(proposal) + contexts * sizeof(uint32_t) + rq.size;
    proposal *p = malloc(size);
    forget_proposal(a);
    if (p == NULL) {
        return false;
    }
    uint8_t *pdu = (uint8_t *)&p->contexts[contexts];
    memcpy(pdu, rq.data, rq.size);
    p->parts.pdu = (ltdic_bytes){pdu, rq.size};
    p->size = size;
    a->proposal = p;
    return true;
}

const request_view *ltdic__association_request(const ltdic_association *a)
{
    return a->proposal == NULL ? NULL : &a->proposal->parts;
}

void ltdic__association_clear(ltdic_association *a)
{
    forget_proposal(a);
    ltdic__outbox_clear(&a->out);
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
    return association->receiving.stage != BETWEEN || association->stream.pdu_left > 0 ||
           association->unconsumed > 0;
}

bool ltdic__association_is_over(const ltdic_association *a)
{
    return a->over;
}

bool ltdic__association_is_lost(const ltdic_association *a)
{
    return a->out.lost;
}

bool ltdic__association_is_held(const ltdic_association *a)
{
    return a->held && !a->out.lost;
}

void ltdic__association_hold(ltdic_association *a, bool held)
{
    a->held = held;
}

bool ltdic__association_is_between_messages(const ltdic_association *a, bool data_set_follows)
{
    const uint8_t stage = a->sending.stage;
    return stage == BETWEEN || (stage == AFTER_COMMAND && !data_set_follows);
}

size_t ltdic__association_waiting(const ltdic_association *a)
{
    return ltdic__outbox_size(&a->out);
}

bool ltdic__association_has_room(const ltdic_association *a)
{
    return ltdic__outbox_size(&a->out) <= LTDIC_MAX_QUEUE / 2 && !ltdic__outbox_is_full(&a->out);
}

uint64_t ltdic__association_bytes_sent(const ltdic_association *a)
{
    return a->out.sent;
}

uint32_t ltdic__association_response_time(const ltdic_association *a)
{
    return a->response;
}

void ltdic__association_reset(ltdic_association *a)
{
    ltdic__outbox_drop(&a->out);
    ltdic_ul_init(&a->ul, a->ul.artim);
    a->stream = (ltdic_stream){0};
    a->agreed = (agreement){0};
    a->response_deadline = a->idle_deadline = 0;
    a->sending = a->receiving = (message){0};
    a->odd = (odd_byte){0};
    a->cause = LTDIC_OK;
    a->cause_offset = 0;
    a->out.lost = a->broken = a->held = false;
    forget_proposal(a);
}

static void end(ltdic_association *a, int status)
{
    a->over_offset = a->cause_offset;
    ltdic__association_reset(a);
    a->over = true;
    a->over_status = status;
}

/* ---- deadlines --------------------------------------------------------------------------- */

static bool in_states(const ltdic_association *a, unsigned states)
{
    return (states >> a->ul.state & 1) != 0;
}

/* Restarts the idle time. It is not called for an empty PDV of the peer: those do not keep an
 * association in use. */
static void restart_idle(ltdic_association *a, uint64_t now)
{
    a->idle_deadline = a->idle != 0 && a->ul.state == STA_ESTABLISHED ? now + a->idle : 0;
}

/* Call after each step of the state machine. */
static void set_deadlines(ltdic_association *a, uint64_t now)
{
    const unsigned waits_for_peer = 1U << STA_AWAITING_AC | 1U << STA_AWAITING_RELEASE_RP |
                                    1U << STA_COLLISION_ACCEPTOR_RP |
                                    1U << STA_COLLISION_REQUESTOR_RP;
    if (!in_states(a, waits_for_peer)) {
        a->response_deadline = 0;
    } else if (a->response_deadline == 0 && a->response != 0) {
        a->response_deadline = now + a->response;
    }
    if (a->idle_deadline == 0 || a->ul.state != STA_ESTABLISHED) {
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

void ltdic_association_lost(ltdic_association *association)
{
    ltdic__outbox_lose(&association->out);
}

void ltdic_association_output(const ltdic_association *association, ltdic_output *output)
{
    ltdic__outbox_next(&association->out, output);
}

void ltdic_association_sent(ltdic_association *association, size_t size, uint64_t now)
{
    ltdic__outbox_sent(&association->out, size);
    if (size > 0) {
        restart_idle(association, now);
    }
}

int ltdic_association_keep(ltdic_association *association)
{
    return ltdic__outbox_keep(&association->out);
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
    return ltdic__outbox_size(&association->out);
}

/* ---- the machine's effects ---------------------------------------------------------------- */

static int cause_or(const ltdic_association *a, int status)
{
    return a->cause != LTDIC_OK ? a->cause : status;
}

/* Does what the state machine decided. `cause` is the reason if the association ends by this. A
 * PDU that arrives after the end (AA-7) does not change the cause. A peer that does not read gets
 * a limited number of answers. */
static void apply(ltdic_association *a, const ltdic_effects *effects, int cause, uint64_t now)
{
    const bool again = effects->action == LTDIC_AA_7;
    if (effects->send != 0 && !(again && (ltdic__outbox_is_full(&a->out) ||
                                          ltdic__outbox_size(&a->out) >= MAX_ANSWERS))) {
        uint8_t pdu[LTDIC_FIXED_PDU_SIZE];
        ltdic_encode_fixed(pdu, effects->send, effects->codes);
        a->cause = again ? a->cause : cause;
        chunk *copy = ltdic__outbox_copy(&a->out, (ltdic_bytes){pdu, sizeof pdu});
        if (copy != NULL) {
            ltdic__outbox_send(&a->out, copy);
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

/* Reports the cause that is known already if both sides agreed on the end, or if we made it. */
void ltdic_association_closed(ltdic_association *association, int status, uint64_t now)
{
    ltdic_effects effects;
    if (association->over && association->ul.state == STA_IDLE) {
        return; /* it has ended already, and LTDIC_CLOSED is still to be returned */
    }
    ltdic_ul_event(&association->ul, &effects, LTDIC_EVT_CLOSED, now);
    const bool agreed = status != LTDIC_OK && effects.action == LTDIC_AR_5;
    end(association, agreed ? association->cause : status);
}

/* ---- PDUs of the user -------------------------------------------------------------------- */

static bool advance_message(message *m, uint8_t id, uint8_t control)
{
    const bool command = (control & COMMAND) != 0, last = (control & LAST) != 0;
    const bool same = id == m->id;
    const bool command_may_come = m->stage != IN_DATA && (m->stage != IN_COMMAND || same);
    const bool data_may_come = (m->stage == AFTER_COMMAND || m->stage == IN_DATA) && same;
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

/* Checks that the peer will find the boundaries of what is sent. */
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
        return ltdic__agree(&a->agreed, &a->proposal->parts, pdu, true);
    }
    return keep_proposal(a, pdu, 0) ? LTDIC_OK : LTDIC_ERR_MEMORY;
}

/* Finds every fault of a PDU to send before anything is changed. */
static int check(ltdic_association *a, ltdic_bytes pdu)
{
    const uint8_t type = pdu.data[0];
    const int needed_state = type == LTDIC_ASSOCIATE_RQ   ? STA_IDLE
                             : type == LTDIC_ASSOCIATE_AC ? STA_AWAITING_ANSWER
                                                          : 0;
    if (ltdic__outbox_is_full(&a->out) && type < LTDIC_RELEASE_RQ) {
        return LTDIC_ERR_ROOM; /* a release or an abort is always sent */
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
        memcpy(copy->data + ECHO_AT, a->proposal->parts.pdu.data + ECHO_AT, ECHO_SIZE);
        forget_proposal(a);
    }
    const bool goes = effects->send != 0 || type == LTDIC_ASSOCIATE_RQ; /* AE-2 comes later */
    if (status == LTDIC_OK && goes) {
        ltdic__outbox_send(&a->out, copy);
    } else {
        ltdic__outbox_discard(copy);
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
    chunk *copy = ltdic__outbox_copy(&association->out, pdu);
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

int ltdic__association_withdraw(ltdic_association *a, ltdic_bytes abort, uint64_t now)
{
    const bool over = a->over; /* LTDIC_CLOSED of the last connection */
    const int over_status = a->over_status;
    const int status = ltdic_association_send(a, abort, now);
    a->over = over;
    a->over_status = over_status;
    return status;
}

uint32_t ltdic__fragment_size(const ltdic_association *a)
{
    const uint32_t peer_max = a->ul.requestor ? a->agreed.acceptor_max : a->agreed.requestor_max;
    const uint32_t most = peer_max == 0 ? LARGEST_PDU : peer_max < INT32_MAX ? peer_max : INT32_MAX;
    return most < 6 ? 0 : (most - 6) & ~1U;
}

/* Finds every fault of data to send before anything is changed. */
static int check_data(ltdic_association *a, const ltdic_pdv *data, uint64_t wire)
{
    const uint64_t before = ltdic__outbox_size(&a->out);
    message after = a->sending;
    if (!ltdic__may_send_data(a->ul.state)) {
        return LTDIC_ERR_WRONG_STATE;
    }
    const bool odd = (a->odd.count + data->data.size) % 2 != 0;
    if (!is_accepted(a, data->id) || data->control > (COMMAND | LAST) ||
        (odd && (data->control & LAST) != 0)) {
        return LTDIC_ERR_BAD_VALUE;
    }
    if (!advance_message(&after, data->id, data->control)) {
        return LTDIC_ERR_WRONG_STATE;
    }
    if (ltdic__fragment_size(a) == 0) {
        return LTDIC_ERR_TOO_LARGE;
    }
    if (ltdic__outbox_is_full(&a->out) || (before > 0 && before + wire > LTDIC_MAX_QUEUE)) {
        return LTDIC_ERR_ROOM;
    }
    return ltdic__outbox_keep(&a->out) == LTDIC_OK && ltdic__outbox_reserve_mark(&a->out)
               ? LTDIC_OK
               : LTDIC_ERR_MEMORY;
}

/* Lends the data. If the number of bytes is odd, the last one is kept for the next call. */
static void lend(ltdic_association *a, const ltdic_pdv *data, uint64_t wire, uint64_t pdus)
{
    const size_t over = (a->odd.count + data->data.size) % 2;
    const size_t size = data->data.size > over ? data->data.size - over : 0;
    const loan lent = {.before = a->odd,
                       .data = {data->data.data, size},
                       .size = wire,
                       .fragment = ltdic__fragment_size(a),
                       .id = data->id,
                       .control = data->control};
    ltdic__outbox_lend(&a->out, &lent, pdus);
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
    advance_message(&association->sending, data->id, data->control);
    if (given == 1) { /* this byte waits for the next one */
        association->odd =
            data->data.size == 1 ? (odd_byte){data->data.data[0], 1} : association->odd;
        return LTDIC_OK;
    }
    lend(association, data, wire, pdus);
    return LTDIC_OK;
}

/* ---- PDUs of the peer -------------------------------------------------------------------- */

static void set_received(ltdic_indication *indication, int status, uint8_t type, ltdic_bytes pdu)
{
    *indication =
        (ltdic_indication){.kind = LTDIC_RECEIVED, .status = status, .type = type, .pdu = pdu};
}

/* Gives the state machine an invalid PDU (Evt19). `type` is 0 if the bytes have no valid type. */
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

/* Makes a fault that is not at a field. */
static ltdic_fault fault_of(int status)
{
    return (ltdic_fault){.status = status};
}

/* Keeps an RQ until it is answered, and sets the refusal if the provider cannot serve it. */
static void remember_request(ltdic_association *a, ltdic_bytes rq)
{
    static const char dicom[] = APPLICATION_CONTEXT;
    const ltdic_bytes only = {(const uint8_t *)dicom, sizeof dicom - 1};
    if (!keep_proposal(a, rq, ltdic__count_contexts(rq))) {
        a->ul.refusal = (ltdic_reject){2, 3, 1};
        return;
    }
    proposal *p = a->proposal;
    ltdic__view_request(&p->parts, p->parts.pdu, p->contexts);
    if (!same_bytes(p->parts.application_context, only)) {
        a->ul.refusal = (ltdic_reject){1, 1, 2};
    }
}

static int receive_accept(ltdic_association *a, ltdic_bytes ac)
{
    request_view parts;
    uint32_t contexts[MOST_CONTEXTS];
    ltdic__view_request(&parts, a->proposal->parts.pdu, contexts);
    const int status = ltdic__agree(&a->agreed, &parts, ac, false);
    forget_proposal(a);
    return status;
}

/* Checks a PDU of the peer. The number of items is limited, since a user spends time on each. */
static int check_received(ltdic_bytes pdu, ltdic_fault *fault)
{
    const ltdic_options any = {.size = sizeof any};
    ltdic_items rows = {NULL, 0, 0}; /* with no room for rows, ltdic_decode only counts them */
    const int status = ltdic_decode(&rows, pdu, &any, fault);
    if (status != LTDIC_ERR_ROOM) {
        return status;
    }
    *fault = (ltdic_fault){.status = rows.count > LTDIC_MAX_ITEMS ? LTDIC_ERR_TOO_LARGE : LTDIC_OK,
                           .offset = 2};
    return fault->status;
}

static int look_into(ltdic_association *a, ltdic_bytes pdu, ltdic_fault *fault)
{
    int status = check_received(pdu, fault);
    if (status != LTDIC_OK) {
        return status;
    }
    if (pdu.data[0] == LTDIC_ASSOCIATE_RQ && a->ul.state == STA_AWAITING_RQ) {
        remember_request(a, pdu);
    }
    if (pdu.data[0] == LTDIC_ASSOCIATE_AC && a->ul.state == STA_AWAITING_AC) {
        status = receive_accept(a, pdu);
    }
    *fault = fault_of(status);
    return status;
}

static bool receive_pdu(ltdic_association *a, ltdic_indication *indication, ltdic_bytes pdu,
                        uint64_t now)
{
    ltdic_effects effects;
    ltdic_fault fault;
    const bool had_ended = a->ul.state == STA_AWAITING_CLOSE;
    int status = look_into(a, pdu, &fault);
    if (status != LTDIC_OK) {
        return receive_fault(a, indication, pdu.data[0], pdu, fault, now);
    }
    status = ltdic_ul_receive(&a->ul, &effects, pdu, now);
    const bool aborted = pdu.data[0] == LTDIC_ABORT && !had_ended;
    const bool refused = pdu.data[0] == LTDIC_ASSOCIATE_RQ && effects.send == LTDIC_ASSOCIATE_RJ;
    set_received(indication, status, pdu.data[0], pdu);
    if (refused) {
        indication->kind = LTDIC_REFUSED;
        indication->codes = effects.codes;
    }
    apply(a, &effects, status != LTDIC_OK ? status : cause_or(a, aborted ? LTDIC_ERR_ABORTED : 0),
          now);
    return effects.tell || refused;
}

/* Receives a piece of a P-DATA-TF; `raw` are its bytes as received. */
static bool receive_data(ltdic_association *a, ltdic_indication *indication, ltdic_bytes raw,
                         const ltdic_piece *piece, uint64_t now)
{
    static const uint8_t type[] = {LTDIC_DATA_TF};
    ltdic_effects effects;
    const bool expected = ltdic__may_receive_data(a->ul.state);
    if (expected && piece->first &&
        (!is_accepted(a, piece->id) ||
         !advance_message(&a->receiving, piece->id, piece->control))) {
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
        if (!piece->last) {
            indication->piece.control &= (uint8_t)~LAST;
        }
    }
    return effects.tell;
}

/* Takes the next piece of the input. In a state in which no data can arrive, the header of a
 * P-DATA-TF is a piece of its own. Else a header stays in front of its data. */
static int next_piece(ltdic_association *a, ltdic_piece *piece, ltdic_bytes *in, ltdic_fault *fault)
{
    const bool data_may_come = ltdic__may_receive_data(a->ul.state);
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

/* Returns true if the next input must wait for the user: data, and a release, since its answer
 * must not be sent before the data that waits. An abort in front of them is read. */
static bool is_held(const ltdic_association *a, ltdic_bytes in)
{
    return ltdic__association_is_held(a) && ltdic__may_receive_data(a->ul.state) &&
           (a->stream.pdu_left > 0 || in.data[0] == LTDIC_DATA_TF ||
            in.data[0] == LTDIC_RELEASE_RQ);
}

/* Consumes one piece of the input. Returns false if nothing more of it can be used. */
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
    if (status != LTDIC_OK) { /* PDU boundaries are lost from here on */
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
    if (association->ul.state == STA_IDLE || association->ul.state == STA_AWAITING_TRANSPORT) {
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

/* ---- indications ------------------------------------------------------------------------- */

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

/* Handles a deadline that has passed. ARTIM closes the transport. The other deadlines abort, as a
 * user would do (PS3.8 9.1.4). */
static bool pass_deadline(ltdic_association *a, ltdic_indication *indication, uint64_t now)
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

/* Returns the position, in the stream of all bytes sent, up to which LTDIC_SENT comes before the
 * input. PDUs that were submitted before the latest bytes arrived come first, later ones after
 * them: else a user who sends again at each LTDIC_SENT would never read the peer. */
static uint64_t horizon_of(ltdic_association *a, size_t received)
{
    if (a->over || received == 0) {
        a->unconsumed = 0;
        return UINT64_MAX;
    }
    if (received > a->unconsumed) {
        a->horizon = a->out.submitted;
    }
    a->unconsumed = received;
    return a->horizon;
}

int ltdic_association_next(ltdic_association *association, ltdic_indication *indication,
                           ltdic_bytes *in, uint64_t now)
{
    bool tell = false;
    if (ltdic__outbox_report(&association->out, indication, horizon_of(association, in->size)) ||
        report_over(association, indication)) {
        return LTDIC_OK;
    }
    while (!tell && association->ul.state != STA_IDLE &&
           receive(association, indication, in, now, &tell)) {
    }
    association->unconsumed = association->over ? 0 : in->size;
    tell = tell || pass_deadline(association, indication, now);
    tell = tell || ltdic__outbox_report(&association->out, indication, UINT64_MAX) ||
           report_over(association, indication);
    return tell ? LTDIC_OK : LTDIC_NEED_MORE;
}
