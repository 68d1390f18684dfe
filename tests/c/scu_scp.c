/* SPDX-License-Identifier: MIT */
/* An SCU and an SCP in one thread: the 16 rejections over TCP, then accept, release and abort.
 *
 * Each end records its callbacks, a letter for each: (c)onnect, (s)end, (r)eceive,
 * re(q)uest, (a)ccept, re(j)ect, re(l)ease request, release res(p)onse, a(b)ort, close (x). */
#define _POSIX_C_SOURCE 200809L
#include "ltdic.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition) check(condition, #condition, __LINE__)

enum { PATIENCE = 10000, TRIPLES = 1 << 24 };

enum plan { REJECT, SCU_RELEASES, SCP_RELEASES, SCU_ABORTS, SCP_ABORTS };

typedef struct end {
    HDICOMNET net;
    char log[32];
    L_UCHAR pdu[LTDIC_FIXED_PDU_SIZE]; /* the last PDU received, if it had this size */
    L_UCHAR codes[3];                  /* of the reject or, from [1], of the abort */
    L_INT error;                       /* of the close */
    int closed;
} end;

/* Source and reason, PS3.8 table 9-21. */
static const L_UCHAR pairs[8][2] = {{1, 1}, {1, 2}, {1, 3}, {1, 7}, {2, 1}, {2, 2}, {3, 1}, {3, 2}};

static HDICOMNET listener;
static end scu, scp;
static enum plan plan;
static L_UCHAR triple[3];
static int all_tried;

static void check(int good, const char *condition, int line)
{
    if (!good) {
        fprintf(stderr, "line %d: %s; SCU %s, SCP %s\n", line, condition, scu.log, scp.log);
        exit(1);
    }
}

static void note(L_VOID *UserData, char letter)
{
    end *e = (end *)UserData;
    const size_t length = strlen(e->log);
    CHECK(length + 1 < sizeof e->log);
    e->log[length] = letter;
}

static int is_defined(int result, int source, int reason)
{
    for (int i = 0; i < 8 && (result == 1 || result == 2); i++) {
        if (pairs[i][0] == source && pairs[i][1] == reason) {
            return 1;
        }
    }
    return 0;
}

/* Count the triples that are refused as undefined; defined ones are tried only while idle, when
 * they fail too. */
static int count_refused(HDICOMNET net, int idle)
{
    int refused = 0;
    for (int i = 0; i < TRIPLES; i++) {
        const L_UCHAR result = (L_UCHAR)(i >> 16), source = (L_UCHAR)(i >> 8), reason = (L_UCHAR)i;
        if (!is_defined(result, source, reason)) {
            refused +=
                L_DicomSendAssociateReject(net, result, source, reason) == DICOM_ERROR_PARAMETER;
        } else if (idle) {
            CHECK(L_DicomSendAssociateReject(net, result, source, reason) == DICOM_ERROR_STATE);
        }
    }
    return refused;
}

static void accept_association(HDICOMNET net)
{
    HDICOMPDU accept = L_DicomCreateAssociate(FALSE);
    CHECK(accept != NULL);
    CHECK(L_DicomDefaultAssociate(accept) == DICOM_SUCCESS);
    CHECK(L_DicomAddPresentation(accept, 1, PDU_ACCEPT_RESULT_SUCCESS, NULL) == DICOM_SUCCESS);
    CHECK(L_DicomAddTransfer(accept, 1, "1.2.840.10008.1.2") == DICOM_SUCCESS);
    CHECK(L_DicomSendAssociateAccept(net, accept) == DICOM_SUCCESS);
    L_DicomFreeAssociate(accept);
    CHECK(L_DicomIsAssociated(net));
}

L_VOID pEXT_CALLBACK OnConnect(HDICOMNET hNet, L_INT nError, L_VOID *UserData)
{
    note(UserData, 'c');
    CHECK(nError == DICOM_SUCCESS && L_DicomIsConnected(hNet));
}

L_VOID pEXT_CALLBACK OnClose(HDICOMNET hNet, L_INT nError, L_VOID *UserData)
{
    end *e = (end *)UserData;
    note(UserData, 'x');
    CHECK(hNet == e->net && !L_DicomIsConnected(hNet));
    e->error = nError;
    e->closed = 1;
    if (e == &scp) {
        L_DicomFreeNet(hNet); /* inside its own callback */
    }
}

L_VOID pEXT_CALLBACK OnReceive(HDICOMNET hNet, L_INT nError, L_UCHAR nType, L_UCHAR *pBuffer,
                               L_UINT32 nBytes, L_VOID *UserData)
{
    end *e = (end *)UserData;
    note(UserData, 'r');
    CHECK(hNet == e->net && nError == DICOM_SUCCESS && nType == pBuffer[0]);
    if (nBytes == sizeof e->pdu) {
        memcpy(e->pdu, pBuffer, sizeof e->pdu);
    }
}

