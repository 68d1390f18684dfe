/* SPDX-License-Identifier: MIT */
/* Connecting to a name of several addresses. For each plan getaddrinfo gives the addresses that it
 * names, in that order:
 *
 *     good     a listener that accepts
 *     dead     a listener whose backlog is full: the system does not answer
 *     refused  a port on which nobody listens
 *     slow     like dead, but it makes room when all addresses have been tried
 *
 * The program is linked with -Wl,--wrap= for each function wrapped here, and prints one line per
 * plan. */
#define _GNU_SOURCE
#include "descriptors.h"
#include "ltdic.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CHECK(condition) check(condition, #condition, __LINE__)

enum { MOST_ADDRESSES = 24, FILLERS = 8, MANY = 50, PROCESSES = 5 };
enum { PATIENCE = 60000, GUARD = 280, SHORT = 400, DELAY = 250 }; /* ms, s, ms, ms */

typedef enum kind { GOOD, DEAD, REFUSED, SLOW, KINDS } kind;
typedef enum ending { CONNECTED, FAILED, LATE } ending;

typedef struct plan {
    const char *addresses;
    uint32_t response; /* ms */
    ending ending;
    unsigned attempts;  /* number of addresses tried; the largest one if the deadline passes */
    unsigned delays;    /* number of addresses that are tried after the delay */
    const char *winner; /* the connected address */
} plan;

static const plan plans[] = {
    {"good", PATIENCE, CONNECTED, 1, 0, "good"},
    {"good dead", PATIENCE, CONNECTED, 1, 0, "good"},
    {"good refused", PATIENCE, CONNECTED, 1, 0, "good"},
    {"dead good", PATIENCE, CONNECTED, 2, 1, "good"},
    {"refused good", PATIENCE, CONNECTED, 2, 0, "good"},
    {"refused dead good", PATIENCE, CONNECTED, 3, 1, "good"},
    {"dead refused good", PATIENCE, CONNECTED, 3, 1, "good"},
    {"dead good dead", PATIENCE, CONNECTED, 2, 1, "good"},
    /* More addresses than are tried at the same time. */
    {"dead dead dead dead dead dead dead dead dead good", PATIENCE, CONNECTED, 10, 9, "good"},
    {"slow", PATIENCE, CONNECTED, 1, 0, "slow"},
    {"slow dead", PATIENCE, CONNECTED, 2, 1, "slow"},
    {"dead slow refused", PATIENCE, CONNECTED, 3, 2, "slow"},
    {"refused", PATIENCE, FAILED, 1, 0, NULL},
    {"refused refused refused", PATIENCE, FAILED, 3, 0, NULL},
    {"dead dead", SHORT, LATE, 2, 1, NULL},
    {"dead refused", SHORT, LATE, 2, 1, NULL},
    {"refused dead", SHORT, LATE, 2, 0, NULL},
    {"dead", SHORT, LATE, 1, 0, NULL},
    /* The deadline passes before the good address is tried. */
    {"dead good", 50, LATE, 1, 0, NULL},
};

static const plan *current;
static int sockets[KINDS], fillers[KINDS][FILLERS];
static struct sockaddr_in targets[KINDS];
static struct addrinfo list[MOST_ADDRESSES];
static unsigned length, tried; /* number of addresses, and of those that connect() was called for */
static unsigned filling;       /* descriptors of the connections that fill a backlog */
static int lists;              /* address lists given and not freed */
static int quiet;              /* 1: connect() is called to fill a backlog, and is not counted */
static uint64_t last_attempt;

static void check(int good, const char *condition, int line)
{
    if (!good) {
        fprintf(stderr, "%s: line %d: %s; %u tried, errno %d\n",
                current == NULL ? "start" : current->addresses, line, condition, tried, errno);
        exit(1);
    }
}

/* Count the descriptors, without those that fill a backlog. */
static unsigned descriptors(void)
{
    return open_descriptors() - filling;
}

static uint64_t milliseconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* ---- wrapped functions ---------------------------------------------------------------------- */

int __real_connect(int fd, const struct sockaddr *address, socklen_t size);
int __wrap_connect(int fd, const struct sockaddr *address, socklen_t size);
int __wrap_getaddrinfo(const char *host, const char *service, const struct addrinfo *hints,
                       struct addrinfo **found);
