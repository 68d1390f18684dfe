/* SPDX-License-Identifier: MIT */
/* A server in which each system call and allocation fails in turn. In each case its user is told
 * the end of each association once, the peer sees an end, no place of the admission is lost,
 * nothing is left behind, and the next peer of the same server is served.
 *
 * Server and peer are on one thread. System calls of the peer never fail. In run n of a sweep the
 * n-th call of one function fails, until a run ends with fewer calls. */
#define _GNU_SOURCE
#include "descriptors.h"
#include "ltdic.h"

#include "inject.h"

#include <arpa/inet.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#define REQUIRE(condition) require(condition, #condition, __LINE__)
#define VERIFICATION "1.2.840.10008.1.1"
#define STORAGE "1.2.840.10008.5.1.4.1.1.7"
#define IMPLICIT "1.2.840.10008.1.2"

enum { STORED = 100 * 1024 };   /* bytes of a data set */
enum { SOON = 3, SURE = 2000 }; /* real ms after which nothing more is expected */
enum { DEADLINE = 200, TURN = 10, LATE = 150, HUNG = 400 }; /* ms; turns */
enum { VERIFIES = 1, STORES = 3 };                          /* context IDs */
enum { RQ_ROOM = 512, PEER_ROOM = 2 * STORED };

typedef enum plan { STORE, DECIDE, REJECT, REFUSE, CLOSE, PLANS } plan;

typedef struct sweep {
    const char *name;
    function which;
    int error;
    int from; /* 1: every call from the n-th on */
    int harmless;
} sweep;

/* The peer: the bytes that it has to send, and the PDU that it reads. */
static struct {
    int fd, over;
    uint8_t out[PEER_ROOM], in[1 << 16];
    size_t out_start, out_end, in_size;
    int types[8]; /* PDUs received, by type */
    uint8_t codes[3];
} peer;

/* The events of the user. */
static struct {
    ltdic_served_id served;
    int begun, ended, outcome;
    int gives_up; /* aborts as soon as there is memory for it */
    size_t stored;
} user;

static const char *const plan_names[PLANS] = {"store", "decide", "reject", "refuse", "close"};
static ltdic_admission *admission;
static ltdic_loop *loop;
static ltdic_server *server;
static plan current;
static uint16_t port;
static uint8_t pattern[STORED];
static char where[200] = "start";

static void require(int good, const char *condition, int line)
{
    if (!good) {
        fprintf(stderr, "%s: line %d: %s\n", where, line, condition);
        fprintf(stderr, "peer: over %d, RJ %d, P-DATA %d, RP %d, ABORT %d; ", peer.over,
                peer.types[3], peer.types[4], peer.types[6], peer.types[7]);
        fprintf(stderr, "user: begun %d, ended %d, outcome %d, stored %zu\n", user.begun,
                user.ended, user.outcome, user.stored);
        exit(1);
    }
}

static void stuck(int number)
{
    static const char text[] = ": does not end\n";
    (void)number;
    if (write(2, where, strlen(where)) < 0 || write(2, text, sizeof text - 1) < 0) {
        _exit(2);
    }
    _exit(1);
}

/* ---- the peer ------------------------------------------------------------------------------ */

static void give(const void *data, size_t size)
{
    REQUIRE(size <= sizeof peer.out - peer.out_end);
    memcpy(peer.out + peer.out_end, data, size);
    peer.out_end += size;
}

static void give_number(size_t value, int bytes)
{
    while (bytes-- > 0) {
        const uint8_t byte = (uint8_t)(value >> 8 * bytes);
        give(&byte, 1);
    }
}

static void give_item(uint8_t type, const void *value, size_t size)
{
    give_number(type, 1);
    give_number(0, 1);
    give_number(size, 2);
    give(value, size);
}

static void give_context(uint8_t id, const char *abstract)
{
    give_number(0x20, 1);
    give_number(0, 1);
    give_number(4 + 4 + strlen(abstract) + 4 + strlen(IMPLICIT), 2);
    give_number((size_t)id << 24, 4);
    give_item(0x30, abstract, strlen(abstract));
    give_item(0x40, IMPLICIT, strlen(IMPLICIT));
}

