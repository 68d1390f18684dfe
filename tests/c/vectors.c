/* SPDX-License-Identifier: MIT */
/* Decode what standard input asks for, and say what came of it.
 *
 * A line in:  STRICT MAX_PDATA MAX_ASSOCIATE HEX     (HEX is - for no bytes)
 * A line out: ok ROW ROW ...                          a row: its fields, separated by commas
 *             KIND OFFSET NEED
 * The input lies in a block of exactly its size, so that a sanitizer sees a byte too many. */
#include "ltdic.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LINE = 1 << 22, ROWS = 1 << 16 };

static char line[LINE];
static ltdic_item items[ROWS];

static unsigned nibble(char digit)
{
    return (unsigned)(digit <= '9' ? digit - '0' : digit - 'a' + 10);
}

static uint8_t *bytes_of(const char *hex, size_t *size)
{
    *size = strcmp(hex, "-") == 0 ? 0 : strlen(hex) / 2;
    uint8_t *bytes = malloc(*size);
    for (size_t i = 0; i < *size; i++) {
        bytes[i] = (uint8_t)(nibble(hex[2 * i]) << 4 | nibble(hex[2 * i + 1]));
    }
    return bytes;
}

static void check_rows(const ltdic_items *rows, size_t size)
{
    for (size_t i = 0; i < rows->count; i++) {
        assert(rows->items[i].offset <= size);
        assert(rows->items[i].length <= size - rows->items[i].offset);
    }
}

/* Checking only, and too little room, must come to the same. */
static void check_other_ways(ltdic_bytes in, const ltdic_options *options, size_t count)
{
    ltdic_fault fault;
    ltdic_items few = {items, count - 1, 0};
    int status = ltdic_decode(NULL, in, options, &fault);
    assert(status == LTDIC_OK);
    status = ltdic_decode(&few, in, options, &fault);
    assert(status == LTDIC_ERR_ROOM && few.count == count);
}

static void print_rows(const ltdic_items *rows)
{
    printf("ok");
    for (size_t i = 0; i < rows->count; i++) {
        const ltdic_item *r = &rows->items[i];
        printf(" %u,%u,%u,%u,%u,%u,%u,%u,%u", r->offset, r->length, r->kind, r->type, r->id,
               r->result, r->source, r->reason, r->version);
    }
    printf("\n");
}

static void answer(unsigned strict, unsigned max_pdata, unsigned max_associate, const char *hex)
{
    size_t size;
    uint8_t *bytes = bytes_of(hex, &size);
    const ltdic_bytes in = {bytes, size};
    const ltdic_options options = {sizeof options, max_pdata, max_associate, (uint8_t)strict};
    ltdic_items rows = {items, ROWS, 0};
    ltdic_fault fault;
    if (ltdic_decode(&rows, in, &options, &fault) == LTDIC_OK) {
        const size_t count = rows.count;
        check_rows(&rows, size);
        print_rows(&rows);
        check_other_ways(in, &options, count);
    } else {
        printf("%s %llu %llu\n", ltdic_status_name(fault.status), (unsigned long long)fault.offset,
               (unsigned long long)fault.need);
    }
    free(bytes);
}

int main(void)
{
    static char hex[LINE];
    unsigned strict, max_pdata, max_associate;
    while (fgets(line, sizeof line, stdin) != NULL) {
        if (sscanf(line, "%u %u %u %s", &strict, &max_pdata, &max_associate, hex) != 4) {
            return 1;
        }
        answer(strict, max_pdata, max_associate, hex);
    }
    return 0;
}
