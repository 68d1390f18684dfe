/* SPDX-License-Identifier: MIT */
/* Any bytes, cut anywhere, given to an association whose user acts at random. The first byte of the
 * input chooses the side and whether the association is established already, and seeds the cuts,
 * the acts of the user and the clock.
 *
 * Promised: each end is told once and last; after a fault an A-ABORT waits to be sent, or the
 * connection has ended; the indications fit the side; less than a PDU of input is left over. Two
 * mains, see fuzz_pdu.c. */
#define PREFIXES 300
#include "fuzz.h"
#include "l_dicom/associate.h"

enum { PATIENCE = 1000, LARGEST_CHUNK = 200 };

typedef struct scene {
    ltdic_association *a;
    uint64_t now;
    uint32_t random;
    int over;
    ltdic_echo_reader echoes;
} scene;

static uint32_t draw(scene *s, uint32_t below)
{
    s->random = (uint32_t)((s->random * UINT64_C(1664525) + 1013904223) & UINT32_MAX);
    return (s->random >> 16) % below;
}

static void send_object(scene *s, HDICOMPDU hPDU)
{
    bool wrong;
    ltdic_buffer pdu = ltdic__associate_encode(ltdic__associate_of(hPDU), &wrong);
    if (!wrong) {
        PROMISE(pdu.data != NULL);
        ltdic_association_send(s->a, (ltdic_bytes){pdu.data, pdu.size}, s->now);
    }
    free(pdu.data);
}

static void send_fixed(scene *s, uint8_t type)
{
    uint8_t pdu[LTDIC_FIXED_PDU_SIZE];
    ltdic_encode_fixed(pdu, type, (ltdic_reject){1, 1, 1});
    ltdic_association_send(s->a, (ltdic_bytes){pdu, sizeof pdu}, s->now);
}

static void request(scene *s)
{
    HDICOMPDU hPDU = L_DicomCreateAssociate(TRUE);
    PROMISE(L_DicomDefaultAssociate(hPDU) == DICOM_SUCCESS);
    send_object(s, hPDU);
    PROMISE(ltdic_association_opened(s->a, LTDIC_EVT_CONNECTED, s->now) == LTDIC_OK);
    L_DicomFreeAssociate(hPDU);
}

/* Accept each context with its first transfer syntax; if not `right`, maybe with another. */
static void answer(scene *s, ltdic_bytes rq, int right)
{
    associate *request = ltdic__associate_from_pdu(rq);
    HDICOMPDU asked = ltdic__associate_handle(request), accept = L_DicomCreateAssociate(FALSE);
    PROMISE(asked != NULL && L_DicomDefaultAssociate(accept) == DICOM_SUCCESS);
    for (L_INT i = 0; i < L_DicomGetPresentationCount(asked); i++) {
        const L_UCHAR id = L_DicomGetPresentation(asked, i);
        L_DicomAddPresentation(accept, id, 0, NULL);
        const char *transfer = L_DicomGetTransfer(asked, id, 0);
        L_DicomAddTransfer(accept, id, right || draw(s, 8) > 0 ? transfer : "1.2");
    }
    PROMISE(ltdic__associate_answer(request, ltdic__associate_of(accept)));
    send_object(s, accept);
    ltdic__associate_free(request);
    L_DicomFreeAssociate(accept);
    if (ltdic_association_state(s->a) == 3) {
        send_fixed(s, LTDIC_ASSOCIATE_RJ);
    }
}

static void send_data(scene *s)
{
    static const uint8_t data[600];
    const uint32_t size = draw(s, sizeof data);
    const ltdic_pdv pdv = {
        (uint8_t)(draw(s, 4) == 0 ? draw(s, 256) : 1), (uint8_t)draw(s, 4), {data, size}};
    ltdic_association_send_data(s->a, &pdv, s->now);
}

/* The transport takes some of the bytes to send. */
static void take_output(scene *s)
{
    ltdic_output out;
    ltdic_association_output(s->a, &out);
    for (size_t i = 0; i < out.count; i++) {
        PROMISE(out.parts[i].size > 0);
        const size_t size = draw(s, 4) == 0 ? out.parts[i].size / 2 : out.parts[i].size;
        ltdic_association_sent(s->a, size, s->now);
        if (size < out.parts[i].size) {
            break;
        }
    }
    if (draw(s, 2) == 0) {
        PROMISE(ltdic_association_keep(s->a) == LTDIC_OK);
    }
}

static int ends_with_abort(const scene *s)
{
    ltdic_output out;
    ltdic_association_output(s->a, &out);
    return out.count > 0 && out.parts[out.count - 1].data[0] == LTDIC_ABORT;
}

static void find_echo(scene *s, const ltdic_piece *piece)
{
    ltdic_echo echo;
    const int status = ltdic_echo_reader_take(&s->echoes, &echo, piece);
    PROMISE(status == LTDIC_NEED_MORE || status == LTDIC_OK);
    PROMISE((status == LTDIC_OK) == (echo.field != 0));
    PROMISE(echo.field == 0 || (piece->last && piece->control % 4 == 3));
}