static void give_request(void)
{
    static const char context[] = "1.2.840.10008.3.1.1.1",
                      titles[] = "CALLED          CALLING         ";
    static const uint8_t reserved[32];
    const size_t start = peer.out_end;
    give_number(LTDIC_ASSOCIATE_RQ, 1);
    give_number(0, 5);
    give_number(current == REFUSE ? 2 : 1, 2);
    give_number(0, 2);
    give(titles, 32);
    give(reserved, sizeof reserved);
    give_item(0x10, context, strlen(context));
    give_context(VERIFIES, VERIFICATION);
    give_context(STORES, STORAGE);
    give_item(0x50, "\x51\0\0\4\0\0\x40\0", 8);
    peer.out[start + 4] = (uint8_t)((peer.out_end - start - 6) >> 8);
    peer.out[start + 5] = (uint8_t)(peer.out_end - start - 6);
}

static void give_data(uint8_t id, uint8_t control, const void *data, size_t size)
{
    give_number(LTDIC_DATA_TF, 1);
    give_number(0, 1);
    give_number(size + 6, 4);
    give_number(size + 2, 4);
    give_number(id, 1);
    give_number(control, 1);
    give(data, size);
}

static void give_echo(void)
{
    ltdic_echo echo = {.field = LTDIC_C_ECHO_RQ, .message = 7, .sop_class = VERIFICATION};
    uint8_t room[LTDIC_ECHO_ROOM];
    ltdic_buffer command = {room, sizeof room, 0};
    REQUIRE(ltdic_encode_echo(&command, &echo) == LTDIC_OK);
    give_data(VERIFIES, 3, command.data, command.size);
}

static void give_fixed(uint8_t type)
{
    uint8_t pdu[LTDIC_FIXED_PDU_SIZE];
    ltdic_encode_fixed(pdu, type, (ltdic_reject){0, 0, 0});
    give(pdu, sizeof pdu);
}

static void give_data_set(void)
{
    enum { MOST = 16378 };
    give_data(STORES, 3, pattern, 2);
    for (size_t at = 0; at < STORED; at += MOST) {
        const size_t left = STORED - at;
        give_data(STORES, left <= MOST ? 2 : 0, pattern + at, left < MOST ? left : MOST);
    }
}

static void peer_receives(const uint8_t *pdu)
{
    peer.types[pdu[0]]++;
    switch (pdu[0]) {
    case LTDIC_ASSOCIATE_AC:
        give_echo();
        break;
    case LTDIC_DATA_TF:
        if (peer.types[LTDIC_DATA_TF] == 1) { /* the answer to the echo */
            give_data_set();
        } else if (current != CLOSE) {
            give_fixed(LTDIC_RELEASE_RQ);
        }
        break;
    case LTDIC_RELEASE_RQ:
        give_fixed(LTDIC_RELEASE_RP);
        break;
    case LTDIC_ASSOCIATE_RJ:
        memcpy(peer.codes, pdu + 7, sizeof peer.codes);
        peer.over = 1;
        break;
    default:
        peer.over = 1;
        break;
    }
}

static void peer_reads(void)
{
    ssize_t size;
    while ((size = __real_recv(peer.fd, peer.in + peer.in_size, sizeof peer.in - peer.in_size,
                               MSG_DONTWAIT)) > 0) {
        size_t used = 0;
        peer.in_size += (size_t)size;
        while (peer.in_size - used >= 10) {
            const uint8_t *p = peer.in + used;
            const size_t length = 6 + ((size_t)p[4] << 8 | p[5]);
            if (peer.in_size - used < length) {
                break;
            }
            peer_receives(p);
            used += length;
        }
        memmove(peer.in, peer.in + used, peer.in_size -= used);
    }
    peer.over = peer.over || size == 0 || (errno != EAGAIN && errno != EWOULDBLOCK);
}

static void peer_writes(void)
{
    const size_t left = peer.out_end - peer.out_start;
    const ssize_t sent =
        left == 0 ? 0 : send(peer.fd, peer.out + peer.out_start, left, MSG_DONTWAIT | MSG_NOSIGNAL);
    peer.out_start += sent > 0 ? (size_t)sent : 0;
}

