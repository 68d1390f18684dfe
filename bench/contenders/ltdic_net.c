/* SPDX-License-Identifier: MIT */
/* ltdic_net accept MODE DIR [MAX] | ltdic_net request DIR
 *
 * ltdic as a C program uses it. The acceptor is an ltdic_server with an ltdic_admission; the
 * requestor is an ltdic_loop with one endpoint for each association at once. */
#include <ltdic.h>
#ifdef TLS
#include <ltdic_openssl.h>
#endif

#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#define VERIFICATION "1.2.840.10008.1.1"
#define SECONDARY_CAPTURE "1.2.840.10008.5.1.4.1.1.7"
#define IMPLICIT_LITTLE_ENDIAN "1.2.840.10008.1.2"

enum {
    BACKLOG = 1024,
    PATIENCE = 30000, /* ms */
    LOOK = 200,       /* ms between two checks of standard input */
    PART = 524288,    /* most bytes of a data set in one call, but one P-DATA-TF at least */
    PDU_HEADER = 6,
    DATA_HEADER = 12, /* header of a P-DATA-TF with one PDV, and the header of the PDV */
    FILE_ROOM = 1024
};

typedef enum mode { REJECT, ECHO, RECEIVE, LATENCY, SEND, UNKNOWN } mode;

static const char *const mode_names[] = {"reject", "echo", "receive", "latency", "send"};

static mode mode_named(const char *name)
{
    int m = REJECT;
    while (m < UNKNOWN && strcmp(name, mode_names[m]) != 0) {
        m++;
    }
    return (mode)m;
}

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static ltdic_bytes read_file(const char *directory, const char *name)
{
    char path[4096];
    uint8_t *data = malloc(FILE_ROOM);
    snprintf(path, sizeof path, "%s/%s.bin", directory, name);
    FILE *file = fopen(path, "rb");
    if (file == NULL || data == NULL) {
        fail(path);
    }
    const size_t size = fread(data, 1, FILE_ROOM, file);
    fclose(file);
    return (ltdic_bytes){data, size};
}

/* The command of a P-DATA-TF whose only PDV it is. */
static ltdic_bytes read_command(const char *directory, const char *name)
{
    const ltdic_bytes pdu = read_file(directory, name);
    return (ltdic_bytes){pdu.data + DATA_HEADER, pdu.size - DATA_HEADER};
}

static uint64_t nanoseconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

/* Writes to each page: untouched memory of calloc is one page, mapped again and again. */
static uint8_t *new_zeros(size_t size)
{
    uint8_t *zeros = calloc(size, 1);
    for (size_t at = 0; zeros != NULL && at < size; at += 4096) {
        ((volatile uint8_t *)zeros)[at] = 0;
    }
    return zeros;
}

static void raise_limit(void)
{
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}

/* ---- acceptor ---------------------------------------------------------------------------- */

/* All requests have the called title ARCHIVE: REJECT admits another title only. */
static ltdic_admission *admission_for(mode m, uint32_t max_length)
{
    ltdic_admission *a = ltdic_admission_new();
    ltdic_admission_add_called(a, m == REJECT ? "NOBODY" : "ARCHIVE");
    ltdic_admission_add_context(a, VERIFICATION);
    ltdic_admission_add_transfer(a, IMPLICIT_LITTLE_ENDIAN);
    ltdic_admission_add_context(a, SECONDARY_CAPTURE);
    ltdic_admission_add_transfer(a, IMPLICIT_LITTLE_ENDIAN);
    ltdic_admission_set_max_length(a, max_length);
    return a;
}

static ltdic_server *listening_server(ltdic_loop *loop, ltdic_admission *admission)
{
    const ltdic_address address = {"127.0.0.1", 0, LTDIC_IP_V4};
    uint8_t host[48];
    ltdic_buffer name = {host, sizeof host, 0};
    uint16_t port = 0;
    ltdic_server *s = loop == NULL ? NULL : ltdic_server_new(loop, admission);
    if (s == NULL || ltdic_server_listen(s, &address, BACKLOG) != LTDIC_OK) {
        fail("listen");
    }
    ltdic_server_name(s, &name, &port);
    printf("%u\n", (unsigned)port);
    fflush(stdout);
    return s;
}

