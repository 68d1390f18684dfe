/* SPDX-License-Identifier: MIT */
/* The number of open file descriptors of a process, and its limit. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

static inline unsigned open_descriptors(void)
{
    unsigned found = 0;
    DIR *folder = opendir("/proc/self/fd");
    if (folder == NULL) {
        perror("/proc/self/fd");
        exit(1);
    }
    while (readdir(folder) != NULL) {
        found++;
    }
    closedir(folder);
    return found;
}

/* Raise the limit to the highest one; exit if that is below `wanted`. */
static inline void allow_descriptors(rlim_t wanted)
{
    struct rlimit limit;
    int failed = getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    failed |= setrlimit(RLIMIT_NOFILE, &limit);
    if (failed || limit.rlim_cur < wanted) {
        fprintf(stderr, "%llu descriptors are needed, %llu may be open\n",
                (unsigned long long)wanted, (unsigned long long)limit.rlim_cur);
        exit(2);
    }
}
