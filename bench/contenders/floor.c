/* SPDX-License-Identifier: MIT */
/* floor accept MODE DIR [MAX] | floor request DIR
 *
 * The least code that does the job in one thread. It reads only as much of the input as it needs to
 * know where each PDU ends and which type it has; it sends the bytes of files. Linux only.
 *
 * With -DTLS it does so over TLS, by OpenSSL on non-blocking sockets, with DIR/tls.pem.
 *
 * System calls of an acceptor for a rejection: accept4, recv, send, epoll_ctl, and close when the
 * peer has closed; of a requestor: socket, setsockopt, connect, send, recv, close. */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#ifdef TLS
#include <openssl/err.h>
#include <openssl/ssl.h>
#else
typedef void SSL;
#endif

enum {
    READ_SIZE = 262144,
    RECORD = 16384,      /* bytes of data in a record of TLS */
    WRITE_SIZE = 524288, /* a system call gets no more parts once it has this many bytes */
    EVENTS = 256,
    BACKLOG = 1024,
    HEADER = 6,      /* header of a PDU; header of a PDV with context ID and control header */
    MESSAGE_ID = 68, /* place in a C-ECHO-RQ or C-ECHO-RSP that is alone in a P-DATA-TF */
    ANSWER = 1024
};

typedef struct bytes {
    uint8_t *data;
    size_t size;
} bytes;

typedef enum mode { REJECT, ECHO, RECEIVE, LATENCY, SEND, OPEN, UNKNOWN } mode;

static const char *const mode_names[] = {"reject", "echo", "receive", "latency", "send", "open"};

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

static bytes read_file(const char *directory, const char *name)
{
    char path[4096];
    uint8_t *data = malloc(ANSWER);
    snprintf(path, sizeof path, "%s/%s.bin", directory, name);
    FILE *file = fopen(path, "rb");
    if (file == NULL || data == NULL) {
        fail(path);
    }
    const size_t size = fread(data, 1, ANSWER, file);
    fclose(file);
    return (bytes){data, size};
}

static uint32_t big_endian(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static void put_big_endian(uint8_t *p, uint32_t value)
{
    for (int i = 0; i < 4; i++) {
        p[i] = (uint8_t)(value >> (24 - 8 * i));
    }
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

static uint64_t nanoseconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static void raise_limit(void)
{
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}

/* Connections inherit it from their listener. */
static void set_nodelay(int fd)
{
    const int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

static struct sockaddr_in loopback(uint16_t port)
{
    return (struct sockaddr_in){.sin_family = AF_INET,
                                .sin_port = htons(port),
                                .sin_addr = {.s_addr = htonl(INADDR_LOOPBACK)}};
}

static void add_to(int poller, int fd, uint32_t events, void *owner)
{
    struct epoll_event e = {.events = events, .data = {.ptr = owner}};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, fd, &e) != 0) {
        fail("epoll_ctl");
    }
}

/* ---- TLS --------------------------------------------------------------------------------- */

/* A connection; `ssl` is NULL without TLS. */
typedef struct wire {
    int fd;
    SSL *ssl;
} wire;

#ifdef TLS

static SSL_CTX *context;

static void use_certificate(const char *directory)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/tls.pem", directory);
    context = SSL_CTX_new(TLS_method());
    SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION);
    if (SSL_CTX_use_certificate_chain_file(context, path) != 1 ||
        SSL_CTX_use_PrivateKey_file(context, path, SSL_FILETYPE_PEM) != 1) {
        fail(path);
    }
}

