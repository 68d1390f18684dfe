/* SPDX-License-Identifier: MIT */
/* The cost of stalled connections for other ones: stalls [ARTIM [EACH [ROUNDS]]]
 *
 * One process serves on one thread. A second one opens EACH connections of each of five kinds,
 * which send a part of an associate request and stop, or send it byte by byte, and records when
 * they are closed. A third one measures complete associations with a C-ECHO, one after the other,
 * alternately with and without stalled connections, from before the connection to after the close.
 */
#define _DEFAULT_SOURCE /* MAP_ANONYMOUS */
#include "descriptors.h"
#include "ltdic.h"
#include "request.h"

#include <arpa/inet.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CHECK(condition) check(condition, #condition, __LINE__)

enum {
    ARTIM = 2000, /* ms */
    EACH = 250,
    ROUNDS = 3,
    PATIENCE = 10000,
    LATE = 8000,      /* ms after ARTIM until a stalled connection must be closed */
    PACE = 100,       /* us between two new stalled connections, so that none waits long */
    DRIP = 200,       /* ms between two bytes */
    TICK = 5,         /* ms between two checks for dripping */
    MOST = 200000,    /* associations measured in one series */
    OTHER_FILES = 64, /* beside one for each stalled connection */
    KINDS = 5
};

static const struct {
    const char *name;
    size_t size; /* bytes sent at once */
    int drips;
} kinds[KINDS] = {{"nothing", 0, 0},
                  {"3 bytes", 3, 0},
                  {"6 bytes", 6, 0},
                  {"half", (sizeof request - 1) / 2, 0},
                  {"a byte every 200 ms", 1, 1}};

typedef struct stall {
    int fd; /* -1: closed */
    int kind;
    int reset; /* closed by a reset, not by a FIN */
    size_t sent;
    double begun, ended, drips_at; /* ms */
} stall;

typedef struct series {
    size_t count;
    double values[MOST]; /* ms */
} series;

/* Memory shared by the processes. */
static struct shared {
    unsigned echoes, released, other_ends; /* at the server */
    series held; /* at the server: from accepting to closing a stalled connection */
    stall stalls[];
} * shared;

static const char *name = "honest";
static int artim = ARTIM;
static int stall_count;
static pid_t server_process;
static L_UINT port;
static volatile sig_atomic_t stopped;

