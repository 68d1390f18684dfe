/* SPDX-License-Identifier: MIT */
/* loops [ASSOCIATIONS]   serves one listening socket with eight threads. Each thread has a loop and
 * a server; all servers share one admission. Four threads of requestors make ASSOCIATIONS
 * connections.
 *
 * One server closes after half of them. Each connection must get an answer, and none may be lost
 * or reset. The servers must have counted the answers that the requestors got. There must never be
 * more associations than the admission allows. This program also runs under ThreadSanitizer. */
#define _DEFAULT_SOURCE
#include "ltdic.h"
#include "request.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    SERVERS = 8,
    CALLERS = 4,
    EACH = 8,       /* requestors of one caller */
    LIMIT = 6,      /* associations that the admission allows */
    SLICE = 20,     /* ms */
    CLOSING = 5000, /* ms */
    HUNG = 120      /* s */
};

typedef struct counts {
    uint64_t accepted, full, leaving; /* full: rejected with 2/3/2; leaving: with 2/3/1 */
} counts;

typedef struct requestor {
    ltdic_net *net;
    int is_open; /* it is accepted; it is released in the next round */
    int answered;
} requestor;

typedef struct caller {
    ltdic_loop *loop;
    requestor requestors[EACH];
    int active;
    counts answers;
} caller;

static ltdic_admission *admission;
static ltdic_loop *loops[SERVERS];
static ltdic_server *servers[SERVERS];
static ltdic_counters totals[SERVERS];
static caller callers[CALLERS];
static uint16_t port;
static long associations = 2000;
static atomic_long begun;
static atomic_int open_now, over;