void __wrap_freeaddrinfo(struct addrinfo *found);

/* The errors of the resolver for invalid names. */
static const struct {
    const char *host;
    int error, system;
    int status;
} names[] = {
    {"unknown", EAI_NONAME, 0, LTDIC_ERR_ADDRESS},  {"unknown.", EAI_NONAME, 0, LTDIC_ERR_ADDRESS},
    {"later", EAI_AGAIN, 0, LTDIC_ERR_ADDRESS},     {"later.", EAI_AGAIN, 0, LTDIC_ERR_ADDRESS},
    {"broken", EAI_FAIL, 0, LTDIC_ERR_ADDRESS},     {"full", EAI_MEMORY, 0, LTDIC_ERR_MEMORY},
    {"busy", EAI_SYSTEM, EMFILE, LTDIC_ERR_SYSTEM},
};
/* The resolver knows these names only without the full stop at their end. */
static const char *const in_table[] = {"several.", "several.later."};

static int answer_of_resolver(const char *host)
{
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (strcmp(host, names[i].host) == 0) {
            errno = names[i].system;
            return names[i].error;
        }
    }
    CHECK(strncmp(host, "several", 7) == 0);
    return strcmp(host, in_table[0]) == 0   ? EAI_NONAME
           : strcmp(host, in_table[1]) == 0 ? EAI_AGAIN
                                            : 0;
}

int __wrap_getaddrinfo(const char *host, const char *service, const struct addrinfo *hints,
                       struct addrinfo **found)
{
    const int error = answer_of_resolver(host);
    (void)service, (void)hints;
    lists += error == 0;
    *found = error == 0 ? list : NULL;
    return error;
}

void __wrap_freeaddrinfo(struct addrinfo *found)
{
    CHECK(found == list);
    lists--;
}

/* Close the connections that fill a backlog, and accept those in it. */
static void empty(kind what)
{
    for (int i = 0; i < FILLERS && fillers[what][i] >= 0; i++) {
        close(fillers[what][i]);
        fillers[what][i] = -1;
        filling--;
    }
    for (int fd = 0; fd >= 0;) {
        fd = accept(sockets[what], NULL, NULL);
        if (fd >= 0) {
            close(fd);
        }
    }
}

/* Check that the addresses are tried in their order, and not before their delay. */
int __wrap_connect(int fd, const struct sockaddr *address, socklen_t size)
{
    if (quiet) {
        return __real_connect(fd, address, size);
    }
    CHECK(tried < length && memcmp(address, list[tried].ai_addr, size) == 0);
    tried++;
    last_attempt = milliseconds();
    const int result = __real_connect(fd, address, size);
    const int error = errno;
    if (tried == current->attempts && strstr(current->addresses, "slow") != NULL) {
        empty(SLOW);
    }
    errno = error;
    return result;
}

/* ---- addresses ------------------------------------------------------------------------------ */

static int open_socket(struct sockaddr_in *at, const char *number)
{
    socklen_t size = sizeof *at;
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    *at = (struct sockaddr_in){.sin_family = AF_INET};
    CHECK(fd >= 0 && inet_pton(AF_INET, number, &at->sin_addr) == 1);
    CHECK(bind(fd, (struct sockaddr *)at, size) == 0);
    CHECK(getsockname(fd, (struct sockaddr *)at, &size) == 0);
    return fd;
}

/* Connect until the system no longer answers. */
static void fill(kind what)
{
    for (int i = 0; i < FILLERS; i++) {
        const int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        const struct sockaddr *at = (struct sockaddr *)&targets[what];
        CHECK(fd >= 0);
        fillers[what][i] = fd;
        filling++;
        CHECK(connect(fd, at, sizeof targets[what]) == 0 || errno == EINPROGRESS);
    }
    struct pollfd last = {.fd = fillers[what][FILLERS - 1], .events = POLLOUT};
    CHECK(poll(&last, 1, 50) == 0);
}

static void open_targets(void)
{
    static const char *const numbers[KINDS] = {"127.0.0.1", "127.0.0.2", "127.0.0.1", "127.0.0.2"};
    quiet = 1;
    for (int what = 0; what < KINDS; what++) {
        sockets[what] = open_socket(&targets[what], numbers[what]);
        memset(fillers[what], -1, sizeof fillers[what]);
        if (what != REFUSED) {
            CHECK(listen(sockets[what], what == GOOD ? 2 * MANY : 0) == 0);
        }
        if (what == DEAD || what == SLOW) {
            fill((kind)what);
        }
    }
    quiet = 0;
}

