/* SPDX-License-Identifier: MIT */
/* A server: a listener and its associations on a loop. An ltdic_admission answers the requests,
 * and batches report the events to its user.
 *
 * After an A-RELEASE-RQ the endpoint stays busy until the next batch. So the user has handled all
 * data before the answer is sent. */
#include "admission.h"
#include "batch.h"

#include "codec/buffer.h"
#include "codec/bytes.h"
#include "codec/items.h"
#include "codec/text.h"
#include "engine/association.h"
#include "engine/walk.h"
#include "net/endpoint.h"
#include "net/loop.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum {
    GRACE = 500,        /* ms for a connection without a request after ltdic_server_close */
    CLOSING_STEP = 20,  /* ms between two steps of closing */
    ACCEPT_RETRY = 100, /* ms until accepting is tried again after memory ran out */
    ID_BITS = 24, /* bits of an ltdic_served_id for the place; the others hold a serial number */
    MOST_WORK = 4 << 20, /* work that users may cause by sending between two runs */
    PDU_WORK = 1024,     /* work of one PDU, in bytes of data that take the same time */
    FIRST_PART = 64, /* places in the first part of the table; each next part has twice as many */
    PARTS = ID_BITS - 6
};

typedef struct ltdic_served ltdic_served;

/* A place in the table of associations. The number of an association leads to its place. */
typedef struct place {
    _Atomic(ltdic_served_id) id; /* 0: not in use */
    atomic_int phase;            /* ltdic_phase */
    ltdic_served *served;
    size_t number; /* number of the place, from 1 */
    struct place *next_free;
} place;

struct ltdic_served {
    node all;
    node resuming;  /* in `resuming` of the server, or unlinked */
    node postponed; /* in `paused` or `postponed` of the server, or unlinked */
    ltdic_server *server;
    place *place;
    ltdic_net *net;  /* NULL: the association has ended, and is freed with the next batch */
    void *transport; /* state of the transport, if it has one, after its end */
    ltdic_answer answer;
    uint64_t since;     /* when the request or, before it, the connection came */
    bool requested;     /* an A-ASSOCIATE-RQ was received */
    bool accepted;      /* an A-ASSOCIATE-AC was sent */
    bool verifies;      /* the server answers C-ECHO */
    bool known_to_user; /* an event of it was put into a batch */
    bool inside;        /* the peer has begun a command or data set that is not complete */
    bool alone;         /* the last command of the peer announced no data set */
    bool between;       /* each message that the peer has begun is complete */
    uint8_t held;       /* LTDIC_HOLD_... */
    bool waits;         /* the user has more to send than there was room for */
    bool announced;     /* the last command of the user announced a data set */
    bool releases; /* the peer has asked for release, and the answer waits for data of the user */
    uint64_t run;  /* the last run after which data was sent */
    ltdic_echo_reader echoes;
    ltdic_report report;
};

struct ltdic_server {
    source alarm; /* its timer: for the next step of closing, or to accept again */
    queue queue;  /* for the alarm, the listener and all endpoints */
    ltdic_loop *loop;
    ltdic_net *listener; /* NULL after ltdic_server_close */
    ltdic_admission *admission;
    ltdic_timeouts timeouts;
    const ltdic_transport *transport; /* NULL: TCP alone */
    ltdic_make_transport make_transport;
    void *make_user;
    ltdic_counters counters;
    /* Lists of associations: those that are served; those whose endpoint is busy until their
     * release is answered; those that have ended, and are freed with the next batch. */
    node served, releasing, ended;
    node resuming; /* those that wait for the next run to receive again or to answer a release */
    /* The table of places. Its parts never move, so that another thread can read it. */
    _Atomic(place *) parts[PARTS];
    place *free_places;
    size_t places;
    uint64_t serial; /* serial number given last */
    /* Associations whose data is postponed because MOST_WORK was reached: those that have sent
     * some in this run, and those that have not. The latter come first in the next run. */
    node paused, postponed;
    uint64_t runs;
    uint64_t work; /* caused since the last run: bytes of data, and PDU_WORK for each PDU */
    batch_memory batch;
    unsigned wanted;
    bool starved; /* there was no memory for a connection that waits */
    bool closing;
    bool succeeded; /* the next process may listen at the same socket */
    /* times of the steps of closing */
    uint64_t grace, release_at, abort_at, end_at;
};

#define RESUMING_OF(pointer) CONTAINER_OF(pointer, ltdic_served, resuming)
#define SERVED_OF(pointer) CONTAINER_OF(pointer, ltdic_served, all)

/* ---- numbers ------------------------------------------------------------------------------ */

/* Returns the place with this index; NULL if its part has not been made. */
static place *place_at(const ltdic_server *s, size_t index)
{
    size_t part = 0, size = FIRST_PART;
    while (index >= size && part < PARTS - 1) {
        index -= size;
        size *= 2;
        part++;
    }
    place *places = index < size ? atomic_load(&s->parts[part]) : NULL;
    return places == NULL ? NULL : &places[index];
}

/* Adds a part to the table. Returns false if there is no memory. */
static bool add_places(ltdic_server *s)
{
    size_t part = 0;
    while (part < PARTS && atomic_load(&s->parts[part]) != NULL) {
        part++;
    }
    const size_t size = (size_t)FIRST_PART << part;
    place *places = part < PARTS ? calloc(size, sizeof *places) : NULL;
    if (places == NULL) {
        return false;
    }
    for (size_t i = size; i-- > 0;) {
        places[i].number = s->places + i + 1;
        places[i].next_free = s->free_places;
        s->free_places = &places[i];
    }
    s->places += size;
    atomic_store(&s->parts[part], places);
    return true;
}

