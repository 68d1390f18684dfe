/* SPDX-License-Identifier: MIT */
/* Shared by the fuzz targets: PROMISE, and a main that replays files without a fuzzing engine.
 * Define PREFIXES before including it: prefixes of a file shorter than this are replayed too. */
#include "ltdic.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PROMISE(condition) \
    do { \
        if (!(condition)) { \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); \
            abort(); \
        } \
    } while (0)

/* Decode into rows on the heap, which the caller frees. Check that rows lie inside the PDU, and
 * faults inside the input. */
static inline int decode(ltdic_items *rows, ltdic_bytes in, ltdic_options options,
                         ltdic_fault *fault)
{
    options.size = sizeof options;
    options.max_associate = LTDIC_MAX_ASSOCIATE;
    rows->room = in.size / 2 + 8; /* an item of four bytes has at most two rows */
    rows->items = malloc(rows->room * sizeof *rows->items);
    PROMISE(rows->items != NULL);
    const int status = ltdic_decode(rows, in, &options, fault);
    PROMISE(status == fault->status && status != LTDIC_ERR_ROOM);
    PROMISE(rows->count <= rows->room);
    for (size_t i = 0; i < rows->count; i++) {
        PROMISE(rows->items[i].offset <= in.size);
        PROMISE(rows->items[i].length <= in.size - rows->items[i].offset);
    }
    if (status != LTDIC_OK) {
        PROMISE(fault->offset <= in.size);
        PROMISE((fault->need > in.size) == (status == LTDIC_NEED_MORE));
        PROMISE(strcmp(ltdic_status_name(status), "unknown") != 0);
        return status;
    }
    PROMISE(rows->count > 0 && rows->items[0].kind == LTDIC_PDU);
    PROMISE(rows->items[0].offset == 6 && rows->items[0].length <= in.size - 6);
    return LTDIC_OK;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Run the target on the `size` bytes from data[1]; the target may use data[0]. */
void replay(const uint8_t *data, size_t size);

#ifndef FUZZ_ENGINE
enum { LARGEST = 1 << 20 };

int main(int count, char **names)
{
    static uint8_t data[LARGEST + 1];
    for (int i = 1; i < count; i++) {
        FILE *file = fopen(names[i], "rb");
        PROMISE(file != NULL);
        const size_t size = fread(data + 1, 1, LARGEST, file);
        fclose(file);
        for (size_t prefix = 0; prefix <= size && prefix < PREFIXES; prefix++) {
            data[0] = (uint8_t)prefix;
            replay(data, prefix);
        }
        replay(data, size);
    }
    printf("%d files and all their prefixes\n", count - 1);
    return 0;
}
#endif
