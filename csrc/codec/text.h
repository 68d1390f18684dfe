/* SPDX-License-Identifier: MIT */
/* Checks of text without a branch for each byte: UIDs (PS3.8 annex F), titles and names (PS3.5, VR
 * AE). Internal. */
#ifndef LTDIC_TEXT_H
#define LTDIC_TEXT_H

#include "bytes.h"

#include <string.h>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

enum { UID_MAX = 64, TITLE_SIZE = 16 };

ltdic_bytes ltdic__without_spaces(ltdic_bytes text); /* removes those at both ends */
ltdic_bytes ltdic__until_nul(ltdic_bytes text);
ltdic_bytes ltdic__trimmed(ltdic_bytes text); /* does both: the value in lenient mode */
bool ltdic__title_is_legal(ltdic_bytes title);
bool ltdic__uid_is_legal(ltdic_bytes uid);
bool ltdic__short_or_long_uid_is_legal(ltdic_bytes uid); /* takes any length; for uid_is_legal */
bool ltdic__version_name_is_legal(ltdic_bytes name);

/* ---- titles, names */

#define EACH(byte) (UINT64_MAX / 0xFF * (byte))

/* Returns true if all eight bytes are in 20 to 7E (hex) and none is `but`. The bytes are tested at
 * once: each sum is of 7-bit values, so its bit 7 is the result for that byte and nothing is
 * carried into the next one. */
static inline bool word_is_printable(uint64_t word, uint8_t but)
{
    const uint64_t low = word & EACH(0x7F);
    const uint64_t above = word | (low + EACH(0x01));
    const uint64_t from_space = low + EACH(0x60);
    const uint64_t other = (low ^ EACH(but)) + EACH(0x7F);
    return (above & EACH(0x80)) == 0 && (from_space & other & EACH(0x80)) == EACH(0x80);
}

static inline bool field_is_printable(const uint8_t field[16], uint8_t but)
{
    uint64_t words[2];
    memcpy(words, field, sizeof words);
    return word_is_printable(words[0], but) && word_is_printable(words[1], but);
}

/* Checks a field of 16 bytes, with the spaces around the title, which are legal. */
static inline bool title_is_printable(const uint8_t field[16])
{
    return field_is_printable(field, '\\');
}

/* Checks a text of at most 16 bytes. */
static inline bool short_is_printable(ltdic_bytes text, uint8_t but)
{
    uint8_t field[16];
    memset(field, 'x', sizeof field);
    copy_text(field, text);
    return field_is_printable(field, but);
}

/* Checks an implementation version name (PS3.7 D.3.3.2). */
static inline bool name_is_legal(ltdic_bytes name)
{
    return name.size > 0 && name.size <= 16 && short_is_printable(name, 0x7F);
}

/* ---- UIDs */

/* Positions of the dots and zeros in a UID: bit n is byte n, of at most 64. `known`: every byte is
 * a dot or a digit. */
typedef struct uid_bits {
    uint64_t dots, zeros;
    bool known;
} uid_bits;

/* Returns true if no component is empty and none has a zero before other digits. */
static inline bool bits_are_legal(uid_bits bits, size_t size)
{
    const uint64_t last = (uint64_t)1 << (size - 1);
    const uint64_t starts = bits.dots << 1 | 1;
    const uint64_t ends = bits.dots >> 1 | last;
    const uint64_t empty = bits.dots & (starts | last);
    const uint64_t padded = bits.zeros & starts & ~ends;
    return bits.known && (empty | padded) == 0;
}

static inline uid_bits uid_bits_by_byte(ltdic_bytes uid)
{
    uid_bits bits = {0, 0, true};
    for (size_t at = 0; at < uid.size; at++) {
        const unsigned byte = uid.data[at];
        bits.dots |= (uint64_t)(byte == '.') << at;
        bits.zeros |= (uint64_t)(byte == '0') << at;
        bits.known &= byte == '.' || (byte >= '0' && byte <= '9');
    }
    return bits;
}

#ifdef __SSE2__

enum { UID_VECTOR = 16 };

static inline uint64_t bits_of(__m128i bytes)
{
    return (uint64_t)(unsigned)_mm_movemask_epi8(bytes);
}

/* Reads a UID of 16 to 32 bytes, as most are, in two vectors: its first and its last 16 bytes. They
 * may overlap; bytes in both set the same bits twice. Nothing outside the text is read. */
static inline uid_bits uid_bits_by_vector(ltdic_bytes uid)
{
    const size_t at = uid.size - UID_VECTOR;
    const __m128i nine = _mm_set1_epi8(9), zero = _mm_set1_epi8('0'), dot = _mm_set1_epi8('.');
    const __m128i a = _mm_loadu_si128((const __m128i *)(const void *)uid.data);
    const __m128i b = _mm_loadu_si128((const __m128i *)(const void *)(uid.data + at));
    const __m128i a_dots = _mm_cmpeq_epi8(a, dot), b_dots = _mm_cmpeq_epi8(b, dot);
    const __m128i a_above = _mm_sub_epi8(a, zero), b_above = _mm_sub_epi8(b, zero);
    const __m128i a_digits = _mm_cmpeq_epi8(_mm_min_epu8(a_above, nine), a_above);
    const __m128i b_digits = _mm_cmpeq_epi8(_mm_min_epu8(b_above, nine), b_above);
    const __m128i known =
        _mm_and_si128(_mm_or_si128(a_dots, a_digits), _mm_or_si128(b_dots, b_digits));
    return (uid_bits){
        .dots = bits_of(a_dots) | bits_of(b_dots) << at,
        .zeros = bits_of(_mm_cmpeq_epi8(a, zero)) | bits_of(_mm_cmpeq_epi8(b, zero)) << at,
        .known = bits_of(known) == 0xFFFF,
    };
}

#endif

/* Checks a UID (PS3.8 annex F): 1 to 64 bytes, components of digits. */
static ALWAYS_INLINE bool uid_is_legal(ltdic_bytes uid)
{
#ifdef __SSE2__
    if (uid.size >= UID_VECTOR && uid.size <= 2 * UID_VECTOR) {
        return bits_are_legal(uid_bits_by_vector(uid), uid.size);
    }
#endif
    return ltdic__short_or_long_uid_is_legal(uid);
}

#endif
