/* SPDX-License-Identifier: MIT */
/* admitting_scp PORT CALLING...   Serves Verification to peers with one of these calling AE titles,
 * rejects others (1/1/3: calling AE title not recognised), and prints a line for each. PORT 0 takes
 * a free port. SIGINT and SIGTERM end it. */
#include <ltdic.h>

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static volatile sig_atomic_t stopped;
static int waiting;   /* a pending connection could not be accepted: no memory */
static char **titles; /* admitted calling AE titles; NULL after the last */

static void stop(int number)
{
    (void)number;
    stopped = 1;
}

static int is_admitted(const char *title)
{
    for (char **t = titles; *t != NULL; t++) {
        if (strcmp(*t, title) == 0) {
            return 1;
        }
    }
    return 0;
}

/* Accepts each Verification context with the first transfer syntax proposed, and refuses others. */
static HDICOMPDU answer_to(HDICOMPDU request)
{
    HDICOMPDU answer = L_DicomCreateAssociate(FALSE);
    L_DicomDefaultAssociate(answer);
    for (L_INT i = 0; i < L_DicomGetPresentationCount(request); i++) {
        const L_UCHAR id = L_DicomGetPresentation(request, i);
        if (strcmp(L_DicomGetAbstract(request, id), "1.2.840.10008.1.1") == 0) {
            L_DicomAddPresentation(answer, id, PDU_ACCEPT_RESULT_SUCCESS, NULL);
            L_DicomAddTransfer(answer, id, L_DicomGetTransfer(request, id, 0));
        } else {
            L_DicomAddPresentation(answer, id, PDU_ACCEPT_RESULT_ABSTRACT_SYNTAX, NULL);
        }
    }
    return answer;
}

static L_VOID pEXT_CALLBACK OnRequest(HDICOMNET hNet, HDICOMPDU hPDU, L_VOID *UserData)
{
    const char *calling = L_DicomGetCalling(hPDU);
    const int admitted = is_admitted(calling);
    (void)UserData;
    printf("%s: %s\n", calling, admitted ? "admitted" : "rejected");
    fflush(stdout);
    if (!admitted) {
        L_DicomSendAssociateReject(hNet, PDU_REJECT_RESULT_PERMANENT, PDU_REJECT_SOURCE_USER,
                                   PDU_REJECT_REASON_CALLING);
        return;
    }
    HDICOMPDU answer = answer_to(hPDU);
    if (L_DicomSendAssociateAccept(hNet, answer) != DICOM_SUCCESS) {
        L_DicomSendAbort(hNet, PDU_ABORT_SOURCE_USER, PDU_ABORT_REASON_UNKNOWN);
    }
    L_DicomFreeAssociate(answer);
}

static L_VOID pEXT_CALLBACK OnEcho(HDICOMNET hNet, L_UCHAR nPresentationID, L_UINT16 nMessageID,
                                   L_TCHAR *pszClass, L_VOID *UserData)
{
    (void)UserData;
    L_DicomSendCEchoResponse(hNet, nPresentationID, nMessageID, pszClass, 0);
}

static L_VOID pEXT_CALLBACK OnRelease(HDICOMNET hNet, L_VOID *UserData)
{
    (void)UserData;
    L_DicomSendReleaseResponse(hNet);
}

static L_VOID pEXT_CALLBACK OnClose(HDICOMNET hNet, L_INT nError, L_VOID *UserData)
{
    (void)UserData;
    if (nError != DICOM_SUCCESS) {
        printf("closed: %s\n", L_DicomErrorText(nError));
        fflush(stdout);
    }
    L_DicomFreeNet(hNet);
}

/* Accepts a connection. It does not wait for the request, so a slow peer does not delay others. */
static L_VOID pEXT_CALLBACK OnPending(HDICOMNET hNet, L_INT nError, L_VOID *UserData)
{
    const DICOMNETCALLBACK callbacks = {.uStructSize = sizeof callbacks,
                                        .pfnClose = OnClose,
                                        .pfnReceiveAssociateRequest = OnRequest,
                                        .pfnReceiveReleaseRequest = OnRelease,
                                        .pfnReceiveCEchoRequest = OnEcho};
    HDICOMNET client = L_DicomCreateNet(NULL, DICOM_SECURE_NONE);
    (void)nError, (void)UserData;
    L_DicomSetCallback(client, &callbacks, NULL);
    L_DicomSetTimeouts(client, 10000, 10000, 60000);
    waiting = L_DicomAccept(hNet, client) != DICOM_SUCCESS;
    if (waiting) {
        L_DicomFreeNet(client);
    }
}

int main(int argc, char **argv)
{
    const DICOMNETCALLBACK callbacks = {.uStructSize = sizeof callbacks, .pfnAccept = OnPending};
    L_UINT port = argc < 3 ? 0 : (L_UINT)strtoul(argv[1], NULL, 10);
    char address[46];
    if (argc < 3) {
        fprintf(stderr, "usage: admitting_scp PORT CALLING...\n");
        return 2;
    }
    titles = argv + 2;
    signal(SIGINT, stop);
    signal(SIGTERM, stop);
    L_DicomStartUp();
    HDICOMNET listener = L_DicomCreateNet(NULL, DICOM_SECURE_NONE);
    L_DicomSetCallback(listener, &callbacks, NULL);
    const L_INT code = L_DicomListenExt(listener, "*", port, 0, DICOM_IPTYPE_IPV4_OR_IPV6);
    if (code != DICOM_SUCCESS) {
        printf("not listening: %s\n", L_DicomErrorText(code));
        return 1;
    }
    L_DicomGetHostInfo(listener, address, sizeof address, &port);
    printf("listening on port %u\n", port);
    fflush(stdout);
    while (!stopped) {
        L_DicomWait(listener, 1000); /* a signal before this call is noticed after a second */
        if (waiting) {               /* OnPending is called once for each: try this one again */
            OnPending(listener, DICOM_SUCCESS, NULL);
        }
    }
    L_DicomShutDown(); /* frees the handles that are left */
    return 0;
}
