/* SPDX-License-Identifier: MIT */
/* Calls the function in a slot of DICOMNETCALLBACK repeatedly. */
#define _POSIX_C_SOURCE 200809L
#include "ltdic.h"

#include <time.h>

L_VOID EXT_CALLBACK count_rejection(HDICOMNET hNet, L_UCHAR nResult, L_UCHAR nSource,
                                    L_UCHAR nReason, L_VOID *pUserData);
uint64_t call_slot(RECEIVEASSOCIATEREJECTCALLBACK slot, HDICOMNET hNet, L_VOID *pUserData,
                   uint64_t count);

/* A callback in C: adds the three codes to the number at pUserData. */
L_VOID EXT_CALLBACK count_rejection(HDICOMNET hNet, L_UCHAR nResult, L_UCHAR nSource,
                                    L_UCHAR nReason, L_VOID *pUserData)
{
    (void)hNet;
    *(volatile uint64_t *)pUserData += (uint64_t)nResult + nSource + nReason;
}

static uint64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000U + (uint64_t)t.tv_nsec;
}

/* Returns the nanoseconds of `count` calls. */
uint64_t call_slot(RECEIVEASSOCIATEREJECTCALLBACK slot, HDICOMNET hNet, L_VOID *pUserData,
                   uint64_t count)
{
    const uint64_t start = now();
    for (uint64_t i = 0; i < count; i++) {
        slot(hNet, 1, 1, 7, pUserData);
    }
    return now() - start;
}
