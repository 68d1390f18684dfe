/* SPDX-License-Identifier: MIT */
/* One P-DATA-TF of 1 GiB through the stream decoder, in chunks of 64 KiB; its memory and time. */
#include "ltdic.h"

#include <stdio.h>

#define FRAGMENT (1U << 30)

static uint64_t received;
static unsigned ends;

/* Return the peak of resident memory in KiB. (getrusage includes the parent before exec.) */
static long peak(void)
{
    char line[256];
    long kib = -1;
    FILE *status = fopen("/proc/self/status", "r");
    while (status != NULL && fgets(line, sizeof line, status) != NULL &&
           sscanf(line, "VmHWM: %ld", &kib) != 1) {
    }
    if (status != NULL) {
        fclose(status);
    }
    return kib;
}

/* Feed the bytes; return how many to give again: 0 except in the middle of a header. */
static size_t feed(ltdic_stream *stream, const uint8_t *data, size_t size)
{
    const ltdic_options strict = {.size = sizeof strict, .strict = 1};
    ltdic_bytes in = {data, size};
    ltdic_piece piece;
    ltdic_fault fault;
    while (ltdic_stream_next(stream, &piece, &in, &strict, &fault) == LTDIC_OK) {
        received += piece.data.size;
        ends += piece.end;
    }
    return fault.status == LTDIC_NEED_MORE ? in.size : SIZE_MAX;
}

int main(void)
{
    static const uint8_t head[] = {4, 0, 0x40, 0, 0, 6, 0x40, 0, 0, 2, 1, 2}, zeroes[1 << 16];
    ltdic_stream stream = {0};
    size_t left = feed(&stream, head, sizeof head);
    left += feed(&stream, zeroes, 1);
    const long before = peak();
    for (size_t sent = 1; sent < FRAGMENT; sent += sizeof zeroes) {
        const size_t more = FRAGMENT - sent < sizeof zeroes ? FRAGMENT - sent : sizeof zeroes;
        left += feed(&stream, zeroes, more);
    }
    printf("%llu bytes in %u PDU, %zu left: peak %ld KiB, %ld more\n", (unsigned long long)received,
           ends, left, peak(), peak() - before);
    return 0;
}
