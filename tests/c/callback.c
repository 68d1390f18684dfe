/* SPDX-License-Identifier: MIT */
/* A callback in a shared object that is built with the header alone, without the library. */
#include "ltdic.h"

struct rejection {
    unsigned count;
    unsigned char result, source, reason;
};

#ifdef __cplusplus
extern "C" {
#endif

LTDIC_API L_VOID pEXT_CALLBACK on_reject(HDICOMNET hNet, L_UCHAR nResult, L_UCHAR nSource,
                                         L_UCHAR nReason, L_VOID *UserData)
{
    struct rejection *rejection = (struct rejection *)UserData;
    (void)hNet;
    rejection->count++;
    rejection->result = nResult;
    rejection->source = nSource;
    rejection->reason = nReason;
}

#ifdef __cplusplus
}
#endif
