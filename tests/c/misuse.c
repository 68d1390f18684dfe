/* SPDX-License-Identifier: MIT */
/* Misuse of the L_Dicom face: a program uses handles of associate objects that were freed, are
 * invented, or belong to the library; it pumps in nested callbacks; its peer asks for an echo of a
 * class that is not a UID. A sanitizer checks all accesses. In one scene threads make, use and free
 * objects of their own.
 *
 * Without an argument all scenes run, otherwise the one with this number. */
#include "ltdic.h"

#undef NDEBUG
#include <assert.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define VERIFICATION "1.2.840.10008.1.1"
#define IMPLICIT "1.2.840.10008.1.2"

enum { PATIENCE = 10000, OBJECTS = 10000, ROUNDS = 3000, THREADS = 4, HELD = 16, NETS = 100 };

static HDICOMPDU new_object(L_BOOL request)
{
    HDICOMPDU pdu = L_DicomCreateAssociate(request);
    assert(pdu != NULL && L_DicomDefaultAssociate(pdu) == DICOM_SUCCESS);
    return pdu;
}

static HDICOMPDU new_answer(void)
{
    HDICOMPDU pdu = new_object(FALSE);
    assert(L_DicomAddPresentation(pdu, 1, PDU_ACCEPT_RESULT_SUCCESS, NULL) == DICOM_SUCCESS);
    assert(L_DicomAddTransfer(pdu, 1, IMPLICIT) == DICOM_SUCCESS);
    return pdu;
}

/* Make a handle of a number. */
static HDICOMPDU handle_of(uintptr_t number)
{
    return (HDICOMPDU)number;
}

/* ---- every accessor ---------------------------------------------------------------------- */

static void every_setter_refuses(HDICOMPDU pdu)
{
    static const L_UCHAR bytes[4] = {1, 2, 3, 4};
    const L_INT codes[] = {
        L_DicomResetAssociate(pdu, TRUE),
        L_DicomDefaultAssociate(pdu),
        L_DicomSetCalled(pdu, "CALLED"),
        L_DicomSetCalling(pdu, "CALLING"),
        L_DicomSetApplication(pdu, "1.2.3"),
        L_DicomSetMaxLength(pdu, 1),
        L_DicomSetImplementClass(pdu, "1.2.3"),
        L_DicomSetImplementVersion(pdu, "NAME"),
        L_DicomSetAsyncOperations(pdu, 2, 2),
        L_DicomSetRoleSelect(pdu, "1.2.3", TRUE, TRUE),
        L_DicomSetExtended(pdu, "1.2.3", bytes, sizeof bytes),
        L_DicomSetUserIdentity(pdu, PDU_IDENTITY_USERNAME, TRUE, bytes, sizeof bytes, NULL, 0),
        L_DicomAddPresentation(pdu, 1, 0, VERIFICATION),
        L_DicomDeletePresentation(pdu, 1),
        L_DicomSetResult(pdu, 1, 0),
        L_DicomAddTransfer(pdu, 1, IMPLICIT),
    };
    for (size_t i = 0; i < sizeof codes / sizeof *codes; i++) {
        assert(codes[i] == DICOM_ERROR_HANDLE);
    }
}

static void every_text_is_absent(HDICOMPDU pdu)
{
    const L_TCHAR *const texts[] = {
        L_DicomGetCalled(pdu),         L_DicomGetCalling(pdu),          L_DicomGetApplication(pdu),
        L_DicomGetImplementClass(pdu), L_DicomGetImplementVersion(pdu), L_DicomGetAbstract(pdu, 1),
        L_DicomGetTransfer(pdu, 1, 0),
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        assert(texts[i][0] == '\0');
    }
}

static void everything_else_is_absent(HDICOMPDU pdu)
{
    const L_UCHAR *first, *second;
    L_UINT first_size, second_size;
    L_UINT16 invoked, performed;
    L_BOOL user, provider;
    L_UCHAR type;
    assert(!L_DicomGetAsyncOperations(pdu, &invoked, &performed));
    assert(invoked == 1 && performed == 1);
    assert(!L_DicomGetRoleSelect(pdu, "1.2.3", &user, &provider) && user && !provider);
    assert(!L_DicomGetExtended(pdu, "1.2.3", &first, &first_size) && first_size == 0);
    assert(!L_DicomGetUserIdentity(pdu, &type, &user, &first, &first_size, &second, &second_size));
    assert(type == 0 && !user && first_size == 0 && second_size == 0);
    assert(L_DicomGetMaxLength(pdu) == 0 && L_DicomGetPresentationCount(pdu) == 0);
    assert(L_DicomGetPresentation(pdu, 0) == 0 && L_DicomFindAbstract(pdu, VERIFICATION) == 0);
    assert(L_DicomGetResult(pdu, 1) == 255 && L_DicomGetTransferCount(pdu, 1) == 0);
}

