/* SPDX-License-Identifier: MIT */
/* Loops and servers that were made before fork(). Both processes use them; connections that were
 * open at the fork belong to the parent; neither the parent nor its peers see any act of the child.
 *
 * The argument is an A-ASSOCIATE-RQ with the context 1 for Verification, in hexadecimal digits. The
 * program prints one line for each part. */
#define _GNU_SOURCE
#include "descriptors.h"
#include "ltdic.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CHECK(condition) check(condition, #condition, __LINE__)

enum { GUARD = 120, PATIENCE = 30, MOMENT = 50, STEP = 10 }; /* s, s, ms, ms */
enum { MOST = 1 << 20, VERIFIES = 1 };

static const char *process = "parent", *part = "start";
static uint8_t request[1024];
static size_t request_size;
static uint16_t port; /* of the listener */

static void check(int good, const char *condition, int line)
{
    if (!good) {
        fprintf(stderr, "%s: %s, line %d: %s; errno %d\n", part, process, line, condition, errno);
        _exit(1);
    }
}

static pid_t fork_here(void)
{
    fflush(stdout);
    const pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        process = "child";
        alarm(GUARD);
    }
    return child;
}

static void wait_for(pid_t child)
{
    int status = -1;
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* ---- peers ---------------------------------------------------------------------------------- */

static int call(void)
{
    const struct timeval patience = {.tv_sec = PATIENCE};
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port)};
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    CHECK(fd >= 0 && connect(fd, (struct sockaddr *)&at, sizeof at) == 0);
    CHECK(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience) == 0);
    return fd;
}

static void say(int peer, const uint8_t *bytes, size_t size)
{
    CHECK(send(peer, bytes, size, MSG_NOSIGNAL) == (ssize_t)size);
}

static void say_fixed(int peer, uint8_t type)
{
    uint8_t pdu[LTDIC_FIXED_PDU_SIZE];
    ltdic_encode_fixed(pdu, type, (ltdic_reject){0, 0, 0});
    say(peer, pdu, sizeof pdu);
}

static void ask_echo(int peer)
{
    uint8_t pdu[12 + LTDIC_ECHO_ROOM] = {4};
    const ltdic_echo echo = {LTDIC_C_ECHO_RQ, 1, 0, "1.2.840.10008.1.1"};
    ltdic_buffer command = {pdu + 12, LTDIC_ECHO_ROOM, 0};
    CHECK(ltdic_encode_echo(&command, &echo) == LTDIC_OK);
    pdu[5] = (uint8_t)(command.size + 6);
    pdu[9] = (uint8_t)(command.size + 2);
    pdu[10] = VERIFIES;
    pdu[11] = 3;
    say(peer, pdu, 12 + command.size);
}

static int has_something(int peer, int milliseconds)
{
    struct pollfd one = {.fd = peer, .events = POLLIN};
    return poll(&one, 1, milliseconds) != 0;
}

/* Check that neither bytes nor an end have come. */
static void hear_nothing(int peer)
{
    CHECK(!has_something(peer, MOMENT));
}

/* ---- servers -------------------------------------------------------------------------------- */

typedef struct world {
    ltdic_admission *admission;
    ltdic_loop *loop;
    ltdic_server *server;
    ltdic_served_id served; /* of the last event */
    int ended;              /* number of ends told */
    int peer;               /* associated before the fork */
    unsigned wanted;        /* of the server */
} world;

static void listen_at_any(world *w)
{
    const ltdic_address address = {"127.0.0.1", 0, LTDIC_IP_ANY};
    uint8_t room[64];
    ltdic_buffer host = {room, sizeof room, 0};
    w->admission = ltdic_admission_new();
    w->loop = ltdic_loop_new();
    CHECK(w->admission != NULL && w->loop != NULL);
    w->server = ltdic_server_new(w->loop, w->admission);
    CHECK(w->server != NULL);
    ltdic_admission_accept_any(w->admission);
    CHECK(ltdic_server_listen(w->server, &address, 0) == LTDIC_OK);
    CHECK(ltdic_server_name(w->server, &host, &port) == LTDIC_OK);
}

