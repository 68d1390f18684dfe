/* SPDX-License-Identifier: MIT */
/* The L_Dicom functions: handles, callbacks and result codes over net/.
 *
 * The handle of a freed object is not used again (handles.h). A callback may free any handle, so
 * each handle is looked up again before each callback. */
#include "associate.h"

#include "codec/bytes.h"
#include "codec/items.h"
#include "engine/association.h"
#include "engine/walk.h"
#include "net/endpoint.h"
#include "net/loop.h"
#include "service/admission.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

/* Calls that dispatch may be nested: a callback may call L_DicomBreathe or L_DicomWait. Each level
 * takes some of the stack. */
enum { MOST_PUMPS = 32 };

typedef struct entry {
    HDICOMNET handle; /* NULL: free */
    size_t next_free; /* place of the next free entry, plus 1; 0: none */
    ltdic_net *net;
    DICOMNETCALLBACK callbacks;
    void *user_data;
    HDICOMNET listener;         /* the listener that accepted it, or NULL */
    ltdic_answer answer;        /* counts its association at the listener */
    ltdic_admission *admission; /* listener: counts associations; NULL before it listens */
    unsigned dispatched;        /* events dispatched for it and for the handles it accepted */
    associate *request;         /* the request that was sent or received, until it is answered */
    associate *agreed;          /* the outcome of the negotiation, or NULL */
    L_UCHAR verification;       /* requestor: ID of the context for C-ECHO alone, or 0 */
    ltdic_echo_reader echoes;
} entry;

/* A call of L_DicomWait. */
typedef struct running_wait {
    struct running_wait *outer; /* the call in whose callback this one runs, or NULL */
    bool broken;                /* L_DicomBreakWait was called */
    unsigned dispatched;        /* `dispatched` of its handle at the beginning */
} running_wait;

/* The handle table. Each thread has its own, so that no lock is needed and callbacks run on the
 * thread that made the handle. */
typedef struct handle_table {
    ltdic_loop *loop; /* NULL: not in use */
    entry *entries;
    size_t count, live, first_free; /* place of the first free entry, plus 1; 0: none */
    unsigned starts;                /* calls of L_DicomStartUp without L_DicomShutDown */
    unsigned depth;                 /* nested calls that dispatch */
    running_wait *wait;             /* the innermost call of L_DicomWait, or NULL */
} handle_table;

static _Thread_local handle_table table;

/* ---- handles ----------------------------------------------------------------------------- */

static bool make_table(void)
{
    if (table.loop == NULL) {
        table.loop = ltdic_loop_new();
    }
    return table.loop != NULL;
}

static void free_unused_table(void)
{
    if (table.loop != NULL && table.starts == 0 && table.live == 0 && table.depth == 0) {
        ltdic_loop_free(table.loop);
        free(table.entries);
        table = (handle_table){0};
    }
}

/* Returns the entry of a handle of this thread, or NULL. It is valid until a handle is created. */
static entry *find(HDICOMNET hNet)
{
    const size_t place = ((uintptr_t)hNet & ((1U << PLACE_BITS) - 1)) - 1;
    if (hNet == NULL || place >= table.count || table.entries[place].handle != hNet) {
        return NULL;
    }
    return &table.entries[place];
}

static ltdic_net *net_of(HDICOMNET hNet)
{
    const entry *e = find(hNet);
    return e == NULL ? NULL : e->net;
}

/* Takes a free entry. Returns its place, plus 1; 0 if there is no memory. */
static size_t free_place(void)
{
    if (table.first_free != 0) {
        const size_t place = table.first_free;
        table.first_free = table.entries[place - 1].next_free;
        return place;
    }
    if ((table.count & (table.count - 1)) == 0) { /* the memory is full at every power of two */
        const size_t room = table.count == 0 ? 1 : 2 * table.count;
        entry *entries = realloc(table.entries, room * sizeof *entries);
        if (entries == NULL || room >= 1U << PLACE_BITS) {
            table.entries = entries != NULL ? entries : table.entries;
            return 0;
        }
        table.entries = entries;
    }
    table.entries[table.count] = (entry){0};
    return ++table.count;
}

/* Replaces an associate object by another one, or by NULL. The caller's reference passes to it. */
static void set_associate(associate **kept, associate *a)
{
    ltdic__associate_free(*kept);
    *kept = a;
}

static void forget_association(entry *e)
{
    set_associate(&e->request, NULL);
    set_associate(&e->agreed, NULL);
    e->verification = 0;
    ltdic_echo_reader_clear(&e->echoes);
}

/* Stops counting its association at its listener, if it has one. */
static void leave_admission(entry *e)
{
    const entry *listener = find(e->listener);
    if (listener != NULL) {
        ltdic_admission_leave(listener->admission, &e->answer);
    }
    e->answer = (ltdic_answer){.admitted = 0};
}

