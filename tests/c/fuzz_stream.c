/* SPDX-License-Identifier: MIT */
/* Any bytes, cut anywhere, through the stream decoder. The first byte of the input seeds the cuts.
 *
 * Promised: cutting changes nothing, and the joined pieces equal the values that ltdic_decode finds
 * in each whole PDU. Two mains, see fuzz_pdu.c. */
#define PREFIXES 600
#include "fuzz.h"

/* A hash of all output bytes, independent of the cuts. */
typedef struct digest {
    uint64_t hash, bytes, pdus;
} digest;

static void add(digest *d, const void *data, size_t size)
{
    const uint8_t *p = data;
    for (size_t i = 0; i < size; i++) {
        d->hash = (d->hash * 257 + p[i]) % 4294967291U;
    }
    d->bytes += size;
}

static void add_piece(digest *d, const ltdic_piece *piece)
{
    const uint8_t head[3] = {piece->type, piece->id, piece->control};
    if (piece->type != LTDIC_DATA_TF || piece->first) {
        add(d, head, sizeof head);
    }
    add(d, piece->data.data, piece->data.size);
    d->pdus += piece->end;
}

/* Stream all bytes, up to a fault, in pieces of at most `chunk` bytes. */
static digest stream(ltdic_bytes all, size_t chunk, ltdic_fault *fault)
{
    ltdic_stream s = {0};
    ltdic_piece piece;
    digest d = {0};
    size_t start = 0, end = 0;
    for (;;) {
        uint8_t *exact = malloc(end - start); /* a sanitizer then sees an access beyond it */
        if (end > start) {
            memcpy(exact, all.data + start, end - start);
        }
        ltdic_bytes in = {exact, end - start};
        int status;
        while ((status = ltdic_stream_next(&s, &piece, &in, NULL, fault)) == LTDIC_OK) {
            add_piece(&d, &piece);
        }
        start = end - in.size;
        free(exact);
        if (status != LTDIC_NEED_MORE || end == all.size) {
            return d;
        }
        PROMISE(fault->need > fault->offset);
        end = all.size - end < chunk ? all.size : end + chunk;
    }
}

/* Compute the same digest from whole PDUs. False if one is incomplete or invalid. */
static int whole(ltdic_bytes all, digest *d)
{
    ltdic_fault fault;
    ltdic_bytes pdu, rest;
    ltdic_pdv pdv;
    for (; all.size > 0; all.data += pdu.size, all.size -= pdu.size) {
        if (ltdic_frame(&pdu, all, NULL, &fault) != LTDIC_OK ||
            (pdu.data[0] == LTDIC_DATA_TF && ltdic_decode(NULL, pdu, NULL, &fault) != LTDIC_OK)) {
            return 0;
        }
        ltdic_piece piece = {.data = pdu, .type = pdu.data[0], .first = 1};
        rest = (ltdic_bytes){pdu.data + 6, pdu.size - 6};
        while (piece.type == LTDIC_DATA_TF && ltdic_next_pdv(&rest, &pdv) == LTDIC_OK) {
            piece.id = pdv.id;
            piece.control = pdv.control;
            piece.data = pdv.data;
            add_piece(d, &piece);
        }
        if (piece.type != LTDIC_DATA_TF) {
            add_piece(d, &piece);
        }
        d->pdus++;
    }
    return 1;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0) {
        return 0;
    }
    const ltdic_bytes all = {data + 1, size - 1};
    ltdic_fault once, cut;
    const digest a = stream(all, size, &once);
    const digest b = stream(all, 1U + data[0] % 16U, &cut);
    digest c = {0};
    PROMISE(memcmp(&a, &b, sizeof a) == 0);
    PROMISE(once.status == cut.status && once.offset == cut.offset && once.need == cut.need);
    if (whole(all, &c)) {
        PROMISE(memcmp(&a, &c, sizeof a) == 0 && once.status == LTDIC_NEED_MORE);
        PROMISE(once.offset == 0 && once.need == 6);
    }
    return 0;
}

void replay(const uint8_t *data, size_t size)
{
    LLVMFuzzerTestOneInput(data, size + 1);
}