/* Serve for a short time. */
static int serve(world *w)
{
    ltdic_batch batch;
    const int status = ltdic_server_run(w->server, &batch, w->wanted, STEP);
    for (size_t i = 0; status == LTDIC_OK && i < batch.count; i++) {
        w->served = batch.events[i].served;
        w->ended += batch.events[i].kind == LTDIC_SERVED_ENDED;
    }
    return status;
}

/* Return the type of the next PDU, which has fewer than 65536 bytes; 0 at the end. */
static uint8_t hear(world *w, int peer)
{
    uint8_t bytes[65536];
    const time_t end = time(NULL) + PATIENCE;
    while (!has_something(peer, 0)) {
        CHECK(time(NULL) < end);
        serve(w);
    }
    const ssize_t got = recv(peer, bytes, 6, MSG_WAITALL);
    CHECK(got == 0 || got == 6);
    const ssize_t left = got == 0 ? 0 : (bytes[4] << 8) + bytes[5];
    CHECK(left == 0 || recv(peer, bytes + 6, (size_t)left, MSG_WAITALL) == left);
    return got == 0 ? 0 : bytes[0];
}

static int associate(world *w)
{
    const int peer = call();
    say(peer, request, request_size);
    CHECK(hear(w, peer) == LTDIC_ASSOCIATE_AC);
    return peer;
}

/* Connect an associated peer, and one that sends nothing. */
static void begin_wanting(world *w, int *silent, unsigned wanted)
{
    *w = (world){.peer = -1, .wanted = wanted};
    listen_at_any(w);
    w->peer = associate(w);
    *silent = call();
    const time_t end = time(NULL) + PATIENCE;
    while (ltdic_server_counters(w->server)->connections < 2) {
        CHECK(time(NULL) < end);
        serve(w);
    }
}

static void begin(world *w, int *silent)
{
    begin_wanting(w, silent, LTDIC_WANT_DATA | LTDIC_WANT_ENDS);
}

static void echo_and_release(world *w, int peer)
{
    ask_echo(peer);
    CHECK(hear(w, peer) == LTDIC_DATA_TF);
    say_fixed(peer, LTDIC_RELEASE_RQ);
    CHECK(hear(w, peer) == LTDIC_RELEASE_RP);
    close(peer);
}

static void free_all(world *w)
{
    ltdic_loop_free(w->loop); /* with the server */
    ltdic_admission_free(w->admission);
}

/* ---- first act of a child -------------------------------------------------------------------- */

static void do_nothing(world *w)
{
    (void)w;
}

static void do_free(world *w)
{
    free_all(w);
    w->server = NULL;
}

/* In the child the association of the parent and the connection without a request are lost. */
static void do_run(world *w)
{
    const time_t end = time(NULL) + PATIENCE;
    const ltdic_counters *c = ltdic_server_counters(w->server);
    while (w->ended == 0 || c->no_request == 0) {
        CHECK(time(NULL) < end);
        serve(w);
    }
    CHECK(c->lost + c->aborted == 1 && c->no_request == 1 && c->open == 0);
}

static void do_close(world *w)
{
    const time_t end = time(NULL) + PATIENCE;
    ltdic_server_close(w->server, 2000);
    while (serve(w) != LTDIC_ERR_CLOSED) {
        CHECK(time(NULL) < end);
    }
    do_free(w);
}

static void do_abort(world *w)
{
    uint8_t pdu[LTDIC_FIXED_PDU_SIZE];
    ltdic_encode_fixed(pdu, LTDIC_ABORT, (ltdic_reject){0, 0, 0});
    ltdic_served_send(w->server, w->served, (ltdic_bytes){pdu, sizeof pdu});
}