static void close_targets(void)
{
    for (int what = 0; what < KINDS; what++) {
        empty((kind)what);
        close(sockets[what]);
    }
}

static kind kind_of(const char *word, size_t size)
{
    static const char *const words[KINDS] = {"good", "dead", "refused", "slow"};
    int what = 0;
    while (what < KINDS && (strlen(words[what]) != size || memcmp(words[what], word, size) != 0)) {
        what++;
    }
    CHECK(what < KINDS);
    return (kind)what;
}

static void make_list(void)
{
    const char *word = current->addresses;
    for (length = 0; *word != '\0'; length++) {
        const size_t size = strcspn(word, " ");
        const kind what = kind_of(word, size);
        CHECK(length < MOST_ADDRESSES);
        list[length] = (struct addrinfo){.ai_family = AF_INET,
                                         .ai_socktype = SOCK_STREAM,
                                         .ai_addrlen = sizeof targets[what],
                                         .ai_addr = (struct sockaddr *)&targets[what]};
        if (length > 0) {
            list[length - 1].ai_next = &list[length];
        }
        word += size + (word[size] == ' ');
    }
}

/* ---- the plans ------------------------------------------------------------------------------- */

static void set_out(const plan *what)
{
    current = what;
    tried = 0;
    open_targets();
    make_list();
}

static void begin_with(ltdic_net *net, const char *host)
{
    const ltdic_timeouts timeouts = {.size = sizeof timeouts, .response = current->response};
    const ltdic_address peer = {host, 104, LTDIC_IP_ANY};
    CHECK(net != NULL);
    ltdic_net_set_timeouts(net, &timeouts);
    CHECK(ltdic_net_connect(net, &peer, NULL) == LTDIC_OK);
}

static void begin(ltdic_net *net)
{
    begin_with(net, "several");
}

/* Return one endpoint whose connection was established or has failed. */
static ltdic_net *end_of_one(ltdic_loop *loop, int *status)
{
    ltdic_net *net;
    ltdic_indication told;
    while (ltdic_loop_next(loop, &net, &told) != LTDIC_OK) {
        CHECK(ltdic_loop_wait(loop, 1000 * GUARD) != LTDIC_NEED_MORE);
    }
    CHECK(told.kind == LTDIC_CONNECTED);
    *status = told.status;
    return net;
}

static void judge(ltdic_net *net, int status)
{
    static const int statuses[] = {LTDIC_OK, LTDIC_ERR_CONNECT, LTDIC_ERR_TIMEOUT};
    static const int errors[] = {0, ECONNREFUSED, ETIMEDOUT};
    const ltdic_cause cause = ltdic_net_cause(net);
    CHECK(status == statuses[current->ending]);
    CHECK(cause.error == errors[current->ending] && cause.resolver == 0);
    CHECK(ltdic_net_is_connected(net) == (current->ending == CONNECTED));
    if (current->ending == CONNECTED) {
        uint8_t room[64];
        uint16_t port;
        ltdic_buffer host = {room, sizeof room, 0};
        const kind winner = kind_of(current->winner, strlen(current->winner));
        CHECK(ltdic_net_name(net, 1, &host, &port) == LTDIC_OK);
        CHECK(port == ntohs(targets[winner].sin_port));
    }
}

/* The other attempts are closed at once, not with the endpoint. */
static void judge_rest(unsigned before, int connected)
{
    CHECK(descriptors() == before + (unsigned)connected);
    CHECK(lists == 0);
}

/* A slow machine may miss a deadline that was far enough. */
static void judge_time(uint64_t begun)
{
    const uint64_t took = milliseconds() - begun;
    if (current->ending == LATE) {
        CHECK(tried <= current->attempts && took + 1 >= current->response);
    } else {
        CHECK(tried == current->attempts && took < current->response);
        CHECK(last_attempt - begun + 1 >= (uint64_t)DELAY * current->delays);
    }
}