/* Gives an association a place and a number. Returns false if there is no memory. */
static bool assign_number(ltdic_server *s, ltdic_served *a)
{
    if (s->free_places == NULL && !add_places(s)) {
        return false;
    }
    place *p = s->free_places;
    s->free_places = p->next_free;
    p->served = a;
    a->place = p;
    atomic_store(&p->phase, LTDIC_PHASE_NONE);
    atomic_store(&p->id, ++s->serial << ID_BITS | p->number);
    return true;
}

static void withdraw_number(ltdic_server *s, place *p)
{
    atomic_store(&p->phase, LTDIC_PHASE_NONE);
    atomic_store(&p->id, 0);
    p->served = NULL;
    p->next_free = s->free_places;
    s->free_places = p;
}

static place *find_place(const ltdic_server *s, ltdic_served_id id)
{
    const size_t number = (size_t)(id & ((1U << ID_BITS) - 1));
    place *p = number == 0 ? NULL : place_at(s, number - 1);
    return p != NULL && atomic_load(&p->id) == id ? p : NULL;
}

/* Returns NULL if the association has ended and the batch that reported it is over. */
static ltdic_served *find(const ltdic_server *s, ltdic_served_id id)
{
    const place *p = find_place(s, id);
    return p == NULL ? NULL : p->served;
}

static void free_places(ltdic_server *s)
{
    for (size_t i = 0; i < PARTS; i++) {
        free(atomic_load(&s->parts[i]));
    }
}

int ltdic_served_phase(const ltdic_server *server, ltdic_served_id served)
{
    place *p = find_place(server, served);
    return p == NULL ? LTDIC_PHASE_NONE : atomic_load(&p->phase);
}

uint64_t ltdic_served_taken(const ltdic_server *server, ltdic_served_id served)
{
    const ltdic_served *a = find(server, served);
    return a == NULL || a->net == NULL ? 0 : ltdic_net_taken(a->net);
}

/* ---- life -------------------------------------------------------------------------------- */

static ltdic_server *server_of(source *alarm)
{
    return CONTAINER_OF(alarm, ltdic_server, alarm);
}

static bool is_over(const ltdic_server *s)
{
    return s->closing && list_empty(&s->served) && list_empty(&s->releasing);
}

/* Sets the alarm to the next step of closing or accepting. */
static void set_alarm(ltdic_server *s)
{
    const uint32_t delay = s->closing && !is_over(s) ? CLOSING_STEP : s->starved ? ACCEPT_RETRY : 0;
    ltdic__set_timer(&s->alarm, delay == 0 ? 0 : ltdic__now() + delay);
}

/* Runs when the alarm is due. The step itself is done by ltdic_server_run. */
static bool next(source *alarm, ltdic_indication *indication)
{
    (void)indication;
    set_alarm(server_of(alarm));
    return false;
}

static void renew(source *alarm)
{
    (void)alarm; /* each process has its own alarm */
}

static void free_it(source *alarm)
{
    ltdic_server_free(server_of(alarm));
}

static const source_kind alarm_kind = {next, renew, free_it};

ltdic_server *ltdic_server_new(ltdic_loop *loop, ltdic_admission *admission)
{
    ltdic_server *s = calloc(1, sizeof *s);
    if (s == NULL) {
        return NULL;
    }
    s->alarm.kind = &alarm_kind;
    s->loop = loop;
    if (!ltdic__loop_add(loop, &s->queue, &s->alarm)) {
        free(s);
        return NULL;
    }
    ltdic__queue_add(loop, &s->queue);
    s->admission = admission;
    s->timeouts.size = sizeof s->timeouts;
    list_init(&s->served);
    list_init(&s->releasing);
    list_init(&s->ended);
    list_init(&s->resuming);
    list_init(&s->paused);
    list_init(&s->postponed);
    s->listener = ltdic__net_new(loop, &s->queue, NULL);
    if (s->listener == NULL) {
        ltdic_server_free(s);
        return NULL;
    }
    return s;
}

static void move_to(node *list, ltdic_served *a)
{
    list_remove(&a->all);
    list_insert_before(list, &a->all);
}

static void free_served(ltdic_served *a)
{
    if (a->net != NULL) {
        ltdic_net_free(a->net);
    }
    if (a->transport != NULL && a->server->transport->free != NULL) {
        a->server->transport->free(a->transport);
    }
    ltdic_admission_leave(a->server->admission, &a->answer);
    withdraw_number(a->server, a->place);
    ltdic_echo_reader_clear(&a->echoes);
    list_remove(&a->resuming);
    list_remove(&a->postponed);
    list_remove(&a->all);
    free(a);
}

static void free_all(node *list)
{
    for (node *n = list->next, *next; n != list; n = next) {
        next = n->next;
        free_served(SERVED_OF(n));
    }
}

void ltdic_server_free(ltdic_server *server)
{
    if (server == NULL) {
        return;
    }
    for (node *n = server->releasing.next; n != &server->releasing; n = n->next) {
        ltdic_net_done(SERVED_OF(n)->net);
    }
    free_all(&server->releasing);
    free_all(&server->served);
    free_all(&server->ended);
    if (server->listener != NULL) {
        ltdic_net_free(server->listener);
    }
    ltdic__set_timer(&server->alarm, 0);
    ltdic__loop_remove(&server->alarm);
    ltdic__queue_remove(&server->queue);
    ltdic__batch_clear(&server->batch);
    free_places(server);
    free(server);
}

