/* SPDX-License-Identifier: MIT */
/* Associations in which each system call and allocation fails in turn. In each case the association
 * ends, each side is told what it must be told and nothing twice, nothing is left behind, and the
 * next association on the same listener works.
 *
 * An SCU and an SCP on one thread go through a plan. In run n of a sweep the n-th call of one
 * function fails, until a run ends with fewer calls. After each run judge() checks the results;
 * then the same plan runs without a fault, and judge() checks strictly. */
#define _GNU_SOURCE
#include "descriptors.h"
#include "ltdic.h"

#include "inject.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#define REQUIRE(condition) require(condition, #condition, __LINE__)
#define VERIFICATION "1.2.840.10008.1.1"
#define STORAGE "1.2.840.10008.5.1.4.1.1.7"
#define IMPLICIT "1.2.840.10008.1.2"

enum { STORED = 200 * 1024, SHORT_STORED = 8 * 1024 }; /* bytes of data each way */
enum { REQUESTOR_MAX = 2048, ACCEPTOR_MAX = 4096 };    /* lengths of P-DATA-TF */
enum { SOON = 3, NAGLED = 100, SURE = 2000 };   /* real ms after which nothing more is expected */
enum { DEADLINE = 200, TURN = 5000, HUNG = 8 }; /* ms; turns without an event */
enum { VERIFIES = 1, STORES = 3 };              /* context IDs */

enum { CALLERS = 8 };

typedef enum plan { STORE, REJECT, ABORT, COLLIDE, PLANS } plan;

typedef struct sweep {
    const char *name;
    function which;
    int error;
    int from; /* 1: every call from the n-th on */
    enum { HARMFUL, HARMLESS, PATIENT } kind;
    function crawl; /* RECV or SENDMSG: each also moves a CRUMB at most */
} sweep;

/* One end of the association, and its events. */
typedef struct side {
    const char *name;
    HDICOMNET net;
    int begun;              /* L_DicomConnect or L_DicomAccept has succeeded */
    int up, failed, closed; /* events so far */
    int last;               /* type of the last RECEIVECALLBACK */
    int ended;              /* this user has ended it */
    int refused;            /* RECEIVECALLBACK had an error: only the end may follow */
    int accepted, rejected, aborted, echoes, releases, responses;
    L_INT close_error;
    L_UCHAR codes[3];
    size_t stored; /* bytes of data received */
    size_t submitted[8], told[8];
} side;

static const char *const plan_names[PLANS] = {"store", "reject", "abort", "collide"};

static HDICOMNET listener;
static L_UINT port; /* the same in all runs, since the system blocks a used port for a minute */
static int started, listening, waiting; /* waiting: number of connections told and not accepted */
static side scu, scp;
static plan current;
static const sweep *sweeping;
static size_t stored = STORED; /* bytes of data to send */
static unsigned long complaints, events;
static int user_rejected;
static L_UCHAR pattern[STORED];
static char where[200] = "start";

/* ---- failures ------------------------------------------------------------------------------ */

static void print_side(const side *s)
{
    fprintf(stderr,
            "%s: begun %d up %d failed %d closed %d error %d accepted %d rejected %d aborted %d "
            "echoes %d releases %d responses %d stored %zu state %d\n",
            s->name, s->begun, s->up, s->failed, s->closed, s->close_error, s->accepted,
            s->rejected, s->aborted, s->echoes, s->releases, s->responses, s->stored,
            s->net != NULL && L_DicomIsAssociated(s->net));
    for (int type = 1; type < 8; type++) {
        fprintf(stderr, " %d: %zu/%zu", type, s->told[type], s->submitted[type]);
    }
    fprintf(stderr, "\n");
}

