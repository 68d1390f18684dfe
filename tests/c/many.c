/* SPDX-License-Identifier: MIT */
/* COUNT associations open at once, between two processes of one thread each: all are opened, then
 * each has one C-ECHO, then all are released.
 *
 * Each end of an association must get its callbacks in the order of `scripts`. Both processes go
 * from one part to the next together, and measure while no association is active. */
#define _DEFAULT_SOURCE /* declares malloc_trim */
#include "descriptors.h"
#include "ltdic.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#if defined(__GLIBC__)
#include <malloc.h>
#endif

#define CHECK(condition) check(condition, #condition, __LINE__)

/* A sanitizer keeps freed memory, which is not a leak of the library. */
#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SANITIZED 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#define SANITIZED 1
#endif

enum {
    COUNT = 10000,
    IN_FLIGHT = 512, /* being opened: below the backlog of a listener */
    PATIENCE = 60000,
    OTHER_FILES = 64, /* beside the one of each association */
    LEFT_ALLOWED = 1 << 20,
    GUARD = 300 /* seconds until a hanging process is ended */
};

/* The parts; each has a script for an end. */
enum { OPEN, ECHO, RELEASE, PARTS };

/* The callbacks in order, a letter for each: (c)onnect, (s)end, (r)eceive, re(q)uest, (a)ccept,
 * (d)ata, (e)cho, re(l)ease request, release res(p)onse, close (x). */
static const char *const scripts[2][PARTS] = {{"rqs", "rdes", "rlsx"}, {"csra", "srde", "srpx"}};

typedef struct end {
    HDICOMNET net;
    unsigned char part, place; /* `place`: of the next callback in the script */
} end;

static const char *name = "parent";
static int requestor;
static HDICOMNET watched; /* the listener, or a handle without a connection */
static end *ends;
static unsigned count, begun;
static unsigned done[PARTS]; /* number of ends that have finished the part */
static HDICOMPDU proposal, answer;

static void check(int good, const char *condition, int line)
{
    if (!good) {
        fprintf(stderr, "%s, line %d: %s; begun %u, done %u %u %u\n", name, line, condition, begun,
                done[OPEN], done[ECHO], done[RELEASE]);
        exit(1);
    }
}

/* ---- measuring --------------------------------------------------------------------------- */

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static long resident(void)
{
    long size = 0, pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    CHECK(file != NULL && fscanf(file, "%ld %ld", &size, &pages) == 2);
    fclose(file);
    return pages * sysconf(_SC_PAGESIZE);
}

/* ---- callbacks --------------------------------------------------------------------------- */

/* Check that the callback of this letter is the next one of the script. */
static void follow(HDICOMNET hNet, L_VOID *UserData, char letter)
{
    end *e = (end *)UserData;
    CHECK(hNet == e->net && e->part < PARTS);
    const char *script = scripts[requestor][e->part];
    CHECK(script[e->place] == letter);
    e->place++;
    if (script[e->place] == '\0') {
        done[e->part]++;
        e->part++;
        e->place = 0;
        L_DicomBreakWait(NULL);
    }
}

L_VOID pEXT_CALLBACK OnConnect(HDICOMNET hNet, L_INT nError, L_VOID *UserData)
{
    follow(hNet, UserData, 'c');
    CHECK(nError == DICOM_SUCCESS);
}

L_VOID pEXT_CALLBACK OnClose(HDICOMNET hNet, L_INT nError, L_VOID *UserData)
{
    follow(hNet, UserData, 'x');
    CHECK(nError == DICOM_SUCCESS);
    L_DicomFreeNet(hNet);
}

L_VOID pEXT_CALLBACK OnReceive(HDICOMNET hNet, L_INT nError, L_UCHAR nType, L_UCHAR *pBuffer,
                               L_UINT32 nBytes, L_VOID *UserData)
{
    follow(hNet, UserData, 'r');
    CHECK(nError == DICOM_SUCCESS && nType == pBuffer[0] && nBytes >= LTDIC_FIXED_PDU_SIZE);
}

L_VOID pEXT_CALLBACK OnSend(HDICOMNET hNet, L_INT nError, L_UCHAR nType, L_UINT32 nBytes,
                            L_VOID *UserData)
{
    follow(hNet, UserData, 's');
    CHECK(nError == DICOM_SUCCESS && nType != PDU_ABORT && nBytes >= LTDIC_FIXED_PDU_SIZE);
}

L_VOID pEXT_CALLBACK OnRequest(HDICOMNET hNet, HDICOMPDU hPDU, L_VOID *UserData)
{
    follow(hNet, UserData, 'q');
    CHECK(L_DicomGetPresentationCount(hPDU) == 1);
    CHECK(L_DicomSendAssociateAccept(hNet, answer) == DICOM_SUCCESS);
}