void ltdic_server_set_timeouts(ltdic_server *server, const ltdic_timeouts *timeouts)
{
    const size_t size = sizeof server->timeouts;
    memcpy(&server->timeouts, timeouts, timeouts->size < size ? timeouts->size : size);
    server->timeouts.size = size;
}

int ltdic_server_listen(ltdic_server *server, const ltdic_address *address, int backlog)
{
    return server->listener == NULL ? LTDIC_ERR_WRONG_STATE
                                    : ltdic_net_listen(server->listener, address, backlog);
}

int ltdic_server_listen_on(ltdic_server *server, int descriptor)
{
    const int status = server->listener == NULL ? LTDIC_ERR_WRONG_STATE
                                                : ltdic_net_listen_on(server->listener, descriptor);
    server->succeeded = server->succeeded || status == LTDIC_OK;
    return status;
}

int ltdic_server_share(ltdic_server *server, ltdic_server *other)
{
    server->succeeded = other->succeeded;
    return server->listener == NULL || other->listener == NULL
               ? LTDIC_ERR_WRONG_STATE
               : ltdic_net_share(server->listener, other->listener);
}

uint32_t ltdic_server_lacks(const ltdic_server *server)
{
    return server->listener == NULL ? 0 : ltdic__net_lacks(server->listener);
}

ltdic_cause ltdic_server_cause(const ltdic_server *server)
{
    return server->listener == NULL ? (ltdic_cause){0, 0} : ltdic_net_cause(server->listener);
}

void ltdic_server_limit_connections(ltdic_server *server, uint32_t most)
{
    if (server->listener != NULL) {
        ltdic_net_limit_connections(server->listener, most);
    }
}

void ltdic_server_limit_unfinished(ltdic_server *server, uint64_t bytes)
{
    if (server->listener != NULL) {
        ltdic_net_limit_unfinished(server->listener, bytes);
    }
}

void ltdic_server_set_transport(ltdic_server *server, const ltdic_transport *transport,
                                ltdic_make_transport make, void *user)
{
    server->transport = transport;
    server->make_transport = make;
    server->make_user = user;
}

int ltdic_server_name(const ltdic_server *server, ltdic_buffer *host, uint16_t *port)
{
    return server->listener == NULL ? LTDIC_ERR_WRONG_STATE
                                    : ltdic_net_name(server->listener, 0, host, port);
}

void ltdic_server_wake(ltdic_server *server)
{
    ltdic_loop_wake(server->loop);
}

const ltdic_counters *ltdic_server_counters(const ltdic_server *server)
{
    return &server->counters;
}

/* ---- the batch ---------------------------------------------------------------------------- */

/* Adds an event with these bytes, if any. Returns false if there is no memory. */
static bool put_event(ltdic_server *s, ltdic_served *a, int kind, ltdic_bytes bytes)
{
    const ltdic_event_row row = {.served = atomic_load(&a->place->id), .kind = (uint8_t)kind};
    const bool put = ltdic__batch_put(&s->batch, row, bytes);
    a->known_to_user = a->known_to_user || put;
    return put;
}

/* Does the same for data. */
static bool put_data(ltdic_server *s, ltdic_served *a, const ltdic_piece *piece)
{
    const ltdic_event_row row = {
        .served = atomic_load(&a->place->id), .id = piece->id, .control = piece->control};
    const bool put = ltdic__batch_put_data(&s->batch, row, piece->data);
    a->known_to_user = a->known_to_user || put;
    return put;
}

/* ---- outcome ------------------------------------------------------------------------------ */

static const ltdic_reject no_codes, congestion = {2, 3, 1};

/* Returns the counter of rejections with these codes. */
static uint64_t *rejections(ltdic_counters *c, ltdic_reject codes)
{
    return ltdic_reject_is_defined(codes)
               ? &c->rejected[codes.result - 1][codes.source - 1][codes.reason]
               : &c->rejected_undefined;
}

static void count_outcome(const ltdic_served *a, ltdic_outcome outcome, ltdic_reject codes)
{
    ltdic_counters *c = &a->server->counters;
    uint64_t *const ends[] = {
        [LTDIC_OUTCOME_RELEASED] = &c->released,
        [LTDIC_OUTCOME_ABORTED] = &c->aborted,
        [LTDIC_OUTCOME_TIMED_OUT] = &c->timed_out,
        [LTDIC_OUTCOME_LOST] = &c->lost,
    };
    if (outcome == LTDIC_OUTCOME_REJECTED) {
        (*rejections(c, codes))++;
    } else if (outcome == LTDIC_OUTCOME_NO_REQUEST) {
        c->no_request++;
    } else if (outcome == LTDIC_OUTCOME_FAULT) {
        c->faults++;
    } else if (outcome == LTDIC_OUTCOME_TLS_FAILED) {
        c->tls_failures++;
    } else if (a->accepted) {
        c->open--;
        (*ends[outcome])++;
    } else {
        c->unaccepted++;
    }
}