static void do_send(world *w)
{
    static const uint8_t data[64];
    ltdic_served_send_data(w->server, w->served, &(ltdic_pdv){VERIFIES, 3, {data, sizeof data}});
}

static void do_wake(world *w)
{
    ltdic_server_wake(w->server);
    ltdic_batch batch;
    CHECK(ltdic_server_run(w->server, &batch, 0, 1000 * PATIENCE) != LTDIC_NEED_MORE);
}

static const struct {
    const char *name;
    void (*act)(world *);
} firsts[] = {
    {"exits", do_nothing}, {"frees it", do_free}, {"serves", do_run}, {"closes it", do_close},
    {"aborts", do_abort},  {"sends", do_send},    {"wakes", do_wake},
};

/* Run as the child: it serves later peers, unless it has freed its copy. */
static void be_child(world *w, void (*act)(world *))
{
    act(w);
    if (w->server != NULL && act != do_nothing) {
        echo_and_release(w, associate(w));
        do_run(w);
        free_all(w);
    }
    _exit(0);
}

/* After the end of the child the parent is unchanged. */
static void leave_it_to_the_parent(size_t i)
{
    int silent;
    world w;
    part = firsts[i].name;
    begin(&w, &silent);
    const pid_t child = fork_here();
    if (child == 0) {
        be_child(&w, firsts[i].act);
    }
    wait_for(child);
    hear_nothing(w.peer);
    hear_nothing(silent);
    echo_and_release(&w, w.peer);
    say(silent, request, request_size);
    CHECK(hear(&w, silent) == LTDIC_ASSOCIATE_AC);
    echo_and_release(&w, silent);
    echo_and_release(&w, associate(&w));
    const ltdic_counters *c = ltdic_server_counters(w.server);
    CHECK(c->accepted == 3 && c->released == 3 && c->open == 0 && c->lost == 0);
    free_all(&w);
    printf("a child that %s leaves the parent alone\n", part);
}

/* ---- a parent that ends ---------------------------------------------------------------------- */

static void read_byte(int end)
{
    char byte;
    CHECK(read(end, &byte, 1) == 1);
}

/* The child serves after the parent has ended its copy. */
static void outlive(size_t i)
{
    int go[2], silent;
    world w;
    part = firsts[i].name;
    begin(&w, &silent);
    CHECK(pipe(go) == 0);
    const pid_t child = fork_here();
    if (child == 0) {
        close(w.peer);
        close(silent);
        read_byte(go[0]);
        echo_and_release(&w, associate(&w));
        free_all(&w);
        _exit(0);
    }
    if (firsts[i].act == do_close) {
        close(w.peer);
        close(silent);
    }
    firsts[i].act(&w);
    CHECK(write(go[1], "", 1) == 1);
    wait_for(child);
    if (w.server != NULL) {
        free_all(&w);
    }
    close(go[0]);
    close(go[1]);
    if (firsts[i].act != do_close) {
        close(w.peer);
        close(silent);
    }
    printf("a child serves although its parent %s\n", part);
}

/* ---- data that waits ------------------------------------------------------------------------- */

static uint8_t pattern[MOST];

/* Send until neither system takes more; return the number of bytes. */
static size_t fill(world *w)
{
    size_t whole = 0;
    for (size_t i = 0; i < sizeof pattern; i++) {
        pattern[i] = (uint8_t)(i * 7919 >> 8);
    }
    uint8_t control = 1;
    while (ltdic_served_send_data(w->server, w->served,
                                  &(ltdic_pdv){VERIFIES, control, {pattern, MOST}}) == LTDIC_OK) {
        whole += MOST;
    }
    return whole;
}