/* The end of an established connection is told, and nothing else. */
static void close_one(ltdic_loop *loop, ltdic_net *net)
{
    ltdic_net *whose;
    ltdic_indication told;
    ltdic_net_close(net);
    if (current->ending == CONNECTED) {
        CHECK(ltdic_loop_next(loop, &whose, &told) == LTDIC_OK);
        CHECK(whose == net && told.kind == LTDIC_CLOSED);
        ltdic_net_done(net);
    }
    CHECK(ltdic_loop_next(loop, &whose, &told) == LTDIC_NEED_MORE);
}

static void go_through(const plan *what, ltdic_loop *loop, ltdic_net *net)
{
    int status;
    set_out(what);
    const unsigned before = descriptors();
    const uint64_t begun = milliseconds();
    begin(net);
    CHECK(end_of_one(loop, &status) == net);
    judge_time(begun);
    judge(net, status);
    judge_rest(before, current->ending == CONNECTED);
    ltdic_net_done(net);
    close_one(loop, net);
    CHECK(descriptors() == before);
    close_targets();
    printf("%s: %s\n", current->addresses,
           current->ending == CONNECTED ? current->winner
           : current->ending == LATE    ? "too late"
                                        : "refused");
}

/* An endpoint that is closed or freed while it connects tells nothing more and leaves nothing. */
static void give_up(ltdic_loop *loop, unsigned attempts, void (*end)(ltdic_net *))
{
    static const plan what = {"dead dead dead", PATIENCE, LATE, 3, 2, NULL};
    ltdic_net *net, *one = ltdic_net_new(loop, NULL);
    ltdic_indication told;
    set_out(&what);
    const unsigned before = descriptors();
    begin(one);
    while (tried < attempts) {
        CHECK(ltdic_loop_next(loop, &net, &told) == LTDIC_NEED_MORE);
        ltdic_loop_wait(loop, 1000);
    }
    end(one);
    judge_rest(before, 0);
    CHECK(ltdic_loop_next(loop, &net, &told) == LTDIC_NEED_MORE);
    CHECK(ltdic_loop_wait(loop, 2 * DELAY) == LTDIC_NEED_MORE);
    CHECK(tried == attempts);
    if (end == ltdic_net_close) {
        ltdic_net_free(one);
    }
    close_targets();
    printf("given up: nothing is left\n");
}

/* Many endpoints of one loop do not wait for each other. */
static void be_many(ltdic_loop *loop)
{
    static const plan what = {"dead good", PATIENCE, CONNECTED, 2, 1, "good"};
    ltdic_net *nets[MANY];
    set_out(&what);
    const unsigned before = descriptors();
    quiet = 1;
    for (int i = 0; i < MANY; i++) {
        nets[i] = ltdic_net_new(loop, NULL);
        begin(nets[i]);
    }
    for (int i = 0; i < MANY; i++) {
        int status;
        ltdic_net *net = end_of_one(loop, &status);
        judge(net, status);
        ltdic_net_done(net);
    }
    judge_rest(before, MANY);
    for (int i = 0; i < MANY; i++) {
        ltdic_net_free(nets[i]);
    }
    quiet = 0;
    judge_rest(before, 0);
    close_targets();
    printf("%d at once: all are connected\n", MANY);
}

/* A loop is freed with its connecting endpoints. */
static void free_loop_meanwhile(void)
{
    static const plan what = {"dead dead", PATIENCE, LATE, 2, 1, NULL};
    set_out(&what);
    const unsigned before = descriptors();
    ltdic_loop *loop = ltdic_loop_new();
    begin(ltdic_net_new(loop, NULL));
    ltdic_loop_wait(loop, 1000);
    ltdic_loop_free(loop);
    judge_rest(before, 0);
    close_targets();
    printf("a loop that is freed: nothing is left\n");
}

/* The same with L_DicomConnect. */
static L_VOID pEXT_CALLBACK OnConnect(HDICOMNET hNet, L_INT nError, L_VOID *UserData)
{
    (void)hNet;
    *(L_INT *)UserData = nError;
}

