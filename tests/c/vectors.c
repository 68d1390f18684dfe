/* SPDX-License-Identifier: MIT */
/* Decode the PDUs of standard input, and print the results.
 *
 * A line in:  STRICT MAX_PDATA MAX_ASSOCIATE HEX          a PDU; HEX is - for no bytes
 * A line out: ok ROW ROW ...                               a row: its fields, separated by commas
 *             KIND OFFSET NEED
 * A line in:  stream STRICT MAX_PDATA MAX_ASSOCIATE HEX... its chunks
 * A line out: TYPE:SIZE TYPE:SIZE ... KIND OFFSET NEED     the PDUs, and the end after them
 *
 * Input lies in blocks of exactly its size, so that a sanitizer sees reads beyond it. The program
 * asserts that a decoded PDU is decoded alike with other options, and, if exact, is encoded to the
 * same bytes. */
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

/* Decoding without rows, or with too little room, must give the same result. */
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

/* An exact decoding must be encoded to the same PDU. */
static void check_exact(ltdic_bytes in, ltdic_options options)
{
    ltdic_items rows = {items, ROWS, 0};
    ltdic_fault fault;
    options.exact = 1;
    int status = ltdic_decode(&rows, in, &options, &fault);
    assert(status == LTDIC_OK);
    const size_t size = items[0].length + 6;
    ltdic_buffer out = {malloc(size), size, 0};
    status = ltdic_encode(&out, &rows, in, &fault);
    assert(status == LTDIC_OK && out.size == size && memcmp(out.data, in.data, size) == 0);
    free(out.data);
}

static void print_fault(const ltdic_fault *fault)
{
    printf("%s %llu %llu\n", ltdic_status_name(fault->status), (unsigned long long)fault->offset,
           (unsigned long long)fault->need);
}

static void answer_pdu(const ltdic_options *options, const char *hex)
{
    size_t size;
    uint8_t *bytes = bytes_of(hex, &size);
    const ltdic_bytes in = {bytes, size};
    ltdic_items rows = {items, ROWS, 0};
    ltdic_fault fault;
    if (ltdic_decode(&rows, in, options, &fault) == LTDIC_OK) {
        const size_t count = rows.count;
        check_rows(&rows, size);
        print_rows(&rows);
        check_other_ways(in, options, count);
        check_exact(in, *options);
    } else {
        print_fault(&fault);
    }
    free(bytes);
}

/* Remove the whole PDUs at the front of the bytes; return what stopped it. */
static void take_pdus(ltdic_bytes *in, const ltdic_options *options, ltdic_fault *fault)
{
    ltdic_bytes pdu;
    while (ltdic_decode(NULL, *in, options, fault) == LTDIC_OK) {
        ltdic_frame(&pdu, *in, options, fault);
        printf("%u:%zu ", pdu.data[0], pdu.size);
        in->data += pdu.size;
        in->size -= pdu.size;
    }
}

/* The same bytes in pieces must end for the same reason at the same offset. */
static void check_pieces(ltdic_bytes all, const ltdic_options *options, const ltdic_fault *whole)
{
    ltdic_stream stream = {0};
    ltdic_piece piece;
    ltdic_fault fault;
    int status;
    while ((status = ltdic_stream_next(&stream, &piece, &all, options, &fault)) == LTDIC_OK &&
           (piece.type == LTDIC_DATA_TF ||
            ltdic_decode(NULL, piece.data, options, &fault) == LTDIC_OK)) {
    }
    assert(fault.status == whole->status);
    assert(fault.offset == whole->offset);
}

static void answer_stream(const ltdic_options *options, const char *hex)
{
    uint8_t *all = NULL;
    size_t size = 0, taken = 0, more;
    ltdic_fault fault = {LTDIC_NEED_MORE, 0, 6};
    for (; hex != NULL && fault.status == LTDIC_NEED_MORE; hex = strtok(NULL, " \n")) {
        uint8_t *chunk = bytes_of(hex, &more);
        all = realloc(all, size + more);
        memcpy(all + size, chunk, more);
        free(chunk);
        size += more;
        ltdic_bytes in = {all + taken, size - taken};
        take_pdus(&in, options, &fault);
        taken = size - in.size;
    }
    print_fault(&fault);
    check_pieces((ltdic_bytes){all, size}, options, &fault);
    free(all);
}

int main(void)
{
    while (fgets(line, sizeof line, stdin) != NULL) {
        const char *word = strtok(line, " \n");
        const int is_stream = strcmp(word, "stream") == 0;
        unsigned numbers[3];
        for (int i = 0; i < 3; i++) {
            word = i == 0 && !is_stream ? word : strtok(NULL, " \n");
            numbers[i] = (unsigned)strtoul(word, NULL, 10);
        }
        const ltdic_options options = {.size = sizeof options,
                                       .max_pdata = numbers[1],
                                       .max_associate = numbers[2],
                                       .strict = (uint8_t)numbers[0]};
        char *hex = strtok(NULL, " \n");
        if (is_stream) {
            answer_stream(&options, hex);
        } else {
            answer_pdu(&options, hex);
        }
    }
    return 0;
}