static void no_handle_sends(HDICOMPDU pdu)
{
    HDICOMNET net = L_DicomCreateNet(NULL, DICOM_SECURE_NONE);
    assert(net != NULL);
    assert(L_DicomSendAssociateRequest(net, pdu) == DICOM_ERROR_HANDLE);
    assert(L_DicomSendAssociateAccept(net, pdu) == DICOM_ERROR_HANDLE);
    L_DicomFreeNet(net);
}

static void nothing_knows(HDICOMPDU pdu)
{
    L_DicomFreeAssociate(pdu);
    every_setter_refuses(pdu);
    every_text_is_absent(pdu);
    everything_else_is_absent(pdu);
    no_handle_sends(pdu);
}

/* ---- scenes without a connection --------------------------------------------------------- */

static void an_object_may_be_freed_twice(void)
{
    HDICOMPDU pdu = new_object(TRUE), other;
    L_DicomFreeAssociate(pdu);
    L_DicomFreeAssociate(pdu);
    other = new_object(TRUE); /* reuses the place of the freed one */
    L_DicomFreeAssociate(pdu);
    assert(L_DicomGetPresentationCount(other) == 1);
    L_DicomFreeAssociate(other);
}

static void a_freed_object_is_unknown(void)
{
    HDICOMPDU pdu = new_object(TRUE), other;
    L_DicomFreeAssociate(pdu);
    nothing_knows(pdu);
    other = new_object(TRUE); /* reuses the place of the freed one */
    nothing_knows(pdu);
    assert(L_DicomGetPresentationCount(other) == 1 && L_DicomGetMaxLength(other) == 16384);
    L_DicomFreeAssociate(other);
}

static void a_made_up_handle_is_unknown(void)
{
    HDICOMPDU pdu = new_object(TRUE);
    const uintptr_t known = (uintptr_t)pdu;
    char memory[64] = {0};
    for (unsigned bit = 0; bit < sizeof known * 8; bit++) {
        nothing_knows(handle_of(known ^ (uintptr_t)1 << bit));
        nothing_knows(handle_of((uintptr_t)1 << bit));
    }
    nothing_knows(handle_of((uintptr_t)memory));
    nothing_knows(handle_of((uintptr_t)&pdu));
    nothing_knows(handle_of(known - 1));
    nothing_knows(handle_of(known + 1));
    nothing_knows(handle_of(UINTPTR_MAX));
    assert(L_DicomGetPresentationCount(pdu) == 1);
    L_DicomFreeAssociate(pdu);
}

/* A handle of one kind is unknown to functions of the other. With 32-bit pointers serial numbers
 * repeat. */
static void a_connection_is_no_object(void)
{
    HDICOMPDU objects[HELD];
    HDICOMNET nets[HELD];
    for (int i = 0; i < HELD; i++) {
        objects[i] = new_object(TRUE);
        nets[i] = L_DicomCreateNet(NULL, DICOM_SECURE_NONE);
        assert(nets[i] != NULL);
    }
    for (int i = 0; i < HELD; i++) {
        nothing_knows(handle_of((uintptr_t)nets[i]));
        assert(L_DicomClose((HDICOMNET)(uintptr_t)objects[i]) == DICOM_ERROR_HANDLE);
    }
    for (int i = 0; i < HELD; i++) {
        L_DicomFreeNet(nets[i]);
        L_DicomFreeAssociate(objects[i]);
    }
}

static void no_handle_is_given_out_again(void)
{
    static HDICOMPDU freed[ROUNDS];
    for (int i = 0; i < ROUNDS; i++) {
        freed[i] = new_object(TRUE);
        L_DicomFreeAssociate(freed[i]);
    }
    HDICOMPDU pdu = new_object(TRUE);
    for (int i = 0; i < ROUNDS; i++) {
        assert(freed[i] != pdu && L_DicomSetMaxLength(freed[i], 1) == DICOM_ERROR_HANDLE);
    }
    assert(L_DicomGetMaxLength(pdu) == 16384);
    L_DicomFreeAssociate(pdu);
}