/* Counts the bytes of data sets, and answers each that is complete with C-STORE-RSP. */
static void store_all(ltdic_server *server, const ltdic_batch *batch, ltdic_bytes response,
                      uint64_t *received)
{
    for (size_t n = 0; n < batch->count; n++) {
        const ltdic_event_row *e = &batch->events[n];
        if (e->kind != LTDIC_SERVED_DATA || (e->control & 1) != 0) {
            continue;
        }
        *received += e->length;
        if ((e->control & 2) != 0) {
            const ltdic_pdv pdv = {e->id, 3, response};
            ltdic_served_send_data(server, e->served, &pdv);
        }
    }
}

static bool input_has_ended(void)
{
    struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
    char byte;
    return poll(&input, 1, 0) > 0 && read(STDIN_FILENO, &byte, 1) <= 0;
}

#ifdef TLS
static void secure(ltdic_server *server, const char *directory)
{
    char path[4096];
    const ltdic_openssl_files files = {.size = sizeof files, .certificate = path};
    snprintf(path, sizeof path, "%s/tls.pem", directory);
    SSL_CTX *context = ltdic_openssl_server_context(&files);
    if (context == NULL) {
        fail(path);
    }
    ltdic_openssl_serve(server, context);
}
#else
static void secure(ltdic_server *server, const char *directory)
{
    (void)server;
    (void)directory;
}
#endif

static int accept_until_end(mode m, const char *directory, uint32_t max_length)
{
    ltdic_admission *admission = admission_for(m, max_length);
    ltdic_loop *loop = ltdic_loop_new();
    ltdic_server *server = listening_server(loop, admission);
    secure(server, directory);
    const ltdic_bytes response = read_command(directory, "store-rsp");
    const unsigned wanted = m == RECEIVE ? LTDIC_WANT_DATA : 0;
    uint64_t received = 0;
    for (;;) {
        ltdic_batch batch;
        const int status = ltdic_server_run(server, &batch, wanted, LOOK);
        if (status == LTDIC_OK) {
            store_all(server, &batch, response, &received);
        } else if (input_has_ended()) {
            break;
        }
    }
    ltdic_loop_free(loop); /* with the server */
    ltdic_admission_free(admission);
    return 0;
}

/* ---- requestor --------------------------------------------------------------------------- */

/* One association at a time. */
typedef struct slot {
    ltdic_net *net;
    bool right;           /* it was rejected or released as the mode demands */
    uint64_t at;          /* SEND: bytes of the data set given to the endpoint */
    uint64_t given, gone; /* SEND: bytes given to the endpoint, and sent; without headers */
    size_t have;          /* bytes in `command` */
    uint8_t command[FILE_ROOM];
    ltdic_echo_reader echoes; /* ECHO */
} slot;

typedef struct requestor {
    ltdic_bytes rq, echo_rq, store_rq, release_rq;
    ltdic_loop *loop;
    mode mode;
    uint16_t port;
    uint64_t count, size;
    uint64_t associations, begun, over;
    const char *error;
    uint64_t rounds, time; /* LATENCY */
    const uint8_t *zeros;  /* SEND */
    slot *slots;
    size_t places;
} requestor;

static void failed(requestor *r, const char *error)
{
    r->error = r->error == NULL ? error : r->error;
}

static void must(requestor *r, int status)
{
    if (status != LTDIC_OK) {
        failed(r, ltdic_status_text(status));
    }
}

static void begin(requestor *r, slot *s)
{
    const ltdic_address peer = {"127.0.0.1", r->port, LTDIC_IP_V4};
    r->begun++;
    s->right = false;
    s->at = s->given = s->gone = s->have = 0;
    must(r, ltdic_net_connect(s->net, &peer, NULL));
    must(r, ltdic_net_send(s->net, r->rq));
}

static void send_command(requestor *r, slot *s, uint8_t id, ltdic_bytes command)
{
    const ltdic_pdv pdv = {id, 3, command};
    s->given += command.size;
    must(r, ltdic_net_send_data(s->net, &pdv));
}

/* Gives the next part of the data set, whole P-DATA-TF, once the part before has been sent. */
static void send_part(requestor *r, slot *s)
{
    const uint64_t each = r->size - PDU_HEADER, left = r->count - s->at;
    const uint64_t part = PART / each > 0 ? PART / each * each : each;
    const uint64_t size = left < part ? left : part;
    const ltdic_pdv pdv = {3, size == left ? 2 : 0, {r->zeros + s->at, size}};
    s->at += size;
    s->given += size;
    must(r, ltdic_net_send_data(s->net, &pdv));
}