/* When it is over, it closes; until then it does what it can do now. */
static void peer_turn(void)
{
    if (peer.fd >= 0) {
        peer_reads();
        peer_writes();
    }
    if (peer.over && peer.fd >= 0) {
        close(peer.fd);
        peer.fd = -1;
    }
}

static void peer_calls(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    memset(&peer, 0, sizeof peer);
    peer.fd = __real_socket(AF_INET, SOCK_STREAM, 0);
    REQUIRE(peer.fd >= 0);
    REQUIRE(__real_connect(peer.fd, (struct sockaddr *)&address, sizeof address) == 0);
    give_request();
}

/* ---- the user ------------------------------------------------------------------------------ */

static int send_fixed(ltdic_served_id served, uint8_t type, ltdic_reject codes)
{
    uint8_t pdu[LTDIC_FIXED_PDU_SIZE];
    ltdic_encode_fixed(pdu, type, codes);
    return ltdic_served_send(server, served, (ltdic_bytes){pdu, sizeof pdu});
}

static void user_decides(ltdic_served_id served, ltdic_bytes bytes)
{
    const size_t rq = 6 + ((size_t)bytes.data[4] << 8 | bytes.data[5]);
    const ltdic_bytes accept = {bytes.data + rq, bytes.size - rq};
    const int status = current == REJECT
                           ? send_fixed(served, LTDIC_ASSOCIATE_RJ, (ltdic_reject){1, 1, 7})
                           : ltdic_served_send(server, served, accept);
    user.gives_up = status != LTDIC_OK;
}

static void user_stores(const ltdic_event_row *event, ltdic_bytes bytes)
{
    const ltdic_pdv answer = {STORES, 3, {pattern, 2}};
    REQUIRE(event->id == STORES);
    if ((event->control & 1) != 0) {
        return;
    }
    REQUIRE(bytes.size <= STORED - user.stored);
    REQUIRE(bytes.size == 0 || memcmp(bytes.data, pattern + user.stored, bytes.size) == 0);
    user.stored += bytes.size;
    REQUIRE(((event->control & 2) != 0) == (user.stored == STORED));
    if (user.stored == STORED) {
        user.gives_up = ltdic_served_send_data(server, event->served, &answer) != LTDIC_OK;
    }
}

static void user_is_told(const ltdic_event_row *event, ltdic_bytes bytes)
{
    REQUIRE(!user.ended);
    REQUIRE(user.begun == (event->kind == LTDIC_SERVED_DATA) || event->kind == LTDIC_SERVED_ENDED);
    REQUIRE(!user.begun || event->served == user.served);
    user.served = event->served;
    switch (event->kind) {
    case LTDIC_SERVED_REQUEST:
        user.begun = 1;
        user_decides(event->served, bytes);
        break;
    case LTDIC_SERVED_ACCEPTED:
        user.begun = 1;
        break;
    case LTDIC_SERVED_DATA:
        user_stores(event, bytes);
        break;
    default:
        user.ended = 1;
        user.outcome = ltdic_served_report(server, event->served)->outcome;
        REQUIRE(user.outcome != LTDIC_OUTCOME_NONE);
        break;
    }
}

static int server_turn(int milliseconds)
{
    const unsigned asks = current == DECIDE || current == REJECT ? LTDIC_WANT_REQUESTS : 0;
    ltdic_batch batch;
    const int status =
        ltdic_server_run(server, &batch, asks | LTDIC_WANT_DATA | LTDIC_WANT_ENDS, milliseconds);
    REQUIRE(status == LTDIC_OK || batch.count == 0);
    REQUIRE(status != LTDIC_ERR_INTERRUPTED || faults.which == WAIT);
    for (size_t i = 0; i < batch.count; i++) {
        const ltdic_event_row *event = &batch.events[i];
        const uint8_t *data = event->length > 0 ? batch.data + event->offset : NULL;
        user_is_told(event, (ltdic_bytes){data, event->length});
    }
    if (user.gives_up && !user.ended) {
        user.gives_up = send_fixed(user.served, LTDIC_ABORT, (ltdic_reject){0, 0, 0}) != LTDIC_OK;
    }
    return status;
}