static void ten_thousand_objects_are_told_apart(void)
{
    static HDICOMPDU objects[OBJECTS];
    for (L_UINT32 i = 0; i < OBJECTS; i++) {
        objects[i] = L_DicomCreateAssociate(TRUE);
        assert(L_DicomSetMaxLength(objects[i], i) == DICOM_SUCCESS);
    }
    for (L_UINT32 i = 0; i < OBJECTS; i += 2) {
        L_DicomFreeAssociate(objects[i]);
    }
    for (L_UINT32 i = 0; i < OBJECTS; i++) {
        const L_INT wanted = i % 2 == 0 ? DICOM_ERROR_HANDLE : DICOM_SUCCESS;
        assert(L_DicomGetMaxLength(objects[i]) == (i % 2 == 0 ? 0 : i));
        assert(L_DicomSetMaxLength(objects[i], 0) == wanted);
    }
    for (L_UINT32 i = 0; i < OBJECTS; i++) {
        L_DicomFreeAssociate(objects[i]);
    }
}

/* ---- objects of the library -------------------------------------------------------------- */

static HDICOMNET listener, requestor, acceptor;
static HDICOMPDU request, answer,
    seen[3]; /* the received request and accept, and the agreed object */
static int accepted, closed;

static L_VOID pEXT_CALLBACK OnAccept(HDICOMNET hNet, L_INT nError, L_VOID *UserData)
{
    (void)UserData;
    assert(nError == DICOM_SUCCESS && L_DicomAccept(hNet, acceptor) == DICOM_SUCCESS);
}

static L_VOID pEXT_CALLBACK OnConnect(HDICOMNET hNet, L_INT nError, L_VOID *UserData)
{
    (void)UserData;
    assert(nError == DICOM_SUCCESS);
    assert(L_DicomSendAssociateRequest(hNet, request) == DICOM_SUCCESS);
    L_DicomFreeAssociate(request);
    assert(L_DicomSendAssociateRequest(hNet, request) == DICOM_ERROR_HANDLE);
}

/* The handle keeps this object until it has answered. */
static L_VOID pEXT_CALLBACK OnRequest(HDICOMNET hNet, HDICOMPDU hPDU, L_VOID *UserData)
{
    (void)UserData;
    seen[0] = hPDU;
    L_DicomFreeAssociate(hPDU);
    L_DicomFreeAssociate(hPDU);
    assert(strcmp(L_DicomGetAbstract(hPDU, 1), VERIFICATION) == 0);
    assert(L_DicomSendAssociateAccept(hNet, answer) == DICOM_SUCCESS);
    L_DicomFreeAssociate(hPDU);
    assert(strcmp(L_DicomGetAbstract(hPDU, 1), VERIFICATION) == 0);
    seen[2] = L_DicomGetAssociate(hNet);
    L_DicomFreeAssociate(seen[2]);
    assert(L_DicomGetTransferCount(seen[2], 1) == 1);
}

static L_VOID pEXT_CALLBACK OnAssociateAccept(HDICOMNET hNet, HDICOMPDU hPDU, L_VOID *UserData)
{
    (void)UserData;
    seen[1] = hPDU;
    L_DicomFreeAssociate(hPDU);
    assert(L_DicomGetAssociate(hNet) == hPDU);
    L_DicomFreeAssociate(hPDU);
    assert(strcmp(L_DicomGetAbstract(hPDU, 1), VERIFICATION) == 0);
    accepted = 1;
}

static L_VOID pEXT_CALLBACK OnClose(HDICOMNET hNet, L_INT nError, L_VOID *UserData)
{
    (void)nError;
    (void)UserData;
    L_DicomFreeAssociate(L_DicomGetAssociate(hNet));
    closed |= hNet == acceptor;
}

static const DICOMNETCALLBACK callbacks = {.uStructSize = sizeof(DICOMNETCALLBACK),
                                           .pfnAccept = OnAccept,
                                           .pfnConnect = OnConnect,
                                           .pfnClose = OnClose,
                                           .pfnReceiveAssociateRequest = OnRequest,
                                           .pfnReceiveAssociateAccept = OnAssociateAccept};