static void receive_accept(requestor *r, slot *s)
{
    if (r->mode == REJECT) {
        failed(r, "not rejected");
    } else if (r->mode == SEND) {
        send_command(r, s, 3, r->store_rq);
    } else {
        r->time = r->mode == LATENCY ? nanoseconds() : 0;
        send_command(r, s, 1, r->echo_rq);
    }
}

static void receive_reject(requestor *r, slot *s, ltdic_bytes pdu)
{
    s->right = r->mode == REJECT && pdu.data[7] == 1 && pdu.data[8] == 1 && pdu.data[9] == 7;
}

/* Is Status (0000,0900) of this response 0? */
static bool is_success(const uint8_t *command, size_t size)
{
    size_t at = 0;
    while (at + 10 <= size) {
        const uint8_t *p = command + at;
        if (p[0] == 0 && p[1] == 0 && p[2] == 0 && p[3] == 9) {
            return p[8] == 0 && p[9] == 0;
        }
        at += 8 + ((size_t)p[5] << 8 | p[4]);
    }
    return false;
}

static bool is_answer(requestor *r, slot *s, const ltdic_indication *i)
{
    const ltdic_bytes data = i->piece.data;
    if (r->mode != SEND) {
        ltdic_echo echo;
        return ltdic_echo_reader_take(&s->echoes, &echo, &i->piece) == LTDIC_OK &&
               echo.field == LTDIC_C_ECHO_RSP && echo.status == 0;
    }
    if (data.size > sizeof s->command - s->have) {
        return false;
    }
    memcpy(s->command + s->have, data.data, data.size);
    s->have += data.size;
    return is_success(s->command, s->have);
}

static void receive_data(requestor *r, slot *s, const ltdic_indication *i)
{
    const bool right = is_answer(r, s, i);
    if ((i->piece.control & 2) == 0) {
        return;
    }
    if (!right) {
        failed(r, "no success");
    } else if (r->mode == LATENCY && ++r->rounds < r->count) {
        send_command(r, s, 1, r->echo_rq);
    } else {
        r->time = nanoseconds() - r->time;
        must(r, ltdic_net_send(s->net, r->release_rq));
    }
}

static void receive(requestor *r, slot *s, const ltdic_indication *i)
{
    if (i->status != LTDIC_OK) {
        failed(r, ltdic_status_text(i->status));
        return;
    }
    switch (i->type) {
    case LTDIC_ASSOCIATE_AC:
        receive_accept(r, s);
        break;
    case LTDIC_ASSOCIATE_RJ:
        receive_reject(r, s, i->pdu);
        break;
    case LTDIC_DATA_TF:
        receive_data(r, s, i);
        break;
    case LTDIC_RELEASE_RP:
        s->right = true;
        break;
    default:
        break;
    }
}

static void sent(requestor *r, slot *s, const ltdic_indication *i)
{
    if (r->mode != SEND || i->type != LTDIC_DATA_TF || i->status != LTDIC_OK) {
        return;
    }
    s->gone += i->size - DATA_HEADER;
    if (s->gone == s->given && s->at < r->count) {
        send_part(r, s);
    }
}

static void closed(requestor *r, slot *s)
{
    r->over++;
    if (!s->right) {
        failed(r, "neither rejected nor released as it must be");
    } else if (r->begun < r->associations) {
        begin(r, s);
    }
}

static void handle(requestor *r, slot *s, const ltdic_indication *i)
{
    switch (i->kind) {
    case LTDIC_CONNECTED:
        must(r, i->status);
        break;
    case LTDIC_RECEIVED:
        receive(r, s, i);
        break;
    case LTDIC_SENT:
        sent(r, s, i);
        break;
    case LTDIC_CLOSED:
        closed(r, s);
        break;
    default:
        break;
    }
}

