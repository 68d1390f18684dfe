/* SPDX-License-Identifier: MIT */
/* Grows a buffer that may hold a passcode. */
#include "buffer.h"

#include "bytes.h"

bool ltdic__reserve_secret(buffer *b, size_t size)
{
    if (b->room - b->end >= size) {
        return true;
    }
    const size_t used = buffer_size(b), most = size > b->room ? size : b->room;
    uint8_t *data = most > SIZE_MAX - used ? NULL : malloc(used + most);
    if (data == NULL) {
        return false;
    }
    if (used > 0) {
        memcpy(data, b->data + b->start, used);
    }
    ltdic__wipe(b->data, b->end);
    free(b->data);
    *b = (buffer){data, 0, used, used + most};
    return true;
}