/* Receive PDUs whose data is the repeated pattern. */
static void take_pattern(world *w, int peer, size_t whole)
{
    static uint8_t pdu[6 + 65536];
    size_t at = 0, have = 0;
    const time_t end = time(NULL) + PATIENCE;
    while (at < whole) {
        CHECK(time(NULL) < end);
        if (!has_something(peer, 0)) {
            serve(w);
            continue;
        }
        const size_t want = have < 6 ? 6 : 6 + ((size_t)pdu[4] << 8) + pdu[5];
        const ssize_t got = recv(peer, pdu + have, want - have, 0);
        CHECK(got > 0);
        have += (size_t)got;
        if (have > 6 && have == want) {
            CHECK(pdu[0] == LTDIC_DATA_TF && pdu[10] == VERIFIES);
            for (size_t i = 12; i < have; i++, at++) {
                CHECK(pdu[i] == pattern[at % MOST]);
            }
            have = 0;
        }
    }
    CHECK(at == whole);
}

/* Bytes wait in the queue of the parent: none is lost, and none is sent twice. */
static void send_once(size_t i)
{
    int silent;
    world w;
    part = firsts[i].name;
    begin(&w, &silent);
    const size_t whole = fill(&w);
    CHECK(whole > 0);
    const pid_t child = fork_here();
    if (child == 0) {
        firsts[i].act(&w);
        _exit(0);
    }
    wait_for(child);
    take_pattern(&w, w.peer, whole);
    hear_nothing(w.peer);
    close(w.peer);
    close(silent);
    free_all(&w);
    printf("what waits is sent once, although a child %s\n", part);
}

/* ---- a release that waits ---------------------------------------------------------------------
 */

/* The answer is held until the next run, which is the first one of the child. */
static void answer_once(void)
{
    int silent;
    world w;
    part = "a release";
    begin_wanting(&w, &silent, LTDIC_WANT_DATA | LTDIC_WANT_ENDS | LTDIC_WANT_VERIFICATION);
    ltdic_batch batch;
    uint8_t data[14] = {4, 0, 0, 0, 0, 8, 0, 0, 0, 4, VERIFIES, 3, 0, 0};
    say(w.peer, data, sizeof data);
    say_fixed(w.peer, LTDIC_RELEASE_RQ);
    while (ltdic_server_run(w.server, &batch, w.wanted, STEP) != LTDIC_OK) {
    }
    for (int frees = 0; frees < 2; frees++) {
        const pid_t child = fork_here();
        if (child == 0) {
            (frees ? do_free : do_run)(&w);
            _exit(0);
        }
        wait_for(child);
        hear_nothing(w.peer);
    }
    CHECK(hear(&w, w.peer) == LTDIC_RELEASE_RP);
    close(w.peer);
    close(silent);
    free_all(&w);
    printf("a release is answered once\n");
}

/* ---- endpoints --------------------------------------------------------------------------------
 */

typedef struct ends {
    ltdic_loop *loop;
    ltdic_net *listener, *pending, *connecting, *up;
    int full, fillers[4]; /* a listener that does not answer, and the connections that fill it */
    int peer, caller;     /* the peer of `up`, and a connection that waits to be accepted */
} ends;

static ltdic_net *next(ends *e, int kind, int *status)
{
    ltdic_net *net;
    ltdic_indication told;
    const time_t end = time(NULL) + PATIENCE;
    for (;;) {
        while (ltdic_loop_next(e->loop, &net, &told) != LTDIC_OK) {
            CHECK(time(NULL) < end);
            ltdic_loop_wait(e->loop, STEP);
        }
        ltdic_net_done(net);
        if (told.kind == kind) {
            *status = told.status;
            return net;
        }
    }
}

static uint16_t listen_somewhere(int *fd)
{
    struct sockaddr_in at = {.sin_family = AF_INET};
    socklen_t size = sizeof at;
    *fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    CHECK(*fd >= 0 && bind(*fd, (struct sockaddr *)&at, size) == 0 && listen(*fd, 0) == 0);
    CHECK(getsockname(*fd, (struct sockaddr *)&at, &size) == 0);
    return ntohs(at.sin_port);
}

