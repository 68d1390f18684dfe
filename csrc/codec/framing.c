/* SPDX-License-Identifier: MIT */
/* The header of a PDU (PS3.8 9.3.1), and the default options. */
#include "framing.h"

const ltdic_options *ltdic__completed(const ltdic_options *given, ltdic_options *room)
{
    *room = (ltdic_options){.size = sizeof *room, .max_associate = LTDIC_MAX_ASSOCIATE};
    if (given != NULL) {
        memcpy(room, given, given->size);
    }
    return room;
}

size_t ltdic__values_start(uint8_t type)
{
    static const uint8_t starts[] = {0, 10, 10, 7, HEADER, 10, 10, 8};
    return starts[type];
}

int ltdic_frame(ltdic_bytes *pdu, ltdic_bytes in, const ltdic_options *options, ltdic_fault *fault)
{
    ltdic_options room;
    return frame(pdu, in, ltdic__effective(options, &room), fault);
}
