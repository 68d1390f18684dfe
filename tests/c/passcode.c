/* SPDX-License-Identifier: MIT */
/* Search every block of memory that the library frees for the passcode of a user identity. Linked
 * with -Wl,--wrap=free,--wrap=realloc. */
#define _GNU_SOURCE
#include "l_dicom/associate.h"

#undef NDEBUG
#include <assert.h>
#include <malloc.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define PASSCODE "correct horse battery staple"
enum { PASSCODE_SIZE = sizeof PASSCODE - 1 };

static const L_UCHAR name[] = "USER", passcode[] = PASSCODE;
static unsigned freed, found; /* number of blocks: all, and those with the passcode */

void *__real_realloc(void *block, size_t size);
void __real_free(void *block);
void *__wrap_realloc(void *block, size_t size);
void __wrap_free(void *block);

static void search(const void *block)
{
    if (block != NULL) {
        const size_t size = malloc_usable_size((void *)(uintptr_t)block);
        freed++;
        found += memmem(block, size, PASSCODE, PASSCODE_SIZE) != NULL;
    }
}

/* realloc counts as a free: the block may move, and its old bytes stay in memory. */
void *__wrap_realloc(void *block, size_t size)
{
    search(block);
    return __real_realloc(block, size);
}

void __wrap_free(void *block)
{
    search(block);
    __real_free(block);
}

static void report(const char *what)
{
    assert(freed > 0);
    printf("%s: %s\n", what, found > 0 ? "found" : "not found");
    freed = found = 0;
}

/* ---- the search itself -------------------------------------------------------------------- */

static void free_a_block_as_it_is(void)
{
    volatile uint8_t *block = malloc(100);
    assert(block != NULL);
    for (size_t i = 0; i < PASSCODE_SIZE; i++) {
        block[i] = passcode[i];
    }
    free((void *)(uintptr_t)block);
    report("a block of the test");
}

/* ---- associate objects -------------------------------------------------------------------- */

static HDICOMPDU new_request(void)
{
    HDICOMPDU pdu = L_DicomCreateAssociate(TRUE);
    assert(pdu != NULL && L_DicomDefaultAssociate(pdu) == DICOM_SUCCESS);
    assert(L_DicomSetUserIdentity(pdu, PDU_IDENTITY_PASSCODE, FALSE, name, sizeof name - 1,
                                  passcode, PASSCODE_SIZE) == DICOM_SUCCESS);
    return pdu;
}

static void free_an_object(void)
{
    L_DicomFreeAssociate(new_request());
    report("an object");
}

static void move_an_object(void)
{
    static const L_UCHAR information[5000];
    HDICOMPDU pdu = new_request();
    assert(L_DicomSetExtended(pdu, "1.2.3", information, sizeof information) == DICOM_SUCCESS);
    report("an object that grows");
    L_DicomFreeAssociate(pdu);
    report("an object that has grown");
}

static void replace_an_identity(void)
{
    HDICOMPDU pdu = new_request();
    assert(L_DicomSetUserIdentity(pdu, PDU_IDENTITY_USERNAME, FALSE, name, sizeof name - 1, NULL,
                                  0) == DICOM_SUCCESS);
    L_DicomFreeAssociate(pdu);
    report("an object with another identity");
}

static void reset_an_object(void)
{
    HDICOMPDU pdu = new_request();
    assert(L_DicomResetAssociate(pdu, TRUE) == DICOM_SUCCESS);
    report("an object that is reset");
    L_DicomFreeAssociate(pdu);
    report("an object that was reset");
}

/* ---- handles ------------------------------------------------------------------------------ */

/* Nothing is received at the listener. */
static void send_an_object(void)
{
    HDICOMPDU pdu = new_request();
    HDICOMNET listener = L_DicomCreateNet(NULL, DICOM_SECURE_NONE);
    HDICOMNET net = L_DicomCreateNet(NULL, DICOM_SECURE_NONE);
    L_TCHAR address[46];
    L_UINT port;
    assert(L_DicomListen(listener, "127.0.0.1", 0, 1) == DICOM_SUCCESS);
    assert(L_DicomGetHostInfo(listener, address, sizeof address, &port) == DICOM_SUCCESS);
    assert(L_DicomConnect(net, NULL, 0, address, port) == DICOM_SUCCESS);
    assert(L_DicomSendAssociateRequest(net, pdu) == DICOM_SUCCESS);
    L_DicomFreeAssociate(pdu);
    report("a request that a handle sends");
    L_DicomFreeNet(net);
    report("a handle that has a request");
    L_DicomFreeNet(listener);
}

/* ---- associations ------------------------------------------------------------------------- */

