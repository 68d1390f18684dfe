/* SPDX-License-Identifier: MIT */
/* All 2^24 rejections through codec and state machine, then a sample of them over TCP up to
 * RECEIVEASSOCIATEREJECTCALLBACK. The acceptor is a raw socket in the same thread, so that it can
 * send what L_DicomSendAssociateReject refuses.
 *
 * exhaustive [SIZE OF THE SAMPLE] */
#define _POSIX_C_SOURCE 200809L
#include "descriptors.h"
#include "ltdic.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { TRIPLES = 1 << 24, PATIENCE = 10 };

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* Write the PDU of a triple, without the codec. */
static void write_reject(uint8_t *pdu, uint32_t triple)
{
    const uint8_t bytes[LTDIC_FIXED_PDU_SIZE] = {
        3, 0, 0, 0, 0, 4, 0, (uint8_t)(triple >> 16), (uint8_t)(triple >> 8), (uint8_t)triple};
    memcpy(pdu, bytes, sizeof bytes);
}

/* ---- without a network ------------------------------------------------------------------- */

static int encodes(const uint8_t *expected)
{
    const ltdic_reject codes = {expected[7], expected[8], expected[9]};
    uint8_t pdu[LTDIC_FIXED_PDU_SIZE];
    memset(pdu, 0xa5, sizeof pdu);
    ltdic_encode_fixed(pdu, LTDIC_ASSOCIATE_RJ, codes);
    return memcmp(pdu, expected, sizeof pdu) == 0;
}

static int decodes(const uint8_t *pdu)
{
    ltdic_item row;
    ltdic_items rows = {&row, 1, 0};
    ltdic_fault fault;
    const ltdic_bytes in = {pdu, LTDIC_FIXED_PDU_SIZE};
    return ltdic_decode(&rows, in, NULL, &fault) == LTDIC_OK && rows.count == 1 &&
           row.kind == LTDIC_PDU && row.type == LTDIC_ASSOCIATE_RJ && row.offset == 6 &&
           row.length == 4 && row.result == pdu[7] && row.source == pdu[8] && row.reason == pdu[9];
}

static int is_told(const uint8_t *pdu)
{
    ltdic_ul ul;
    ltdic_effects effects;
    const ltdic_bytes in = {pdu, LTDIC_FIXED_PDU_SIZE};
    ltdic_ul_init(&ul, 30000);
    return ltdic_ul_event(&ul, &effects, LTDIC_EVT_REQUEST, 1) == LTDIC_OK &&
           effects.action == LTDIC_AE_1 &&
           ltdic_ul_event(&ul, &effects, LTDIC_EVT_CONNECTED, 2) == LTDIC_OK &&
           effects.action == LTDIC_AE_2 && effects.send == LTDIC_ASSOCIATE_RQ &&
           ltdic_ul_receive(&ul, &effects, in, 3) == LTDIC_OK && effects.action == LTDIC_AE_4 &&
           effects.open == 0 && effects.send == 0 && effects.tell == 1 && effects.close == 1 &&
           ul.state == 1;
}

static unsigned wrong_in_memory(void)
{
    unsigned wrong = 0;
    uint8_t pdu[LTDIC_FIXED_PDU_SIZE];
    for (uint32_t triple = 0; triple < TRIPLES; triple++) {
        write_reject(pdu, triple);
        wrong += !(encodes(pdu) && decodes(pdu) && is_told(pdu));
    }
    return wrong;
}

/* ---- over TCP ---------------------------------------------------------------------------- */

/* The callbacks of the requestor: r(eceive), (j) reject, close (x), anything else (?). */
typedef struct story {
    char log[8];
    size_t length;
    uint8_t pdu[LTDIC_FIXED_PDU_SIZE];
    uint32_t triple;
    int closed;
} story;

/* The only connection of the raw acceptor. */
typedef struct acceptor {
    int listener, connection;
    uint8_t request[4096];
    size_t size;
} acceptor;

static void note(story *s, char letter)
{
    if (s->length + 1 < sizeof s->log) {
        s->log[s->length++] = letter;
    }
}

static L_VOID pEXT_CALLBACK on_receive(HDICOMNET hNet, L_INT nError, L_UCHAR nType,
                                       L_UCHAR *pBuffer, L_UINT32 nBytes, L_VOID *UserData)
{
    story *s = UserData;
    const int good = nError == DICOM_SUCCESS && nType == PDU_ASSOCIATE_REJECT &&
                     nBytes == sizeof s->pdu && hNet != NULL;
    note(s, good ? 'r' : '?');
    if (good) {
        memcpy(s->pdu, pBuffer, sizeof s->pdu);
    }
}

static L_VOID pEXT_CALLBACK on_reject(HDICOMNET hNet, L_UCHAR nResult, L_UCHAR nSource,
                                      L_UCHAR nReason, L_VOID *UserData)
{
    story *s = UserData;
    note(s, hNet != NULL ? 'j' : '?');
    s->triple = (uint32_t)nResult << 16 | (uint32_t)nSource << 8 | nReason;
}

static L_VOID pEXT_CALLBACK on_abort(HDICOMNET hNet, L_UCHAR nSource, L_UCHAR nReason,
                                     L_VOID *UserData)
{
    (void)hNet, (void)nSource, (void)nReason;
    note(UserData, '?');
}