/* Sets the outcome once: later ones only follow from the first. */
static void set_outcome(ltdic_served *a, ltdic_outcome outcome, int status, ltdic_reject codes)
{
    if (a->report.outcome == LTDIC_OUTCOME_NONE) {
        a->report.outcome = (int)outcome;
        a->report.status = status;
        a->report.codes = codes;
        atomic_store(&a->place->phase, LTDIC_PHASE_OVER);
        count_outcome(a, outcome, codes);
    }
}

/* Returns the outcome of an association that ended without a PDU for it. */
static ltdic_outcome outcome_of(int status)
{
    return status == LTDIC_ERR_TIMEOUT  ? LTDIC_OUTCOME_TIMED_OUT
           : status == LTDIC_ERR_CLOSED ? LTDIC_OUTCOME_LOST
                                        : LTDIC_OUTCOME_ABORTED;
}

static ltdic_reject codes_of_abort(const uint8_t *pdu)
{
    return (ltdic_reject){0, pdu[8], pdu[9]};
}

/* Sets the outcome after a PDU that broke the protocol. The codes are those of the A-ABORT that
 * was sent (AA-8, PS3.8 table 9-26). */
static void set_fault(ltdic_served *a, int status)
{
    const ltdic_reject provider = {0, 2, ltdic_abort_reason(status)};
    const ltdic_outcome outcome = outcome_of(status);
    set_outcome(a, outcome, status, outcome == LTDIC_OUTCOME_ABORTED ? provider : no_codes);
}

/* Leaves the admission if the association is over, even if its connection is not. */
static void leave_if_over(ltdic_served *a)
{
    const int state = a->net != NULL ? ltdic_net_state(a->net) : STA_IDLE;
    if (!ltdic__is_in_progress(state)) {
        ltdic_admission_leave(a->server->admission, &a->answer);
    }
}

/* ---- sending ------------------------------------------------------------------------------ */

static void sent_by_user(ltdic_served *a, const uint8_t *pdu)
{
    switch (pdu[0]) {
    case LTDIC_ASSOCIATE_AC:
        a->accepted = true;
        a->verifies = (a->server->wanted & LTDIC_WANT_VERIFICATION) == 0;
        atomic_store(&a->place->phase, LTDIC_PHASE_OPEN);
        a->server->counters.accepted++;
        a->server->counters.open++;
        break;
    case LTDIC_ASSOCIATE_RJ:
        set_outcome(a, LTDIC_OUTCOME_REJECTED, LTDIC_OK, (ltdic_reject){pdu[7], pdu[8], pdu[9]});
        break;
    case LTDIC_RELEASE_RP:
        set_outcome(a, LTDIC_OUTCOME_RELEASED, LTDIC_OK, no_codes);
        break;
    case LTDIC_ABORT:
        set_outcome(a, LTDIC_OUTCOME_ABORTED, LTDIC_OK, codes_of_abort(pdu));
        break;
    default:
        break;
    }
    leave_if_over(a);
}

static int send_pdu(ltdic_served *a, ltdic_bytes pdu)
{
    const int status = ltdic_net_send(a->net, pdu);
    if (status == LTDIC_OK) {
        sent_by_user(a, pdu.data);
    }
    return status;
}

int ltdic_served_send(ltdic_server *server, ltdic_served_id served, ltdic_bytes pdu)
{
    ltdic_served *a = find(server, served);
    return a == NULL || a->net == NULL ? LTDIC_ERR_WRONG_STATE : send_pdu(a, pdu);
}

/* Makes the user wait until the next run, so that peers that take all data at once do not delay
 * the others. */
static int postpone(ltdic_served *a)
{
    ltdic_server *s = a->server;
    list_remove(&a->postponed);
    list_insert_before(a->run == s->runs ? &s->paused : &s->postponed, &a->postponed);
    return LTDIC_ERR_ROOM;
}

static void count_work(ltdic_served *a, size_t size)
{
    const uint64_t fragment = ltdic__fragment_size(ltdic__net_association(a->net));
    a->server->work += size + PDU_WORK * (size / (fragment == 0 ? 1 : fragment) + 1);
    a->run = a->server->runs;
}

/* Receives from a peer, unless its user has no room to send or holds it. */
static void hold_or_resume(ltdic_served *a)
{
    ltdic_net_hold(a->net, a->waits || a->releases || (a->held & LTDIC_HOLD_DATA) != 0);
}

void ltdic_served_hold(ltdic_server *server, ltdic_served_id served, unsigned held)
{
    ltdic_served *a = find(server, served);
    if (a != NULL && a->net != NULL) {
        a->held = (uint8_t)held;
        hold_or_resume(a);
    }
}

int ltdic_served_send_data(ltdic_server *server, ltdic_served_id served, const ltdic_pdv *data)
{
    ltdic_served *a = find(server, served);
    if (a == NULL || a->net == NULL) {
        return LTDIC_ERR_WRONG_STATE;
    }
    if (ltdic__association_is_lost(ltdic__net_association(a->net)) &&
        ltdic__may_send_data(ltdic_net_state(a->net))) {
        return LTDIC_OK; /* the data is discarded; PDUs of the peer are still received */
    }
    const int status = server->work < MOST_WORK ? ltdic_net_send_data(a->net, data) : postpone(a);
    if (status == LTDIC_ERR_ROOM) {
        a->waits = true;
        hold_or_resume(a);
    } else if (status == LTDIC_OK) {
        count_work(a, data->data.size);
        a->announced = data->control == (COMMAND | LAST) ? ltdic_announces_data_set(data->data) == 1
                                                         : a->announced;
    }
    return status;
}

