/* SPDX-License-Identifier: MIT */
/* How a UID is spelled (PS3.8 annex F), without a branch for each byte. Internal. */
#ifndef LTDIC_UID_H
#define LTDIC_UID_H

#include "internal.h"

#ifdef __SSE2__
#include <emmintrin.h>
#endif

/* Of a text of at most 64 bytes: where its dots and zeros are, a bit for each byte, and whether all
 * others are digits. */
typedef struct uid_bits {
    uint64_t dots, zeros;
    bool known;
} uid_bits;

static inline uid_bits uid_bits_by_byte(ltdic_bytes uid)
{
    uid_bits bits = {0, 0, true};
    for (size_t at = 0; at < uid.size; at++) {
        const unsigned byte = uid.data[at];
        bits.dots |= (uint64_t)(byte == '.') << at;
        bits.zeros |= (uint64_t)(byte == '0') << at;
        bits.known &= byte == '.' || byte - '0' <= 9;
    }
    return bits;
}

#ifdef __SSE2__

enum { UID_VECTOR = 16 };

static inline uint64_t bits_of(__m128i bytes, size_t at)
{
    return (uint64_t)(unsigned)_mm_movemask_epi8(bytes) << at;
}

/* Returns all ones where a byte is a dot or a digit. */
static inline __m128i add_vector(uid_bits *bits, const uint8_t *text, size_t at)
{
    const __m128i bytes = _mm_loadu_si128((const __m128i *)(const void *)(text + at));
    const __m128i dots = _mm_cmpeq_epi8(bytes, _mm_set1_epi8('.'));
    const __m128i above = _mm_sub_epi8(bytes, _mm_set1_epi8('0'));
    bits->dots |= bits_of(dots, at);
    bits->zeros |= bits_of(_mm_cmpeq_epi8(above, _mm_setzero_si128()), at);
    return _mm_or_si128(dots, _mm_cmpeq_epi8(_mm_min_epu8(above, _mm_set1_epi8(9)), above));
}

/* From 16 bytes on. The last vector ends where the text does, and may say again what another said:
 * nothing outside the text is read. */
static inline uid_bits uid_bits_by_vector(ltdic_bytes uid)
{
    uid_bits bits = {0, 0, true};
    __m128i known = add_vector(&bits, uid.data, 0);
    for (size_t at = UID_VECTOR; at < uid.size - UID_VECTOR; at += UID_VECTOR) {
        known = _mm_and_si128(known, add_vector(&bits, uid.data, at));
    }
    known = _mm_and_si128(known, add_vector(&bits, uid.data, uid.size - UID_VECTOR));
    bits.known = bits_of(known, 0) == 0xFFFF;
    return bits;
}

static inline uid_bits uid_bits_of(ltdic_bytes uid)
{
    return uid.size < UID_VECTOR ? uid_bits_by_byte(uid) : uid_bits_by_vector(uid);
}

#else

static inline uid_bits uid_bits_of(ltdic_bytes uid)
{
    return uid_bits_by_byte(uid);
}

#endif

/* 1 to 64 bytes; components of digits alone, none empty, none with a zero before other digits. */
static inline bool uid_is_legal(ltdic_bytes uid)
{
    if (uid.size - 1 >= UID_MAX) { /* 0 wraps */
        return false;
    }
    const uid_bits bits = uid_bits_of(uid);
    const uint64_t last = (uint64_t)1 << (uid.size - 1);
    const uint64_t starts = bits.dots << 1 | 1;
    const uint64_t ends = bits.dots >> 1 | last;
    const uint64_t empty = bits.dots & (starts | last);
    const uint64_t padded = bits.zeros & starts & ~ends;
    return bits.known && (empty | padded) == 0;
}

#endif