static void react(scene *s, const ltdic_indication *i)
{
    if (i->status != LTDIC_OK) {
        PROMISE(ltdic_association_state(s->a) == 13 && ends_with_abort(s));
        return;
    }
    if (i->type == LTDIC_ASSOCIATE_RQ && draw(s, 8) > 0) {
        answer(s, i->pdu, 0);
    } else if (i->type == LTDIC_RELEASE_RQ && draw(s, 4) > 0) {
        send_fixed(s, LTDIC_RELEASE_RP);
    } else if (i->type == LTDIC_DATA_TF) {
        PROMISE(i->piece.data.size <= i->pdu.size);
        find_echo(s, &i->piece);
    }
}

static void act(scene *s)
{
    static const uint8_t types[] = {LTDIC_RELEASE_RQ, LTDIC_RELEASE_RP, LTDIC_ABORT,
                                    LTDIC_ASSOCIATE_RJ};
    const uint32_t what = draw(s, 40);
    if (what < sizeof types) {
        send_fixed(s, types[what]);
    } else if (what < 20) {
        send_data(s);
    }
    s->now += draw(s, PATIENCE / 4);
    take_output(s);
}

static void take_indications(scene *s, ltdic_bytes *in)
{
    ltdic_indication i;
    while (ltdic_association_next(s->a, &i, in, s->now) == LTDIC_OK) {
        PROMISE(!s->over); /* no indication after the end */
        PROMISE(strcmp(ltdic_status_name(i.status), "unknown") != 0);
        if (i.kind == LTDIC_CLOSED) {
            PROMISE(ltdic_association_state(s->a) == 1);
            s->over = 1;
            ltdic_echo_reader_clear(&s->echoes);
        } else if (i.kind == LTDIC_RECEIVED) {
            react(s, &i);
        }
    }
}

/* Receive all bytes in pieces, each in a block of exactly its size. */
static void receive(scene *s, ltdic_bytes all)
{
    size_t start = 0, end = 0;
    while (end < all.size && !s->over) {
        const size_t chunk = 1 + draw(s, LARGEST_CHUNK);
        end = all.size - end < chunk ? all.size : end + chunk;
        uint8_t *exact = malloc(end - start);
        PROMISE(exact != NULL);
        memcpy(exact, all.data + start, end - start);
        ltdic_bytes in = {exact, end - start};
        take_indications(s, &in);
        start = end - in.size;
        free(exact);
        act(s);
    }
}

/* Give all bytes that one side has to send to the other side. */
static void pass(scene *from, scene *to, ltdic_indication *i)
{
    ltdic_output out;
    ltdic_association_output(from->a, &out);
    PROMISE(out.count == 1);
    ltdic_bytes in = out.parts[0];
    do { /* LTDIC_SENT is told first */
        PROMISE(ltdic_association_next(to->a, i, &in, to->now) == LTDIC_OK);
    } while (i->kind == LTDIC_SENT);
    PROMISE(in.size == 0);
    if (i->type == LTDIC_ASSOCIATE_RQ) {
        answer(to, i->pdu, 1);
    }
    ltdic_association_sent(from->a, out.parts[0].size, from->now);
}

/* Establish an association; the peer is not used afterwards. */
static void establish(scene *requestor, scene *acceptor)
{
    ltdic_indication i;
    request(requestor);
    PROMISE(ltdic_association_opened(acceptor->a, LTDIC_EVT_ACCEPTED, 1) == LTDIC_OK);
    pass(requestor, acceptor, &i);
    pass(acceptor, requestor, &i);
    PROMISE(ltdic_association_state(requestor->a) == 6);
    PROMISE(ltdic_association_state(acceptor->a) == 6);
}

static void begin(scene *s, int requestor, int established)
{
    scene peer = {.a = ltdic_association_new(), .now = 1};
    PROMISE(peer.a != NULL);
    if (established) {
        establish(requestor ? s : &peer, requestor ? &peer : s);
    } else if (requestor) {
        request(s);
    } else {
        PROMISE(ltdic_association_opened(s->a, LTDIC_EVT_ACCEPTED, s->now) == LTDIC_OK);
    }
    ltdic_echo_reader_clear(&peer.echoes);
    ltdic_association_free(peer.a);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const ltdic_timeouts timeouts = {sizeof timeouts, PATIENCE, PATIENCE, PATIENCE};
    if (size == 0) {
        return 0;
    }
    scene s = {.a = ltdic_association_new(), .now = 1, .random = data[0]};
    ltdic_bytes nothing = {NULL, 0};
    PROMISE(s.a != NULL);
    ltdic_association_set_timeouts(s.a, &timeouts);
    begin(&s, data[0] % 2, data[0] / 2 % 2);
    receive(&s, (ltdic_bytes){data + 1, size - 1});
    take_indications(&s, &nothing);
    if (!s.over) {
        ltdic_association_closed(s.a, LTDIC_ERR_CLOSED, s.now);
        take_indications(&s, &nothing);
    }
    PROMISE(s.over && ltdic_association_deadline(s.a) == 0);
    ltdic_echo_reader_clear(&s.echoes);
    ltdic_association_free(s.a);
    return 0;
}

void replay(const uint8_t *data, size_t size)
{
    LLVMFuzzerTestOneInput(data, size + 1);
}