/* Does the same if the association is over, even if its connection is not. */
static void leave_admission_if_over(HDICOMNET hNet)
{
    entry *e = find(hNet);
    if (e != NULL && !ltdic__is_in_progress(ltdic_net_state(e->net))) {
        leave_admission(e);
    }
}

static void free_entry(entry *e)
{
    leave_admission(e);
    forget_association(e);
    ltdic_admission_free(e->admission);
    ltdic_net_free(e->net);
    *e = (entry){.next_free = table.first_free};
    table.first_free = (size_t)(e - table.entries) + 1;
    table.live--;
}

L_INT L_DicomStartUp(L_VOID)
{
    if (!make_table()) {
        return DICOM_ERROR_MEMORY;
    }
    table.starts++;
    return DICOM_SUCCESS;
}

L_VOID L_DicomShutDown(L_VOID)
{
    if (table.starts == 0 || --table.starts > 0) {
        return;
    }
    for (size_t i = 0; i < table.count; i++) {
        if (table.entries[i].handle != NULL) {
            free_entry(&table.entries[i]);
        }
    }
    free_unused_table();
}

HDICOMNET L_DicomCreateNet(const L_TCHAR *pszPath, L_INT nMode)
{
    (void)pszPath;
    const size_t place = nMode == DICOM_SECURE_NONE && make_table() ? free_place() : 0;
    if (place == 0) {
        free_unused_table();
        return NULL;
    }
    entry *e = &table.entries[place - 1];
    HDICOMNET handle = (HDICOMNET)ltdic__new_handle(place);
    e->net = ltdic_net_new(table.loop, handle);
    if (e->net == NULL) {
        e->next_free = table.first_free;
        table.first_free = place;
        free_unused_table();
        return NULL;
    }
    e->handle = handle;
    table.live++;
    return handle;
}

L_VOID L_DicomFreeNet(HDICOMNET hNet)
{
    entry *e = find(hNet);
    if (e != NULL) {
        free_entry(e);
        free_unused_table();
    }
}

/* Returns the size of the whole slots in a structure of this size. */
static size_t whole_slots(size_t size)
{
    const size_t first = offsetof(DICOMNETCALLBACK, pfnAccept), slot = sizeof(void *);
    return size >= sizeof(DICOMNETCALLBACK) ? sizeof(DICOMNETCALLBACK)
           : size < first                   ? size
                                            : size - (size - first) % slot;
}

L_INT L_DicomSetCallback(HDICOMNET hNet, const DICOMNETCALLBACK *pCallback, L_VOID *pUserData)
{
    entry *e = find(hNet);
    if (e == NULL) {
        return DICOM_ERROR_HANDLE;
    }
    if (pCallback == NULL || pCallback->uStructSize < sizeof pCallback->uStructSize) {
        return DICOM_ERROR_PARAMETER;
    }
    e->callbacks = (DICOMNETCALLBACK){0};
    memcpy(&e->callbacks, pCallback, whole_slots(pCallback->uStructSize));
    e->user_data = pUserData;
    return DICOM_SUCCESS;
}

L_INT L_DicomGetCallback(HDICOMNET hNet, DICOMNETCALLBACK *pCallback, L_VOID **ppUserData)
{
    const entry *e = find(hNet);
    if (e == NULL) {
        return DICOM_ERROR_HANDLE;
    }
    if (pCallback == NULL || pCallback->uStructSize < sizeof pCallback->uStructSize) {
        return DICOM_ERROR_PARAMETER;
    }
    const L_UINT asked = pCallback->uStructSize;
    memcpy(pCallback, &e->callbacks, whole_slots(asked));
    pCallback->uStructSize = asked;
    if (ppUserData != NULL) {
        *ppUserData = e->user_data;
    }
    return DICOM_SUCCESS;
}

L_INT L_DicomSetTimeouts(HDICOMNET hNet, L_UINT32 nArtim, L_UINT32 nResponse, L_UINT32 nIdle)
{
    const ltdic_timeouts timeouts = {sizeof timeouts, nArtim, nResponse, nIdle};
    ltdic_net *net = net_of(hNet);
    if (net == NULL) {
        return DICOM_ERROR_HANDLE;
    }
    ltdic_net_set_timeouts(net, &timeouts);
    return DICOM_SUCCESS;
}

/* Makes the admission of a listener, which counts associations. Returns false if there is no
 * memory. */
static bool make_admission(entry *e)
{
    if (e->admission == NULL) {
        e->admission = ltdic_admission_new();
    }
    return e->admission != NULL;
}

L_INT L_DicomSetLimits(HDICOMNET hNet, L_UINT32 nAssociations, L_UINT32 nConnections)
{
    entry *e = find(hNet);
    if (e == NULL) {
        return DICOM_ERROR_HANDLE;
    }
    if (!make_admission(e)) {
        return DICOM_ERROR_MEMORY;
    }
    const ltdic_limits limits = {.size = sizeof limits, .together = nAssociations};
    ltdic_admission_set_limits(e->admission, &limits);
    ltdic_net_limit_connections(e->net, nConnections);
    return DICOM_SUCCESS;
}