static int send_fixed(ltdic_served *a, uint8_t type, ltdic_reject codes)
{
    uint8_t pdu[LTDIC_FIXED_PDU_SIZE];
    ltdic_encode_fixed(pdu, type, codes);
    return send_pdu(a, (ltdic_bytes){pdu, sizeof pdu});
}

/* Sends a PDU of fixed size. If there is no memory for it, the connection is ended. */
static void send_or_end(ltdic_served *a, uint8_t type, ltdic_reject codes)
{
    if (send_fixed(a, type, codes) == LTDIC_ERR_MEMORY) {
        ltdic__net_end(a->net, LTDIC_ERR_MEMORY);
    }
}

/* Finds the address of the peer, which is known while it is connected, if the user or the
 * admission needs it. Until the first run `wanted` is not known; ltdic_server_close may come
 * before. */
static void find_peer(ltdic_served *a)
{
    const ltdic_server *s = a->server;
    ltdic_report *r = &a->report;
    ltdic_buffer host = {(uint8_t *)r->host, sizeof r->host, 0};
    if (s->wanted != 0 || s->closing || ltdic_admission_counts_hosts(s->admission)) {
        ltdic_net_name(a->net, 1, &host, &r->port);
    }
}

/* ---- requests ----------------------------------------------------------------------------- */

static void copy_title(char *out, ltdic_bytes title)
{
    memcpy(out, title.data, title.size);
    for (size_t i = 0; i < title.size; i++) { /* a NUL inside would end the text */
        out[i] = (char)(out[i] == '\0' ? '?' : out[i]);
    }
    out[title.size] = '\0';
}

/* Keeps the titles for the report. */
static void remember(ltdic_served *a, ltdic_bytes called, ltdic_bytes calling)
{
    a->requested = true;
    a->since = ltdic__now();
    copy_title(a->report.called, called);
    copy_title(a->report.calling, calling);
}

static void admit(ltdic_server *s, ltdic_served *a, ltdic_bytes rq, ltdic_bytes accept)
{
    const bool asks = (s->wanted & LTDIC_WANT_REQUESTS) != 0;
    atomic_store(&a->place->phase, LTDIC_PHASE_ASKING);
    if (!asks && send_pdu(a, accept) != LTDIC_OK) {
        ltdic__net_end(a->net, LTDIC_ERR_MEMORY);
        return;
    }
    if ((s->wanted & (LTDIC_WANT_REQUESTS | LTDIC_WANT_DATA)) == 0) {
        return;
    }
    const int kind = asks ? LTDIC_SERVED_REQUEST : LTDIC_SERVED_ACCEPTED;
    s->batch.secret = true;
    if (!ltdic__batch_reserve(&s->batch, rq.size + accept.size) || !put_event(s, a, kind, rq) ||
        !ltdic__batch_append(&s->batch, accept)) {
        ltdic__net_end(a->net, LTDIC_ERR_MEMORY);
    }
}

/* Returns true if associations are not to begin or to go on. */
static bool is_leaving(const ltdic_server *s, uint64_t now)
{
    return s->closing && now >= s->release_at;
}

static void receive_request(ltdic_server *s, ltdic_served *a, ltdic_bytes rq)
{
    uint8_t room[LTDIC_ACCEPT_ROOM];
    ltdic_buffer accept = {room, sizeof room, 0};
    if (a->report.host[0] == '\0') {
        find_peer(a); /* nobody may have needed it when the connection was accepted */
    }
    const request_view *parts = ltdic__association_request(ltdic__net_association(a->net));
    remember(a, parts->called, parts->calling);
    const ltdic_bytes host = {(const uint8_t *)a->report.host, strlen(a->report.host)};
    ltdic__admission_judge(s->admission, &a->answer, &accept, parts, host);
    if (a->answer.refusal.result != 0) {
        send_or_end(a, LTDIC_ASSOCIATE_RJ, a->answer.refusal);
    } else if (is_leaving(s, ltdic__now())) {
        send_or_end(a, LTDIC_ASSOCIATE_RJ, congestion);
    } else {
        admit(s, a, rq, (ltdic_bytes){accept.data, accept.size});
    }
}

/* ---- indications ------------------------------------------------------------------------- */

/* Answers a C-ECHO-RQ. A peer that does not read the answers is aborted. */
static void answer_echo(ltdic_served *a, uint8_t id, ltdic_echo *echo)
{
    uint8_t room[LTDIC_ECHO_ROOM];
    ltdic_buffer command = {room, sizeof room, 0};
    echo->field = LTDIC_C_ECHO_RSP;
    echo->status = 0;
    int status = ltdic_encode_echo(&command, echo);
    if (status == LTDIC_OK) {
        const ltdic_pdv pdv = {id, COMMAND | LAST, {command.data, command.size}};
        a->between = true;
        status = ltdic_net_send_data(a->net, &pdv);
    }
    if (status != LTDIC_OK && status != LTDIC_ERR_WRONG_STATE) {
        send_or_end(a, LTDIC_ABORT, no_codes);
    }
}

/* Receives data in a Verification context, where only C-ECHO requests are allowed (PS3.4 A.4). */
static void receive_echo(ltdic_served *a, const ltdic_piece *piece)
{
    ltdic_echo echo;
    const int status = ltdic_echo_reader_take(&a->echoes, &echo, piece);
    if (status == LTDIC_ERR_MEMORY) {
        ltdic__net_end(a->net, status);
    } else if (status == LTDIC_OK && echo.field == LTDIC_C_ECHO_RQ) {
        answer_echo(a, piece->id, &echo);
    } else if ((piece->control & LAST) != 0) {
        send_or_end(a, LTDIC_ABORT, no_codes);
    }
}

