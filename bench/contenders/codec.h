/* SPDX-License-Identifier: MIT */
/* What a compiled codec contender exports, and, for those that make rows of ltdic.h, how. */
#ifndef BENCH_CODEC_H
#define BENCH_CODEC_H

#include "ltdic.h"

/* How long `count` times take, in nanoseconds; 0: the contender cannot do it. `operation`:
 *   decode  one PDU, checked strictly, into what its user would have in hand
 *   encode  the PDU, decoded before the clock starts, into the same memory each time
 *   stream  all PDUs in `data`, one after another
 *   rejects all A-ASSOCIATE-RJ in `data`, into three bytes each
 *   refuse  one A-ASSOCIATE-RQ without a fault, judged: its called title is not ours */
uint64_t bench_run(const char *operation, const uint8_t *data, size_t size, uint64_t count);

/* What comes out of it: text in lines, of `encode` the bytes. The size; 0: it cannot do it. */
size_t bench_answer(const char *operation, const uint8_t *data, size_t size, char *out,
                    size_t room);

/* One PDU at `data` into rows: its size, or 0. */
size_t contender_decode(ltdic_items *rows, const uint8_t *data, size_t size);
/* A run of A-ASSOCIATE-RJ into `out`: how many. */
size_t contender_rejects(uint8_t *out, const uint8_t *data, size_t size);
/* Rows with values in `data` into a PDU: its size, or 0. */
size_t contender_encode(uint8_t *out, size_t room, const ltdic_items *rows, const uint8_t *data,
                        size_t size);
/* What a request is refused with, as three bytes into `out`: 3, or 0. */
size_t contender_refuse(uint8_t *out, const uint8_t *data, size_t size);

#endif