L_VOID pEXT_CALLBACK OnSend(HDICOMNET hNet, L_INT nError, L_UCHAR nType, L_UINT32 nBytes,
                            L_VOID *UserData)
{
    end *e = (end *)UserData;
    note(UserData, 's');
    CHECK(hNet == e->net && nError == DICOM_SUCCESS && nType != PDU_UNKNOWN && nBytes >= 10);
}

L_VOID pEXT_CALLBACK OnRequest(HDICOMNET hNet, HDICOMPDU hPDU, L_VOID *UserData)
{
    note(UserData, 'q');
    CHECK(strcmp(L_DicomGetAbstract(hPDU, 1), "1.2.840.10008.1.1") == 0);
    if (plan == REJECT) {
        if (!all_tried) { /* a reject is legal here, but only a defined one is sent */
            all_tried = 1;
            CHECK(count_refused(hNet, 0) == TRIPLES - 16);
        }
        CHECK(L_DicomSendAssociateReject(hNet, triple[0], triple[1], triple[2]) == DICOM_SUCCESS);
        CHECK(L_DicomSendAssociateReject(hNet, 1, 1, 1) ==
              DICOM_ERROR_STATE); /* a second one is refused */
    } else if (plan == SCP_ABORTS) {
        CHECK(L_DicomSendAbort(hNet, PDU_ABORT_SOURCE_PROVIDER, PDU_ABORT_REASON_INVALID_PARAM) ==
              DICOM_SUCCESS);
    } else {
        accept_association(hNet);
        CHECK(plan != SCP_RELEASES || L_DicomSendReleaseRequest(hNet) == DICOM_SUCCESS);
    }
}

L_VOID pEXT_CALLBACK OnAssociateAccept(HDICOMNET hNet, HDICOMPDU hPDU, L_VOID *UserData)
{
    note(UserData, 'a');
    CHECK(L_DicomIsAssociated(hNet));
    CHECK(L_DicomGetResult(hPDU, 1) == PDU_ACCEPT_RESULT_SUCCESS);
    CHECK(plan != SCU_RELEASES || L_DicomSendReleaseRequest(hNet) == DICOM_SUCCESS);
    CHECK(plan != SCU_ABORTS || L_DicomSendAbort(hNet, PDU_ABORT_SOURCE_USER, 0) == DICOM_SUCCESS);
}

L_VOID pEXT_CALLBACK OnReject(HDICOMNET hNet, L_UCHAR nResult, L_UCHAR nSource, L_UCHAR nReason,
                              L_VOID *UserData)
{
    end *e = (end *)UserData;
    note(UserData, 'j');
    CHECK(hNet == e->net && !L_DicomIsAssociated(hNet));
    e->codes[0] = nResult;
    e->codes[1] = nSource;
    e->codes[2] = nReason;
}

L_VOID pEXT_CALLBACK OnReleaseRequest(HDICOMNET hNet, L_VOID *UserData)
{
    note(UserData, 'l');
    CHECK(L_DicomSendReleaseResponse(hNet) == DICOM_SUCCESS);
}

L_VOID pEXT_CALLBACK OnReleaseResponse(HDICOMNET hNet, L_VOID *UserData)
{
    note(UserData, 'p');
    CHECK(!L_DicomIsAssociated(hNet));
}

L_VOID pEXT_CALLBACK OnAbort(HDICOMNET hNet, L_UCHAR nSource, L_UCHAR nReason, L_VOID *UserData)
{
    end *e = (end *)UserData;
    note(UserData, 'b');
    CHECK(hNet == e->net);
    e->codes[1] = nSource;
    e->codes[2] = nReason;
}

static void set_callbacks(end *e);

L_VOID pEXT_CALLBACK OnAccept(HDICOMNET hNet, L_INT nError, L_VOID *UserData)
{
    CHECK(hNet == listener && nError == DICOM_SUCCESS && UserData == NULL && scp.net == NULL);
    scp.net = L_DicomCreateNet(NULL, DICOM_SECURE_NONE);
    CHECK(scp.net != NULL);
    set_callbacks(&scp);
    CHECK(L_DicomAccept(hNet, scp.net) == DICOM_SUCCESS);
}

static void set_callbacks(end *e)
{
    static DICOMNETCALLBACK callbacks;
    callbacks.uStructSize = sizeof callbacks;
    callbacks.pfnAccept = OnAccept;
    callbacks.pfnConnect = OnConnect;
    callbacks.pfnClose = OnClose;
    callbacks.pfnReceive = OnReceive;
    callbacks.pfnSend = OnSend;
    callbacks.pfnReceiveAssociateRequest = OnRequest;
    callbacks.pfnReceiveAssociateAccept = OnAssociateAccept;
    callbacks.pfnReceiveAssociateReject = OnReject;
    callbacks.pfnReceiveReleaseRequest = OnReleaseRequest;
    callbacks.pfnReceiveReleaseResponse = OnReleaseResponse;
    callbacks.pfnReceiveAbort = OnAbort;
    CHECK(L_DicomSetCallback(e != NULL ? e->net : listener, &callbacks, e) == DICOM_SUCCESS);
}