static void use_other_face(void)
{
    static const plan what = {"dead good", PATIENCE, CONNECTED, 2, 1, "good"};
    const DICOMNETCALLBACK callbacks = {.uStructSize = sizeof callbacks, .pfnConnect = OnConnect};
    L_INT code = 1;
    set_out(&what);
    const unsigned before = descriptors();
    HDICOMNET net = L_DicomCreateNet(NULL, DICOM_SECURE_NONE);
    const uint64_t begun = milliseconds();
    CHECK(L_DicomSetCallback(net, &callbacks, &code) == DICOM_SUCCESS);
    CHECK(L_DicomSetTimeouts(net, 0, PATIENCE, 0) == DICOM_SUCCESS);
    CHECK(L_DicomConnect(net, NULL, 0, "several", 104) == DICOM_SUCCESS);
    while (code == 1) {
        CHECK(L_DicomWait(net, 1000 * GUARD) != DICOM_ERROR_TIMEOUT);
    }
    judge_time(begun);
    CHECK(code == DICOM_SUCCESS && L_DicomIsConnected(net));
    L_DicomFreeNet(net);
    judge_rest(before, 0);
    close_targets();
    printf("L_DicomConnect: good\n");
}

/* ---- names ---------------------------------------------------------------------------------- */

static void judge_cause(const ltdic_net *net, size_t i)
{
    const ltdic_cause cause = ltdic_net_cause(net);
    CHECK(cause.error == names[i].system);
    CHECK(cause.resolver == (names[i].system != 0 ? 0 : names[i].error));
    CHECK(!ltdic_net_is_connected(net) && ltdic_net_state(net) == 1);
}

/* The error of the resolver is told, not an earlier one. */
static void fail_to_look_up(ltdic_net *net)
{
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const ltdic_address peer = {names[i].host, 104, LTDIC_IP_ANY};
        errno = EADDRINUSE;
        CHECK(ltdic_net_connect(net, &peer, NULL) == names[i].status);
        judge_cause(net, i);
        errno = EADDRINUSE;
        CHECK(ltdic_net_listen(net, &peer, 0) == names[i].status);
        judge_cause(net, i);
        errno = EADDRINUSE;
        CHECK(ltdic_net_connect(net, &(ltdic_address){"several", 104, LTDIC_IP_ANY}, &peer) ==
              names[i].status);
        judge_cause(net, i);
        CHECK(lists == 0);
    }
}

static void be_absolute(ltdic_loop *loop, ltdic_net *net)
{
    static const plan what = {"good", PATIENCE, CONNECTED, 1, 0, "good"};
    for (size_t i = 0; i < sizeof in_table / sizeof *in_table; i++) {
        int status;
        set_out(&what);
        begin_with(net, in_table[i]);
        CHECK(end_of_one(loop, &status) == net);
        judge(net, status);
        ltdic_net_done(net);
        close_one(loop, net);
        close_targets();
    }
    printf("names: told as the resolver does\n");
}

/* The plans mostly wait, so several processes go through them at the same time. */
static void go_through_plans(pid_t *processes)
{
    fflush(stdout);
    for (size_t first = 0; first < PROCESSES; first++) {
        processes[first] = fork();
        CHECK(processes[first] >= 0);
        if (processes[first] == 0) {
            const unsigned before = descriptors();
            ltdic_loop *loop = ltdic_loop_new();
            alarm(GUARD); /* that of the parent is not inherited */
            CHECK(loop != NULL);
            ltdic_net *net = ltdic_net_new(loop, NULL);
            for (size_t i = first; i < sizeof plans / sizeof *plans; i += PROCESSES) {
                go_through(&plans[i], loop, net);
            }
            ltdic_loop_free(loop);
            CHECK(descriptors() == before);
            fflush(stdout);
            _exit(0);
        }
    }
}

int main(void)
{
    const unsigned before = descriptors();
    pid_t processes[PROCESSES];
    go_through_plans(processes);
    ltdic_loop *loop = ltdic_loop_new();
    alarm(GUARD);
    CHECK(loop != NULL);
    ltdic_net *net = ltdic_net_new(loop, NULL);
    fail_to_look_up(net);
    be_absolute(loop, net);
    give_up(loop, 1, ltdic_net_close);
    give_up(loop, 2, ltdic_net_close);
    give_up(loop, 2, ltdic_net_free);
    be_many(loop);
    ltdic_loop_free(loop);
    free_loop_meanwhile();
    use_other_face();
    CHECK(descriptors() == before);
    for (size_t i = 0; i < PROCESSES; i++) {
        int status;
        CHECK(waitpid(processes[i], &status, 0) == processes[i] && status == 0);
    }
    return 0;
}