static void check(int good, const char *condition, int line)
{
    if (!good) {
        fprintf(stderr, "%s, line %d: %s; errno %d\n", name, line, condition, errno);
        exit(1);
    }
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static void add(series *s, double value)
{
    CHECK(s->count < MOST);
    s->values[s->count++] = value;
}

static void sleep_for(int microseconds)
{
    const struct timespec t = {.tv_nsec = microseconds * 1000L};
    nanosleep(&t, NULL);
}

/* ---- the server -------------------------------------------------------------------------- */

static HDICOMPDU answer;
static unsigned open_connections;

L_VOID pEXT_CALLBACK OnServerClose(HDICOMNET hNet, L_INT nError, L_VOID *UserData)
{
    double *accepted = (double *)UserData;
    if (nError == DICOM_ERROR_TIMEOUT) {
        add(&shared->held, now() - *accepted);
    } else if (nError == DICOM_SUCCESS) {
        shared->released++;
    } else {
        shared->other_ends++;
    }
    open_connections--;
    free(accepted);
    L_DicomFreeNet(hNet);
}

L_VOID pEXT_CALLBACK OnRequest(HDICOMNET hNet, HDICOMPDU hPDU, L_VOID *UserData)
{
    (void)hPDU, (void)UserData;
    CHECK(L_DicomSendAssociateAccept(hNet, answer) == DICOM_SUCCESS);
}

L_VOID pEXT_CALLBACK OnEchoRequest(HDICOMNET hNet, L_UCHAR nPresentationID, L_UINT16 nMessageID,
                                   L_TCHAR *pszClass, L_VOID *UserData)
{
    (void)UserData;
    shared->echoes++;
    CHECK(L_DicomSendCEchoResponse(hNet, nPresentationID, nMessageID, pszClass, 0) ==
          DICOM_SUCCESS);
}

L_VOID pEXT_CALLBACK OnReleaseRequest(HDICOMNET hNet, L_VOID *UserData)
{
    (void)UserData;
    CHECK(L_DicomSendReleaseResponse(hNet) == DICOM_SUCCESS);
}

L_VOID pEXT_CALLBACK OnAccept(HDICOMNET hNet, L_INT nError, L_VOID *UserData)
{
    static const DICOMNETCALLBACK callbacks = {
        .uStructSize = sizeof callbacks,
        .pfnClose = OnServerClose,
        .pfnReceiveAssociateRequest = OnRequest,
        .pfnReceiveReleaseRequest = OnReleaseRequest,
        .pfnReceiveCEchoRequest = OnEchoRequest,
    };
    double *accepted = (double *)malloc(sizeof *accepted);
    HDICOMNET net = L_DicomCreateNet(NULL, DICOM_SECURE_NONE);
    CHECK(nError == DICOM_SUCCESS && UserData == NULL && accepted != NULL && net != NULL);
    CHECK(L_DicomSetCallback(net, &callbacks, accepted) == DICOM_SUCCESS);
    CHECK(L_DicomSetTimeouts(net, (L_UINT32)artim, 0, 0) == DICOM_SUCCESS);
    *accepted = now();
    CHECK(L_DicomAccept(hNet, net) == DICOM_SUCCESS);
    open_connections++;
}

static void stop(int number)
{
    stopped = number;
}

static void prepare_answer(void)
{
    answer = L_DicomCreateAssociate(FALSE);
    CHECK(answer != NULL && L_DicomDefaultAssociate(answer) == DICOM_SUCCESS);
    CHECK(L_DicomAddPresentation(answer, 1, PDU_ACCEPT_RESULT_SUCCESS, NULL) == DICOM_SUCCESS);
    CHECK(L_DicomAddTransfer(answer, 1, "1.2.840.10008.1.2") == DICOM_SUCCESS);
}

/* Serve until told to stop and all connections have ended, or until the other process has ended. */
static void serve(int out)
{
    const DICOMNETCALLBACK slots = {.uStructSize = sizeof slots, .pfnAccept = OnAccept};
    const struct sigaction action = {.sa_handler = stop};
    const pid_t parent = getppid();
    char address[46];
    name = "server";
    CHECK(sigaction(SIGTERM, &action, NULL) == 0);
    HDICOMNET listener = L_DicomCreateNet(NULL, DICOM_SECURE_NONE);
    CHECK(listener != NULL && L_DicomSetCallback(listener, &slots, NULL) == DICOM_SUCCESS);
    CHECK(L_DicomListen(listener, "127.0.0.1", 0, 1) == DICOM_SUCCESS);
    CHECK(L_DicomGetHostInfo(listener, address, sizeof address, &port) == DICOM_SUCCESS);
    prepare_answer();
    CHECK(write(out, &port, sizeof port) == sizeof port);
    while ((!stopped || open_connections > 0) && getppid() == parent) {
        L_DicomWait(listener, DRIP);
    }
    L_DicomFreeAssociate(answer);
    L_DicomFreeNet(listener);
}

static void start_server(void)
{
    int pipes[2], status = 0;
    CHECK(pipe(pipes) == 0);
    server_process = fork();
    CHECK(server_process >= 0);
    if (server_process == 0) {
        serve(pipes[1]);
        exit(0);
    }
    close(pipes[1]);
    CHECK(read(pipes[0], &port, sizeof port) == sizeof port);
    close(pipes[0]);
    CHECK(waitpid(server_process, &status, WNOHANG) == 0);
}

static void stop_server(void)
{
    int status = 0;
    CHECK(kill(server_process, SIGTERM) == 0);
    CHECK(waitpid(server_process, &status, 0) == server_process);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* ---- the stalls -------------------------------------------------------------------------- */

static void send_part(stall *s, size_t size)
{
    const ssize_t sent = send(s->fd, request + s->sent, size, MSG_NOSIGNAL | MSG_DONTWAIT);
    s->sent += sent > 0 ? (size_t)sent : 0; /* otherwise it is closed, which look_at() notices */
}

static void open_stall(stall *s, int poller, int kind)
{
    const struct sockaddr_in address = {.sin_family = AF_INET,
                                        .sin_port = htons((uint16_t)port),
                                        .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP, .data.ptr = s};
    *s = (stall){.fd = socket(AF_INET, SOCK_STREAM, 0), .kind = kind, .begun = now()};
    CHECK(s->fd >= 0);
    CHECK(connect(s->fd, (const struct sockaddr *)&address, sizeof address) == 0);
    CHECK(epoll_ctl(poller, EPOLL_CTL_ADD, s->fd, &event) == 0);
    send_part(s, kinds[kind].size);
    CHECK(s->sent == kinds[kind].size);
    s->drips_at = s->begun + DRIP;
}

/* Return true if the server has closed it. */
static int look_at(stall *s, double when)
{
    char byte;
    const ssize_t size = recv(s->fd, &byte, 1, MSG_DONTWAIT);
    const int ended = size == 0 || errno == ECONNRESET || errno == EPIPE;
    CHECK(size <= 0 &&
          (ended || errno == EAGAIN)); /* the server sends nothing to a stalled connection */
    if (ended) {
        s->ended = when;
        s->reset = size < 0;
        close(s->fd);
        s->fd = -1;
    }
    return ended;
}

static void drip(void)
{
    const double when = now();
    for (int i = 0; i < stall_count; i++) {
        stall *s = &shared->stalls[i];
        if (kinds[s->kind].drips && s->fd >= 0 && s->drips_at <= when) {
            send_part(s, 1);
            s->drips_at += DRIP;
        }
    }
}

static void be_stalls(void)
{
    struct epoll_event events[256];
    const int poller = epoll_create1(0);
    name = "stalls";
    alarm((unsigned)(artim + LATE + PATIENCE) / 1000);
    for (int i = 0; i < stall_count; i++) {
        open_stall(&shared->stalls[i], poller, i % KINDS);
        sleep_for(PACE);
    }
    for (int left = stall_count; left > 0;) {
        const int count = epoll_wait(poller, events, 256, TICK);
        const double when = now();
        for (int i = 0; i < count; i++) {
            left -= look_at((stall *)events[i].data.ptr, when);
        }
        drip();
    }
    close(poller);
}

static pid_t start_stalls(void)
{
    fflush(stdout);
    const pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        be_stalls();
        exit(0);
    }
    return child;
}

static int have_ended(pid_t child, int options)
{
    int status = 0;
    const pid_t ended = waitpid(child, &status, options);
    CHECK(ended == 0 || (ended == child && WIFEXITED(status) && WEXITSTATUS(status) == 0));
    return ended == child;
}

/* ---- honest associations ----------------------------------------------------------------- */

/* The callbacks in order: (c)onnect, (a)ccept, (e)cho response, release res(p)onse, close (x). */
static const char script[] = "caepx";
static HDICOMPDU proposal;
static unsigned place;

static void follow(char letter)
{
    CHECK(script[place] == letter);
    place++;
}

L_VOID pEXT_CALLBACK OnConnect(HDICOMNET hNet, L_INT nError, L_VOID *UserData)
{
    (void)UserData;
    follow('c');
    CHECK(nError == DICOM_SUCCESS);
    CHECK(L_DicomSendAssociateRequest(hNet, proposal) == DICOM_SUCCESS);
}

L_VOID pEXT_CALLBACK OnAssociateAccept(HDICOMNET hNet, HDICOMPDU hPDU, L_VOID *UserData)
{
    (void)UserData;
    follow('a');
    CHECK(L_DicomGetResult(hPDU, 1) == PDU_ACCEPT_RESULT_SUCCESS);
    CHECK(L_DicomSendCEchoRequest(hNet, 1, 1, NULL) == DICOM_SUCCESS);
}

L_VOID pEXT_CALLBACK OnEchoResponse(HDICOMNET hNet, L_UCHAR nPresentationID, L_UINT16 nMessageID,
                                    L_TCHAR *pszClass, L_UINT16 nStatus, L_VOID *UserData)
{
    (void)pszClass, (void)UserData;
    follow('e');
    CHECK(nPresentationID == 1 && nMessageID == 1 && nStatus == 0);
    CHECK(L_DicomSendReleaseRequest(hNet) == DICOM_SUCCESS);
}

L_VOID pEXT_CALLBACK OnReleaseResponse(HDICOMNET hNet, L_VOID *UserData)
{
    (void)hNet, (void)UserData;
    follow('p');
}

L_VOID pEXT_CALLBACK OnClose(HDICOMNET hNet, L_INT nError, L_VOID *UserData)
{
    (void)hNet, (void)UserData;
    follow('x');
    CHECK(nError == DICOM_SUCCESS);
}

/* Return the milliseconds of one association. */
static double associate(void)
{
    static const DICOMNETCALLBACK callbacks = {
        .uStructSize = sizeof callbacks,
        .pfnConnect = OnConnect,
        .pfnClose = OnClose,
        .pfnReceiveAssociateAccept = OnAssociateAccept,
        .pfnReceiveReleaseResponse = OnReleaseResponse,
        .pfnReceiveCEchoResponse = OnEchoResponse,
    };
    const double begun = now();
    HDICOMNET net = L_DicomCreateNet(NULL, DICOM_SECURE_NONE);
    CHECK(net != NULL && L_DicomSetCallback(net, &callbacks, NULL) == DICOM_SUCCESS);
    CHECK(L_DicomConnect(net, NULL, 0, "127.0.0.1", port) == DICOM_SUCCESS);
    for (place = 0; script[place] != '\0';) {
        CHECK(L_DicomWait(net, PATIENCE) == DICOM_SUCCESS);
    }
    L_DicomFreeNet(net);
    return now() - begun;
}

/* ---- results ----------------------------------------------------------------------------- */

static int compare(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void sort(series *s)
{
    CHECK(s->count > 0);
    qsort(s->values, s->count, sizeof *s->values, compare);
}

/* Return a percentile of a sorted series. */
static double percentile(const series *s, unsigned percent)
{
    return s->values[(s->count - 1) * percent / 100];
}

static void print_honest(const char *when, series *s)
{
    sort(s);
    printf("honest, %s: %zu associations, p50 %.3f ms, p99 %.3f ms, max %.3f ms\n", when, s->count,
           percentile(s, 50), percentile(s, 99), percentile(s, 100));
}

static void print_closed(const char *what, series *s)
{
    sort(s);
    printf("%s: %zu closed, min %.3f ms, median %.3f ms, max %.3f ms\n", what, s->count,
           percentile(s, 0), percentile(s, 50), percentile(s, 100));
}

/* Collect how long each connection was open for its peer. */
static void collect(series *open_for, unsigned *resets)
{
    for (int i = 0; i < stall_count; i++) {
        const stall *s = &shared->stalls[i];
        const double time = s->ended - s->begun;
        CHECK(s->fd < 0 && time > artim - 1 && time <= artim + LATE);
        CHECK(!s->reset ||
              kinds[s->kind].drips); /* the server has read all bytes of the other kinds */
        add(&open_for[s->kind], time);
        *resets += s->reset != 0;
    }
}

static series alone, beside, open_for[KINDS];

static void one_round(unsigned *resets)
{
    const double end = now() + artim;
    while (now() < end) {
        add(&alone, associate());
    }
    const pid_t child = start_stalls();
    while (!have_ended(child, WNOHANG)) {
        add(&beside, associate());
    }
    collect(open_for, resets);
}

static void print_stalls(const char *when, unsigned resets)
{
    printf("stalls, %s: %u by reset\n", when, resets);
    for (int i = 0; i < KINDS; i++) {
        print_closed(kinds[i].name, &open_for[i]);
        open_for[i].count = 0;
    }
}

int main(int argc, char **argv)
{
    artim = argc > 1 ? atoi(argv[1]) : ARTIM;
    stall_count = KINDS * (argc > 2 ? atoi(argv[2]) : EACH);
    const int rounds = argc > 3 ? atoi(argv[3]) : ROUNDS;
    unsigned resets = 0;
    CHECK(artim > 0 && stall_count > 0 && rounds > 0);
    allow_descriptors((rlim_t)stall_count + OTHER_FILES);
    shared = (struct shared *)mmap(NULL, sizeof *shared + (size_t)stall_count * sizeof(stall),
                                   PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(shared != MAP_FAILED);
    start_server();
    proposal = L_DicomCreateAssociate(TRUE);
    CHECK(proposal != NULL && L_DicomDefaultAssociate(proposal) == DICOM_SUCCESS);
    CHECK(have_ended(start_stalls(), 0));
    collect(open_for, &resets);
    print_stalls("alone", resets);
    resets = 0;
    for (int i = 0; i < rounds; i++) {
        one_round(&resets);
    }
    L_DicomFreeAssociate(proposal);
    stop_server();
    print_stalls("beside honest associations", resets);
    print_closed("stalls, as the server saw them", &shared->held);
    print_honest("alone", &alone);
    print_honest("beside stalls", &beside);
    printf("p99 beside stalls: %.2f times\n", percentile(&beside, 99) / percentile(&alone, 99));
    CHECK(shared->held.count == (size_t)stall_count * (size_t)(rounds + 1));
    CHECK(shared->echoes == alone.count + beside.count && shared->released == shared->echoes);
    CHECK(shared->other_ends == 0);
    return 0;
}