/* ---- codes ------------------------------------------------------------------------------- */

/* Returns the L_Dicom code for a status: statuses are 0 or negative, codes 0 or positive. */
static L_INT code_of(int status)
{
    switch ((ltdic_status)status) {
    case LTDIC_OK:
        return DICOM_SUCCESS;
    case LTDIC_NEED_MORE: /* no connection waits */
    case LTDIC_ERR_WRONG_STATE:
        return DICOM_ERROR_STATE;
    case LTDIC_ERR_BAD_PDU_TYPE:
    case LTDIC_ERR_BAD_LENGTH:
    case LTDIC_ERR_ITEM_OVERRUN:
    case LTDIC_ERR_BAD_VALUE:
    case LTDIC_ERR_MISSING_ITEM:
    case LTDIC_ERR_DUPLICATE_ITEM:
    case LTDIC_ERR_BAD_ORDER:
    case LTDIC_ERR_TRAILING_BYTES:
    case LTDIC_ERR_UNEXPECTED_ITEM:
    case LTDIC_ERR_TOO_LARGE:
    case LTDIC_ERR_UNEXPECTED_PDU:
    case LTDIC_ERR_UNEXPECTED_PDV:
        return DICOM_ERROR_PROTOCOL;
    case LTDIC_ERR_ROOM:
    case LTDIC_ERR_CONGESTION:
        return DICOM_ERROR_BUSY;
    case LTDIC_ERR_ADDRESS:
        return DICOM_ERROR_ADDRESS;
    case LTDIC_ERR_CONNECT:
        return DICOM_ERROR_CONNECT;
    case LTDIC_ERR_CLOSED:
        return DICOM_ERROR_CLOSED;
    case LTDIC_ERR_TIMEOUT:
        return DICOM_ERROR_TIMEOUT;
    case LTDIC_ERR_ABORTED:
        return DICOM_ERROR_ABORTED;
    case LTDIC_ERR_INTERRUPTED:
        return DICOM_ERROR_INTERRUPTED;
    case LTDIC_ERR_SYSTEM:
        return DICOM_ERROR_SYSTEM;
    case LTDIC_ERR_MEMORY:
        return DICOM_ERROR_MEMORY;
    }
    return DICOM_ERROR_SYSTEM;
}

/* Returns the code for the result of a call. There a bad value is an argument of the caller. */
static L_INT code_of_call(int status)
{
    const bool argument = status == LTDIC_ERR_BAD_VALUE || status == LTDIC_ERR_TOO_LARGE;
    return argument ? DICOM_ERROR_PARAMETER : code_of(status);
}

const L_TCHAR *L_DicomErrorText(L_INT nError)
{
    static const L_TCHAR *const texts[] = {
        [DICOM_SUCCESS] = "done",
        [DICOM_ERROR_PARAMETER] = "an argument is out of range",
        [DICOM_ERROR_HANDLE] = "this handle is unknown: freed, or of another thread",
        [DICOM_ERROR_MEMORY] = "out of memory",
        [DICOM_ERROR_STATE] = "not possible in this state; nothing was changed",
        [DICOM_ERROR_ADDRESS] = "the host or port cannot be resolved or used",
        [DICOM_ERROR_CONNECT] = "the peer cannot be reached or refused the connection",
        [DICOM_ERROR_CLOSED] = "the connection was lost",
        [DICOM_ERROR_TIMEOUT] = "the time is up",
        [DICOM_ERROR_ABORTED] = "the peer aborted the association",
        [DICOM_ERROR_PROTOCOL] = "the peer broke the protocol and was sent an abort",
        [DICOM_ERROR_SYSTEM] = "the operating system refused",
        [DICOM_ERROR_BUSY] = "too much is waiting to be sent",
        [DICOM_ERROR_INTERRUPTED] = "a signal or L_DicomBreakWait ended the wait",
    };
    const size_t count = sizeof texts / sizeof *texts;
    return nError < 0 || (size_t)nError >= count ? "unknown error" : texts[nError];
}

/* ---- callbacks --------------------------------------------------------------------------- */

/* Calls the callback in `slot`, if handle and callback exist. `arguments` may use the entry `e`. */
#define CALL(hNet, slot, arguments) \
    do { \
        const entry *e = find(hNet); \
        if (e != NULL && e->callbacks.slot != NULL) { \
            e->callbacks.slot arguments; \
        } \
    } while (0)

/* Returns the associate object of an RQ, or the outcome of an AC, for one dispatch. An RQ is also
 * kept until it is answered. Returns NULL for other PDUs, and if there is no memory. */