static void connect_to(ltdic_net *net, uint16_t where)
{
    const ltdic_address peer = {"127.0.0.1", where, LTDIC_IP_ANY};
    CHECK(net != NULL && ltdic_net_connect(net, &peer, NULL) == LTDIC_OK);
}

static void set_up(ends *e)
{
    int status, other;
    uint8_t room[64];
    ltdic_buffer host = {room, sizeof room, 0};
    e->loop = ltdic_loop_new();
    e->listener = ltdic_net_new(e->loop, NULL);
    e->pending = ltdic_net_new(e->loop, NULL);
    e->connecting = ltdic_net_new(e->loop, NULL);
    e->up = ltdic_net_new(e->loop, NULL);
    CHECK(ltdic_net_listen(e->listener, &(ltdic_address){"127.0.0.1", 0, 0}, 0) == LTDIC_OK);
    CHECK(ltdic_net_name(e->listener, 0, &host, &port) == LTDIC_OK);
    connect_to(e->up, listen_somewhere(&other));
    CHECK(next(e, LTDIC_CONNECTED, &status) == e->up && status == LTDIC_OK);
    e->peer = accept(other, NULL, NULL);
    close(other);
    e->caller = call();
    CHECK(e->peer >= 0 && next(e, LTDIC_PENDING, &status) == e->listener);
    const uint16_t before = port;
    port = listen_somewhere(&e->full);
    for (int i = 0; i < 4; i++) {
        struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port)};
        e->fillers[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        connect(e->fillers[i], (struct sockaddr *)&at, sizeof at);
    }
    connect_to(e->connecting, port);
    port = before;
}

/* The system sends the SYN again after a second. */
static void make_room(const ends *e)
{
    for (int i = 0; i < 4; i++) {
        close(e->fillers[i]);
    }
    for (int fd = 0; fd >= 0;) {
        fd = accept(e->full, NULL, NULL);
        close(fd);
    }
}

static void see_them_lost(ends *e)
{
    int found = 0, status;
    CHECK(next(e, LTDIC_CONNECTED, &status) == e->connecting && status == LTDIC_ERR_CONNECT);
    CHECK(ltdic_net_cause(e->connecting).error == ECONNABORTED);
    while (!found) {
        ltdic_loop_wait(e->loop, STEP);
        found = !ltdic_net_is_connected(e->up);
        ltdic_net *net;
        ltdic_indication told;
        while (ltdic_loop_next(e->loop, &net, &told) == LTDIC_OK) {
            ltdic_net_done(net);
        }
    }
    CHECK(ltdic_net_accept(e->pending, e->listener) == LTDIC_NEED_MORE);
    const int caller = call();
    CHECK(next(e, LTDIC_PENDING, &status) == e->listener);
    CHECK(ltdic_net_accept(e->pending, e->listener) == LTDIC_OK);
    close(caller);
}

static void end_look(ends *e)
{
    see_them_lost(e);
}

static void end_free(ends *e)
{
    ltdic_loop_free(e->loop);
}

static void end_free_each(ends *e)
{
    ltdic_net_free(e->up);
    ltdic_net_free(e->connecting);
    ltdic_net_free(e->listener);
}

static void end_close_each(ends *e)
{
    ltdic_net_close(e->up);
    ltdic_net_close(e->connecting);
    ltdic_net_close(e->listener);
}

static void end_accept(ends *e)
{
    CHECK(ltdic_net_accept(e->pending, e->listener) == LTDIC_NEED_MORE);
}

static void end_wake(ends *e)
{
    ltdic_loop_wake(e->loop);
    CHECK(ltdic_loop_wait(e->loop, 1000 * PATIENCE) == LTDIC_ERR_INTERRUPTED);
    see_them_lost(e);
}

