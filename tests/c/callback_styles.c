/* SPDX-License-Identifier: MIT */
/* Every callback with the declaration of the documentation, in C and in C++, without a cast.
 *
 * callback_styles HOST PORT [1|2|3]: send an A-ASSOCIATE-RQ, with one of the three styles for the
 * callback of the rejection. Exit status 0 if it was rejected and then closed. */
#include "ltdic.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { SECONDS = 15 };

static struct state {
    int rejected, closed, failed;
} state;

static void rejected(L_UCHAR nResult, L_UCHAR nSource, L_UCHAR nReason, L_VOID *UserData)
{
    printf("%d %d %d\n", nResult, nSource, nReason);
    state.failed |= state.rejected || state.closed || UserData != &state;
    state.rejected = 1;
}

L_VOID pEXT_CALLBACK OnReject(HDICOMNET hNet, L_UCHAR nResult, L_UCHAR nSource, L_UCHAR nReason,
                              L_VOID *UserData)
{
    (void)hNet;
    rejected(nResult, nSource, nReason, UserData);
}

L_VOID EXT_CALLBACK OnReject2(HDICOMNET hNet, L_UCHAR nResult, L_UCHAR nSource, L_UCHAR nReason,
                              L_VOID *UserData)
{
    (void)hNet;
    rejected(nResult, nSource, nReason, UserData);
}

L_VOID OnReject3(HDICOMNET hNet, L_UCHAR nResult, L_UCHAR nSource, L_UCHAR nReason,
                 L_VOID *UserData)
{
    (void)hNet;
    rejected(nResult, nSource, nReason, UserData);
}

L_VOID pEXT_CALLBACK OnConnect(HDICOMNET hNet, L_INT nError, L_VOID *UserData)
{
    (void)hNet;
    state.failed |= nError != DICOM_SUCCESS || UserData != &state;
}

L_VOID pEXT_CALLBACK OnClose(HDICOMNET hNet, L_INT nError, L_VOID *UserData)
{
    (void)hNet;
    printf("closed\n");
    state.failed |= nError != DICOM_SUCCESS || UserData != &state;
    state.closed = 1;
}

L_VOID pEXT_CALLBACK OnReceive(HDICOMNET hNet, L_INT nError, L_UCHAR nType, L_UCHAR *pBuffer,
                               L_UINT32 nBytes, L_VOID *UserData)
{
    (void)hNet;
    state.failed |= nError != DICOM_SUCCESS || nBytes < 1 || UserData != &state;
    state.failed |= nType != pBuffer[0];
}

L_VOID pEXT_CALLBACK OnSend(HDICOMNET hNet, L_INT nError, L_UCHAR nType, L_UINT32 nBytes,
                            L_VOID *UserData)
{
    (void)hNet;
    state.failed |= nError != DICOM_SUCCESS || nType != PDU_ASSOCIATE_REQUEST;
    state.failed |= nBytes < 74 || UserData != &state;
}

/* A rejected requestor gets none of these callbacks. */

L_VOID pEXT_CALLBACK OnAccept(HDICOMNET hNet, L_INT nError, L_VOID *UserData)
{
    (void)hNet, (void)nError, (void)UserData;
    state.failed = 1;
}

L_VOID pEXT_CALLBACK OnAssociateRequest(HDICOMNET hNet, HDICOMPDU hPDU, L_VOID *UserData)
{
    (void)hNet, (void)hPDU, (void)UserData;
    state.failed = 1;
}

L_VOID pEXT_CALLBACK OnAssociateAccept(HDICOMNET hNet, HDICOMPDU hPDU, L_VOID *UserData)
{
    (void)hNet, (void)hPDU, (void)UserData;
    state.failed = 1;
}

L_VOID pEXT_CALLBACK OnData(HDICOMNET hNet, L_UCHAR nPresentationID, L_UCHAR nControl,
                            const L_UCHAR *pData, L_UINT32 nBytes, L_VOID *UserData)
{
    (void)hNet, (void)nPresentationID, (void)nControl, (void)pData, (void)nBytes, (void)UserData;
    state.failed = 1;
}

