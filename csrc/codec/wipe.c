/* SPDX-License-Identifier: MIT */
/* Wipes memory that may hold a passcode. A memset before free is not enough: compilers remove
 * stores to memory that is not read again. */
#include "bytes.h"

void ltdic__wipe(void *data, size_t size)
{
    if (data == NULL) {
        return;
    }
#ifdef __GNUC__
    memset(data, 0, size);
    __asm__ volatile("" : : "r"(data) : "memory"); /* keeps the memset: this may read the memory */
#else
    volatile uint8_t *bytes = data;
    for (size_t i = 0; i < size; i++) {
        bytes[i] = 0;
    }
#endif
}
