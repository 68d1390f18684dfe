/* SPDX-License-Identifier: MIT */
/* echo_scu HOST PORT [CALLED [CALLING]]   Sends a C-ECHO to a DICOM node.
 * Exit code 0: it answered; 1: it did not, and one line says why; 2: usage. */
#include <ltdic.h>

#include <stdio.h>
#include <stdlib.h>

enum { PATIENCE = 10000 }; /* ms to wait for each answer of the peer */

static int answered, over;

static L_VOID pEXT_CALLBACK OnConnect(HDICOMNET hNet, L_INT nError, L_VOID *UserData)
{
    HDICOMPDU request = UserData;
    if (nError == DICOM_SUCCESS) {
        nError = L_DicomSendAssociateRequest(hNet, request);
    }
    if (nError != DICOM_SUCCESS) {
        printf("not connected: %s\n", L_DicomErrorText(nError));
        over = 1;
    }
}

static L_VOID pEXT_CALLBACK OnAccept(HDICOMNET hNet, HDICOMPDU hPDU, L_VOID *UserData)
{
    const L_UCHAR id = L_DicomFindAbstract(hPDU, "1.2.840.10008.1.1");
    (void)UserData;
    if (L_DicomGetResult(hPDU, id) == PDU_ACCEPT_RESULT_SUCCESS) {
        L_DicomSendCEchoRequest(hNet, id, 1, NULL);
    } else {
        printf("Verification was not accepted\n");
        L_DicomSendReleaseRequest(hNet);
    }
}

static L_VOID pEXT_CALLBACK OnReject(HDICOMNET hNet, L_UCHAR nResult, L_UCHAR nSource,
                                     L_UCHAR nReason, L_VOID *UserData)
{
    (void)hNet, (void)UserData;
    printf("rejected: result %u, source %u, reason %u\n", nResult, nSource, nReason);
}

static L_VOID pEXT_CALLBACK OnEcho(HDICOMNET hNet, L_UCHAR nPresentationID, L_UINT16 nMessageID,
                                   L_TCHAR *pszClass, L_UINT16 nStatus, L_VOID *UserData)
{
    (void)nPresentationID, (void)nMessageID, (void)pszClass, (void)UserData;
    printf("echo: status %04X\n", nStatus);
    answered = nStatus == 0;
    L_DicomSendReleaseRequest(hNet);
}

static L_VOID pEXT_CALLBACK OnAbort(HDICOMNET hNet, L_UCHAR nSource, L_UCHAR nReason,
                                    L_VOID *UserData)
{
    (void)hNet, (void)UserData;
    printf("aborted: source %u, reason %u\n", nSource, nReason);
}

static L_VOID pEXT_CALLBACK OnClose(HDICOMNET hNet, L_INT nError, L_VOID *UserData)
{
    (void)hNet, (void)UserData;
    if (nError != DICOM_SUCCESS) {
        printf("closed: %s\n", L_DicomErrorText(nError));
    }
    over = 1;
}

int main(int argc, char **argv)
{
    const DICOMNETCALLBACK callbacks = {.uStructSize = sizeof callbacks,
                                        .pfnConnect = OnConnect,
                                        .pfnClose = OnClose,
                                        .pfnReceiveAssociateAccept = OnAccept,
                                        .pfnReceiveAssociateReject = OnReject,
                                        .pfnReceiveAbort = OnAbort,
                                        .pfnReceiveCEchoResponse = OnEcho};
    HDICOMPDU request = L_DicomCreateAssociate(TRUE);
    HDICOMNET net = L_DicomCreateNet(NULL, DICOM_SECURE_NONE);
    if (argc < 3 || (argc > 3 && L_DicomSetCalled(request, argv[3]) != DICOM_SUCCESS) ||
        (argc > 4 && L_DicomSetCalling(request, argv[4]) != DICOM_SUCCESS)) {
        fprintf(stderr, "usage: echo_scu HOST PORT [CALLED [CALLING]]\n");
        return 2;
    }
    L_DicomDefaultAssociate(request); /* adds a Verification context and all that is not set */
    L_DicomSetCallback(net, &callbacks, request);
    L_DicomSetTimeouts(net, 1000, PATIENCE, PATIENCE);
    const L_UINT port = (L_UINT)strtoul(argv[2], NULL, 10);
    const L_INT code = L_DicomConnect(net, NULL, 0, argv[1], port);
    if (code != DICOM_SUCCESS) {
        printf("not connected: %s\n", L_DicomErrorText(code));
        over = 1;
    }
    while (!over) {
        L_DicomWait(net, PATIENCE);
    }
    L_DicomFreeNet(net);
    L_DicomFreeAssociate(request);
    return answered ? 0 : 1;
}