static associate *take_associate(HDICOMNET hNet, ltdic_bytes pdu)
{
    entry *receiver = find(hNet);
    const bool request = pdu.data[0] == PDU_ASSOCIATE_REQUEST;
    if (receiver == NULL || (!request && pdu.data[0] != PDU_ASSOCIATE_ACCEPT)) {
        return NULL;
    }
    associate *a = ltdic__associate_from_pdu(pdu);
    if (a != NULL && !request && !ltdic__associate_agree(receiver->request, a)) {
        set_associate(&a, NULL);
    }
    if (a != NULL) {
        set_associate(request ? &receiver->request : &receiver->agreed, ltdic__associate_keep(a));
    }
    if (!request) {
        set_associate(&receiver->request, NULL); /* it is answered */
        receiver->verification = L_DicomFindAbstract(ltdic__associate_handle(a), VERIFICATION);
    }
    return a;
}

/* Ends the connection if a PDU that ends the association could not be sent. `code` is the result
 * of sending it. */
static void end_unless_sent(HDICOMNET hNet, L_INT code)
{
    if (code != DICOM_SUCCESS && code != DICOM_ERROR_HANDLE) {
        ltdic__net_end(net_of(hNet), LTDIC_ERR_MEMORY);
    }
}

/* Refuses an RQ or AC for which there is no memory. The rejection is transient: the peer may try
 * again. */
static void refuse_associate(HDICOMNET hNet, bool request)
{
    end_unless_sent(
        hNet, request ? L_DicomSendAssociateReject(hNet, PDU_REJECT_RESULT_TRANSIENT,
                                                   PDU_REJECT_SOURCE_PROVIDER2,
                                                   PDU_REJECT_REASON_CONGESTION)
                      : L_DicomSendAbort(hNet, PDU_ABORT_SOURCE_USER, PDU_ABORT_REASON_UNKNOWN));
}

static void dispatch_echo(HDICOMNET hNet, L_UCHAR nPresentationID, ltdic_echo *echo)
{
    if (echo->field == LTDIC_C_ECHO_RQ) {
        CALL(hNet, pfnReceiveCEchoRequest,
             (hNet, nPresentationID, echo->message, echo->sop_class, e->user_data));
    } else if (echo->field == LTDIC_C_ECHO_RSP) {
        CALL(hNet, pfnReceiveCEchoResponse,
             (hNet, nPresentationID, echo->message, echo->sop_class, echo->status, e->user_data));
    }
}

/* Looks for a C-ECHO that ends with this piece. `echo->field` is 0 if there is none. In the
 * Verification context of a requestor nothing else is allowed (PS3.4 A.4).
 * @return LTDIC_OK; LTDIC_ERR_UNEXPECTED_PDV: something else; LTDIC_ERR_MEMORY */
static int look_for_echo(HDICOMNET hNet, const ltdic_piece *piece, ltdic_echo *echo)
{
    entry *e = find(hNet);
    echo->field = 0;
    if (e == NULL) {
        return LTDIC_OK;
    }
    const int status = ltdic_echo_reader_take(&e->echoes, echo, piece);
    const bool whole = (piece->control & COMMAND) == 0 || (piece->control & LAST) != 0;
    const bool verifies = e->verification != 0 && e->verification == piece->id;
    return status != LTDIC_NEED_MORE ? status
           : verifies && whole       ? LTDIC_ERR_UNEXPECTED_PDV
                                     : LTDIC_OK;
}

static void dispatch_data(HDICOMNET hNet, const ltdic_piece *p)
{
    CALL(hNet, pfnReceiveData,
         (hNet, p->id, p->control, p->data.data, (L_UINT32)p->data.size, e->user_data));
}

static void dispatch_pdu(HDICOMNET hNet, ltdic_bytes pdu, HDICOMPDU hPDU)
{
    const uint8_t *b = pdu.data;
    switch (b[0]) {
    case PDU_ASSOCIATE_REQUEST:
        CALL(hNet, pfnReceiveAssociateRequest, (hNet, hPDU, e->user_data));
        break;
    case PDU_ASSOCIATE_ACCEPT:
        CALL(hNet, pfnReceiveAssociateAccept, (hNet, hPDU, e->user_data));
        break;
    case PDU_ASSOCIATE_REJECT:
        CALL(hNet, pfnReceiveAssociateReject, (hNet, b[7], b[8], b[9], e->user_data));
        break;
    case PDU_RELEASE_REQUEST:
        CALL(hNet, pfnReceiveReleaseRequest, (hNet, e->user_data));
        break;
    case PDU_RELEASE_RESPONSE:
        CALL(hNet, pfnReceiveReleaseResponse, (hNet, e->user_data));
        break;
    case PDU_ABORT:
        CALL(hNet, pfnReceiveAbort, (hNet, b[8], b[9], e->user_data));
        break;
    default:
        break;
    }
}