static void receive_data(ltdic_server *s, ltdic_served *a, const ltdic_indication *i)
{
    const ltdic_piece *p = &i->piece;
    const bool command = (p->control & COMMAND) != 0;
    if (!a->inside && command) { /* its first piece tells mostly (PS3.7 6.3.1) */
        a->alone = ltdic_announces_data_set(p->data) == 0;
    }
    a->inside = (p->control & LAST) == 0;
    a->between = !a->inside && (!command || a->alone);
    const bool verification = (a->answer.verification[p->id / 8] >> p->id % 8 & 1) != 0;
    if (verification && a->verifies) {
        receive_echo(a, p);
        return;
    }
    if ((s->wanted & LTDIC_WANT_DATA) != 0 && !put_data(s, a, p)) {
        ltdic__net_end(a->net, LTDIC_ERR_MEMORY);
    }
}

static void receive_pdu(ltdic_server *s, ltdic_served *a, const ltdic_indication *i)
{
    switch (i->type) {
    case LTDIC_ASSOCIATE_RQ:
        receive_request(s, a, i->pdu);
        break;
    case LTDIC_DATA_TF:
        receive_data(s, a, i);
        break;
    case LTDIC_RELEASE_RQ:
        move_to(&s->releasing, a);
        break;
    case LTDIC_RELEASE_RP:
        set_outcome(a, LTDIC_OUTCOME_RELEASED, LTDIC_OK, no_codes);
        if (ltdic_net_state(a->net) ==
            STA_COLLISION_ACCEPTOR_ANSWER) { /* release collision (PS3.8 9.2.2) */
            send_or_end(a, LTDIC_RELEASE_RP, no_codes);
        }
        break;
    case LTDIC_ABORT:
        set_outcome(a, LTDIC_OUTCOME_ABORTED, LTDIC_ERR_ABORTED, codes_of_abort(i->pdu.data));
        break;
    default:
        break;
    }
}

/* Handles a request that the provider has refused: the user is not asked. */
static void receive_refused(ltdic_served *a, const ltdic_indication *i)
{
    a->report.received += i->pdu.size;
    remember(a, ltdic__title_at(i->pdu, CALLED_AT), ltdic__title_at(i->pdu, CALLING_AT));
    set_outcome(a, LTDIC_OUTCOME_REJECTED, LTDIC_OK, i->codes);
}

/* Reports LTDIC_SERVED_ROOM to a user who waits, when half of the queue is free. */
static void tell_of_room(ltdic_served *a)
{
    if (a->waits && ltdic__association_has_room(ltdic__net_association(a->net))) {
        a->waits = !put_event(a->server, a, LTDIC_SERVED_ROOM, (ltdic_bytes){NULL, 0});
        list_remove(&a->postponed);
        list_remove(&a->resuming);
        list_insert_before(&a->server->resuming, &a->resuming);
    }
}

/* Corrects the counters after a rejection that was lost with its connection. */
static void take_back_rejection(ltdic_served *a)
{
    ltdic_counters *c = &a->server->counters;
    (*rejections(c, a->report.codes))--;
    c->unaccepted++;
    a->report.outcome = LTDIC_OUTCOME_LOST;
    a->report.status = LTDIC_ERR_CLOSED;
    a->report.codes = no_codes;
}

static void sent(ltdic_served *a, const ltdic_indication *i)
{
    a->report.sent += i->status == LTDIC_OK ? i->size : 0;
    if (i->type == LTDIC_ASSOCIATE_RJ && i->status != LTDIC_OK) {
        take_back_rejection(a);
    }
    tell_of_room(a);
}

/* Handles the end of a connection without an A-ASSOCIATE-RQ. Returns false if the peer sent
 * nothing and did not wait for ARTIM, as probes do: it is counted, but not reported. */
static bool end_without_request(ltdic_served *a, const ltdic_indication *i)
{
    ltdic_report *r = &a->report;
    const ltdic_bytes first = ltdic_net_first(a->net);
    const bool fault = i->status < 0 && i->status > LTDIC_ERR_ADDRESS; /* found in the input */
    const ltdic_outcome outcome = first.size > 0 && !ltdic__net_is_open(a->net)
                                      ? LTDIC_OUTCOME_TLS_FAILED
                                  : fault ? LTDIC_OUTCOME_FAULT
                                          : LTDIC_OUTCOME_NO_REQUEST;
    memcpy(r->first, first.data, first.size);
    r->first_size = (uint8_t)first.size;
    r->offset = i->offset;
    set_outcome(a, outcome, i->status, no_codes);
    return first.size > 0 || i->status == LTDIC_ERR_TIMEOUT;
}

static void over(ltdic_server *s, ltdic_served *a, const ltdic_indication *i)
{
    const int status = i->status == LTDIC_OK ? a->report.status : i->status; /* OK: we closed it */
    bool wanted = (s->wanted & LTDIC_WANT_ENDS) != 0;
    if (a->requested) {
        set_outcome(a, outcome_of(status), status, no_codes);
    } else {
        wanted = end_without_request(a, i) && wanted;
    }
    a->report.milliseconds = ltdic__now() - a->since;
    a->transport = ltdic__net_take_transport(a->net);
    ltdic_net_free(a->net);
    a->net = NULL;
    leave_if_over(a);
    move_to(&s->ended, a);
    if (a->known_to_user || wanted) {
        put_event(s, a, LTDIC_SERVED_ENDED, (ltdic_bytes){NULL, 0});
    }
}