/* Run one association from its connection to the close of both ends. */
static void associate(enum plan what, L_UINT port)
{
    plan = what;
    memset(&scu, 0, sizeof scu);
    memset(&scp, 0, sizeof scp);
    HDICOMPDU request = L_DicomCreateAssociate(TRUE);
    CHECK(L_DicomDefaultAssociate(request) == DICOM_SUCCESS);
    scu.net = L_DicomCreateNet(NULL, DICOM_SECURE_NONE);
    CHECK(scu.net != NULL);
    set_callbacks(&scu);
    CHECK(L_DicomConnect(scu.net, NULL, 0, "127.0.0.1", port) == DICOM_SUCCESS);
    CHECK(L_DicomSendAssociateRequest(scu.net, request) == DICOM_SUCCESS);
    L_DicomFreeAssociate(request);
    while (!scu.closed || !scp.closed) {
        CHECK(L_DicomWait(scu.closed ? listener : scu.net, PATIENCE) == DICOM_SUCCESS);
    }
    L_DicomBreathe(); /* no callback may come after the close */
    L_DicomFreeNet(scu.net);
}

static void expect(const char *scu_log, const char *scp_log, L_INT scu_error, L_INT scp_error)
{
    CHECK(strcmp(scu.log, scu_log) == 0);
    CHECK(strcmp(scp.log, scp_log) == 0);
    CHECK(scu.error == scu_error);
    CHECK(scp.error == scp_error);
}

static int reject(L_UCHAR result, const L_UCHAR *pair, L_UINT port)
{
    const L_UCHAR pdu[] = {3, 0, 0, 0, 0, 4, 0, result, pair[0], pair[1]};
    memcpy(triple, pdu + 7, sizeof triple);
    associate(REJECT, port);
    expect("csrjx", "rqsx", DICOM_SUCCESS, DICOM_SUCCESS);
    CHECK(memcmp(scu.codes, triple, sizeof triple) == 0);
    CHECK(memcmp(scu.pdu, pdu, sizeof pdu) == 0);
    return 1;
}

static int open_descriptors(void)
{
    int count = 0;
    DIR *folder = opendir("/proc/self/fd");
    while (folder != NULL && readdir(folder) != NULL) {
        count++;
    }
    if (folder != NULL) {
        closedir(folder);
    }
    return count;
}

static L_UINT listen_anywhere(void)
{
    char address[46];
    L_UINT port = 0;
    listener = L_DicomCreateNet(NULL, DICOM_SECURE_NONE);
    CHECK(listener != NULL);
    set_callbacks(NULL);
    CHECK(L_DicomListen(listener, "127.0.0.1", 0, 1) == DICOM_SUCCESS);
    CHECK(L_DicomGetHostInfo(listener, address, sizeof address, &port) == DICOM_SUCCESS);
    CHECK(strcmp(address, "127.0.0.1") == 0 && port != 0);
    return port;
}

static void release_and_abort(L_UINT port)
{
    associate(SCU_RELEASES, port);
    expect("csrasrpx", "rqsrlsx", DICOM_SUCCESS, DICOM_SUCCESS);
    associate(SCP_RELEASES, port);
    expect("csrarlsx", "rqssrpx", DICOM_SUCCESS, DICOM_SUCCESS);
    associate(SCU_ABORTS, port);
    expect("csrasx", "rqsrbx", DICOM_SUCCESS, DICOM_ERROR_ABORTED);
    CHECK(scp.codes[1] == PDU_ABORT_SOURCE_USER && scp.codes[2] == 0);
    associate(SCP_ABORTS, port);
    expect("csrbx", "rqsx", DICOM_ERROR_ABORTED, DICOM_SUCCESS);
    CHECK(scu.codes[1] == PDU_ABORT_SOURCE_PROVIDER);
    CHECK(scu.codes[2] == PDU_ABORT_REASON_INVALID_PARAM);
}

int main(void)
{
    const int descriptors = open_descriptors();
    int rejected = 0;
    CHECK(L_DicomStartUp() == DICOM_SUCCESS);
    const L_UINT port = listen_anywhere();
    CHECK(count_refused(listener, 1) == TRIPLES - 16);
    for (int i = 0; i < 16; i++) {
        rejected += reject((L_UCHAR)(i / 8 + 1), pairs[i % 8], port);
    }
    release_and_abort(port);
    L_DicomFreeNet(listener);
    L_DicomShutDown();
    CHECK(open_descriptors() == descriptors);
    printf("%d of 16\n", rejected);
    return rejected == 16 ? 0 : 1;
}