static void tell_received(HDICOMNET hNet, L_INT code, const ltdic_indication *i)
{
    L_UCHAR *pdu = (L_UCHAR *)(uintptr_t)i->pdu.data; /* parameters of callbacks are not const */
    CALL(hNet, pfnReceive, (hNet, code, i->type, pdu, (L_UINT32)i->pdu.size, e->user_data));
}

static void receive_data(HDICOMNET hNet, const ltdic_indication *i)
{
    ltdic_echo echo;
    const L_INT code = code_of(look_for_echo(hNet, &i->piece, &echo));
    if (code != DICOM_SUCCESS) {
        end_unless_sent(hNet,
                        L_DicomSendAbort(hNet, PDU_ABORT_SOURCE_USER, PDU_ABORT_REASON_UNKNOWN));
    }
    tell_received(hNet, code, i);
    if (code == DICOM_SUCCESS) {
        dispatch_data(hNet, &i->piece);
        dispatch_echo(hNet, i->piece.id, &echo);
    }
}

/* Counts the association of a request at the listener, or rejects the request. */
static bool enter_admission(HDICOMNET hNet, ltdic_bytes rq)
{
    entry *e = find(hNet);
    const entry *listener = e == NULL ? NULL : find(e->listener);
    if (listener == NULL) {
        return true;
    }
    const ltdic_reject refusal = ltdic__admission_enter(
        listener->admission, &e->answer, ltdic__title_at(rq, CALLING_AT), (ltdic_bytes){NULL, 0});
    if (refusal.result != 0) {
        end_unless_sent(
            hNet, L_DicomSendAssociateReject(hNet, refusal.result, refusal.source, refusal.reason));
    }
    return refusal.result == 0;
}

static void receive_pdu(HDICOMNET hNet, const ltdic_indication *i)
{
    const bool request = i->type == PDU_ASSOCIATE_REQUEST;
    if (request && !enter_admission(hNet, i->pdu)) {
        return;
    }
    associate *a = take_associate(hNet, i->pdu);
    if (a == NULL && (request || i->type == PDU_ASSOCIATE_ACCEPT)) {
        refuse_associate(hNet, request);
        if (!request) { /* a refused request has no callback */
            tell_received(hNet, DICOM_ERROR_MEMORY, i);
        }
        return;
    }
    tell_received(hNet, DICOM_SUCCESS, i);
    dispatch_pdu(hNet, i->pdu, ltdic__associate_handle(a));
    ltdic__associate_free(a);
}

static void dispatch_received(HDICOMNET hNet, const ltdic_indication *i)
{
    if (i->status != LTDIC_OK) {
        tell_received(hNet, code_of(i->status), i);
    } else if (i->type == PDU_DATA_TRANSFER) {
        receive_data(hNet, i);
    } else {
        receive_pdu(hNet, i);
    }
}

static void dispatch(HDICOMNET hNet, const ltdic_indication *i)
{
    const L_INT code = code_of(i->status);
    switch ((ltdic_indication_kind)i->kind) {
    case LTDIC_PENDING:
        CALL(hNet, pfnAccept, (hNet, code, e->user_data));
        break;
    case LTDIC_CONNECTED:
        CALL(hNet, pfnConnect, (hNet, code, e->user_data));
        break;
    case LTDIC_REFUSED: /* pfnSend follows for the A-ASSOCIATE-RJ */
        break;
    case LTDIC_SENT:
        CALL(hNet, pfnSend, (hNet, code, i->type, (L_UINT32)i->size, e->user_data));
        break;
    case LTDIC_CLOSED:
        CALL(hNet, pfnClose, (hNet, code, e->user_data));
        break;
    case LTDIC_RECEIVED:
        dispatch_received(hNet, i);
        break;
    }
}

static void count_event(HDICOMNET hNet)
{
    entry *e = find(hNet), *listener = e == NULL ? NULL : find(e->listener);
    if (e != NULL) {
        e->dispatched++;
    }
    if (listener != NULL) {
        listener->dispatched++;
    }
}

/* Dispatches all indications that are ready. */
static void dispatch_ready(void)
{
    ltdic_indication indication;
    ltdic_net *net;
    table.depth++;
    while (ltdic_loop_next(table.loop, &net, &indication) == LTDIC_OK) {
        HDICOMNET hNet = ltdic_net_owner(net);
        count_event(hNet);
        dispatch(hNet, &indication);
        leave_admission_if_over(hNet);
        ltdic_net_done(net);
    }
    table.depth--;
}

L_VOID L_DicomBreathe(L_VOID)
{
    if (table.loop != NULL && table.depth < MOST_PUMPS) {
        ltdic_loop_wait(table.loop, 0);
        dispatch_ready();
        free_unused_table();
    }
}