L_VOID pEXT_CALLBACK OnAssociateAccept(HDICOMNET hNet, HDICOMPDU hPDU, L_VOID *UserData)
{
    follow(hNet, UserData, 'a');
    CHECK(L_DicomGetResult(hPDU, 1) == PDU_ACCEPT_RESULT_SUCCESS);
}

L_VOID pEXT_CALLBACK OnData(HDICOMNET hNet, L_UCHAR nPresentationID, L_UCHAR nControl,
                            const L_UCHAR *pData, L_UINT32 nBytes, L_VOID *UserData)
{
    follow(hNet, UserData, 'd');
    CHECK(nPresentationID == 1 && nControl == 3 && pData != NULL && nBytes > 0);
}

/* Return a message ID that differs between associations. */
static L_UINT16 message_of(const end *e)
{
    return (L_UINT16)(e - ends);
}

L_VOID pEXT_CALLBACK OnEchoRequest(HDICOMNET hNet, L_UCHAR nPresentationID, L_UINT16 nMessageID,
                                   L_TCHAR *pszClass, L_VOID *UserData)
{
    follow(hNet, UserData, 'e');
    CHECK(L_DicomSendCEchoResponse(hNet, nPresentationID, nMessageID, pszClass, 0) ==
          DICOM_SUCCESS);
}

L_VOID pEXT_CALLBACK OnEchoResponse(HDICOMNET hNet, L_UCHAR nPresentationID, L_UINT16 nMessageID,
                                    L_TCHAR *pszClass, L_UINT16 nStatus, L_VOID *UserData)
{
    follow(hNet, UserData, 'e');
    CHECK(nPresentationID == 1 && nMessageID == message_of((end *)UserData) && nStatus == 0);
    CHECK(strcmp(pszClass, "1.2.840.10008.1.1") == 0);
}

L_VOID pEXT_CALLBACK OnReleaseRequest(HDICOMNET hNet, L_VOID *UserData)
{
    follow(hNet, UserData, 'l');
    CHECK(L_DicomSendReleaseResponse(hNet) == DICOM_SUCCESS);
}

L_VOID pEXT_CALLBACK OnReleaseResponse(HDICOMNET hNet, L_VOID *UserData)
{
    follow(hNet, UserData, 'p');
}

static const DICOMNETCALLBACK callbacks = {
    .uStructSize = sizeof callbacks,
    .pfnConnect = OnConnect,
    .pfnClose = OnClose,
    .pfnReceive = OnReceive,
    .pfnSend = OnSend,
    .pfnReceiveAssociateRequest = OnRequest,
    .pfnReceiveAssociateAccept = OnAssociateAccept,
    .pfnReceiveData = OnData,
    .pfnReceiveReleaseRequest = OnReleaseRequest,
    .pfnReceiveReleaseResponse = OnReleaseResponse,
    .pfnReceiveCEchoRequest = OnEchoRequest,
    .pfnReceiveCEchoResponse = OnEchoResponse,
};

static end *new_end(void)
{
    CHECK(begun < count);
    end *e = &ends[begun++];
    e->net = L_DicomCreateNet(NULL, DICOM_SECURE_NONE);
    CHECK(e->net != NULL && L_DicomSetCallback(e->net, &callbacks, e) == DICOM_SUCCESS);
    return e;
}

L_VOID pEXT_CALLBACK OnAccept(HDICOMNET hNet, L_INT nError, L_VOID *UserData)
{
    CHECK(hNet == watched && nError == DICOM_SUCCESS && UserData == NULL);
    CHECK(L_DicomAccept(hNet, new_end()->net) == DICOM_SUCCESS);
}

/* ---- the parts --------------------------------------------------------------------------- */

static void begin_open(end *e, L_UINT port)
{
    CHECK(L_DicomConnect(e->net, NULL, 0, "127.0.0.1", port) == DICOM_SUCCESS);
    CHECK(L_DicomSendAssociateRequest(e->net, proposal) == DICOM_SUCCESS);
}

static void pump(void)
{
    const L_INT code = L_DicomWait(watched, PATIENCE);
    CHECK(code == DICOM_SUCCESS || code == DICOM_ERROR_INTERRUPTED);
}

static void open_all(L_UINT port)
{
    while (done[OPEN] < count) {
        while (requestor && begun < count && begun - done[OPEN] < IN_FLIGHT) {
            begin_open(new_end(), port);
        }
        pump();
    }
}

static void echo_all(void)
{
    for (unsigned i = 0; requestor && i < count; i++) {
        CHECK(L_DicomSendCEchoRequest(ends[i].net, 1, message_of(&ends[i]), NULL) == DICOM_SUCCESS);
    }
    while (done[ECHO] < count) {
        pump();
    }
}

static void release_all(void)
{
    for (unsigned i = 0; requestor && i < count; i++) {
        CHECK(L_DicomSendReleaseRequest(ends[i].net) == DICOM_SUCCESS);
    }
    while (done[RELEASE] < count) {
        pump();
    }
}

/* ---- the processes ----------------------------------------------------------------------- */