/* Gives a connection its transport. */
static int secure(ltdic_served *a, const ltdic_server *s)
{
    void *state = s->make_transport(s->make_user, atomic_load(&a->place->id));
    if (state == NULL) {
        return LTDIC_ERR_MEMORY;
    }
    ltdic_net_set_transport(a->net, s->transport, state);
    return LTDIC_OK;
}

static int accept_as(ltdic_served *a, ltdic_server *s)
{
    a->net = ltdic__net_new(s->loop, &s->queue, a);
    if (a->net == NULL) {
        return LTDIC_ERR_MEMORY;
    }
    const uint32_t most = ltdic_admission_max_associate(s->admission);
    ltdic_net_set_timeouts(a->net, &s->timeouts);
    ltdic_net_limit_associate(a->net, most != 0 ? most : LTDIC_MAX_ASSOCIATE);
    int status = ltdic_net_accept(a->net, s->listener);
    if (status == LTDIC_OK && s->transport != NULL) {
        status = secure(a, s);
    }
    if (status != LTDIC_OK) {
        ltdic_net_free(a->net);
    }
    return status;
}

/* Accepts the connection that has waited longest. Returns false if there is none or it failed. A
 * failure is tried again with the alarm, since LTDIC_PENDING comes once for each connection. */
static bool accept_connection(ltdic_server *s)
{
    ltdic_served *a = calloc(1, sizeof *a);
    const bool named = a != NULL && assign_number(s, a);
    const int status = named ? accept_as(a, s) : LTDIC_ERR_MEMORY;
    s->starved = status != LTDIC_OK && status != LTDIC_NEED_MORE;
    if (s->starved) {
        set_alarm(s);
    }
    if (status != LTDIC_OK) {
        if (named) {
            withdraw_number(s, a->place);
        }
        free(a);
        return false;
    }
    a->server = s;
    list_init(&a->resuming);
    list_init(&a->postponed);
    a->since = ltdic__now();
    a->between = true;
    find_peer(a);
    list_insert_before(&s->served, &a->all);
    s->counters.connections++;
    return true;
}

static void handle(ltdic_server *s, ltdic_net *net, const ltdic_indication *i)
{
    ltdic_served *a = ltdic_net_owner(net);
    if (a == NULL) {
        accept_connection(s);
        return;
    }
    switch (i->kind) {
    case LTDIC_RECEIVED:
        a->report.received += i->pdu.size;
        if (i->status != LTDIC_OK) {
            set_fault(a, i->status);
        } else {
            receive_pdu(s, a, i);
        }
        break;
    case LTDIC_REFUSED:
        receive_refused(a, i);
        break;
    case LTDIC_SENT:
        sent(a, i);
        break;
    case LTDIC_CLOSED:
        over(s, a, i);
        break;
    default:
        break;
    }
    leave_if_over(a);
}

/* ---- closing ------------------------------------------------------------------------------ */

static void accept_pending(ltdic_server *s)
{
    if (ltdic__net_has_pending(s->listener)) {
        accept_connection(s);
    }
}

void ltdic_server_close(ltdic_server *server, uint32_t milliseconds)
{
    const uint64_t now = ltdic__now();
    if (server->closing && now + milliseconds >= server->end_at) {
        return;
    }
    const bool waits = server->succeeded && milliseconds < UINT32_MAX; /* UINT32_MAX: for ever */
    server->release_at = waits ? now + milliseconds / 2 : now;
    server->grace = now + (milliseconds < GRACE ? milliseconds : GRACE);
    server->grace = waits ? server->release_at : server->grace;
    server->abort_at = now + milliseconds - milliseconds / 4;
    server->end_at = now + milliseconds;
    if (server->closing) {
        return;
    }
    server->closing = true;
    if (server->succeeded || ltdic__net_is_shared(server->listener)) {
        accept_pending(server); /* those that wait are left to others */
    } else {
        ltdic_net_limit_connections(server->listener, 0);
        while (accept_connection(server)) {
        }
    }
    ltdic_net_free(server->listener);
    server->listener = NULL;
    server->starved = false;
    set_alarm(server);
}

/* Returns true if a message that the user has begun is not complete. */
static bool is_sending(const ltdic_served *a)
{
    return !ltdic__association_is_between_messages(ltdic__net_association(a->net), a->announced);
}

/* Returns true if all messages of both sides are complete. */
static bool is_between(const ltdic_served *a)
{
    return a->between && !a->waits && (a->held & LTDIC_HOLD_END) == 0 && !is_sending(a);
}

/* Does the next step of closing one association. */
static void close_step(ltdic_served *a, uint64_t now)
{
    const ltdic_server *s = a->server;
    const bool broken = (a->held & LTDIC_HOLD_BROKEN) != 0;
    if (ltdic__is_in_progress(ltdic_net_state(a->net)) && (now >= s->abort_at || broken)) {
        send_or_end(a, LTDIC_ABORT, no_codes);
    }
    const int state = ltdic_net_state(a->net);
    if (now >= s->end_at || (state == STA_AWAITING_RQ && now >= s->grace)) {
        ltdic_net_close(a->net);
    } else if (state == STA_AWAITING_ANSWER && is_leaving(s, now)) {
        send_or_end(a, LTDIC_ASSOCIATE_RJ, congestion);
    } else if (state == STA_ESTABLISHED && is_leaving(s, now) && is_between(a)) {
        send_or_end(a, LTDIC_RELEASE_RQ, no_codes);
    }
}

