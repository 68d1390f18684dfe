/* SPDX-License-Identifier: MIT */
/* Which received bytes are acknowledged at once; setsockopt and the clock are wrapped. */
#include "ltdic.h"

#include <assert.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <time.h>

int __real_setsockopt(int fd, int level, int name, const void *value, socklen_t size);
int __wrap_setsockopt(int fd, int level, int name, const void *value, socklen_t size);
int __wrap_clock_gettime(clockid_t clock, struct timespec *t);

enum { FIRST_ACKS = 8, PARTS = 20, STORAGE = 3, COMMAND = 1, LAST = 2 };

static int acknowledged; /* calls */
static long now = 1000;  /* ms */

int __wrap_setsockopt(int fd, int level, int name, const void *value, socklen_t size)
{
    acknowledged += level == IPPROTO_TCP && name == TCP_QUICKACK;
    return __real_setsockopt(fd, level, name, value, size);
}

int __wrap_clock_gettime(clockid_t clock, struct timespec *t)
{
    (void)clock;
    t->tv_sec = now / 1000;
    t->tv_nsec = now % 1000 * 1000000;
    return 0;
}

static HDICOMNET acceptor;
static unsigned received; /* bytes of data */
static int echoed;

static L_VOID pEXT_CALLBACK OnAccept(HDICOMNET hNet, L_INT nError, L_VOID *UserData)
{
    (void)nError, (void)UserData;
    assert(L_DicomAccept(hNet, acceptor) == DICOM_SUCCESS);
}

static L_VOID pEXT_CALLBACK OnRequest(HDICOMNET hNet, HDICOMPDU hPDU, L_VOID *UserData)
{
    (void)hPDU, (void)UserData;
    HDICOMPDU accept = L_DicomCreateAssociate(FALSE);
    for (L_UCHAR id = 1; id <= STORAGE; id += 2) {
        assert(L_DicomAddPresentation(accept, id, 0, NULL) == DICOM_SUCCESS);
        assert(L_DicomAddTransfer(accept, id, "1.2.840.10008.1.2") == DICOM_SUCCESS);
    }
    assert(L_DicomDefaultAssociate(accept) == DICOM_SUCCESS);
    assert(L_DicomSendAssociateAccept(hNet, accept) == DICOM_SUCCESS);
    L_DicomFreeAssociate(accept);
}

static L_VOID pEXT_CALLBACK OnEcho(HDICOMNET hNet, L_UCHAR nID, L_UINT16 nMessageID,
                                   L_TCHAR *pszClass, L_VOID *UserData)
{
    (void)UserData;
    assert(L_DicomSendCEchoResponse(hNet, nID, nMessageID, pszClass, 0) == DICOM_SUCCESS);
}

static L_VOID pEXT_CALLBACK OnEchoed(HDICOMNET hNet, L_UCHAR nID, L_UINT16 nMessageID,
                                     L_TCHAR *pszClass, L_UINT16 nStatus, L_VOID *UserData)
{
    (void)hNet, (void)nID, (void)nMessageID, (void)pszClass, (void)nStatus, (void)UserData;
    echoed++;
}

static L_VOID pEXT_CALLBACK OnData(HDICOMNET hNet, L_UCHAR nID, L_UCHAR nControl,
                                   const L_UCHAR *pData, L_UINT32 nBytes, L_VOID *UserData)
{
    (void)hNet, (void)nControl, (void)pData, (void)UserData;
    received += nID == STORAGE ? nBytes : 0;
}

static HDICOMNET net_with(DICOMNETCALLBACK callbacks)
{
    HDICOMNET hNet = L_DicomCreateNet(NULL, DICOM_SECURE_NONE);
    callbacks.uStructSize = sizeof callbacks;
    assert(L_DicomSetCallback(hNet, &callbacks, NULL) == DICOM_SUCCESS);
    return hNet;
}

static HDICOMNET associate(HDICOMNET listener)
{
    L_TCHAR host[64];
    L_UINT port;
    HDICOMNET requestor = net_with((DICOMNETCALLBACK){.pfnReceiveCEchoResponse = OnEchoed});
    HDICOMPDU request = L_DicomCreateAssociate(TRUE);
    assert(L_DicomAddPresentation(request, 1, 0, "1.2.840.10008.1.1") == DICOM_SUCCESS);
    assert(L_DicomAddPresentation(request, STORAGE, 0, "1.2.3") == DICOM_SUCCESS);
    assert(L_DicomAddTransfer(request, 1, "1.2.840.10008.1.2") == DICOM_SUCCESS);
    assert(L_DicomAddTransfer(request, STORAGE, "1.2.840.10008.1.2") == DICOM_SUCCESS);
    assert(L_DicomDefaultAssociate(request) == DICOM_SUCCESS);
    assert(L_DicomGetHostInfo(listener, host, sizeof host, &port) == DICOM_SUCCESS);
    assert(L_DicomConnect(requestor, NULL, 0, host, port) == DICOM_SUCCESS);
    assert(L_DicomSendAssociateRequest(requestor, request) == DICOM_SUCCESS);
    L_DicomFreeAssociate(request);
    while (!L_DicomIsAssociated(requestor)) {
        L_DicomBreathe();
    }
    return requestor;
}

/* Send a part of a command until all of it has arrived; return the number of quick
 * acknowledgements. */
static int send_part(HDICOMNET requestor, L_UCHAR control)
{
    const L_UCHAR part[] = {0, 0};
    const unsigned before = received;
    acknowledged = 0;
    assert(L_DicomSendData(requestor, STORAGE, control, part, sizeof part) == DICOM_SUCCESS);
    while (received == before) {
        L_DicomBreathe();
    }
    L_DicomBreathe();
    return acknowledged;
}

/* Send echoes, which are answered at once. No further message part follows a response. */
static void echo(HDICOMNET requestor, int times)
{
    for (int i = 0; i < times; i++) {
        const int before = echoed;
        assert(L_DicomSendCEchoRequest(requestor, 1, 1, NULL) == DICOM_SUCCESS);
        while (echoed == before) {
            L_DicomBreathe();
        }
    }
}

int main(void)
{
    const DICOMNETCALLBACK accepted = {.pfnReceiveAssociateRequest = OnRequest,
                                       .pfnReceiveCEchoRequest = OnEcho,
                                       .pfnReceiveData = OnData};
    HDICOMNET listener = net_with((DICOMNETCALLBACK){.pfnAccept = OnAccept});
    acceptor = net_with(accepted);
    assert(L_DicomListen(listener, "127.0.0.1", 0, 1) == DICOM_SUCCESS);
    HDICOMNET requestor = associate(listener);

    int total = 0;
    for (int i = 0; i < PARTS; i++) {
        total += send_part(requestor, COMMAND);
    }
    assert(total == FIRST_ACKS); /* the peer was not seen to wait */
    now += 40;
    assert(send_part(requestor, COMMAND) == 1); /* now the peer was seen to wait */
    for (int i = 0; i < PARTS; i++) {
        assert(send_part(requestor, COMMAND) == 1);
    }
    assert(send_part(requestor, COMMAND | LAST) == 1); /* a data set may follow */
    assert(send_part(requestor, LAST) == 0);           /* the end of a message */

    acknowledged = 0;
    echo(requestor, PARTS);
    assert(acknowledged <= FIRST_ACKS); /* of the requestor: a data set may follow a response */
    L_DicomFreeNet(requestor);
    L_DicomFreeNet(acceptor);
    L_DicomFreeNet(listener);
    return 0;
}