/* Handle indications until this many associations are over. */
static void run_until(requestor *r, uint64_t over)
{
    ltdic_indication i;
    ltdic_net *net;
    while (r->over < over && r->error == NULL) {
        if (ltdic_loop_next(r->loop, &net, &i) != LTDIC_OK) {
            ltdic_loop_wait(r->loop, PATIENCE);
            continue;
        }
        handle(r, ltdic_net_owner(net), &i);
        ltdic_net_done(net);
    }
}

/* ---- commands ---------------------------------------------------------------------------- */

static void make_slots(requestor *r, size_t places)
{
    const ltdic_timeouts timeouts = {.size = sizeof timeouts, .response = PATIENCE};
    r->slots = calloc(places, sizeof *r->slots);
    if (r->slots == NULL) {
        failed(r, "no memory");
        return;
    }
    r->places = places;
    for (size_t n = 0; n < places; n++) {
        r->slots[n].net = ltdic_net_new(r->loop, &r->slots[n]);
        if (r->slots[n].net == NULL) {
            fail("ltdic_net_new");
        }
        ltdic_net_set_timeouts(r->slots[n].net, &timeouts);
    }
}

static void free_slots(requestor *r)
{
    for (size_t n = 0; n < r->places; n++) {
        ltdic_net_free(r->slots[n].net);
    }
    free(r->slots);
    r->slots = NULL;
    r->places = 0;
}

/* Returns the nanoseconds that all associations took, or all echoes of LATENCY. */
static uint64_t run(requestor *r, uint64_t at_once)
{
    r->associations = r->mode == SEND ? at_once : r->mode == LATENCY ? 1 : r->count;
    r->begun = r->over = r->rounds = 0;
    make_slots(r, at_once);
    const uint64_t start = nanoseconds();
    while (r->begun < r->associations && r->begun < at_once && r->error == NULL) {
        begin(r, &r->slots[r->begun]);
    }
    run_until(r, r->associations);
    const uint64_t taken = r->mode == LATENCY ? r->time : nanoseconds() - start;
    free_slots(r);
    return taken;
}

static void answer(requestor *r, const char *line)
{
    char name[16];
    unsigned long long port, count, at_once, size;
    uint8_t *zeros = NULL;
    uint64_t taken = 0;
    if (sscanf(line, "%15s %llu %llu %llu %llu", name, &port, &count, &at_once, &size) != 5 ||
        at_once == 0 || count == 0) {
        printf("error a line is MODE PORT COUNT AT_ONCE SIZE\n");
        return;
    }
    r->mode = mode_named(name);
    r->port = (uint16_t)port;
    r->count = count;
    r->size = size;
    if (r->mode == UNKNOWN || r->mode == RECEIVE || (r->mode == SEND && size <= PDU_HEADER)) {
        failed(r, "unsupported");
    }
    if (r->error == NULL && r->mode == SEND) {
        zeros = new_zeros(count);
        r->zeros = zeros;
    }
    if (r->error == NULL) {
        taken = run(r, at_once);
    }
    free(zeros);
    if (r->error != NULL) {
        printf("error %s\n", r->error);
    } else {
        printf("%llu\n", (unsigned long long)taken);
    }
}

static int request_until_end(const char *directory)
{
    requestor r = {.rq = read_file(directory, "rq"),
                   .echo_rq = read_command(directory, "echo-rq"),
                   .store_rq = read_command(directory, "store-rq"),
                   .release_rq = read_file(directory, "release-rq"),
                   .loop = ltdic_loop_new()};
    char line[256];
    if (r.loop == NULL) {
        fail("ltdic_loop_new");
    }
    while (fgets(line, sizeof line, stdin) != NULL) {
        r.error = NULL;
        answer(&r, line);
        fflush(stdout);
    }
    ltdic_loop_free(r.loop);
    return 0;
}

int main(int argc, char **argv)
{
    raise_limit();
    if (argc >= 4 && strcmp(argv[1], "accept") == 0 && mode_named(argv[2]) <= RECEIVE) {
        const char *max_length = argc > 4 ? argv[4] : "131072";
        return accept_until_end(mode_named(argv[2]), argv[3],
                                (uint32_t)strtoul(max_length, NULL, 10));
    }
    if (argc == 3 && strcmp(argv[1], "request") == 0) {
        return request_until_end(argv[2]);
    }
    fprintf(stderr,
            "usage: ltdic_net accept reject|echo|receive DIR [MAX] | ltdic_net request DIR\n");
    return 2;
}