static HDICOMNET new_net(const DICOMNETCALLBACK *slots)
{
    HDICOMNET net = L_DicomCreateNet(NULL, DICOM_SECURE_NONE);
    assert(net != NULL && L_DicomSetCallback(net, slots, NULL) == DICOM_SUCCESS);
    return net;
}

static void listen_somewhere(const DICOMNETCALLBACK *slots, L_TCHAR address[46], L_UINT *port)
{
    listener = new_net(slots);
    assert(L_DicomListen(listener, "127.0.0.1", 0, 1024) == DICOM_SUCCESS);
    assert(L_DicomGetHostInfo(listener, address, 46, port) == DICOM_SUCCESS);
}

static void associate(void)
{
    L_TCHAR address[46];
    L_UINT port;
    listen_somewhere(&callbacks, address, &port);
    acceptor = new_net(&callbacks);
    requestor = new_net(&callbacks);
    request = new_object(TRUE);
    answer = new_answer();
    accepted = closed = 0;
    assert(L_DicomConnect(requestor, NULL, 0, address, port) == DICOM_SUCCESS);
    while (!accepted) {
        assert(L_DicomWait(requestor, PATIENCE) == DICOM_SUCCESS);
    }
    L_DicomFreeAssociate(answer);
}

static void free_nets(void)
{
    L_DicomFreeNet(requestor);
    L_DicomFreeNet(acceptor);
    L_DicomFreeNet(listener);
}

static void objects_of_the_library_are_not_freed_by_the_user(void)
{
    associate();
    nothing_knows(seen[0]); /* the request was answered and its callback has returned */
    for (int i = 1; i < 3; i++) {
        L_DicomFreeAssociate(seen[i]);
        L_DicomFreeAssociate(seen[i]);
        assert(strcmp(L_DicomGetAbstract(seen[i], 1), VERIFICATION) == 0);
    }
    assert(L_DicomGetAssociate(requestor) == seen[1] && L_DicomGetAssociate(acceptor) == seen[2]);
    assert(L_DicomSendAbort(requestor, PDU_ABORT_SOURCE_USER, 0) == DICOM_SUCCESS);
    while (!closed) {
        assert(L_DicomWait(acceptor, PATIENCE) == DICOM_SUCCESS);
    }
    assert(L_DicomGetTransferCount(seen[2], 1) == 1);
    free_nets();
    nothing_knows(seen[1]);
    nothing_knows(seen[2]);
}

/* The agreed object is freed with its connection, even if the program keeps the handle. */
static L_VOID pEXT_CALLBACK OnAcceptThatFrees(HDICOMNET hNet, HDICOMPDU hPDU, L_VOID *UserData)
{
    (void)UserData;
    L_DicomFreeNet(hNet);
    L_DicomFreeAssociate(hPDU);
    assert(strcmp(L_DicomGetAbstract(hPDU, 1), VERIFICATION) ==
           0); /* valid until this callback returns */
    seen[1] = hPDU;
    accepted = 1;
}

static void an_object_outlives_the_connection_freed_in_its_callback(void)
{
    L_TCHAR address[46];
    L_UINT port;
    DICOMNETCALLBACK freeing = callbacks;
    freeing.pfnReceiveAssociateAccept = OnAcceptThatFrees;
    listen_somewhere(&callbacks, address, &port);
    acceptor = new_net(&callbacks);
    requestor = new_net(&freeing);
    request = new_object(TRUE);
    answer = new_answer();
    accepted = 0;
    assert(L_DicomConnect(requestor, NULL, 0, address, port) == DICOM_SUCCESS);
    while (!accepted) {
        assert(L_DicomWait(listener, PATIENCE) == DICOM_SUCCESS);
        L_DicomBreathe();
    }
    L_DicomFreeAssociate(answer);
    nothing_knows(seen[1]);
    free_nets();
}

/* ---- pumps inside callbacks -------------------------------------------------------------- */

enum { MOST_PUMPS = 32 }; /* same value as in l_dicom.c */

static int waits; /* 1: L_DicomWait is called; 0: L_DicomBreathe */
static int depth, deepest, connected;

