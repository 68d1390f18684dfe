/* SPDX-License-Identifier: MIT */
/* Looks up host names. */
#include "system.h"

#include "transport.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

const char *ltdic_resolver_text(int resolver)
{
    return gai_strerror(resolver);
}

static int resolve_status(int error, ltdic_cause *cause)
{
    *cause = (ltdic_cause){.error = error == EAI_SYSTEM ? errno : 0,
                           .resolver = error == EAI_SYSTEM ? 0 : error};
    return error == 0            ? LTDIC_OK
           : error == EAI_MEMORY ? LTDIC_ERR_MEMORY
           : error == EAI_SYSTEM ? LTDIC_ERR_SYSTEM
                                 : LTDIC_ERR_ADDRESS;
}

/* Returns the host without the brackets around an IPv6 address (RFC 3986 3.2.2); a copy is written
 * to `room`. */
static const char *without_brackets(const char *host, char *room, size_t size)
{
    const size_t length = strlen(host);
    if (length < 2 || host[0] != '[' || host[length - 1] != ']' || length - 2 >= size) {
        return host;
    }
    memcpy(room, host + 1, length - 2);
    room[length - 2] = '\0';
    return room;
}

/* Looks up a host. A full stop at the end of a name makes it absolute (RFC 1034 3.1). Names of
 * /etc/hosts and numeric addresses are only known without it: so a second look-up does without,
 * also if no resolver answered the first. */
static int look_up(const char *host, const char *port, const struct addrinfo *hints,
                   struct addrinfo **found)
{
    char room[NI_MAXHOST];
    const size_t length = host == NULL ? 0 : strlen(host);
    const int error = getaddrinfo(host, port, hints, found);
    const bool unknown = error == EAI_NONAME || error == EAI_AGAIN;
    if (!unknown || length < 2 || length > sizeof room || host[length - 1] != '.') {
        return error;
    }
    memcpy(room, host, length - 1);
    room[length - 1] = '\0';
    return getaddrinfo(room, port, hints, found);
}

int ltdic__resolve(struct addrinfo **found, const ltdic_address *address, bool listening,
                   ltdic_cause *cause)
{
    static const int families[] = {AF_UNSPEC, AF_INET, AF_INET6, AF_UNSPEC};
    char name[NI_MAXHOST] = "", port[8];
    const char *host = address->host;
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM,
                             .ai_family = families[address->family & 3],
                             .ai_flags = AI_NUMERICSERV};
    *found = NULL;
    if (host == NULL || *host == '\0') {
        gethostname(name, sizeof name - 1);
        host = name;
    } else if (listening && strcmp(host, "*") == 0) {
        host = NULL;
        hints.ai_flags |= AI_PASSIVE;
        hints.ai_family = address->family == LTDIC_IP_BOTH ? AF_INET6 : hints.ai_family;
    } else {
        host = without_brackets(host, name, sizeof name);
    }
    snprintf(port, sizeof port, "%u", (unsigned)address->port);
    return resolve_status(look_up(host, port, &hints, found), cause);
}

void ltdic__free_addresses(struct addrinfo **list)
{
    if (*list != NULL) {
        freeaddrinfo(*list);
        *list = NULL;
    }
}
