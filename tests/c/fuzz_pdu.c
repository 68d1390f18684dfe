/* SPDX-License-Identifier: MIT */
/* Any bytes through the decoder, with its promises asserted.
 *
 * Built with -fsanitize=fuzzer -DFUZZ_ENGINE it is a libFuzzer target; otherwise it replays the
 * files named on the command line, each with all its prefixes. */
#define PREFIXES SIZE_MAX
#include "fuzz.h"

/* Strict mode accepts a subset of lenient mode, with the same rows. */
static void check_strict(const ltdic_items *rows, ltdic_bytes in, int lenient)
{
    ltdic_items strict;
    ltdic_fault fault;
    if (decode(&strict, in, (ltdic_options){.strict = 1}, &fault) == LTDIC_OK) {
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
    uint8_t *exact = malloc(size); /* a sanitizer then sees an access beyond it */
    if (size > 0) {
        memcpy(exact, data, size);
    }
    const ltdic_bytes in = {exact, size};
    ltdic_items rows;
    ltdic_fault fault;
    ltdic_bytes pdu;
    const int status = decode(&rows, in, (ltdic_options){0}, &fault);
    const int framed = ltdic_frame(&pdu, in, NULL, &fault);
    PROMISE(status != LTDIC_OK || (framed == LTDIC_OK && pdu.size <= size));
    PROMISE(framed == LTDIC_OK || framed == status);
    check_strict(&rows, in, status);
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