/* Wait until both processes have come here. */
static void meet(const int *pipes)
{
    char byte = 0;
    CHECK(write(pipes[1], &byte, 1) == 1);
    CHECK(read(pipes[0], &byte, 1) == 1);
}

/* Wait until both processes have done this part; later callbacks would break the scripts. */
static void finish_part(const int *pipes)
{
    meet(pipes);
    L_DicomBreathe();
    for (unsigned i = 0; i < count; i++) {
        CHECK(ends[i].part == ends[0].part && ends[i].place == 0);
    }
    meet(pipes);
}

static L_UINT listen_anywhere(void)
{
    const DICOMNETCALLBACK slots = {.uStructSize = sizeof slots, .pfnAccept = OnAccept};
    char address[46];
    L_UINT port = 0;
    CHECK(L_DicomSetCallback(watched, &slots, NULL) == DICOM_SUCCESS);
    CHECK(L_DicomListen(watched, "127.0.0.1", 0, 1) == DICOM_SUCCESS);
    CHECK(L_DicomGetHostInfo(watched, address, sizeof address, &port) == DICOM_SUCCESS);
    return port;
}

static L_UINT share_port(const int *pipes)
{
    L_UINT port = 0;
    if (requestor) {
        CHECK(read(pipes[0], &port, sizeof port) == sizeof port);
    } else {
        port = listen_anywhere();
        CHECK(write(pipes[1], &port, sizeof port) == sizeof port);
    }
    return port;
}

static void prepare(void)
{
    CHECK(L_DicomStartUp() == DICOM_SUCCESS);
    watched = L_DicomCreateNet(NULL, DICOM_SECURE_NONE);
    proposal = L_DicomCreateAssociate(TRUE);
    answer = L_DicomCreateAssociate(FALSE);
    CHECK(watched != NULL && proposal != NULL && answer != NULL);
    CHECK(L_DicomDefaultAssociate(proposal) == DICOM_SUCCESS);
    CHECK(L_DicomDefaultAssociate(answer) == DICOM_SUCCESS);
    CHECK(L_DicomAddPresentation(answer, 1, PDU_ACCEPT_RESULT_SUCCESS, NULL) == DICOM_SUCCESS);
    CHECK(L_DicomAddTransfer(answer, 1, "1.2.840.10008.1.2") == DICOM_SUCCESS);
    ends = (end *)malloc(count * sizeof *ends);
    CHECK(ends != NULL);
    memset(ends, 0, count * sizeof *ends); /* makes it resident before the measurement */
}

static void clean_up(void)
{
    L_DicomFreeAssociate(proposal);
    L_DicomFreeAssociate(answer);
    L_DicomFreeNet(watched);
    L_DicomShutDown();
#if defined(__GLIBC__)
    malloc_trim(0); /* returns memory that is only kept for the next allocation */
#endif
}

/* Run one process; pipes[0] reads from the other one, pipes[1] writes to it. */
static void be_one_end(const int *pipes)
{
    alarm(GUARD);
    const unsigned descriptors = open_descriptors();
    prepare();
    const L_UINT port = share_port(pipes);
    const long before = resident();
    const double start = seconds();
    open_all(port);
    const double opened = seconds();
    finish_part(pipes);
    const long memory = resident() - before;
    const unsigned open = open_descriptors() - descriptors;
    meet(pipes);
    const double echo_start = seconds();
    echo_all();
    const double echoed = seconds();
    finish_part(pipes);
    const double release_start = seconds();
    release_all();
    const double released = seconds();
    finish_part(pipes);
    clean_up();
    const long left = resident() - before;
    CHECK(done[OPEN] == count && done[ECHO] == count && done[RELEASE] == count);
    CHECK(open >= count && open_descriptors() == descriptors);
    printf("%s: %u open with %u descriptors, %ld bytes each, %ld KiB left; "
           "open %.3f s, echo %.3f s, release %.3f s\n",
           name, done[OPEN], open, memory / (long)count, left / 1024, opened - start,
           echoed - echo_start, released - release_start);
    free(ends);
#if !defined(SANITIZED)
    CHECK(left < LEFT_ALLOWED);
#endif
}

int main(int argc, char **argv)
{
    int there[2], back[2], status = 0;
    count = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : COUNT;
    CHECK(count > 0 && count <= UINT16_MAX && pipe(there) == 0 && pipe(back) == 0);
    allow_descriptors((rlim_t)count + OTHER_FILES);
    const pid_t child = fork();
    CHECK(child >= 0);
    requestor = child != 0;
    name = requestor ? "requestor" : "acceptor";
    const int mine[2] = {requestor ? back[0] : there[0], requestor ? there[1] : back[1]};
    close(requestor ? back[1] : there[1]); /* each then notices the end of the other */
    close(requestor ? there[0] : back[0]);
    be_one_end(mine);
    if (requestor) {
        CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status));
    }
    return requestor ? WEXITSTATUS(status) : 0;
}