static L_INT wait_for(HDICOMNET hNet, uint64_t deadline, const running_wait *wait)
{
    for (;;) {
        const uint64_t now = ltdic__now();
        const uint64_t left = now < deadline ? deadline - now : 0;
        const int status = ltdic_loop_wait(table.loop, left < INT_MAX ? (int)left : INT_MAX);
        dispatch_ready();
        const entry *e = find(hNet); /* a callback may have freed the handle, or dispatched */
        if (e == NULL || e->dispatched != wait->dispatched) {
            return DICOM_SUCCESS;
        }
        if (status == LTDIC_ERR_INTERRUPTED || wait->broken) {
            return DICOM_ERROR_INTERRUPTED;
        }
        if (left == 0) {
            return DICOM_ERROR_TIMEOUT;
        }
    }
}

L_INT L_DicomWait(HDICOMNET hNet, L_UINT32 nMilliseconds)
{
    const entry *e = find(hNet);
    if (e == NULL) {
        return DICOM_ERROR_HANDLE;
    }
    if (table.depth >= MOST_PUMPS) {
        return DICOM_ERROR_STATE;
    }
    running_wait wait = {.outer = table.wait, .dispatched = e->dispatched};
    table.wait = &wait;
    const L_INT code = wait_for(hNet, ltdic__now() + nMilliseconds, &wait);
    table.wait = wait.outer;
    free_unused_table();
    return code;
}

L_VOID L_DicomBreakWait(HDICOMNET hNet)
{
    if (table.wait != NULL && (hNet == NULL || find(hNet) != NULL)) {
        table.wait->broken = true;
    }
}

/* ---- connections ------------------------------------------------------------------------- */

L_INT L_DicomListenExt(HDICOMNET hNet, const L_TCHAR *pszHostAddress, L_UINT nHostPort,
                       L_INT nNbPeers, L_INT nIpType)
{
    entry *e = find(hNet);
    if (e == NULL) {
        return DICOM_ERROR_HANDLE;
    }
    if (nHostPort > UINT16_MAX || nIpType < 0 || nIpType > DICOM_IPTYPE_IPV4_OR_IPV6) {
        return DICOM_ERROR_PARAMETER;
    }
    if (!make_admission(e)) {
        return DICOM_ERROR_MEMORY;
    }
    const ltdic_address address = {pszHostAddress, (uint16_t)nHostPort, (uint8_t)nIpType};
    return code_of(ltdic_net_listen(e->net, &address, nNbPeers));
}

L_INT L_DicomListen(HDICOMNET hNet, const L_TCHAR *pszHostAddress, L_UINT nHostPort, L_INT nNbPeers)
{
    return L_DicomListenExt(hNet, pszHostAddress, nHostPort, nNbPeers, DICOM_IPTYPE_NONE);
}

L_INT L_DicomAccept(HDICOMNET hNet, HDICOMNET hNetClient)
{
    ltdic_net *listener = net_of(hNet);
    entry *client = find(hNetClient);
    if (listener == NULL || client == NULL) {
        return DICOM_ERROR_HANDLE;
    }
    const int status = ltdic_net_accept(client->net, listener);
    if (status == LTDIC_OK) {
        leave_admission(client); /* for the association before this one */
        client->listener = hNet;
        forget_association(client);
    }
    return code_of(status);
}

L_INT L_DicomConnectExt(HDICOMNET hNet, const L_TCHAR *pszHostAddress, L_UINT nHostPort,
                        const L_TCHAR *pszPeerAddress, L_UINT nPeerPort, L_INT nIpType)
{
    entry *e = find(hNet);
    if (e == NULL) {
        return DICOM_ERROR_HANDLE;
    }
    if (pszPeerAddress == NULL || *pszPeerAddress == '\0' || nPeerPort == 0 ||
        nPeerPort > UINT16_MAX || nHostPort > UINT16_MAX || nIpType < 0 ||
        nIpType > DICOM_IPTYPE_IPV4_OR_IPV6) {
        return DICOM_ERROR_PARAMETER;
    }
    const bool any_host = pszHostAddress == NULL || *pszHostAddress == '\0';
    const ltdic_address peer = {pszPeerAddress, (uint16_t)nPeerPort, (uint8_t)nIpType};
    const ltdic_address host = {any_host ? "*" : pszHostAddress, (uint16_t)nHostPort,
                                (uint8_t)nIpType};
    const int status = ltdic_net_connect(e->net, &peer, any_host && nHostPort == 0 ? NULL : &host);
    if (status == LTDIC_OK) {
        leave_admission(e);
        e->listener = NULL;
        forget_association(e);
    }
    return code_of(status);
}

L_INT L_DicomConnect(HDICOMNET hNet, const L_TCHAR *pszHostAddress, L_UINT nHostPort,
                     const L_TCHAR *pszPeerAddress, L_UINT nPeerPort)
{
    return L_DicomConnectExt(hNet, pszHostAddress, nHostPort, pszPeerAddress, nPeerPort,
                             DICOM_IPTYPE_NONE);
}