static void secure(wire *w, bool server)
{
    w->ssl = SSL_new(context);
    SSL_set_fd(w->ssl, w->fd);
    SSL_set_mode(w->ssl, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    (server ? SSL_set_accept_state : SSL_set_connect_state)(w->ssl);
}

static ssize_t outcome(const wire *w, int result)
{
    const int why = result > 0 ? SSL_ERROR_NONE : SSL_get_error(w->ssl, result);
    errno = why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE ? EAGAIN : ECONNRESET;
    return result > 0 ? result : why == SSL_ERROR_ZERO_RETURN ? 0 : -1;
}

static ssize_t get(const wire *w, void *data, size_t room)
{
    ERR_clear_error();
    return outcome(w, SSL_read(w->ssl, data, (int)room));
}

static ssize_t put(const wire *w, const void *data, size_t size)
{
    ERR_clear_error();
    return outcome(w, SSL_write(w->ssl, data, (int)size));
}

/* Gathers the parts into one record. */
static ssize_t put_parts(const wire *w, const struct iovec *parts, size_t count)
{
    uint8_t record[RECORD];
    size_t size = 0;
    for (size_t i = 0; i < count && size < RECORD; i++) {
        const size_t room = RECORD - size;
        const size_t part = parts[i].iov_len < room ? parts[i].iov_len : room;
        memcpy(record + size, parts[i].iov_base, part);
        size += part;
    }
    return put(w, record, size);
}

static bool wants_to_read(const wire *w)
{
    return SSL_want_read(w->ssl);
}

static void close_wire(wire *w)
{
    ERR_clear_error();
    SSL_shutdown(w->ssl);
    SSL_free(w->ssl);
    close(w->fd);
}

enum { AT_ONCE = RECORD, SECURED = 1 }; /* AT_ONCE: bytes that one read gives at most */

#else

static void use_certificate(const char *directory)
{
    (void)directory;
}

static void secure(wire *w, bool server)
{
    (void)w;
    (void)server;
}

static ssize_t get(const wire *w, void *data, size_t room)
{
    return recv(w->fd, data, room, 0);
}

static ssize_t put(const wire *w, const void *data, size_t size)
{
    return send(w->fd, data, size, MSG_NOSIGNAL);
}

static ssize_t put_parts(const wire *w, struct iovec *parts, size_t count)
{
    const struct msghdr message = {.msg_iov = parts, .msg_iovlen = count};
    return sendmsg(w->fd, &message, MSG_NOSIGNAL);
}

static bool wants_to_read(const wire *w)
{
    (void)w;
    return false;
}

static void close_wire(wire *w)
{
    close(w->fd); /* removes it from the poller, too */
}

enum { AT_ONCE = READ_SIZE, SECURED = 0 };

#endif

/* ---- a stream as PDUs -------------------------------------------------------------------- */

/* The position in a stream: in a header, which is copied, or in a body, which is skipped. Begins as
 * all zeroes. */
typedef struct walk {
    enum { PDU_HEADER, PDV_HEADER, BODY } place;
    uint8_t header[HEADER];
    uint8_t have; /* bytes in `header` */
    uint8_t type, control;
    uint32_t left;     /* bytes of the body that are still missing */
    uint32_t pdv_left; /* bytes of the P-DATA-TF after this PDV */
} walk;

/* Ends in a stream: of a PDU, by its type, or of a command or data set by its last fragment. */
enum { NOTHING = 0, RQ = 1, AC = 2, RJ = 3, DATA = 4, RELEASE_RQ = 5, COMMAND = 16, DATA_SET = 17 };

static bool gather(walk *w, bytes *in)
{
    const size_t wanted = (size_t)(HEADER - w->have);
    const size_t size = in->size < wanted ? in->size : wanted;
    memcpy(w->header + w->have, in->data, size);
    w->have = (uint8_t)((w->have + size) % HEADER);
    in->data += size;
    in->size -= size;
    return size == wanted;
}

static void enter(walk *w)
{
    if (w->place == PDU_HEADER) {
        w->type = w->header[0];
        w->control = 0;
        w->left = big_endian(w->header + 2);
        w->pdv_left = 0;
        w->place = BODY;
        if (w->type == DATA) {
            w->pdv_left = w->left;
            w->place = PDV_HEADER;
        }
    } else {
        w->left = big_endian(w->header) - 2;
        w->control = w->header[5];
        w->pdv_left -= HEADER + w->left;
        w->place = BODY;
    }
}

static int ended(walk *w)
{
    w->place = w->pdv_left > 0 ? PDV_HEADER : PDU_HEADER;
    return w->type != DATA         ? w->type
           : (w->control & 2) == 0 ? NOTHING
           : (w->control & 1) != 0 ? COMMAND
                                   : DATA_SET;
}

/* The next end in `in`; NOTHING when all of it has been read. */
static int next(walk *w, bytes *in)
{
    int what = NOTHING;
    while (what == NOTHING && in->size > 0) {
        if (w->place == BODY) {
            const uint32_t size = in->size < w->left ? (uint32_t)in->size : w->left;
            in->data += size;
            in->size -= size;
            w->left -= size;
        } else if (gather(w, in)) {
            enter(w);
        }
        if (w->place == BODY && w->left == 0) {
            what = ended(w);
        }
    }
    return what;
}

/* ---- acceptor ---------------------------------------------------------------------------- */

typedef struct connection {
    wire wire;
    walk walk;
    struct connection *next; /* free ones */
} connection;

typedef struct acceptor {
    int poller, listener;
    connection *spare;
    uint8_t *buffer;
    mode mode;
    bytes to_request, to_command, to_data_set, to_release;
} acceptor;

/* The PDU to send after this end; size 0 where there is none. */
static bytes answer_to(const acceptor *a, int what)
{
    return what == RQ           ? a->to_request
           : what == COMMAND    ? a->to_command
           : what == DATA_SET   ? a->to_data_set
           : what == RELEASE_RQ ? a->to_release
                                : (bytes){NULL, 0};
}

/* The requestor waits for each response, so `request` is one whole P-DATA-TF. */
static void put_message_id(uint8_t *response, bytes request)
{
    if (request.size >= MESSAGE_ID + 2) {
        memcpy(response + MESSAGE_ID, request.data + MESSAGE_ID, 2);
    }
}

static bool answer_all(const acceptor *a, connection *c, bytes in)
{
    const bytes all = in;
    int what;
    while ((what = next(&c->walk, &in)) != NOTHING) {
        const bytes answer = answer_to(a, what);
        if (what == COMMAND && a->mode == ECHO) {
            put_message_id(answer.data, all);
        }
        if (answer.size > 0 && put(&c->wire, answer.data, answer.size) < 0) {
            return false;
        }
    }
    return true;
}

/* Reads and answers all that has arrived. False at the end of the connection. */
static bool serve(const acceptor *a, connection *c)
{
    ssize_t size;
    do {
        size = get(&c->wire, a->buffer, READ_SIZE);
        if (size <= 0) {
            return size < 0 && errno == EAGAIN;
        }
        if (!answer_all(a, c, (bytes){a->buffer, (size_t)size})) {
            return false;
        }
    } while (size == AT_ONCE || SECURED);
    return true;
}

static void end(acceptor *a, connection *c)
{
    close_wire(&c->wire);
    c->next = a->spare;
    a->spare = c;
}

static connection *new_connection(acceptor *a, int fd)
{
    connection *c = a->spare;
    if (c != NULL) {
        a->spare = c->next;
    } else {
        c = malloc(sizeof *c);
    }
    if (c == NULL) {
        fail("malloc");
    }
    *c = (connection){.wire = {fd, NULL}};
    secure(&c->wire, true);
    return c;
}

/* Accepts one connection; the poller reports again where more wait. Most requests have arrived by
 * the time their connection is accepted. */
static void accept_one(acceptor *a)
{
    const int fd = accept4(a->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) {
        return;
    }
    connection *c = new_connection(a, fd);
    if (serve(a, c)) {
        add_to(a->poller, fd, EPOLLIN | EPOLLRDHUP, c);
    } else {
        end(a, c);
    }
}

static void listen_at_any_port(acceptor *a)
{
    struct sockaddr_in address = loopback(0);
    socklen_t size = sizeof address;
    a->listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    set_nodelay(a->listener);
    if (bind(a->listener, (struct sockaddr *)&address, size) != 0 ||
        listen(a->listener, BACKLOG) != 0 ||
        getsockname(a->listener, (struct sockaddr *)&address, &size) != 0) {
        fail("listen");
    }
    printf("%u\n", (unsigned)ntohs(address.sin_port));
    fflush(stdout);
}

static void load_answers(acceptor *a, const char *directory, const char *max)
{
    char accept[32];
    snprintf(accept, sizeof accept, "ac-%s", max);
    a->to_request = read_file(directory, a->mode == REJECT ? "rj" : accept);
    if (a->mode == ECHO) {
        a->to_command = read_file(directory, "echo-rsp");
    }
    a->to_data_set = read_file(directory, "store-rsp");
    a->to_release = read_file(directory, "release-rp");
}

static bool input_has_ended(void)
{
    char byte;
    return read(STDIN_FILENO, &byte, 1) <= 0;
}

static int accept_until_end(mode m, const char *directory, const char *max)
{
    acceptor a = {.mode = m, .buffer = malloc(READ_SIZE)};
    struct epoll_event events[EVENTS];
    load_answers(&a, directory, max);
    use_certificate(directory);
    a.poller = epoll_create1(EPOLL_CLOEXEC);
    listen_at_any_port(&a);
    add_to(a.poller, a.listener, EPOLLIN, &a);
    add_to(a.poller, STDIN_FILENO, EPOLLIN, NULL);
    for (;;) {
        const int count = epoll_wait(a.poller, events, EVENTS, -1);
        for (int i = 0; i < count; i++) {
            connection *c = events[i].data.ptr;
            const bool over = (events[i].events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0;
            if (c == NULL) {
                if (input_has_ended()) {
                    return 0;
                }
            } else if (events[i].data.ptr == &a) {
                accept_one(&a);
            } else if ((over && a.mode == REJECT) || !serve(&a, c)) {
                end(&a, c);
            }
        }
    }
}

/* ---- requestor --------------------------------------------------------------------------- */

/* One association at a time. */
typedef struct slot {
    wire wire;
    enum { NO_ANSWER, CONNECTED, ASSOCIATED, ANSWERED, SENDING, RELEASING } waits;
    size_t have;
    uint64_t at; /* SENDING: bytes sent */
    uint8_t in[ANSWER];
} slot;

typedef struct requestor {
    bytes rq, echo_rq, store_rq, release_rq;
    mode mode;
    uint16_t port;
    bool blocks;
    uint64_t count, size;
    const char *error;
    uint64_t begun, rounds; /* LATENCY */
    slot *open;
    size_t opened; /* OPEN */
    /* SEND */
    const uint8_t *zeros;
    uint8_t header[12], last_header[12];
} requestor;

/* The outcome of a step of an association. */
typedef enum progress { ON, DONE, FAILED } progress;

static progress failed(requestor *r, const char *error)
{
    r->error = error;
    return FAILED;
}

static progress send_bytes(requestor *r, slot *s, bytes b)
{
    return put(&s->wire, b.data, b.size) == (ssize_t)b.size ? ON : failed(r, "send failed");
}

/* Is Status (0000,0900) of this response, in one PDV, 0? */
static bool is_success(const uint8_t *pdu, size_t size)
{
    size_t at = 12;
    if (pdu[0] != DATA || size < at || (pdu[11] & 3) != 3) {
        return false;
    }
    while (at + 10 <= size) {
        const uint8_t *p = pdu + at;
        if (p[0] == 0 && p[1] == 0 && p[2] == 0 && p[3] == 9) {
            return p[8] == 0 && p[9] == 0;
        }
        at += 8 + ((size_t)p[5] << 8 | p[4]);
    }
    return false;
}

/* ---- one C-STORE ------------------------------------------------------------------------- */

static void put_header(uint8_t *header, uint32_t data, bool last)
{
    const uint32_t pdu = data + HEADER, pdv = data + 2;
    header[0] = DATA;
    header[1] = 0;
    put_big_endian(header + 2, pdu);
    put_big_endian(header + 6, pdv);
    header[10] = 3;
    header[11] = last ? 2 : 0;
}

/* The size of a data set as P-DATA-TF. */
static uint64_t stream_size(const requestor *r)
{
    const uint64_t data = r->size - HEADER;
    return r->count + 12 * ((r->count + data - 1) / data);
}

/* Parts of the data set as P-DATA-TF from byte `at` on. Returns their number. */
static size_t parts_from(const requestor *r, uint64_t at, struct iovec *parts, size_t most)
{
    const uint64_t data = r->size - HEADER, whole = data + 12;
    const uint64_t last = (r->count - 1) / data;
    uint64_t from = at % whole;
    size_t count = 0;
    for (uint64_t n = at / whole, sum = 0; n <= last && count + 2 <= most && sum < WRITE_SIZE;
         n++) {
        const uint8_t *header = n == last ? r->last_header : r->header;
        const uint64_t size = n == last ? r->count - last * data : data;
        if (from < 12) {
            parts[count++] = (struct iovec){(void *)(uintptr_t)(header + from), 12 - from};
            from = 12;
        }
        from -= 12;
        parts[count++] =
            (struct iovec){(void *)(uintptr_t)(r->zeros + n * data + from), size - from};
        sum += size - from;
        from = 0;
    }
    return count;
}

/* Sends until all is sent, or the system would block. */
static progress send_on(requestor *r, slot *s)
{
    struct iovec parts[256];
    const uint64_t end = stream_size(r);
    while (s->at < end) {
        const ssize_t size = put_parts(&s->wire, parts, parts_from(r, s->at, parts, 256));
        if (size < 0) {
            return errno == EAGAIN ? ON : failed(r, "send failed");
        }
        s->at += (uint64_t)size;
    }
    s->waits = ANSWERED;
    return ON;
}

static progress store(requestor *r, slot *s)
{
    s->at = 0;
    s->waits = SENDING;
    return send_bytes(r, s, r->store_rq) == ON ? send_on(r, s) : FAILED;
}

/* ---- answers ------------------------------------------------------------------------------ */

static progress associated(requestor *r, slot *s)
{
    if (r->mode == REJECT) {
        const bool right = s->in[0] == RJ && s->in[7] == 1 && s->in[8] == 1 && s->in[9] == 7;
        return right ? DONE : failed(r, "not rejected with 1/1/7");
    }
    if (s->in[0] != AC) {
        return failed(r, "not accepted");
    }
    if (r->mode == OPEN) {
        return DONE;
    }
    if (r->mode == SEND) {
        return store(r, s);
    }
    s->waits = ANSWERED;
    r->begun = r->mode == LATENCY ? nanoseconds() : r->begun;
    return send_bytes(r, s, r->echo_rq);
}

static progress answered(requestor *r, slot *s, size_t size)
{
    if (!is_success(s->in, size)) {
        return failed(r, "no success");
    }
    if (r->mode == LATENCY && ++r->rounds < r->count) {
        return send_bytes(r, s, r->echo_rq);
    }
    if (r->mode == LATENCY) {
        r->begun = nanoseconds() - r->begun;
    }
    s->waits = RELEASING;
    return send_bytes(r, s, r->release_rq);
}

/* A whole PDU has arrived. */
static progress received(requestor *r, slot *s, size_t size)
{
    s->have = 0;
    if (s->waits == ASSOCIATED) {
        return associated(r, s);
    }
    if (s->waits == ANSWERED) {
        return answered(r, s, size);
    }
    return s->waits == RELEASING && s->in[0] == 6 ? DONE : failed(r, "unexpected PDU");
}

static progress receive(requestor *r, slot *s)
{
    const ssize_t size = get(&s->wire, s->in + s->have, ANSWER - s->have);
    if (size <= 0) {
        return size < 0 && errno == EAGAIN ? ON : failed(r, "connection lost");
    }
    s->have += (size_t)size;
    if (s->have < HEADER) {
        return ON;
    }
    const size_t whole = HEADER + (size_t)big_endian(s->in + 2);
    return s->have < whole    ? ON
           : s->have == whole ? received(r, s, whole)
                              : failed(r, "more than one PDU");
}

/* ---- connecting --------------------------------------------------------------------------- */

/* On the loopback interface the connection is established when connect returns, even without
 * blocking. Elsewhere send fails with EAGAIN, and is repeated once it is established. */
static progress ask(requestor *r, slot *s)
{
    const ssize_t size = put(&s->wire, r->rq.data, r->rq.size);
    if (size == (ssize_t)r->rq.size) {
        s->waits = ASSOCIATED;
        return ON;
    }
    s->waits = CONNECTED;
    return size < 0 && errno == EAGAIN ? ON : failed(r, "no connection");
}

static progress begin(requestor *r, slot *s)
{
    const struct sockaddr_in address = loopback(r->port);
    const int type = SOCK_STREAM | SOCK_CLOEXEC | (r->blocks ? 0 : SOCK_NONBLOCK);
    s->have = 0;
    s->wire.fd = socket(AF_INET, type, 0);
    if (s->wire.fd < 0) {
        return failed(r, "no socket");
    }
    set_nodelay(s->wire.fd);
    secure(&s->wire, false);
    if (connect(s->wire.fd, (const struct sockaddr *)&address, sizeof address) != 0 &&
        errno != EINPROGRESS) {
        return failed(r, strerror(errno));
    }
    return ask(r, s);
}

/* ---- one after another --------------------------------------------------------------------- */

static void close_slot(slot *s)
{
    if (s->wire.fd >= 0) {
        close_wire(&s->wire);
        s->wire.fd = -1;
    }
}

static progress run_one(requestor *r, slot *s)
{
    progress p = begin(r, s);
    while (p == ON) {
        p = receive(r, s);
    }
    return p;
}

static void run_in_turn(requestor *r, uint64_t associations)
{
    slot s;
    for (uint64_t n = 0; n < associations && r->error == NULL; n++) {
        run_one(r, &s);
        close_slot(&s);
    }
}

/* ---- at once ------------------------------------------------------------------------------- */

static bool wants_to_write(const slot *s)
{
    return s->waits == SENDING || (s->waits == CONNECTED && !wants_to_read(&s->wire));
}

static void change(int poller, slot *s, bool writes)
{
    if (wants_to_write(s) != writes) {
        struct epoll_event e = {.events = writes ? EPOLLIN : EPOLLOUT, .data = {.ptr = s}};
        epoll_ctl(poller, EPOLL_CTL_MOD, s->wire.fd, &e);
    }
}

static progress begin_polled(requestor *r, slot *s, int poller)
{
    const progress p = begin(r, s);
    if (p == ON) {
        add_to(poller, s->wire.fd, wants_to_write(s) ? EPOLLOUT : EPOLLIN, s);
    }
    return p;
}

static progress go_on(requestor *r, slot *s, int poller)
{
    const bool writes = wants_to_write(s);
    const progress p = s->waits == CONNECTED ? ask(r, s)
                       : s->waits == SENDING ? send_on(r, s)
                                             : receive(r, s);
    if (p == ON) {
        change(poller, s, writes);
    }
    return p;
}

/* In mode OPEN each association has a slot of its own, and stays open. */
static void run_at_once(requestor *r, slot *slots, uint64_t associations, uint64_t at_once)
{
    struct epoll_event events[EVENTS];
    const int poller = epoll_create1(EPOLL_CLOEXEC);
    uint64_t begun = 0, over = 0;
    while (begun < at_once && begun < associations && r->error == NULL) {
        begin_polled(r, &slots[begun++], poller);
    }
    while (over < associations && r->error == NULL) {
        const int count = epoll_wait(poller, events, EVENTS, 30000);
        if (count <= 0) {
            failed(r, "nothing was received for 30 s");
        }
        for (int i = 0; i < count && r->error == NULL; i++) {
            slot *s = events[i].data.ptr;
            if (go_on(r, s, poller) != DONE) {
                continue;
            }
            over++;
            if (r->mode != OPEN) {
                close_slot(s);
            }
            if (begun < associations) {
                begin_polled(r, r->mode == OPEN ? &slots[begun] : s, poller);
                begun++;
            }
        }
    }
    close(poller);
}

/* ---- commands ------------------------------------------------------------------------------ */

/* Releases the associations of the last OPEN. */
static void release_all(requestor *r)
{
    for (size_t i = 0; i < r->opened; i++) {
        slot *s = &r->open[i];
        put(&s->wire, r->release_rq.data, r->release_rq.size);
    }
    for (size_t i = 0; i < r->opened; i++) {
        slot *s = &r->open[i];
        fcntl(s->wire.fd, F_SETFL, 0); /* recv shall wait */
        get(&s->wire, s->in, ANSWER);
        close_wire(&s->wire);
    }
    free(r->open);
    r->open = NULL;
    r->opened = 0;
}

static uint64_t run(requestor *r, uint64_t at_once)
{
    const uint64_t associations = r->mode == SEND ? at_once : r->mode == LATENCY ? 1 : r->count;
    const uint64_t places = r->mode == OPEN ? associations : at_once;
    r->blocks = at_once == 1 && r->mode != OPEN;
    slot *slots = calloc(places, sizeof *slots);
    if (slots == NULL) {
        failed(r, "no memory");
        return 0;
    }
    for (uint64_t i = 0; i < places; i++) {
        slots[i].wire.fd = -1;
    }
    const uint64_t begun = nanoseconds();
    if (r->blocks) {
        run_in_turn(r, associations);
    } else {
        run_at_once(r, slots, associations, at_once);
    }
    const uint64_t taken = nanoseconds() - begun;
    if (r->mode == OPEN && r->error == NULL) {
        r->open = slots;
        r->opened = associations;
    } else {
        for (uint64_t i = 0; i < places; i++) {
            close_slot(&slots[i]); /* those that failed */
        }
        free(slots);
    }
    return r->mode == LATENCY ? r->begun : taken;
}

static uint64_t prepare_and_run(requestor *r, uint64_t at_once)
{
    uint8_t *zeros = NULL;
    if (r->mode == SEND) {
        const uint64_t data = r->size - HEADER;
        const uint64_t rest = r->count % data;
        zeros = new_zeros(r->count);
        r->zeros = zeros;
        put_header(r->header, (uint32_t)data, false);
        put_header(r->last_header, (uint32_t)(rest == 0 ? data : rest), true);
        if (zeros == NULL) {
            failed(r, "no memory");
            return 0;
        }
    }
    const uint64_t taken = run(r, at_once);
    free(zeros);
    return taken;
}

static int request_until_end(const char *directory)
{
    requestor r = {.rq = read_file(directory, "rq"),
                   .echo_rq = read_file(directory, "echo-rq"),
                   .store_rq = read_file(directory, "store-rq"),
                   .release_rq = read_file(directory, "release-rq")};
    char line[256], name[16];
    use_certificate(directory);
    while (fgets(line, sizeof line, stdin) != NULL) {
        unsigned long long port, count, at_once, size;
        release_all(&r);
        r.error = NULL;
        r.rounds = 0;
        if (sscanf(line, "%15s %llu %llu %llu %llu", name, &port, &count, &at_once, &size) != 5 ||
            at_once == 0 || count == 0) {
            printf("error a line is MODE PORT COUNT AT_ONCE SIZE\n");
            fflush(stdout);
            continue;
        }
        r.mode = mode_named(name);
        r.port = (uint16_t)port;
        r.count = count;
        r.size = size;
        if (r.mode == UNKNOWN || r.mode == RECEIVE || (r.mode == SEND && size <= HEADER)) {
            r.error = "unsupported";
        }
        const uint64_t taken = r.error == NULL ? prepare_and_run(&r, at_once) : 0;
        if (r.error != NULL) {
            printf("error %s\n", r.error);
        } else {
            printf("%llu\n", (unsigned long long)taken);
        }
        fflush(stdout);
    }
    release_all(&r);
    return 0;
}

int main(int argc, char **argv)
{
    raise_limit();
    if (argc >= 4 && strcmp(argv[1], "accept") == 0 && mode_named(argv[2]) <= RECEIVE) {
        return accept_until_end(mode_named(argv[2]), argv[3], argc > 4 ? argv[4] : "131072");
    }
    if (argc == 3 && strcmp(argv[1], "request") == 0) {
        return request_until_end(argv[2]);
    }
    fprintf(stderr, "usage: floor accept reject|echo|receive DIR [MAX] | floor request DIR\n");
    return 2;
}