/* ---- a plan from beginning to end ----------------------------------------------------------- */

static int begin(void)
{
    const ltdic_timeouts timeouts = {sizeof timeouts, DEADLINE, DEADLINE, DEADLINE};
    const ltdic_address address = {"127.0.0.1", port, LTDIC_IP_V4};
    uint8_t room[48];
    ltdic_buffer host = {room, sizeof room, 0};
    admission = ltdic_admission_new();
    int good = admission != NULL &&
               ltdic_admission_add_context(admission, VERIFICATION) == LTDIC_OK &&
               ltdic_admission_add_transfer(admission, IMPLICIT) == LTDIC_OK &&
               ltdic_admission_add_context(admission, STORAGE) == LTDIC_OK &&
               ltdic_admission_add_transfer(admission, IMPLICIT) == LTDIC_OK &&
               ltdic_admission_limit_calling(admission, "OTHER", 1) == LTDIC_OK;
    if (good) {
        const ltdic_limits limits = {.size = sizeof limits, .together = 1, .each_calling = 1};
        ltdic_admission_set_limits(admission, &limits); /* a lost place is noticed */
        loop = ltdic_loop_new();
        server = loop == NULL ? NULL : ltdic_server_new(loop, admission);
    }
    if (server == NULL) {
        return 0;
    }
    ltdic_server_set_timeouts(server, &timeouts);
    return ltdic_server_listen(server, &address, 0) == LTDIC_OK &&
           ltdic_server_name(server, &host, &port) == LTDIC_OK;
}

/* The ms that a turn waits for the peer, which has its own turn only after it. Where no deadline
 * may pass early, they are real ms. */
static int turn_time(void)
{
    return faults.quantum == SURE ? 1 : TURN;
}

static int all_are_done(void)
{
    return peer.fd < 0 && (user.ended || !user.begun);
}

static void go_through(plan what)
{
    int closed = 0;
    current = what;
    memset(&user, 0, sizeof user);
    peer_calls();
    for (int turn = 0; !all_are_done() && turn < HUNG; turn++) {
        peer_turn();
        if (what == CLOSE && user.stored > 0 && !closed) {
            ltdic_server_close(server, 4000);
            closed = 1;
        }
        server_turn(turn_time());
    }
    for (int i = 0; i < 3; i++) { /* nothing may come after the end */
        server_turn(0);
    }
}

static int succeeded(void)
{
    switch (current) {
    case STORE:
    case DECIDE:
        return user.outcome == LTDIC_OUTCOME_RELEASED && user.stored == STORED && peer.types[6];
    case CLOSE:
        return user.outcome == LTDIC_OUTCOME_RELEASED && user.stored == STORED && peer.types[5];
    case REJECT:
        return user.outcome == LTDIC_OUTCOME_REJECTED && memcmp(peer.codes, "\1\1\7", 3) == 0;
    case REFUSE:
        return user.outcome == LTDIC_OUTCOME_REJECTED && memcmp(peer.codes, "\1\2\2", 3) == 0;
    case PLANS:
        break;
    }
    return 0;
}

static void end(unsigned descriptors, int orderly)
{
    if (server != NULL && orderly) {
        ltdic_server_close(server, DEADLINE);
        for (int turn = 0; server_turn(turn_time()) != LTDIC_ERR_CLOSED; turn++) {
            REQUIRE(turn < HUNG);
        }
    }
    ltdic_server_free(server);
    if (loop != NULL) {
        ltdic_loop_free(loop);
    }
    ltdic_admission_free(admission);
    loop = NULL;
    server = NULL;
    admission = NULL;
    REQUIRE(faults.blocks == 0);
    REQUIRE(open_descriptors() == descriptors);
}