L_INT L_DicomClose(HDICOMNET hNet)
{
    ltdic_net *net = net_of(hNet);
    if (net == NULL) {
        return DICOM_ERROR_HANDLE;
    }
    ltdic_net_close(net);
    leave_admission_if_over(hNet);
    return DICOM_SUCCESS;
}

L_BOOL L_DicomIsConnected(HDICOMNET hNet)
{
    const ltdic_net *net = net_of(hNet);
    return net != NULL && ltdic_net_is_connected(net);
}

L_BOOL L_DicomIsAssociated(HDICOMNET hNet)
{
    const ltdic_net *net = net_of(hNet);
    return net != NULL && ltdic__is_associated(ltdic_net_state(net));
}

static L_INT get_name(HDICOMNET hNet, int peer, L_TCHAR *pszAddress, L_UINT nSize, L_UINT *pnPort)
{
    const ltdic_net *net = net_of(hNet);
    if (net == NULL) {
        return DICOM_ERROR_HANDLE;
    }
    if (pszAddress == NULL) {
        return DICOM_ERROR_PARAMETER;
    }
    ltdic_buffer host = {(uint8_t *)pszAddress, nSize, 0};
    uint16_t port = 0;
    const int status = ltdic_net_name(net, peer, &host, &port);
    if (pnPort != NULL && status == LTDIC_OK) {
        *pnPort = port;
    }
    return status == LTDIC_ERR_ROOM ? DICOM_ERROR_PARAMETER : code_of(status);
}

L_INT L_DicomGetHostInfo(HDICOMNET hNet, L_TCHAR *pszAddress, L_UINT nSize, L_UINT *pnPort)
{
    return get_name(hNet, 0, pszAddress, nSize, pnPort);
}

L_INT L_DicomGetPeerInfo(HDICOMNET hNet, L_TCHAR *pszAddress, L_UINT nSize, L_UINT *pnPort)
{
    return get_name(hNet, 1, pszAddress, nSize, pnPort);
}

/* ---- associations ------------------------------------------------------------------------ */

static L_INT send_fixed(HDICOMNET hNet, uint8_t type, ltdic_reject codes)
{
    uint8_t pdu[LTDIC_FIXED_PDU_SIZE];
    ltdic_net *net = net_of(hNet);
    if (net == NULL) {
        return DICOM_ERROR_HANDLE;
    }
    ltdic_encode_fixed(pdu, type, codes);
    const L_INT code = code_of(ltdic_net_send(net, (ltdic_bytes){pdu, sizeof pdu}));
    leave_admission_if_over(hNet);
    return code;
}

/* Frees an encoded PDU, which may hold a passcode. */
static void free_pdu(ltdic_buffer pdu)
{
    ltdic__wipe(pdu.data, pdu.size);
    free(pdu.data);
}

static L_INT encode(const associate *a, ltdic_buffer *pdu)
{
    bool wrong;
    *pdu = ltdic__associate_encode(a, &wrong);
    return wrong ? DICOM_ERROR_PARAMETER : pdu->data == NULL ? DICOM_ERROR_MEMORY : DICOM_SUCCESS;
}

L_INT L_DicomSendAssociateRequest(HDICOMNET hNet, HDICOMPDU hPDU)
{
    entry *e = find(hNet);
    const associate *given = ltdic__associate_of(hPDU);
    if (e == NULL || (hPDU != NULL && given == NULL)) {
        return DICOM_ERROR_HANDLE;
    }
    if (given == NULL || !ltdic__associate_is_request(given)) {
        return DICOM_ERROR_PARAMETER;
    }
    ltdic_buffer pdu = {NULL, 0, 0};
    associate *request = ltdic__associate_copy(given);
    L_INT code = request == NULL ? DICOM_ERROR_MEMORY : encode(request, &pdu);
    if (code == DICOM_SUCCESS) {
        code = code_of_call(ltdic_net_send(e->net, (ltdic_bytes){pdu.data, pdu.size}));
    }
    if (code == DICOM_SUCCESS) {
        set_associate(&e->request, ltdic__associate_keep(request));
    }
    ltdic__associate_free(request);
    free_pdu(pdu);
    return code;
}

/* Makes the answer to the request that the handle keeps: the PDU to send, and the agreement. */
static L_INT answer_request(const entry *e, associate *agreed, ltdic_buffer *pdu)
{
    if (agreed == NULL || !ltdic__associate_answer(e->request, agreed)) {
        return DICOM_ERROR_MEMORY;
    }
    const L_INT code = encode(agreed, pdu);
    if (code != DICOM_SUCCESS) {
        return code;
    }
    return ltdic__associate_agree(e->request, agreed) ? DICOM_SUCCESS : DICOM_ERROR_MEMORY;
}

