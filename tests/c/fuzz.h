/* SPDX-License-Identifier: MIT */
/* What the fuzz targets share: promises, and a main that replays files where there is no engine.
 * Before including it, define PREFIXES: of a file, prefixes shorter than this are replayed, too. */
#include "ltdic.h"

#include <stdio.h>
#include <stdlib.h>

#define PROMISE(condition) \
    do { \
        if (!(condition)) { \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); \
            abort(); \
        } \
    } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Run the target on the `size` bytes from data[1]; data[0] is a byte to spare. */
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
