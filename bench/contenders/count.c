/* SPDX-License-Identifier: MIT */
/* count OPERATION FILE COUNT: bench_run with the bytes of FILE, run by callgrind. */
#include "codec.h"

#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv)
{
    static uint8_t data[1 << 21];
    FILE *file = argc == 4 ? fopen(argv[2], "rb") : NULL;
    if (file == NULL) {
        return 2;
    }
    const size_t size = fread(data, 1, sizeof data, file);
    fclose(file);
    return bench_run(argv[1], data, size, strtoull(argv[3], NULL, 10)) == 0;
}
