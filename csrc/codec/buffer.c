/* SPDX-License-Identifier: MIT */
/* Growth of a buffer that may hold a passcode. */
#include "buffer.h"

#include "bytes.h"

bool ltdic__reserve_secret(buffer *b, size_t size)
{
    if (b->room - b->end >= size) {
        return true;
    }
    const size_t used = buffer_size(b), most = size > b->room ? size : b->room;
    buffer larger = {0};
    if (most > SIZE_MAX - used || !buffer_reserve(&larger, used + most)) {
        return false;
    }
    if (used > 0) {
        buffer_put(&larger, b->data + b->start, used);
    }
    ltdic__wipe(b->data, b->end);
    free(b->data);
    *b = larger;
    return true;
}