static uint8_t rq_bytes[1000], ac_bytes[1000];
static ltdic_bytes rq, ac;

static ltdic_bytes encode(HDICOMPDU pdu, uint8_t *bytes)
{
    bool wrong;
    ltdic_buffer encoded = ltdic__associate_encode(ltdic__associate_of(pdu), &wrong);
    assert(encoded.data != NULL && encoded.size <= sizeof rq_bytes);
    memcpy(bytes, encoded.data, encoded.size);
    memset(encoded.data, 0, encoded.size);
    free(encoded.data);
    return (ltdic_bytes){bytes, encoded.size};
}

static void make_pdus(void)
{
    HDICOMPDU request = new_request(), accept = L_DicomCreateAssociate(FALSE);
    assert(accept != NULL && L_DicomDefaultAssociate(accept) == DICOM_SUCCESS);
    assert(L_DicomAddPresentation(accept, 1, PDU_ACCEPT_RESULT_SUCCESS, NULL) == DICOM_SUCCESS);
    assert(L_DicomAddTransfer(accept, 1, "1.2.840.10008.1.2") == DICOM_SUCCESS);
    rq = encode(request, rq_bytes);
    ac = encode(accept, ac_bytes);
    L_DicomFreeAssociate(request);
    L_DicomFreeAssociate(accept);
    assert(memmem(rq.data, rq.size, PASSCODE, PASSCODE_SIZE) != NULL);
    freed = found = 0;
}

static ltdic_association *new_requestor(void)
{
    ltdic_association *a = ltdic_association_new();
    assert(a != NULL && ltdic_association_send(a, rq, 0) == LTDIC_OK);
    return a;
}

static ltdic_association *new_acceptor(void)
{
    ltdic_association *a = ltdic_association_new();
    assert(a != NULL && ltdic_association_opened(a, LTDIC_EVT_ACCEPTED, 0) == LTDIC_OK);
    return a;
}

static void receive(ltdic_association *a, ltdic_bytes pdu)
{
    ltdic_indication indication;
    while (ltdic_association_next(a, &indication, &pdu, 0) == LTDIC_OK) {
    }
    assert(pdu.size == 0);
}

static void free_association(ltdic_association *a, const char *what)
{
    ltdic_association_free(a);
    report(what);
}

static void free_a_requestor(void)
{
    free_association(new_requestor(), "a requestor with a request to send");
}

static void send_and_be_accepted(void)
{
    ltdic_association *a = new_requestor();
    assert(ltdic_association_opened(a, LTDIC_EVT_CONNECTED, 0) == LTDIC_OK);
    ltdic_association_sent(a, rq.size / 2, 0);
    ltdic_association_sent(a, rq.size - rq.size / 2, 0);
    report("a requestor that has sent its request");
    receive(a, ac);
    assert(ltdic_association_state(a) == 6);
    report("a requestor that is accepted");
    free_association(a, "a requestor that was accepted");
}

static void lose_the_transport(void)
{
    ltdic_association *a = new_requestor();
    assert(ltdic_association_opened(a, LTDIC_EVT_CONNECTED, 0) == LTDIC_OK);
    ltdic_association_lost(a);
    report("a requestor that loses its transport");
    ltdic_association_closed(a, LTDIC_ERR_CLOSED, 0);
    free_association(a, "a requestor that has ended");
}

/* Data that can no longer be sent is copied too. */
static void send_after_a_loss(void)
{
    ltdic_association *a = ltdic_association_new();
    assert(a != NULL);
    ltdic_association_lost(a);
    assert(ltdic_association_send(a, rq, 0) == LTDIC_OK);
    report("a requestor without a transport");
    free_association(a, "a requestor that had no transport");
}

static void accept_a_request(void)
{
    ltdic_association *a = new_acceptor();
    receive(a, rq);
    assert(ltdic_association_send(a, ac, 0) == LTDIC_OK);
    report("an acceptor that accepts");
    free_association(a, "an acceptor that has accepted");
}

static void reject_a_request(void)
{
    static const ltdic_reject codes = {1, 1, 1};
    uint8_t rj[LTDIC_FIXED_PDU_SIZE];
    ltdic_association *a = new_acceptor();
    receive(a, rq);
    ltdic_encode_fixed(rj, LTDIC_ASSOCIATE_RJ, codes);
    assert(ltdic_association_send(a, (ltdic_bytes){rj, sizeof rj}, 0) == LTDIC_OK);
    ltdic_association_closed(a, LTDIC_ERR_CLOSED, 0);
    report("an acceptor that rejects");
    free_association(a, "an acceptor that has rejected");
}