#define CHECK(condition) \
    do { \
        if (!(condition)) { \
            fprintf(stderr, "line %d: %s\n", __LINE__, #condition); \
            exit(1); \
        } \
    } while (0)

/* ---- servers ------------------------------------------------------------------------------ */

/* One server closes when half of the associations have begun. */
static void *serve(void *of)
{
    const size_t n = (size_t)((ltdic_server **)of - servers);
    ltdic_batch batch;
    int status = LTDIC_OK, closing = 0;
    while (status != LTDIC_ERR_CLOSED && (closing || !over)) {
        if (n == 0 && !closing && begun > associations / 2) {
            ltdic_server_close(servers[n], CLOSING);
            closing = 1;
        }
        status = ltdic_server_run(servers[n], &batch, 0, SLICE);
    }
    totals[n] = *ltdic_server_counters(servers[n]);
    ltdic_loop_free(loops[n]);
    return NULL;
}

static void listen_all(void)
{
    const ltdic_address address = {"127.0.0.1", 0, LTDIC_IP_V4};
    const ltdic_limits limits = {.size = sizeof limits, .together = LIMIT};
    uint8_t room[64];
    ltdic_buffer host = {room, sizeof room, 0};
    admission = ltdic_admission_new();
    CHECK(admission != NULL);
    ltdic_admission_accept_any(admission);
    ltdic_admission_set_limits(admission, &limits);
    for (int i = 0; i < SERVERS; i++) {
        loops[i] = ltdic_loop_new();
        CHECK(loops[i] != NULL);
        servers[i] = ltdic_server_new(loops[i], admission);
        CHECK(servers[i] != NULL);
        CHECK((i == 0 ? ltdic_server_listen(servers[0], &address, 0)
                      : ltdic_server_share(servers[i], servers[0])) == LTDIC_OK);
    }
    CHECK(ltdic_server_name(servers[0], &host, &port) == LTDIC_OK);
}

/* ---- requestors --------------------------------------------------------------------------- */

static void send_fixed(ltdic_net *net, uint8_t type)
{
    uint8_t pdu[LTDIC_FIXED_PDU_SIZE];
    ltdic_encode_fixed(pdu, type, (ltdic_reject){0, 0, 0});
    CHECK(ltdic_net_send(net, (ltdic_bytes){pdu, sizeof pdu}) == LTDIC_OK);
}

static void begin(caller *c, requestor *r)
{
    const ltdic_address address = {"127.0.0.1", port, LTDIC_IP_V4};
    if (atomic_fetch_add(&begun, 1) < associations) {
        r->answered = 0;
        CHECK(ltdic_net_connect(r->net, &address, NULL) == LTDIC_OK);
    } else {
        c->active--;
    }
}

/* Call before an A-RELEASE-RQ or -RP is sent: the admission counts the association until the PDU
 * arrives. */
static void leave(requestor *r)
{
    if (r->is_open) {
        r->is_open = 0;
        atomic_fetch_sub(&open_now, 1);
    }
}

static void receive(caller *c, requestor *r, const ltdic_indication *i)
{
    const uint8_t *pdu = i->pdu.data;
    CHECK(i->status == LTDIC_OK);
    switch (i->type) {
    case LTDIC_ASSOCIATE_AC:
        c->answers.accepted++;
        r->is_open = r->answered = 1;
        CHECK(atomic_fetch_add(&open_now, 1) < LIMIT);
        break;
    case LTDIC_ASSOCIATE_RJ:
        CHECK(pdu[7] == 2 && pdu[8] == 3 && (pdu[9] == 1 || pdu[9] == 2));
        c->answers.full += pdu[9] == 2;
        c->answers.leaving += pdu[9] == 1;
        r->answered = 1;
        break;
    case LTDIC_RELEASE_RQ:
        leave(r);
        send_fixed(r->net, LTDIC_RELEASE_RP);
        break;
    default:
        CHECK(i->type == LTDIC_RELEASE_RP);
    }
}

static void handle(caller *c, requestor *r, const ltdic_indication *i)
{
    static const ltdic_bytes rq = {(const uint8_t *)request, sizeof request - 1};
    if (i->kind == LTDIC_CONNECTED) {
        CHECK(i->status == LTDIC_OK);
        CHECK(ltdic_net_send(r->net, rq) == LTDIC_OK);
    } else if (i->kind == LTDIC_RECEIVED) {
        receive(c, r, i);
    } else if (i->kind == LTDIC_CLOSED) {
        CHECK(i->status == LTDIC_OK && r->answered && !r->is_open);
        begin(c, r);
    }
}

static void release_all(caller *c)
{
    for (int i = 0; i < EACH; i++) {
        requestor *r = &c->requestors[i];
        if (r->is_open) {
            leave(r);
            send_fixed(r->net, LTDIC_RELEASE_RQ);
        }
    }
}

static void *call(void *of)
{
    caller *c = of;
    ltdic_indication i;
    ltdic_net *net;
    c->active = EACH;
    for (int n = 0; n < EACH; n++) {
        requestor *r = &c->requestors[n];
        r->net = ltdic_net_new(c->loop, r);
        CHECK(r->net != NULL);
        begin(c, r);
    }
    while (c->active > 0) {
        ltdic_loop_wait(c->loop, SLICE);
        release_all(c);
        while (ltdic_loop_next(c->loop, &net, &i) == LTDIC_OK) {
            handle(c, ltdic_net_owner(net), &i);
            ltdic_net_done(net);
        }
    }
    ltdic_loop_free(c->loop);
    return NULL;
}

/* ---- comparison -------------------------------------------------------------------------- */

static void compare(void)
{
    counts answers = {0, 0, 0}, counted = {0, 0, 0};
    uint64_t connections = 0;
    for (int i = 0; i < CALLERS; i++) {
        answers.accepted += callers[i].answers.accepted;
        answers.full += callers[i].answers.full;
        answers.leaving += callers[i].answers.leaving;
    }
    for (int i = 0; i < SERVERS; i++) {
        const ltdic_counters *t = &totals[i];
        connections += t->connections;
        counted.accepted += t->accepted;
        counted.full += t->rejected[1][2][2];
        counted.leaving += t->rejected[1][2][1];
        CHECK(t->released == t->accepted && t->lost + t->aborted + t->timed_out == 0);
    }
    printf(
        "%ld associations: %llu accepted, %llu beyond the limit, %llu at the server that closed; "
        "connections of each server:",
        associations, (unsigned long long)answers.accepted, (unsigned long long)answers.full,
        (unsigned long long)answers.leaving);
    for (int i = 0; i < SERVERS; i++) {
        printf(" %llu", (unsigned long long)totals[i].connections);
    }
    printf("\n");
    CHECK(connections == (uint64_t)associations);
    CHECK(answers.accepted == counted.accepted && answers.full == counted.full &&
          answers.leaving == counted.leaving);
    CHECK(answers.accepted + answers.full + answers.leaving == (uint64_t)associations);
}

int main(int argc, char **argv)
{
    pthread_t serving[SERVERS], calling[CALLERS];
    associations = argc > 1 ? atol(argv[1]) : associations;
    alarm(HUNG);
    listen_all();
    for (int i = 0; i < SERVERS; i++) {
        CHECK(pthread_create(&serving[i], NULL, serve, &servers[i]) == 0);
    }
    for (int i = 0; i < CALLERS; i++) {
        callers[i].loop = ltdic_loop_new();
        CHECK(callers[i].loop != NULL);
        CHECK(pthread_create(&calling[i], NULL, call, &callers[i]) == 0);
    }
    for (int i = 0; i < CALLERS; i++) {
        pthread_join(calling[i], NULL);
    }
    over = 1;
    for (int i = 0; i < SERVERS; i++) {
        pthread_join(serving[i], NULL);
    }
    ltdic_admission_free(admission);
    compare();
    return 0;
}