static void require(int good, const char *condition, int line)
{
    if (!good) {
        fprintf(stderr, "%s: line %d: %s; %lu complaints\n", where, line, condition, complaints);
        print_side(&scu);
        print_side(&scp);
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

/* A call or a callback has reported an error. */
static L_INT complain(L_INT code)
{
    REQUIRE(code != DICOM_ERROR_PROTOCOL); /* no peer here breaks the protocol */
    complaints += code != DICOM_SUCCESS;
    return code;
}

/* ---- calls of a user ----------------------------------------------------------------------- */

static void give_up(side *s)
{
    s->ended = 1;
    if (complain(L_DicomSendAbort(s->net, PDU_ABORT_SOURCE_USER, 0)) != DICOM_SUCCESS) {
        L_DicomClose(s->net);
    }
}

/* Count a successful send; after a failed one abort the association. */
static int sent(side *s, L_INT code, L_UCHAR type, size_t pdus)
{
    if (complain(code) != DICOM_SUCCESS) {
        give_up(s);
        return 0;
    }
    s->submitted[type] += pdus;
    return 1;
}

static void store(side *s)
{
    const size_t most = (s == &scu ? ACCEPTOR_MAX : REQUESTOR_MAX) - 6;
    const L_INT code = L_DicomSendData(s->net, STORES, 3, pattern, 2);
    if (sent(s, code, PDU_DATA_TRANSFER, 1)) {
        sent(s, L_DicomSendData(s->net, STORES, 2, pattern, stored), PDU_DATA_TRANSFER,
             (stored - 1) / most + 1);
    }
}

/* Add the contexts; an answer has NULL for an abstract syntax. */
static int add_contexts(HDICOMPDU pdu, const char *verification, const char *storage)
{
    return pdu != NULL && L_DicomAddPresentation(pdu, VERIFIES, 0, verification) == DICOM_SUCCESS &&
           L_DicomAddTransfer(pdu, VERIFIES, IMPLICIT) == DICOM_SUCCESS &&
           L_DicomAddPresentation(pdu, STORES, 0, storage) == DICOM_SUCCESS &&
           L_DicomAddTransfer(pdu, STORES, IMPLICIT) == DICOM_SUCCESS;
}

static HDICOMPDU if_complete(HDICOMPDU pdu, int complete)
{
    if (!complete) {
        complain(DICOM_ERROR_MEMORY);
        L_DicomFreeAssociate(pdu);
    }
    return complete ? pdu : NULL;
}

static HDICOMPDU request(void)
{
    static const L_UCHAR name[] = "user", code[] = "pass";
    HDICOMPDU pdu = L_DicomCreateAssociate(TRUE);
    return if_complete(pdu, add_contexts(pdu, VERIFICATION, STORAGE) &&
                                L_DicomSetMaxLength(pdu, REQUESTOR_MAX) == DICOM_SUCCESS &&
                                L_DicomSetRoleSelect(pdu, STORAGE, TRUE, TRUE) == DICOM_SUCCESS &&
                                L_DicomSetUserIdentity(pdu, PDU_IDENTITY_PASSCODE, TRUE, name, 4,
                                                       code, 4) == DICOM_SUCCESS &&
                                L_DicomDefaultAssociate(pdu) == DICOM_SUCCESS);
}

static HDICOMPDU answer(void)
{
    static const L_UCHAR welcome[] = "welcome";
    HDICOMPDU pdu = L_DicomCreateAssociate(FALSE);
    return if_complete(pdu, add_contexts(pdu, NULL, NULL) &&
                                L_DicomSetMaxLength(pdu, ACCEPTOR_MAX) == DICOM_SUCCESS &&
                                L_DicomSetRoleSelect(pdu, STORAGE, TRUE, FALSE) == DICOM_SUCCESS &&
                                L_DicomSetUserIdentity(pdu, 0, FALSE, welcome, 7, NULL, 0) ==
                                    DICOM_SUCCESS &&
                                L_DicomDefaultAssociate(pdu) == DICOM_SUCCESS);
}

static void accept_association(void)
{
    HDICOMPDU pdu = answer();
    if (pdu == NULL) {
        give_up(&scp);
        return;
    }
    const L_INT code = L_DicomSendAssociateAccept(scp.net, pdu);
    L_DicomFreeAssociate(pdu);
    if (sent(&scp, code, PDU_ASSOCIATE_ACCEPT, 1)) {
        REQUIRE(L_DicomGetAssociate(scp.net) != NULL);
        if (current == COLLIDE) {
            sent(&scp, L_DicomSendReleaseRequest(scp.net), PDU_RELEASE_REQUEST, 1);
        }
    }
}

/* ---- callbacks ---------------------------------------------------------------------------- */

/* Check for every callback that the connection is established and has not ended. */
static side *told(HDICOMNET hNet, L_VOID *UserData)
{
    side *s = (side *)UserData;
    events++;
    REQUIRE(hNet == s->net);
    REQUIRE(!s->closed);
    REQUIRE(s == &scp ? s->begun : s->up || s->failed);
    return s;
}

/* Check that a RECEIVECALLBACK of this type, without an error, came before. */
static side *received(HDICOMNET hNet, L_VOID *UserData, int type)
{
    side *s = told(hNet, UserData);
    REQUIRE(s->last == type && !s->refused && !s->failed);
    s->last = type == PDU_DATA_TRANSFER ? type : 0;
    return s;
}

static L_VOID pEXT_CALLBACK OnConnect(HDICOMNET hNet, L_INT nError, L_VOID *UserData)
{
    char address[46];
    L_UINT peer_port = 0;
    events++;
    REQUIRE(UserData == &scu && hNet == scu.net && scu.begun && !scu.up && !scu.failed);
    scu.up = complain(nError) == DICOM_SUCCESS;
    scu.failed = !scu.up;
    REQUIRE(L_DicomIsConnected(hNet) == scu.up);
    if (scu.up &&
        complain(L_DicomGetPeerInfo(hNet, address, sizeof address, &peer_port)) == DICOM_SUCCESS) {
        REQUIRE(peer_port == port);
    }
}

static L_VOID pEXT_CALLBACK OnClose(HDICOMNET hNet, L_INT nError, L_VOID *UserData)
{
    side *s = told(hNet, UserData);
    REQUIRE(!s->failed);
    REQUIRE(!L_DicomIsConnected(hNet) && !L_DicomIsAssociated(hNet));
    const int agreed = s->rejected || s->told[PDU_ASSOCIATE_REJECT] || s->responses ||
                       s->submitted[PDU_RELEASE_RESPONSE] || s->submitted[PDU_ABORT] || s->ended ||
                       s->refused;
    REQUIRE(nError != DICOM_SUCCESS || agreed);
    s->closed = 1;
    s->close_error = complain(nError);
}

static L_VOID pEXT_CALLBACK OnReceive(HDICOMNET hNet, L_INT nError, L_UCHAR nType, L_UCHAR *pBuffer,
                                      L_UINT32 nBytes, L_VOID *UserData)
{
    side *s = told(hNet, UserData);
    REQUIRE(!s->refused && !s->failed);
    s->refused = complain(nError) != DICOM_SUCCESS;
    s->last = nType;
    REQUIRE(s->refused || (nBytes > 0 && pBuffer != NULL));
}

static L_VOID pEXT_CALLBACK OnSend(HDICOMNET hNet, L_INT nError, L_UCHAR nType, L_UINT32 nBytes,
                                   L_VOID *UserData)
{
    side *s = told(hNet, UserData);
    complain(nError);
    REQUIRE(nType >= 1 && nType <= 7 && nBytes >= 10);
    s->told[nType]++;
}

static L_VOID pEXT_CALLBACK OnRequest(HDICOMNET hNet, HDICOMPDU hPDU, L_VOID *UserData)
{
    side *s = received(hNet, UserData, PDU_ASSOCIATE_REQUEST);
    L_BOOL user = FALSE, provider = FALSE;
    REQUIRE(s == &scp && L_DicomGetPresentationCount(hPDU) == 2);
    REQUIRE(strcmp(L_DicomGetAbstract(hPDU, STORES), STORAGE) == 0);
    REQUIRE(L_DicomGetRoleSelect(hPDU, STORAGE, &user, &provider) && user && provider);
    if (current != REJECT) {
        accept_association();
    } else if (sent(s, L_DicomSendAssociateReject(hNet, 1, 1, 7), PDU_ASSOCIATE_REJECT, 1)) {
        user_rejected = 1;
    }
}

static L_VOID pEXT_CALLBACK OnAssociateAccept(HDICOMNET hNet, HDICOMPDU hPDU, L_VOID *UserData)
{
    side *s = received(hNet, UserData, PDU_ASSOCIATE_ACCEPT);
    L_UCHAR type;
    L_BOOL wanted;
    const L_UCHAR *first, *second;
    L_UINT size = 0, none;
    REQUIRE(s == &scu && !s->accepted && L_DicomIsAssociated(hNet));
    REQUIRE(L_DicomGetResult(hPDU, STORES) == PDU_ACCEPT_RESULT_SUCCESS);
    REQUIRE(L_DicomGetUserIdentity(hPDU, &type, &wanted, &first, &size, &second, &none));
    REQUIRE(size == 7 && memcmp(first, "welcome", size) == 0);
    s->accepted = 1;
    if (current == STORE) {
        sent(s, L_DicomSendCEchoRequest(hNet, VERIFIES, 7, NULL), PDU_DATA_TRANSFER, 1);
    } else if (current == ABORT) {
        sent(s, L_DicomSendAbort(hNet, PDU_ABORT_SOURCE_USER, 0), PDU_ABORT, 1);
    } else {
        sent(s, L_DicomSendReleaseRequest(hNet), PDU_RELEASE_REQUEST, 1);
    }
}

static L_VOID pEXT_CALLBACK OnReject(HDICOMNET hNet, L_UCHAR nResult, L_UCHAR nSource,
                                     L_UCHAR nReason, L_VOID *UserData)
{
    side *s = received(hNet, UserData, PDU_ASSOCIATE_REJECT);
    REQUIRE(s == &scu && !s->rejected && !s->accepted);
    s->rejected = 1;
    s->codes[0] = nResult;
    s->codes[1] = nSource;
    s->codes[2] = nReason;
    complaints += !user_rejected;
}

static L_VOID pEXT_CALLBACK OnData(HDICOMNET hNet, L_UCHAR nPresentationID, L_UCHAR nControl,
                                   const L_UCHAR *pData, L_UINT32 nBytes, L_VOID *UserData)
{
    side *s = received(hNet, UserData, PDU_DATA_TRANSFER);
    if ((nControl & 1) != 0) {
        return;
    }
    REQUIRE(nPresentationID == STORES && nBytes <= stored - s->stored);
    REQUIRE(nBytes == 0 || memcmp(pData, pattern + s->stored, nBytes) == 0);
    s->stored += nBytes;
    REQUIRE(((nControl & 2) != 0) == (s->stored == stored));
    if (s->stored == stored && s == &scp) {
        store(s);
    } else if (s->stored == stored) {
        sent(s, L_DicomSendReleaseRequest(hNet), PDU_RELEASE_REQUEST, 1);
    }
}

static L_VOID pEXT_CALLBACK OnEchoRequest(HDICOMNET hNet, L_UCHAR nPresentationID,
                                          L_UINT16 nMessageID, L_TCHAR *pszClass, L_VOID *UserData)
{
    side *s = received(hNet, UserData, PDU_DATA_TRANSFER);
    REQUIRE(s == &scp && ++s->echoes == 1 && nPresentationID == VERIFIES && nMessageID == 7);
    sent(s, L_DicomSendCEchoResponse(hNet, nPresentationID, nMessageID, pszClass, 0),
         PDU_DATA_TRANSFER, 1);
}

static L_VOID pEXT_CALLBACK OnEchoResponse(HDICOMNET hNet, L_UCHAR nPresentationID,
                                           L_UINT16 nMessageID, L_TCHAR *pszClass, L_UINT16 nStatus,
                                           L_VOID *UserData)
{
    side *s = received(hNet, UserData, PDU_DATA_TRANSFER);
    REQUIRE(s == &scu && ++s->echoes == 1 && nPresentationID == VERIFIES);
    REQUIRE(nMessageID == 7 && nStatus == 0 && strcmp(pszClass, VERIFICATION) == 0);
    store(s);
}

/* In a collision the acceptor answers after it has received the answer (PS3.8 9.2.2, Sta10). */
static L_VOID pEXT_CALLBACK OnReleaseRequest(HDICOMNET hNet, L_VOID *UserData)
{
    side *s = received(hNet, UserData, PDU_RELEASE_REQUEST);
    REQUIRE(++s->releases == 1);
    if (s == &scu || current != COLLIDE) {
        sent(s, L_DicomSendReleaseResponse(hNet), PDU_RELEASE_RESPONSE, 1);
    }
}

static L_VOID pEXT_CALLBACK OnReleaseResponse(HDICOMNET hNet, L_VOID *UserData)
{
    side *s = received(hNet, UserData, PDU_RELEASE_RESPONSE);
    REQUIRE(++s->responses == 1);
    if (s == &scp) {
        sent(s, L_DicomSendReleaseResponse(hNet), PDU_RELEASE_RESPONSE, 1);
    }
}

static L_VOID pEXT_CALLBACK OnAbort(HDICOMNET hNet, L_UCHAR nSource, L_UCHAR nReason,
                                    L_VOID *UserData)
{
    side *s = received(hNet, UserData, PDU_ABORT);
    (void)nSource;
    (void)nReason;
    REQUIRE(++s->aborted == 1);
    complaints += current != ABORT || s == &scu;
}

static L_VOID pEXT_CALLBACK OnAccept(HDICOMNET hNet, L_INT nError, L_VOID *UserData)
{
    events++;
    REQUIRE(hNet == listener && nError == DICOM_SUCCESS && UserData == NULL);
    waiting++;
}

static L_INT set_callbacks(HDICOMNET net, side *s)
{
    const DICOMNETCALLBACK callbacks = {
        .uStructSize = sizeof callbacks,
        .pfnAccept = OnAccept,
        .pfnConnect = OnConnect,
        .pfnClose = OnClose,
        .pfnReceive = OnReceive,
        .pfnSend = OnSend,
        .pfnReceiveAssociateRequest = OnRequest,
        .pfnReceiveAssociateAccept = OnAssociateAccept,
        .pfnReceiveAssociateReject = OnReject,
        .pfnReceiveData = OnData,
        .pfnReceiveReleaseRequest = OnReleaseRequest,
        .pfnReceiveReleaseResponse = OnReleaseResponse,
        .pfnReceiveAbort = OnAbort,
        .pfnReceiveCEchoRequest = OnEchoRequest,
        .pfnReceiveCEchoResponse = OnEchoResponse,
    };
    return L_DicomSetCallback(net, &callbacks, s);
}

/* ---- a plan from beginning to end ----------------------------------------------------------- */

/* Prepare the handle of this side, a new one or that of the last association. */
static int prepare(side *s)
{
    const int patient = sweeping == NULL || sweeping->kind != HARMFUL;
    const L_UINT32 deadline = patient ? 0 : DEADLINE;
    s->net = s->net != NULL ? s->net : L_DicomCreateNet(NULL, DICOM_SECURE_NONE);
    if (s->net == NULL) {
        return complain(DICOM_ERROR_MEMORY) == DICOM_SUCCESS;
    }
    REQUIRE(set_callbacks(s->net, s) == DICOM_SUCCESS);
    REQUIRE(L_DicomSetTimeouts(s->net, deadline, deadline, deadline) == DICOM_SUCCESS);
    return 1;
}

/* Return the error of L_DicomListen for the call that failed. */
static L_INT listen_error(void)
{
    if (faults.which == SETSOCKOPT) { /* without SO_REUSEADDR the port is still taken */
        return DICOM_ERROR_ADDRESS;
    }
    const int no_memory = faults.error == (faults.which == GETADDRINFO ? EAI_MEMORY : ENOMEM);
    if (no_memory) {
        return DICOM_ERROR_MEMORY;
    }
    return faults.which == SOCKET || faults.which == FCNTL ? DICOM_ERROR_SYSTEM
                                                           : DICOM_ERROR_ADDRESS;
}

/* Create and start the listener, unless it exists. */
static int listen_somewhere(void)
{
    char address[46];
    if (!started && complain(L_DicomStartUp()) != DICOM_SUCCESS) {
        return 0;
    }
    started = 1;
    listener = listener != NULL ? listener : L_DicomCreateNet(NULL, DICOM_SECURE_NONE);
    if (listener == NULL || set_callbacks(listener, NULL) != DICOM_SUCCESS) {
        return complain(DICOM_ERROR_MEMORY) == DICOM_SUCCESS;
    }
    const L_INT code = listening ? DICOM_SUCCESS : L_DicomListen(listener, "127.0.0.1", port, 1);
    if (complain(code) != DICOM_SUCCESS) {
        REQUIRE(code == listen_error());
        return 0;
    }
    listening = 1;
    return complain(L_DicomGetHostInfo(listener, address, sizeof address, &port)) == DICOM_SUCCESS;
}

static void call_peer(HDICOMPDU pdu)
{
    if (!prepare(&scu)) {
        return;
    }
    /* The system blocks bound ports for a minute, so bind only if binding may fail. */
    const int binds = faults.which == BIND || faults.which == GETADDRINFO;
    const char *host = binds ? "127.0.0.1" : NULL;
    scu.begun = complain(L_DicomConnect(scu.net, host, 0, "127.0.0.1", port)) == DICOM_SUCCESS;
    if (!scu.begun) {
        return;
    }
    if (complain(L_DicomSendAssociateRequest(scu.net, pdu)) == DICOM_SUCCESS) {
        scu.submitted[PDU_ASSOCIATE_REQUEST] = 1;
    } else { /* there is no association to abort yet */
        L_DicomClose(scu.net);
        scu.ended = 1;
    }
}

/* Accept all connections; one that cannot be accepted now stays in the queue. */
static void take_connection(void)
{
    if (scp.begun || !prepare(&scp)) {
        return;
    }
    const L_INT code = complain(L_DicomAccept(listener, scp.net));
    REQUIRE(code != DICOM_ERROR_STATE); /* the connection was told and has not ended */
    scp.begun = scp.up = code == DICOM_SUCCESS;
    waiting -= scp.begun;
}

static int is_over(const side *s)
{
    return !s->begun || s->failed || s->closed;
}

/* The connection was closed before CONNECTCALLBACK, which then does not come. */
static int was_dropped(void)
{
    return scu.begun && !scu.up && !L_DicomIsConnected(scu.net) && scu.submitted[1] == 0;
}

/* Pump until both ends are over, or nothing happens any more. */
static void pump(void)
{
    int quiet = 0;
    while ((!is_over(&scu) && !was_dropped()) || !is_over(&scp) || (!scp.begun && quiet == 0)) {
        const unsigned long before = events;
        if (waiting > 0) {
            take_connection();
        }
        const int only_scu =
            scp.begun && is_over(&scp); /* events of the SCP do not end waits for the SCU */
        const L_UINT32 turn = waiting > 0 ? 10 : TURN;
        const L_INT code = L_DicomWait(only_scu ? scu.net : listener, turn);
        REQUIRE(code == DICOM_SUCCESS || code == DICOM_ERROR_TIMEOUT ||
                (code == DICOM_ERROR_INTERRUPTED && faults.which == WAIT));
        quiet = events == before && code == DICOM_ERROR_TIMEOUT ? quiet + 1 : 0;
        if (quiet == (faults.from ? 1 : HUNG)) { /* without any memory a hang is possible */
            return;
        }
    }
    for (int i = 0; i < 3; i++) { /* nothing may come after the end */
        L_DicomBreathe();
    }
}

static void forget(side *s, const char *name)
{
    *s = (side){.name = name, .net = s->net};
}

static void go_through(plan what)
{
    current = what;
    complaints = 0;
    user_rejected = 0;
    faults.dialled = -1;
    faults.received = 0;
    forget(&scu, "SCU");
    forget(&scp, "SCP");
    HDICOMPDU pdu = listen_somewhere() ? request() : NULL;
    if (pdu != NULL) {
        call_peer(pdu);
        L_DicomFreeAssociate(pdu);
        pump();
    }
}

/* ---- checks --------------------------------------------------------------------------------- */

static int succeeded(void)
{
    const int released = scu.close_error == 0 && scp.close_error == 0;
    const int rejected_as_told = memcmp(scu.codes, "\1\1\7", 3) == 0;
    if (!scu.closed || !scp.closed || complaints > (current == ABORT)) {
        return 0;
    }
    switch (current) {
    case STORE:
        return released && scu.stored == stored && scp.stored == stored && scu.responses == 1;
    case REJECT:
        return released && scu.rejected && rejected_as_told;
    case ABORT:
        return scu.close_error == 0 && scp.close_error == DICOM_ERROR_ABORTED && scp.aborted;
    case COLLIDE:
        return released && scu.releases && scu.responses && scp.releases && scp.responses;
    case PLANS:
        break;
    }
    return 0;
}

/* Every successful send is told once. The provider itself may send a reject or an abort. */
static void judge_sends(const side *s)
{
    for (int type = 1; type < 8; type++) {
        const int own = type == PDU_ASSOCIATE_REJECT || type == PDU_ABORT;
        REQUIRE(own ? s->told[type] >= (type == PDU_ABORT ? 0 : s->submitted[type])
                    : s->told[type] == s->submitted[type]);
        REQUIRE(!own || s->told[type] <= 2);
    }
}

/* A rejection that arrived in time is told with its codes. */
static void judge_rejection(void)
{
    const int arrived = faults.received >= sizeof faults.head && faults.head[0] == 3;
    REQUIRE(arrived || !scu.rejected);
    REQUIRE(!arrived || scu.rejected || scu.refused);
    REQUIRE(!scu.rejected || memcmp(scu.codes, faults.head + 7, sizeof scu.codes) == 0);
    REQUIRE(!scu.rejected || memcmp(scu.codes, user_rejected ? "\1\1\7" : "\2\3\1", 3) == 0);
}

static void judge(void)
{
    REQUIRE((is_over(&scu) || was_dropped()) && is_over(&scp));
    REQUIRE(!scu.up || scu.closed);
    REQUIRE(!scp.up || scp.closed);
    judge_sends(&scu);
    judge_sends(&scp);
    judge_rejection();
    REQUIRE(succeeded() || complaints > 0);
}

/* In every second run L_DicomShutDown frees the handles. */
static void shut_down(int free_handles, unsigned descriptors)
{
    if (free_handles) {
        L_DicomFreeNet(scu.net);
        L_DicomFreeNet(scp.net);
        L_DicomFreeNet(listener);
    }
    L_DicomShutDown();
    scu.net = scp.net = listener = NULL;
    started = listening = waiting = 0;
    REQUIRE(faults.blocks == 0);
    REQUIRE(open_descriptors() == descriptors);
}

/* ---- sweeps ------------------------------------------------------------------------------- */

/* Run the plan once; return the number of failed calls. `quantum` 0: no deadline passes early. */
static unsigned long run(const sweep *s, plan what, unsigned long n, int quantum)
{
    const unsigned descriptors = open_descriptors();
    snprintf(where, sizeof where, "%s, %s, n %lu, errno %d", s->name, plan_names[what], n,
             s->error);
    alarm(600);
    const uint64_t begun = faults.now;
    sweeping = s;
    faults.quantum = quantum;
    inject(s->which, s->error, n, s->from);
    faults.crawl = s->crawl;
    go_through(what);
    const unsigned long hits = faults.hits;
    const int in_time = faults.now - begun < TURN || !scp.begun; /* no deadline was delayed */
    REQUIRE(in_time || s->from || s->kind != PATIENT);
    inject(NOTHING, 0, 0, 0);
    if (!is_over(&scu) || !is_over(&scp) ||
        (scu.begun && !scp.begun)) { /* from here on no call fails */
        pump();
    }
    judge();
    REQUIRE(succeeded() || (hits > 0 && s->kind != HARMLESS) || quantum < SURE);
    if (hits == 0 && !succeeded()) {
        shut_down(1, descriptors);
        return run(s, what, n, SURE);
    }
    faults.crawl = NOTHING;
    sweeping = NULL;
    faults.quantum = SURE;
    strcat(where, ", afterwards");
    go_through(what);
    judge();
    REQUIRE(succeeded());
    shut_down(n % 2 == 1, descriptors);
    return hits;
}

static void run_sweep(const sweep *s)
{
    unsigned long total = 0;
    const int all_short = s->from && s->error == ONE_BYTE;
    stored = all_short || s->crawl != NOTHING ? SHORT_STORED : STORED;
    for (int what = 0; what < PLANS; what++) {
        if (getenv("N") && what > 0)
            break;
        unsigned long hits, n = getenv("N") ? (unsigned long)atoi(getenv("N")) : 1;
        do {
            hits = run(s, (plan)what, n++, s->kind == HARMLESS ? NAGLED : SOON);
            total += all_short ? hits : hits > 0;
        } while (hits > 0 && !all_short);
    }
    stored = STORED;
    printf("%s: %lu injections\n", s->name, total);
    fflush(stdout);
}

static const sweep sweeps[] = {
    {"one allocation fails", ALLOCATE, ENOMEM, 0, HARMFUL, NOTHING},
    {"all allocations fail", ALLOCATE, ENOMEM, 1, HARMFUL, NOTHING},
    {"one allocation fails, no deadlines", ALLOCATE, ENOMEM, 0, PATIENT, NOTHING},
    {"all allocations fail, no deadlines", ALLOCATE, ENOMEM, 1, PATIENT, NOTHING},
    {"recv short, one allocation fails", ALLOCATE, ENOMEM, 0, PATIENT, RECV},
    {"recv short, all allocations fail", ALLOCATE, ENOMEM, 1, PATIENT, RECV},
    {"sendmsg short, one allocation fails", ALLOCATE, ENOMEM, 0, PATIENT, SENDMSG},
    {"sendmsg short, all allocations fail", ALLOCATE, ENOMEM, 1, PATIENT, SENDMSG},
    {"recv ECONNRESET", RECV, ECONNRESET, 0, HARMFUL, NOTHING},
    {"recv EINTR", RECV, EINTR, 0, HARMLESS, NOTHING},
    {"recv EAGAIN", RECV, EAGAIN, 0, HARMLESS, NOTHING},
    {"recv short", RECV, ONE_BYTE, 0, HARMLESS, NOTHING},
    {"recv always short", RECV, ONE_BYTE, 1, HARMLESS, NOTHING},
    {"sendmsg EPIPE", SENDMSG, EPIPE, 0, HARMFUL, NOTHING},
    {"sendmsg ECONNRESET", SENDMSG, ECONNRESET, 0, HARMFUL, NOTHING},
    {"sendmsg ENOBUFS", SENDMSG, ENOBUFS, 0, HARMFUL, NOTHING},
    {"sendmsg EINTR", SENDMSG, EINTR, 0, HARMLESS, NOTHING},
    {"sendmsg EAGAIN", SENDMSG, EAGAIN, 0, HARMLESS, NOTHING},
    {"sendmsg short", SENDMSG, ONE_BYTE, 0, HARMLESS, NOTHING},
    {"sendmsg always short", SENDMSG, ONE_BYTE, 1, HARMLESS, NOTHING},
    {"accept EMFILE", ACCEPT, EMFILE, 0, HARMLESS, NOTHING},
    {"accept ENOMEM", ACCEPT, ENOMEM, 0, HARMLESS, NOTHING},
    {"accept ECONNABORTED", ACCEPT, ECONNABORTED, 0, HARMLESS, NOTHING},
    {"accept EINTR", ACCEPT, EINTR, 0, HARMLESS, NOTHING},
    {"accept EAGAIN", ACCEPT, EAGAIN, 0, HARMLESS, NOTHING},
    {"socket EMFILE", SOCKET, EMFILE, 0, HARMFUL, NOTHING},
    {"socket ENOBUFS", SOCKET, ENOBUFS, 0, HARMFUL, NOTHING},
    {"connect ECONNREFUSED", CONNECT, ECONNREFUSED, 0, HARMFUL, NOTHING},
    {"connect EINTR", CONNECT, EINTR, 0, HARMLESS, NOTHING},
    {"bind EADDRINUSE", BIND, EADDRINUSE, 0, HARMFUL, NOTHING},
    {"listen EADDRINUSE", LISTEN, EADDRINUSE, 0, HARMFUL, NOTHING},
    {"getsockname ENOBUFS", GETSOCKNAME, ENOBUFS, 0, HARMFUL, NOTHING},
    {"getpeername ENOTCONN", GETPEERNAME, ENOTCONN, 0, HARMFUL, NOTHING},
    {"setsockopt ENOMEM", SETSOCKOPT, ENOMEM, 0, HARMLESS, NOTHING},
    {"getsockopt ENOBUFS", GETSOCKOPT, ENOBUFS, 0, HARMFUL, NOTHING},
    {"getaddrinfo EAI_MEMORY", GETADDRINFO, EAI_MEMORY, 0, HARMFUL, NOTHING},
    {"getaddrinfo EAI_AGAIN", GETADDRINFO, EAI_AGAIN, 0, HARMFUL, NOTHING},
    {"wait EINTR", WAIT, EINTR, 0, HARMLESS, NOTHING},
#ifdef LTDIC_POLL
    {"poll ENOMEM", WAIT, ENOMEM, 0, HARMLESS, NOTHING},
    {"fcntl EINVAL", FCNTL, EINVAL, 0, HARMFUL, NOTHING},
#else
    {"epoll_ctl ENOMEM", EPOLL_CTL, ENOMEM, 0, HARMFUL, NOTHING},
    {"epoll_create1 EMFILE", EPOLL_CREATE, EMFILE, 0, HARMFUL, NOTHING},
#endif
};

/* ---- no free descriptors -------------------------------------------------------------------- */

/* Set the limit so that there is no free descriptor; return the old limit. */
static struct rlimit take_descriptors(void)
{
    struct rlimit before = {0, 0}, none;
    const int next = dup(2);
    REQUIRE(next >= 0 && getrlimit(RLIMIT_NOFILE, &before) == 0);
    close(next);
    none = before;
    none.rlim_cur = (rlim_t)next;
    REQUIRE(setrlimit(RLIMIT_NOFILE, &none) == 0);
    return before;
}

static void call_without_a_word(int *callers)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    for (int i = 0; i < CALLERS; i++) {
        callers[i] = socket(AF_INET, SOCK_STREAM, 0);
        REQUIRE(connect(callers[i], (struct sockaddr *)&address, sizeof address) == 0);
    }
}

/* Without descriptors no connection is made or accepted, and the loop does not spin. */
static void be_without_descriptors(void)
{
    REQUIRE(prepare(&scu) && prepare(&scp));
    scu.begun = L_DicomConnect(scu.net, NULL, 0, "127.0.0.1", port) == DICOM_SUCCESS;
    REQUIRE(scu.begun && L_DicomAccept(listener, scp.net) == DICOM_ERROR_SYSTEM && errno == EMFILE);
    const unsigned long refused = faults.refused;
    REQUIRE(L_DicomWait(listener, 1000) == DICOM_ERROR_TIMEOUT);
    REQUIRE(scu.failed && waiting == 0);
    REQUIRE(faults.refused - refused > 2 && faults.refused - refused < 30);
}

static void take_callers(void)
{
    for (int i = 0; i < CALLERS; i++) {
        while (waiting == 0) {
            REQUIRE(L_DicomWait(listener, TURN) == DICOM_SUCCESS);
        }
        HDICOMNET net = L_DicomCreateNet(NULL, DICOM_SECURE_NONE);
        REQUIRE(net != NULL && L_DicomAccept(listener, net) == DICOM_SUCCESS);
        L_DicomFreeNet(net);
        waiting--;
    }
}

static void run_out_of_descriptors(void)
{
    int callers[CALLERS];
    const unsigned descriptors = open_descriptors();
    snprintf(where, sizeof where, "descriptors run out");
    faults.quantum = SOON;
    faults.refused = 0;
    forget(&scu, "SCU");
    forget(&scp, "SCP");
    REQUIRE(listen_somewhere());
    call_without_a_word(callers);
    const struct rlimit before = take_descriptors();
    be_without_descriptors();
    REQUIRE(setrlimit(RLIMIT_NOFILE, &before) == 0);
    faults.quantum = SURE;
    take_callers();
    go_through(STORE);
    judge();
    REQUIRE(succeeded());
    for (int i = 0; i < CALLERS; i++) {
        close(callers[i]);
    }
    shut_down(1, descriptors);
    printf("%s: %lu injections\n", where, faults.refused);
}

int main(int count, char **names)
{
    for (size_t i = 0; i < sizeof pattern; i++) {
        pattern[i] = (L_UCHAR)(i * 7 + i / 251);
    }
    faults.now = 1000;
    signal(SIGALRM, stuck);
    for (size_t i = 0; i < sizeof sweeps / sizeof *sweeps; i++) {
        if (count < 2 || strstr(sweeps[i].name, names[1]) != NULL) {
            run_sweep(&sweeps[i]);
        }
    }
    run_out_of_descriptors();
    return 0;
}