static void free_an_acceptor(void)
{
    ltdic_association *a = new_acceptor();
    receive(a, rq);
    free_association(a, "an acceptor with a request");
}

/* A request that the provider refused is kept until the next request. */
static ltdic_association *new_refuser(void)
{
    enum { LAST_OF_APPLICATION_CONTEXT = 98 };
    ltdic_association *a = new_acceptor();
    assert(rq_bytes[LAST_OF_APPLICATION_CONTEXT] == '1');
    rq_bytes[LAST_OF_APPLICATION_CONTEXT] = '2';
    receive(a, rq);
    rq_bytes[LAST_OF_APPLICATION_CONTEXT] = '1';
    ltdic_association_closed(a, LTDIC_ERR_CLOSED, 0);
    receive(a, (ltdic_bytes){NULL, 0});
    report("an acceptor that has refused");
    return a;
}

static void receive_another_request(void)
{
    ltdic_association *a = new_refuser();
    assert(ltdic_association_opened(a, LTDIC_EVT_ACCEPTED, 0) == LTDIC_OK);
    receive(a, rq);
    free_association(a, "an acceptor that was asked again");
}

static void send_another_request(void)
{
    ltdic_association *a = new_refuser();
    assert(ltdic_association_send(a, rq, 0) == LTDIC_OK);
    free_association(a, "an acceptor that became a requestor");
}

/* ---- servers ------------------------------------------------------------------------------ */

static int connect_to(ltdic_server *server)
{
    uint8_t host[46];
    ltdic_buffer name_of_host = {host, sizeof host, 0};
    struct sockaddr_in address = {.sin_family = AF_INET};
    uint16_t port;
    assert(ltdic_server_name(server, &name_of_host, &port) == LTDIC_OK);
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert(fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof address) == 0);
    return fd;
}

/* Send the request in so many parts; run the server after each. */
static void ask_a_server(ltdic_server *server, size_t parts, unsigned wanted)
{
    const int fd = connect_to(server);
    ltdic_batch batch;
    unsigned events = 0;
    for (size_t i = 0; i < parts; i++) {
        const size_t from = rq.size * i / parts, to = rq.size * (i + 1) / parts;
        assert(send(fd, rq.data + from, to - from, 0) == (ssize_t)(to - from));
        ltdic_server_run(server, &batch, wanted, 20);
        events += (unsigned)batch.count;
    }
    assert(wanted == 0 || events > 0);
    ltdic_server_run(server, &batch, wanted, 20);
    close(fd);
    ltdic_server_run(server, &batch, wanted, 20);
    report("a server that was asked");
}

static void serve(unsigned wanted)
{
    const ltdic_address address = {"127.0.0.1", 0, LTDIC_IP_V4};
    ltdic_admission *admission = ltdic_admission_new();
    assert(admission != NULL);
    ltdic_admission_accept_any(admission);
    ltdic_loop *loop = ltdic_loop_new();
    ltdic_server *server = ltdic_server_new(loop, admission);
    assert(server != NULL && ltdic_server_listen(server, &address, 0) == LTDIC_OK);
    ask_a_server(server, 1, wanted);
    ask_a_server(server, 3, wanted);
    ltdic_server_free(server);
    ltdic_loop_free(loop);
    ltdic_admission_free(admission);
    report("a server that has served");
}

/* ---- admissions --------------------------------------------------------------------------- */

static void free_an_admission(void)
{
    static uint8_t memory[LTDIC_ACCEPT_ROOM];
    ltdic_admission *admission = ltdic_admission_new();
    const ltdic_bytes user = {name, sizeof name - 1}, code = {passcode, PASSCODE_SIZE};
    ltdic_buffer accept = {memory, sizeof memory, 0};
    ltdic_answer answer;
    assert(ltdic_admission_add_identity(admission, user, code) == LTDIC_OK);
    assert(ltdic_admission_judge(admission, &answer, &accept, rq, (ltdic_bytes){NULL, 0}) ==
           LTDIC_OK);
    assert(answer.admitted);
    ltdic_admission_leave(admission, &answer);
    ltdic_admission_free(admission);
    report("an admission");
}

int main(void)
{
    free_a_block_as_it_is();
    free_an_object();
    move_an_object();
    replace_an_identity();
    reset_an_object();
    send_an_object();
    make_pdus();
    free_a_requestor();
    send_and_be_accepted();
    lose_the_transport();
    send_after_a_loss();
    accept_a_request();
    reject_a_request();
    free_an_acceptor();
    receive_another_request();
    send_another_request();
    serve(0);
    serve(LTDIC_WANT_DATA);
    serve(LTDIC_WANT_REQUESTS);
    free_an_admission();
    return 0;
}