static L_VOID pEXT_CALLBACK OnConnectThatPumps(HDICOMNET hNet, L_INT nError, L_VOID *UserData)
{
    const int before = ++connected;
    (void)UserData;
    assert(nError == DICOM_SUCCESS);
    deepest = ++depth > deepest ? depth : deepest;
    if (waits) {
        const L_INT code = L_DicomWait(hNet, depth < MOST_PUMPS ? 1 : 100 * PATIENCE);
        assert((code == DICOM_ERROR_STATE) == (depth == MOST_PUMPS));
    } else {
        L_DicomBreathe();
    }
    assert(depth < MOST_PUMPS || connected == before);
    depth--;
}

static void pump_in_callbacks(void)
{
    static const DICOMNETCALLBACK none = {.uStructSize = sizeof none},
                                  pumping = {.uStructSize = sizeof pumping,
                                             .pfnConnect = OnConnectThatPumps};
    HDICOMNET nets[NETS];
    L_TCHAR address[46];
    L_UINT port;
    listen_somewhere(&none, address, &port);
    depth = deepest = connected = 0;
    for (int i = 0; i < NETS; i++) {
        nets[i] = new_net(&pumping);
        assert(L_DicomConnect(nets[i], NULL, 0, address, port) == DICOM_SUCCESS);
    }
    for (int i = 0; connected < NETS; i++) {
        assert(i < PATIENCE);
        L_DicomWait(nets[0], 1);
    }
    assert(deepest == MOST_PUMPS && depth == 0);
    for (int i = 0; i < NETS; i++) {
        L_DicomFreeNet(nets[i]);
    }
    L_DicomFreeNet(listener);
}

static void waits_inside_callbacks_are_bounded_and_lose_nothing(void)
{
    waits = 1;
    pump_in_callbacks();
}

static void breaths_inside_callbacks_are_bounded_and_lose_nothing(void)
{
    waits = 0;
    pump_in_callbacks();
}

/* ---- an echo of a class that is not a UID ------------------------------------------------ */

enum { ANSWERED = 9, LONGEST_CLASS = 80 };

static int answered; /* the message ID */

static L_VOID pEXT_CALLBACK OnEcho(HDICOMNET hNet, L_UCHAR nPresentationID, L_UINT16 nMessageID,
                                   L_TCHAR *pszClass, L_VOID *UserData)
{
    const L_INT code = nMessageID == ANSWERED ? DICOM_SUCCESS : DICOM_ERROR_PARAMETER;
    (void)UserData;
    assert(L_DicomSendCEchoResponse(hNet, nPresentationID, nMessageID, pszClass, 0) == code);
}

static L_VOID pEXT_CALLBACK OnEchoed(HDICOMNET hNet, L_UCHAR nPresentationID, L_UINT16 nMessageID,
                                     L_TCHAR *pszClass, L_UINT16 nStatus, L_VOID *UserData)
{
    (void)hNet;
    (void)pszClass;
    (void)UserData;
    assert(nPresentationID == 1 && nStatus == 0);
    answered = nMessageID;
}

/* A C-ECHO-RQ with message ID 7 (PS3.7 9.3.5.1); the class has an even length. */
static void ask_for(HDICOMNET net, const char *sop_class)
{
    static const L_UCHAR rest[] = {0, 0, 0, 1, 2, 0, 0, 0, 0x30, 0, 0, 0, 0x10, 1, 2,
                                   0, 0, 0, 7, 0, 0, 0, 0, 8,    2, 0, 0, 0,    1, 1};
    L_UCHAR command[20 + LONGEST_CLASS + sizeof rest] = {0, 0, 0, 0, 4, 0, 0, 0};
    const size_t size = strlen(sop_class);
    command[8] = (L_UCHAR)(8 + size + sizeof rest);
    command[14] = 2;
    command[16] = (L_UCHAR)size;
    memcpy(command + 20, sop_class, size);
    memcpy(command + 20 + size, rest, sizeof rest);
    assert(L_DicomSendData(net, 1, 3, command, 20 + size + sizeof rest) == DICOM_SUCCESS);
}

