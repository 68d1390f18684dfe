/* SPDX-License-Identifier: MIT */
/* Decoded PDUs are encoded again; and arbitrary rows are encoded.
 *
 * Promised: an exact decoding is encoded to the same bytes, also in lenient mode; any other one, if
 * it can be sent, to a PDU with the same values. Two mains, see fuzz_pdu.c. */
#define PREFIXES SIZE_MAX
#include "fuzz.h"

/* Encode into a block on the heap of exactly the size. False if the rows cannot be encoded. */
static int encode(ltdic_buffer *out, const ltdic_items *rows, ltdic_bytes values)
{
    ltdic_fault fault;
    *out = (ltdic_buffer){NULL, 0, 0};
    int status = ltdic_encode(out, rows, values, &fault);
    if (status != LTDIC_ERR_ROOM) {
        PROMISE(status < 0 && fault.offset <= rows->count);
        return 0;
    }
    out->room = out->size;
    out->data = malloc(out->room);
    PROMISE(out->data != NULL);
    status = ltdic_encode(out, rows, values, &fault);
    PROMISE(status == LTDIC_OK && out->size == out->room);
    return 1;
}

static void check_exact(ltdic_bytes in)
{
    ltdic_items rows;
    ltdic_fault fault;
    ltdic_buffer out;
    if (decode(&rows, in, (ltdic_options){.exact = 1}, &fault) == LTDIC_OK) {
        const int encoded = encode(&out, &rows, in);
        PROMISE(encoded && out.size == rows.items[0].length + 6);
        PROMISE(memcmp(out.data, in.data, out.size) == 0);
        free(out.data);
    }
    free(rows.items);
}

/* Compare two items without their offsets, and without the sizes of items that contain others. */
static int same(const ltdic_item *a, const uint8_t *a_pdu, const ltdic_item *b,
                const uint8_t *b_pdu)
{
    const int container =
        a->kind == LTDIC_PDU || a->kind == LTDIC_CONTEXT || a->kind == LTDIC_USER_INFORMATION;
    return a->kind == b->kind && a->id == b->id && a->result == b->result &&
           a->source == b->source && a->reason == b->reason && a->version == b->version &&
           (container || (a->length == b->length &&
                          memcmp(a_pdu + a->offset, b_pdu + b->offset, a->length) == 0));
}

static void check_canonical(ltdic_bytes in)
{
    ltdic_items rows, again;
    ltdic_fault fault;
    ltdic_buffer out;
    if (decode(&rows, in, (ltdic_options){0}, &fault) == LTDIC_OK && encode(&out, &rows, in)) {
        const ltdic_bytes pdu = {out.data, out.size};
        const int status = decode(&again, pdu, (ltdic_options){0}, &fault);
        PROMISE(status == LTDIC_OK && again.count == rows.count);
        for (size_t i = 0; i < rows.count; i++) {
            PROMISE(same(&rows.items[i], in.data, &again.items[i], out.data));
        }
        free(again.items);
        free(out.data);
    }
    free(rows.items);
}

/* Make a row of each eight bytes; the same bytes are the values. */
static void check_any_rows(ltdic_bytes in)
{
    ltdic_items rows = {malloc((in.size / 8 + 1) * sizeof(ltdic_item)), 0, in.size / 8};
    ltdic_buffer out;
    ltdic_bytes pdu;
    ltdic_fault fault;
    const ltdic_options options = {.size = sizeof options};
    for (size_t i = 0; i < rows.count; i++) {
        const uint8_t *p = in.data + 8 * i;
        rows.items[i] = (ltdic_item){.kind = p[0] % (LTDIC_IGNORED + 2),
                                     .type = p[1],
                                     .id = p[2],
                                     .result = p[3],
                                     .version = p[3],
                                     .offset = (uint32_t)p[4] << 8 | p[5],
                                     .length = (uint32_t)p[6] << 8 | p[7]};
    }
    if (encode(&out, &rows, in)) {
        const int status = ltdic_frame(&pdu, (ltdic_bytes){out.data, out.size}, &options, &fault);
        PROMISE(status == LTDIC_OK && pdu.size == out.size);
        free(out.data);
    }
    free(rows.items);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *block = malloc(size); /* a sanitizer then sees an access beyond it */
    if (size > 0) {
        memcpy(block, data, size);
    }
    check_exact((ltdic_bytes){block, size});
    check_canonical((ltdic_bytes){block, size});
    check_any_rows((ltdic_bytes){block, size});
    free(block);
    return 0;
}

void replay(const uint8_t *data, size_t size)
{
    LLVMFuzzerTestOneInput(data + 1, size);
}