/* Run the plan once; return the number of failed calls. */
static unsigned long run(const sweep *s, plan what, unsigned long n, int quantum)
{
    const unsigned descriptors = open_descriptors();
    snprintf(where, sizeof where, "%s, %s, n %lu", s->name, plan_names[what], n);
    alarm(600);
    faults.quantum = quantum;
    inject(s->which, s->error, n, s->from);
    const int begun = begin();
    if (begun) {
        go_through(what);
    }
    const unsigned long hits = faults.hits;
    inject(NOTHING, 0, 0, 0);
    REQUIRE(begun || hits > 0);
    for (int turn = 0; begun && !all_are_done(); turn++) { /* from here on no call fails */
        REQUIRE(turn < HUNG);
        peer_turn();
        server_turn(turn_time());
    }
    if (begun && what == REFUSE && !user.ended) {
        server_turn(LATE); /* the peer may be gone before the server can look at it again */
    }
    const int good = begun && succeeded();
    REQUIRE(good || (hits > 0 && !s->harmless) || quantum < SURE);
    faults.quantum = SURE;
    if (begun && what != CLOSE) {
        strcat(where, ", afterwards");
        go_through(STORE);
        REQUIRE(succeeded());
    }
    end(descriptors, n % 2 == 1);
    return hits == 0 && !good ? run(s, what, n, SURE) : hits;
}

/* A loop looks for ready sockets many times before it sleeps, each time by a wait of no time. So
 * not every wait fails in turn: the first 30, and then every seventh. */
static unsigned long next_call(const sweep *s, unsigned long n)
{
    return n + (s->which == WAIT && n > 30 ? 7 : 1);
}

static void run_sweep(const sweep *s)
{
    unsigned long total = 0;
    for (int what = 0; what < PLANS; what++) {
        unsigned long hits, n = 1;
        do {
            hits = run(s, (plan)what, n, SOON);
            n = next_call(s, n);
            total += hits > 0;
        } while (hits > 0 && !(s->from && s->error == ONE_BYTE));
    }
    printf("%s: %lu injections\n", s->name, total);
    fflush(stdout);
}

static const sweep sweeps[] = {
    {"server, one allocation fails", ALLOCATE, ENOMEM, 0, 0},
    {"server, all allocations fail", ALLOCATE, ENOMEM, 1, 0},
    {"server, recv ECONNRESET", RECV, ECONNRESET, 0, 0},
    {"server, recv EINTR", RECV, EINTR, 0, 1},
    {"server, recv EAGAIN", RECV, EAGAIN, 0, 1},
    {"server, recv short", RECV, ONE_BYTE, 0, 1},
    {"server, sendmsg EPIPE", SENDMSG, EPIPE, 0, 0},
    {"server, sendmsg EAGAIN", SENDMSG, EAGAIN, 0, 1},
    {"server, sendmsg short", SENDMSG, ONE_BYTE, 0, 1},
    {"server, sendmsg always short", SENDMSG, ONE_BYTE, 1, 1},
    {"server, accept EMFILE", ACCEPT, EMFILE, 0, 1},
    {"server, accept ENOMEM", ACCEPT, ENOMEM, 0, 1},
    {"server, accept ECONNABORTED", ACCEPT, ECONNABORTED, 0, 1},
    {"server, socket EMFILE", SOCKET, EMFILE, 0, 0},
    {"server, getpeername ENOTCONN", GETPEERNAME, ENOTCONN, 0, 1},
    {"server, wait EINTR", WAIT, EINTR, 0, 1},
    {"server, fcntl EINVAL", FCNTL, EINVAL, 0, 0},
#ifndef LTDIC_POLL
    {"server, epoll_ctl ENOMEM", EPOLL_CTL, ENOMEM, 0, 0},
    {"server, epoll_create1 EMFILE", EPOLL_CREATE, EMFILE, 0, 0},
#endif
};

int main(int count, char **names)
{
    for (size_t i = 0; i < sizeof pattern; i++) {
        pattern[i] = (uint8_t)(i * 7 + i / 251);
    }
    faults.now = 1000;
    signal(SIGALRM, stuck);
    for (size_t i = 0; i < sizeof sweeps / sizeof *sweeps; i++) {
        if (count < 2 || strstr(sweeps[i].name, names[1]) != NULL) {
            run_sweep(&sweeps[i]);
        }
    }
    return 0;
}
