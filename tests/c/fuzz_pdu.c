/* SPDX-License-Identifier: MIT */
/* Any bytes through the codec, with its promises asserted.
 *
 * Built with -fsanitize=fuzzer -DFUZZ_ENGINE it is a libFuzzer target; without, it replays the
 * files named on the command line, each with all its prefixes. */
#define PREFIXES SIZE_MAX
#include "fuzz.h"

#include <stdlib.h>
#include <string.h>

static void check_fault(const ltdic_fault *fault, size_t size)
{
    PROMISE(fault->offset <= size);
    PROMISE((fault->need > size) == (fault->status == LTDIC_NEED_MORE));
    PROMISE(strcmp(ltdic_status_name(fault->status), "unknown") != 0);
}

/* Rows lie inside the PDU. */
static void check_rows(const ltdic_items *rows, size_t size)
{
    PROMISE(rows->count > 0 && rows->items[0].kind == LTDIC_PDU);
    PROMISE(rows->items[0].offset == 6 && rows->items[0].length <= size - 6);
    for (size_t i = 0; i < rows->count; i++) {
        PROMISE(rows->items[i].offset <= size);
        PROMISE(rows->items[i].length <= size - rows->items[i].offset);
    }
}

static int decode(ltdic_items *rows, ltdic_bytes in, uint8_t strict, ltdic_fault *fault)
{
    const ltdic_options options = {sizeof options, 0, LTDIC_MAX_ASSOCIATE, strict};
    rows->room = in.size / 2 + 8; /* a context of four bytes has no more rows than this */
    rows->items = malloc(rows->room * sizeof *rows->items);
    rows->count = 0;
    PROMISE(rows->items != NULL);
    const int status = ltdic_decode(rows, in, &options, fault);
    PROMISE(status == fault->status && status != LTDIC_ERR_ROOM);
    if (status == LTDIC_OK) {
        check_rows(rows, in.size);
    } else {
        check_fault(fault, in.size);
    }
    return status;
}

/* What encodes again decodes to the same rows, but for their places. */
static void check_encoding(const ltdic_items *rows, ltdic_bytes in)
{
    ltdic_fault fault;
    ltdic_buffer out = {NULL, 0, 0};
    int status = ltdic_encode(&out, rows, in, &fault);
    if (status != LTDIC_ERR_ROOM) {
        PROMISE(fault.offset < rows->count);
        return; /* not everything that lenient decoding takes can be sent */
    }
    out.room = out.size;
    out.data = malloc(out.room);
    PROMISE(out.data != NULL);
    status = ltdic_encode(&out, rows, in, &fault);
    PROMISE(status == LTDIC_OK && out.size == out.room);
    ltdic_items again;
    status = decode(&again, (ltdic_bytes){out.data, out.size}, 0, &fault);
    PROMISE(status == LTDIC_OK && again.count == rows->count);
    for (size_t i = 0; i < rows->count; i++) {
        const ltdic_item *a = &rows->items[i], *b = &again.items[i];
        const int container =
            a->kind == LTDIC_PDU || a->kind == LTDIC_CONTEXT || a->kind == LTDIC_USER_INFORMATION;
        PROMISE(a->kind == b->kind && a->id == b->id && a->result == b->result);
        PROMISE(a->source == b->source && a->reason == b->reason && a->version == b->version);
        PROMISE(container || (a->length == b->length &&
                              memcmp(in.data + a->offset, out.data + b->offset, a->length) == 0));
    }
    free(again.items);
    free(out.data);
}

/* Strict takes no more than lenient, and what it takes comes to the same. */
static void check_strict(const ltdic_items *rows, ltdic_bytes in, int lenient)
{
    ltdic_items strict;
    ltdic_fault fault;
    if (decode(&strict, in, 1, &fault) == LTDIC_OK) {
        PROMISE(lenient == LTDIC_OK && strict.count == rows->count);
        PROMISE(memcmp(strict.items, rows->items, rows->count * sizeof *rows->items) == 0);
    }
    free(strict.items);
}

static void check_pdvs(const ltdic_items *rows, ltdic_bytes in)
{
    ltdic_bytes rest = {in.data + 6, rows->items[0].length};
    ltdic_pdv pdv;
    size_t count = 1;
    for (; ltdic_next_pdv(&rest, &pdv) == LTDIC_OK; count++) {
        PROMISE(count < rows->count);
        PROMISE(pdv.id == rows->items[count].id && pdv.control == rows->items[count].result);
        PROMISE(pdv.data.data == in.data + rows->items[count].offset);
        PROMISE(pdv.data.size == rows->items[count].length);
    }
    PROMISE(count == rows->count && rest.size == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *exact = malloc(size); /* a byte too many is then seen */
    if (size > 0) {
        memcpy(exact, data, size);
    }
    const ltdic_bytes in = {exact, size};
    ltdic_items rows;
    ltdic_fault fault;
    ltdic_bytes pdu;
    const int status = decode(&rows, in, 0, &fault);
    const int framed = ltdic_frame(&pdu, in, NULL, &fault);
    PROMISE(status != LTDIC_OK || (framed == LTDIC_OK && pdu.size <= size));
    PROMISE(framed == LTDIC_OK || framed == status);
    check_strict(&rows, in, status);
    if (status == LTDIC_OK) {
        check_encoding(&rows, in);
    }
    if (status == LTDIC_OK && exact[0] == LTDIC_DATA_TF) {
        check_pdvs(&rows, in);
    }
    free(rows.items);
    free(exact);
    return 0;
}

void replay(const uint8_t *data, size_t size)
{
    LLVMFuzzerTestOneInput(data + 1, size);
}