static L_VOID pEXT_CALLBACK on_connect(HDICOMNET hNet, L_INT nError, L_VOID *UserData)
{
    story *s = UserData;
    (void)hNet;
    if (nError != DICOM_SUCCESS) {
        note(s, '?');
        s->closed = 1;
    }
}

static L_VOID pEXT_CALLBACK on_close(HDICOMNET hNet, L_INT nError, L_VOID *UserData)
{
    story *s = UserData;
    (void)hNet;
    note(s, nError == DICOM_SUCCESS ? 'x' : '?');
    s->closed = 1;
}

static uint16_t acceptor_open(acceptor *a)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_addr = {.s_addr = htonl(INADDR_LOOPBACK)}};
    socklen_t size = sizeof address;
    a->connection = -1;
    a->listener = socket(AF_INET, SOCK_STREAM, 0);
    if (a->listener < 0 || bind(a->listener, (struct sockaddr *)&address, size) != 0 ||
        listen(a->listener, 16) != 0 || fcntl(a->listener, F_SETFL, O_NONBLOCK) != 0 ||
        getsockname(a->listener, (struct sockaddr *)&address, &size) != 0) {
        perror("acceptor");
        exit(1);
    }
    return ntohs(address.sin_port);
}

static int request_is_whole(const acceptor *a)
{
    const uint8_t *b = a->request;
    const size_t length = (size_t)b[2] << 24 | (size_t)b[3] << 16 | (size_t)b[4] << 8 | b[5];
    return a->size >= 6 && b[0] == LTDIC_ASSOCIATE_RQ && a->size == 6 + length;
}

/* Take the steps that need no waiting: accept, read the request, answer, close. */
static void acceptor_step(acceptor *a, const uint8_t *answer, int reset)
{
    const struct linger at_once = {.l_onoff = 1, .l_linger = 0};
    if (a->connection < 0) {
        a->size = 0;
        a->connection = accept(a->listener, NULL, NULL);
        if (a->connection < 0 || fcntl(a->connection, F_SETFL, O_NONBLOCK) != 0) {
            return;
        }
    }
    const ssize_t got =
        recv(a->connection, a->request + a->size, sizeof a->request - a->size, MSG_NOSIGNAL);
    a->size += got > 0 ? (size_t)got : 0;
    if (request_is_whole(a)) {
        if (send(a->connection, answer, LTDIC_FIXED_PDU_SIZE, MSG_NOSIGNAL) < 0) {
            perror("send");
        }
        if (reset) {
            setsockopt(a->connection, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
        }
        close(a->connection);
        a->connection = -1;
    }
}

static HDICOMNET requestor_open(story *s)
{
    const DICOMNETCALLBACK callbacks = {.uStructSize = sizeof callbacks,
                                        .pfnConnect = on_connect,
                                        .pfnClose = on_close,
                                        .pfnReceive = on_receive,
                                        .pfnReceiveAssociateReject = on_reject,
                                        .pfnReceiveAbort = on_abort};
    HDICOMNET net = L_DicomCreateNet(NULL, DICOM_SECURE_NONE);
    L_DicomSetCallback(net, &callbacks, s);
    return net;
}

/* One association, rejected with `triple`; the acceptor then closes, or resets the connection. */
static int arrives(HDICOMNET net, story *s, acceptor *a, HDICOMPDU request, uint16_t port,
                   uint32_t triple, int reset)
{
    const double end = seconds() + PATIENCE;
    uint8_t pdu[LTDIC_FIXED_PDU_SIZE];
    write_reject(pdu, triple);
    *s = (story){.closed = 0};
    if (L_DicomConnect(net, NULL, 0, "127.0.0.1", port) != DICOM_SUCCESS ||
        L_DicomSendAssociateRequest(net, request) != DICOM_SUCCESS) {
        return 0;
    }
    while (!s->closed && seconds() < end) {
        L_DicomBreathe();
        acceptor_step(a, pdu, reset);
    }
    return strcmp(s->log, "rjx") == 0 && s->triple == triple &&
           memcmp(s->pdu, pdu, sizeof pdu) == 0;
}

static unsigned wrong_over_tcp(unsigned sample)
{
    static acceptor a;
    story s;
    uint64_t random = 0x9e3779b97f4a7c15U;
    unsigned wrong = 0;
    const uint16_t port = acceptor_open(&a);
    HDICOMPDU request = L_DicomCreateAssociate(TRUE);
    HDICOMNET net = requestor_open(&s);
    L_DicomDefaultAssociate(request);
    for (unsigned i = 0; i < sample && wrong < 10; i++) { /* wrong ones may take long */
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        wrong += !arrives(net, &s, &a, request, port, (uint32_t)(random >> 40), i % 2);
    }
    L_DicomFreeAssociate(request);
    L_DicomFreeNet(net);
    close(a.listener);
    return wrong;
}

int main(int argc, char **argv)
{
    const unsigned sample = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : 20000;
    const double start = seconds();
    const unsigned descriptors = open_descriptors();
    unsigned wrong = wrong_in_memory();
    const double middle = seconds();
    wrong += wrong_over_tcp(sample);
    printf("%d triples, %u over TCP, %u wrong, %.1f s + %.1f s\n", TRIPLES, sample, wrong,
           middle - start, seconds() - middle);
    if (open_descriptors() != descriptors) {
        fprintf(stderr, "descriptors leaked\n");
        return 1;
    }
    return wrong == 0 ? 0 : 1;
}