static void close_all(ltdic_server *s)
{
    const uint64_t now = ltdic__now();
    for (node *n = s->served.next; n != &s->served; n = n->next) {
        close_step(SERVED_OF(n), now);
    }
}

/* ---- the loop ----------------------------------------------------------------------------- */

/* Answers a release, after the data that the user has still to send. In a collision the requestor
 * answers first (PS3.8 9.2.2). */
static void answer_release(ltdic_served *a)
{
    if ((a->held & LTDIC_HOLD_BROKEN) != 0) {
        send_or_end(a, LTDIC_ABORT, no_codes);
        return;
    }
    a->releases = a->waits || (a->held & LTDIC_HOLD_END) != 0 || is_sending(a);
    hold_or_resume(a);
    if (a->releases) {
        list_remove(&a->resuming);
        list_insert_before(&a->server->resuming, &a->resuming);
    } else if (ltdic_net_state(a->net) == STA_AWAITING_RELEASE_ANSWER) {
        send_or_end(a, LTDIC_RELEASE_RP, no_codes);
    }
}

/* Answers the releases of the last batch: the user has handled the data before them. */
static void answer_releases(ltdic_server *s)
{
    while (!list_empty(&s->releasing)) {
        ltdic_served *a = SERVED_OF(s->releasing.next);
        move_to(&s->served, a);
        answer_release(a);
        ltdic_net_done(a->net);
    }
}

/* Receives again from peers whose user had no room to send, and answers their releases, unless
 * more data waits. */
static void resume_all(ltdic_server *s)
{
    node all;
    list_init(&all);
    list_splice(&all, &s->resuming);
    while (!list_empty(&all)) {
        ltdic_served *a = RESUMING_OF(all.next);
        list_remove(&a->resuming);
        if (a->net != NULL) {
            hold_or_resume(a);
        }
        if (a->net != NULL && a->releases) {
            answer_release(a);
        }
    }
}

static void begin_batch(ltdic_server *s, unsigned wanted)
{
    free_all(&s->ended);
    s->runs++;
    s->work = 0;
    s->wanted = wanted;
    ltdic__batch_begin(&s->batch);
}

/* Reports to those whose data was postponed that they may send; those that have sent nothing come
 * first. A batch has room for 256 events; the others stay in the list. */
static void tell_postponed(ltdic_server *s)
{
    node all;
    list_init(&all);
    list_splice(&all, &s->postponed);
    list_splice(&all, &s->paused);
    while (!list_empty(&all)) {
        ltdic_served *a = CONTAINER_OF(all.next, ltdic_served, postponed);
        list_remove(&a->postponed);
        if (a->net == NULL) {
            continue;
        }
        tell_of_room(a);
        if (a->waits && ltdic__association_has_room(ltdic__net_association(a->net))) {
            list_insert_before(&s->postponed, &a->postponed); /* the batch is full: next time */
        }
    }
}

/* Handles indications until the batch is full or there are none. */
static void take_all(ltdic_server *s)
{
    ltdic_indication i;
    ltdic_net *net;
    if (s->starved) {
        accept_connection(s);
    }
    while (!ltdic__batch_is_full(&s->batch) &&
           ltdic__queue_next(s->loop, &s->queue, &net, &i) == LTDIC_OK) {
        handle(s, net, &i);
        if (i.kind != LTDIC_RECEIVED || i.type != LTDIC_RELEASE_RQ || i.status != LTDIC_OK) {
            ltdic_net_done(net);
        }
    }
    if (s->batch.count == 0) {
        answer_releases(s);
    }
}

int ltdic_server_run(ltdic_server *server, ltdic_batch *batch, unsigned wanted, int milliseconds)
{
    const uint64_t end = ltdic__now() + (uint64_t)milliseconds;
    int status = LTDIC_OK;
    begin_batch(server, wanted);
    answer_releases(server);
    resume_all(server);
    tell_postponed(server);
    if (server->batch.count > 0) { /* else the other sources would wait until the next sleep */
        ltdic_loop_wait(server->loop, 0);
    }
    take_all(server);
    while (server->batch.count == 0 && !is_over(server) && status == LTDIC_OK) {
        if (server->closing) {
            close_all(server);
        }
        free_all(&server->ended); /* no event reported them */
        status = ltdic__queue_wait(server->loop, &server->queue, end);
        take_all(server);
    }
    *batch = ltdic__batch_shown(&server->batch);
    return server->batch.count > 0 ? LTDIC_OK : is_over(server) ? LTDIC_ERR_CLOSED : status;
}

uint8_t *ltdic_server_take_data(ltdic_server *server, size_t *room)
{
    return ltdic__batch_take_data(&server->batch, room);
}

void ltdic_server_use_data(ltdic_server *server, uint8_t *data, size_t room)
{
    ltdic__batch_use_data(&server->batch, data, room);
}

const ltdic_report *ltdic_served_report(const ltdic_server *server, ltdic_served_id served)
{
    const ltdic_served *a = find(server, served);
    return a == NULL ? NULL : &a->report;
}
