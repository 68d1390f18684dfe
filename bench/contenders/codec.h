/* SPDX-License-Identifier: MIT */
/* The exports of a compiled codec contender; and the functions behind those of codec.c, for
 * contenders that make rows of ltdic.h. */
#ifndef BENCH_CODEC_H
#define BENCH_CODEC_H

#include "ltdic.h"

/* Repeats an operation on `data`, `count` times. Returns the nanoseconds it took; 0: the contender
 * does not have the operation.
 *   decode  one PDU, checked strictly, into the values that a user of the contender gets
 *   encode  the PDU, decoded before the clock starts, into the same memory each time
 *   stream  decode all PDUs in `data`, one after another
 *   rejects decode all A-ASSOCIATE-RJ in `data`, into three bytes each
 *   refuse  judge one A-ASSOCIATE-RQ, which has no fault but a called title that is not admitted */
uint64_t bench_run(const char *operation, const uint8_t *data, size_t size, uint64_t count);

/* The result of an operation in `out`: lines of text, or the bytes of `encode`, `rejects`,
 * `refuse`. Returns its size; 0: the contender does not have the operation. */
size_t bench_answer(const char *operation, const uint8_t *data, size_t size, char *out,
                    size_t room);

/* Decodes the PDU at `data` into rows. Returns its size, or 0. */
size_t contender_decode(ltdic_items *rows, const uint8_t *data, size_t size);
/* Decodes a run of A-ASSOCIATE-RJ into `out`. Returns their number. */
size_t contender_rejects(uint8_t *out, const uint8_t *data, size_t size);
/* Encodes rows, whose values are in `data`, as a PDU in `out`. Returns its size, or 0. */
size_t contender_encode(uint8_t *out, size_t room, const ltdic_items *rows, const uint8_t *data,
                        size_t size);
/* Judges a request; result, source and reason of its rejection go to `out`. Returns 3, or 0. */
size_t contender_refuse(uint8_t *out, const uint8_t *data, size_t size);

#endif