L_INT L_DicomSendAssociateAccept(HDICOMNET hNet, HDICOMPDU hPDU)
{
    entry *e = find(hNet);
    const associate *given = ltdic__associate_of(hPDU);
    if (e == NULL || (hPDU != NULL && given == NULL)) {
        return DICOM_ERROR_HANDLE;
    }
    if (given == NULL || ltdic__associate_is_request(given)) {
        return DICOM_ERROR_PARAMETER;
    }
    if (e->request == NULL) {
        return DICOM_ERROR_STATE;
    }
    ltdic_buffer pdu = {NULL, 0, 0};
    associate *agreed = ltdic__associate_copy(given);
    L_INT code = answer_request(e, agreed, &pdu);
    if (code == DICOM_SUCCESS) {
        code = code_of_call(ltdic_net_send(e->net, (ltdic_bytes){pdu.data, pdu.size}));
    }
    if (code == DICOM_SUCCESS) {
        set_associate(&e->agreed, ltdic__associate_keep(agreed));
        set_associate(&e->request, NULL);
    }
    ltdic__associate_free(agreed);
    free_pdu(pdu);
    return code;
}

HDICOMPDU L_DicomGetAssociate(HDICOMNET hNet)
{
    const entry *e = find(hNet);
    return e == NULL ? NULL : ltdic__associate_handle(e->agreed);
}

L_INT L_DicomSendAssociateReject(HDICOMNET hNet, L_UCHAR nResult, L_UCHAR nSource, L_UCHAR nReason)
{
    const ltdic_reject reject = {nResult, nSource, nReason};
    if (!ltdic_reject_is_defined(reject)) {
        return DICOM_ERROR_PARAMETER;
    }
    return send_fixed(hNet, LTDIC_ASSOCIATE_RJ, reject);
}

L_INT L_DicomSendReleaseRequest(HDICOMNET hNet)
{
    return send_fixed(hNet, LTDIC_RELEASE_RQ, (ltdic_reject){0, 0, 0});
}

L_INT L_DicomSendReleaseResponse(HDICOMNET hNet)
{
    return send_fixed(hNet, LTDIC_RELEASE_RP, (ltdic_reject){0, 0, 0});
}

L_INT L_DicomSendAbort(HDICOMNET hNet, L_UCHAR nSource, L_UCHAR nReason)
{
    const bool user = nSource == PDU_ABORT_SOURCE_USER;
    const bool provider = nSource == PDU_ABORT_SOURCE_PROVIDER && nReason != 3 &&
                          nReason <= PDU_ABORT_REASON_INVALID_PARAM;
    if (!user && !provider) {
        return DICOM_ERROR_PARAMETER;
    }
    const ltdic_reject codes = {0, nSource, user ? PDU_ABORT_REASON_UNKNOWN : nReason};
    return send_fixed(hNet, LTDIC_ABORT, codes);
}

/* ---- data -------------------------------------------------------------------------------- */

L_INT L_DicomSendData(HDICOMNET hNet, L_UCHAR nPresentationID, L_UCHAR nControl,
                      const L_UCHAR *pData, size_t nBytes)
{
    const ltdic_pdv data = {nPresentationID, nControl, {pData, nBytes}};
    ltdic_net *net = net_of(hNet);
    if (net == NULL) {
        return DICOM_ERROR_HANDLE;
    }
    if (pData == NULL && nBytes > 0) {
        return DICOM_ERROR_PARAMETER;
    }
    return code_of_call(ltdic_net_send_data(net, &data));
}

static L_INT send_echo(HDICOMNET hNet, L_UCHAR nPresentationID, const L_TCHAR *pszClass,
                       ltdic_echo echo)
{
    uint8_t command[LTDIC_ECHO_ROOM];
    ltdic_buffer out = {command, sizeof command, 0};
    const L_TCHAR *uid = pszClass == NULL ? VERIFICATION : pszClass;
    if (strlen(uid) >= sizeof echo.sop_class) {
        return DICOM_ERROR_PARAMETER;
    }
    memcpy(echo.sop_class, uid, strlen(uid) + 1);
    if (ltdic_encode_echo(&out, &echo) != LTDIC_OK) {
        return DICOM_ERROR_PARAMETER;
    }
    return L_DicomSendData(hNet, nPresentationID, COMMAND | LAST, command, out.size);
}

L_INT L_DicomSendCEchoRequest(HDICOMNET hNet, L_UCHAR nPresentationID, L_UINT16 nMessageID,
                              const L_TCHAR *pszClass)
{
    const ltdic_echo echo = {.field = LTDIC_C_ECHO_RQ, .message = nMessageID};
    return send_echo(hNet, nPresentationID, pszClass, echo);
}

L_INT L_DicomSendCEchoResponse(HDICOMNET hNet, L_UCHAR nPresentationID, L_UINT16 nMessageID,
                               const L_TCHAR *pszClass, L_UINT16 nStatus)
{
    const ltdic_echo echo = {.field = LTDIC_C_ECHO_RSP, .message = nMessageID, .status = nStatus};
    return send_echo(hNet, nPresentationID, pszClass, echo);
}