L_VOID pEXT_CALLBACK OnReleaseRequest(HDICOMNET hNet, L_VOID *UserData)
{
    (void)hNet, (void)UserData;
    state.failed = 1;
}

L_VOID pEXT_CALLBACK OnReleaseResponse(HDICOMNET hNet, L_VOID *UserData)
{
    (void)hNet, (void)UserData;
    state.failed = 1;
}

L_VOID pEXT_CALLBACK OnAbort(HDICOMNET hNet, L_UCHAR nSource, L_UCHAR nReason, L_VOID *UserData)
{
    (void)hNet, (void)nSource, (void)nReason, (void)UserData;
    state.failed = 1;
}

L_VOID pEXT_CALLBACK OnCEchoRequest(HDICOMNET hNet, L_UCHAR nPresentationID, L_UINT16 nMessageID,
                                    L_TCHAR *pszClass, L_VOID *UserData)
{
    (void)hNet, (void)nPresentationID, (void)nMessageID, (void)pszClass, (void)UserData;
    state.failed = 1;
}

L_VOID pEXT_CALLBACK OnCEchoResponse(HDICOMNET hNet, L_UCHAR nPresentationID, L_UINT16 nMessageID,
                                     L_TCHAR *pszClass, L_UINT16 nStatus, L_VOID *UserData)
{
    (void)hNet, (void)nPresentationID, (void)nMessageID, (void)pszClass, (void)nStatus;
    (void)UserData;
    state.failed = 1;
}

static void set_callbacks(HDICOMNET net, char style)
{
    DICOMNETCALLBACK callbacks;
    callbacks.uStructSize = sizeof callbacks;
    callbacks.pfnAccept = OnAccept;
    callbacks.pfnConnect = OnConnect;
    callbacks.pfnClose = OnClose;
    callbacks.pfnReceive = OnReceive;
    callbacks.pfnSend = OnSend;
    callbacks.pfnReceiveAssociateRequest = OnAssociateRequest;
    callbacks.pfnReceiveAssociateAccept = OnAssociateAccept;
    callbacks.pfnReceiveAssociateReject = OnReject;
    callbacks.pfnReceiveData = OnData;
    callbacks.pfnReceiveReleaseRequest = OnReleaseRequest;
    callbacks.pfnReceiveReleaseResponse = OnReleaseResponse;
    callbacks.pfnReceiveAbort = OnAbort;
    callbacks.pfnReceiveCEchoRequest = OnCEchoRequest;
    callbacks.pfnReceiveCEchoResponse = OnCEchoResponse;
    if (style == '2') {
        callbacks.pfnReceiveAssociateReject = OnReject2;
    } else if (style == '3') {
        callbacks.pfnReceiveAssociateReject = OnReject3;
    }
    state.failed |= L_DicomSetCallback(net, &callbacks, &state);
}

int main(int argc, char **argv)
{
    if (argc < 3) {
        return 2;
    }
    const time_t end = time(NULL) + SECONDS;
    L_DicomStartUp();
    HDICOMNET net = L_DicomCreateNet(NULL, DICOM_SECURE_NONE);
    HDICOMPDU request = L_DicomCreateAssociate(TRUE);
    set_callbacks(net, argc > 3 ? argv[3][0] : '1');
    state.failed |= L_DicomDefaultAssociate(request);
    state.failed |= L_DicomConnect(net, NULL, 0, argv[1], (L_UINT)atoi(argv[2]));
    state.failed |= L_DicomSendAssociateRequest(net, request);
    while (!state.closed && !state.failed && time(NULL) < end) {
        L_DicomWait(net, 1000);
    }
    L_DicomFreeAssociate(request);
    L_DicomFreeNet(net);
    L_DicomShutDown();
    return state.rejected && state.closed && !state.failed ? 0 : 1;
}