/* A child of the child is separated from it like a child from its parent. */
static void end_fork(ends *e)
{
    ltdic_loop *own = ltdic_loop_new();
    see_them_lost(e);
    const pid_t child = fork_here();
    if (child == 0) {
        process = "grandchild";
        ltdic_loop_wake(e->loop);
        ltdic_loop_wake(own);
        CHECK(ltdic_loop_wait(own, 1000 * PATIENCE) == LTDIC_ERR_INTERRUPTED);
        CHECK(ltdic_loop_wait(e->loop, 1000 * PATIENCE) == LTDIC_ERR_INTERRUPTED);
        _exit(0);
    }
    wait_for(child);
    CHECK(ltdic_loop_wait(own, STEP) == LTDIC_NEED_MORE);
    ltdic_loop_wake(own);
    CHECK(ltdic_loop_wait(own, 1000 * PATIENCE) == LTDIC_ERR_INTERRUPTED);
    ltdic_loop_free(own);
}

static const struct {
    const char *name;
    void (*act)(ends *);
} loops[] = {
    {"looks", end_look},           {"frees the loop", end_free},
    {"frees each", end_free_each}, {"closes each", end_close_each},
    {"accepts", end_accept},       {"wakes", end_wake},
    {"forks", end_fork},
};

static void share_a_loop(size_t i)
{
    ends e;
    int status;
    part = loops[i].name;
    set_up(&e);
    const pid_t child = fork_here();
    if (child == 0) {
        loops[i].act(&e);
        _exit(0);
    }
    wait_for(child);
    CHECK(ltdic_loop_wait(e.loop, 0) != LTDIC_ERR_INTERRUPTED); /* nobody has woken the parent */
    hear_nothing(e.peer);
    hear_nothing(e.caller);
    CHECK(ltdic_net_accept(e.pending, e.listener) == LTDIC_OK);
    make_room(&e);
    CHECK(next(&e, LTDIC_CONNECTED, &status) == e.connecting && status == LTDIC_OK);
    close(e.peer);
    CHECK(next(&e, LTDIC_CLOSED, &status) == e.up);
    close(e.caller);
    CHECK(next(&e, LTDIC_CLOSED, &status) == e.pending);
    const int caller = call();
    CHECK(next(&e, LTDIC_PENDING, &status) == e.listener);
    ltdic_loop_free(e.loop);
    close(caller);
    close(e.full);
    printf("a child that %s leaves the parent's loop alone\n", part);
}

/* Each part waits for a second until the system sends a SYN again, so all run at the same time. */
static void share_loops(void)
{
    enum { LOOPS = sizeof loops / sizeof *loops };
    pid_t parts[LOOPS];
    fflush(stdout);
    for (size_t i = 0; i < LOOPS; i++) {
        parts[i] = fork();
        CHECK(parts[i] >= 0);
        if (parts[i] == 0) {
            const unsigned before = open_descriptors();
            alarm(GUARD); /* that of the parent is not inherited */
            share_a_loop(i);
            CHECK(open_descriptors() == before);
            fflush(stdout);
            _exit(0);
        }
    }
    for (size_t i = 0; i < LOOPS; i++) {
        wait_for(parts[i]);
    }
}

int main(int count, char **arguments)
{
    const unsigned before = open_descriptors();
    unsigned byte;
    CHECK(count == 2);
    for (const char *at = arguments[1]; sscanf(at, "%2x", &byte) == 1; at += 2) {
        CHECK(request_size < sizeof request);
        request[request_size++] = (uint8_t)byte;
    }
    alarm(GUARD);
    for (size_t i = 0; i < sizeof firsts / sizeof *firsts; i++) {
        leave_it_to_the_parent(i);
    }
    for (size_t i = 0; i < sizeof firsts / sizeof *firsts; i++) {
        if (firsts[i].act == do_free || firsts[i].act == do_close) {
            outlive(i);
        }
        if (firsts[i].act != do_wake && firsts[i].act != do_close) {
            send_once(i);
        }
    }
    answer_once();
    share_loops();
    CHECK(open_descriptors() == before);
    return 0;
}