static void an_echo_of_an_illegal_class_ends_nothing(void)
{
    static const char *const wrong[] = {
        "1..2",
        "1.02",
        "",
        "ab",
        "1.23456789012345678901234567890123456789012345678901234567890123456789",
        "1111111111111111111111111111111111111111111111111111111111111111.1",
    };
    DICOMNETCALLBACK echoing = callbacks;
    echoing.pfnReceiveCEchoRequest = OnEcho;
    echoing.pfnReceiveCEchoResponse = OnEchoed;
    associate();
    assert(L_DicomSetCallback(acceptor, &echoing, NULL) == DICOM_SUCCESS);
    assert(L_DicomSetCallback(requestor, &echoing, NULL) == DICOM_SUCCESS);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        answered = 0;
        ask_for(requestor, wrong[i]);
        assert(L_DicomSendCEchoRequest(requestor, 1, ANSWERED, NULL) == DICOM_SUCCESS);
        while (answered == 0) {
            assert(L_DicomWait(requestor, PATIENCE) == DICOM_SUCCESS);
        }
        assert(answered == ANSWERED); /* the first answer was to this message */
    }
    free_nets();
}

/* ---- threads ----------------------------------------------------------------------------- */

static HDICOMPDU handed_over[THREADS];

static void use(HDICOMPDU pdu, L_UINT32 number)
{
    L_TCHAR title[17];
    snprintf(title, sizeof title, "TITLE_%lu", (unsigned long)number);
    assert(L_DicomSetCalled(pdu, title) == DICOM_SUCCESS);
    assert(L_DicomSetMaxLength(pdu, number) == DICOM_SUCCESS);
    assert(strcmp(L_DicomGetCalled(pdu), title) == 0 && L_DicomGetMaxLength(pdu) == number);
}

static void *make_use_and_free(void *argument)
{
    HDICOMPDU *mine = argument, held[HELD] = {NULL};
    for (L_UINT32 i = 0; i < ROUNDS; i++) {
        HDICOMPDU *place = &held[i % HELD], old = *place;
        L_DicomFreeAssociate(old);
        *place = new_object(TRUE);
        use(*place, i);
        assert(old == NULL || L_DicomSetMaxLength(old, 0) == DICOM_ERROR_HANDLE);
        L_DicomFreeAssociate(old);
    }
    for (int i = 0; i < HELD; i++) {
        L_DicomFreeAssociate(held[i]);
    }
    use(*mine, 1);
    return NULL;
}

static void each_thread_has_objects_of_its_own(void)
{
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++) {
        handed_over[i] = new_object(TRUE);
        assert(pthread_create(&threads[i], NULL, make_use_and_free, &handed_over[i]) == 0);
    }
    for (int i = 0; i < THREADS; i++) {
        assert(pthread_join(threads[i], NULL) == 0);
        assert(L_DicomGetMaxLength(handed_over[i]) == 1);
        L_DicomFreeAssociate(handed_over[i]);
    }
}

/* ---- the largest number of objects ------------------------------------------------------- */

/* With 32-bit pointers a handle has 14 bits for its place. */
static void one_object_too_many_is_not_made(void)
{
    enum { MOST = (1 << 14) - 1 };
    static HDICOMPDU objects[MOST];
    for (int i = 0; i < MOST && sizeof(void *) == 4; i++) {
        objects[i] = L_DicomCreateAssociate(TRUE);
        assert(objects[i] != NULL);
    }
    if (sizeof(void *) == 4) {
        assert(L_DicomCreateAssociate(TRUE) == NULL);
        L_DicomFreeAssociate(objects[0]);
        objects[0] = L_DicomCreateAssociate(TRUE);
        assert(objects[0] != NULL && L_DicomCreateAssociate(TRUE) == NULL);
    }
    for (int i = 0; i < MOST; i++) {
        L_DicomFreeAssociate(objects[i]);
    }
}

static void (*const scenes[])(void) = {
    an_object_may_be_freed_twice,
    a_freed_object_is_unknown,
    a_made_up_handle_is_unknown,
    a_connection_is_no_object,
    no_handle_is_given_out_again,
    ten_thousand_objects_are_told_apart,
    objects_of_the_library_are_not_freed_by_the_user,
    an_object_outlives_the_connection_freed_in_its_callback,
    waits_inside_callbacks_are_bounded_and_lose_nothing,
    breaths_inside_callbacks_are_bounded_and_lose_nothing,
    an_echo_of_an_illegal_class_ends_nothing,
    each_thread_has_objects_of_its_own,
    one_object_too_many_is_not_made,
};

int main(int argc, char **argv)
{
    enum { SCENES = sizeof scenes / sizeof *scenes };
    for (int i = 0; i < SCENES; i++) {
        if (argc < 2 || atoi(argv[1]) == i) {
            scenes[i]();
        }
    }
    printf("%d scenes\n", SCENES);
    return 0;
}
