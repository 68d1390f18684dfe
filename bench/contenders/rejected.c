/* SPDX-License-Identifier: MIT */
/* rejected FILE COUNT: COUNT associations, one after another, are requested with the A-ASSOCIATE-RQ
 * of FILE and rejected by its called title. Both ends are in one thread, on loopback, so that the
 * number of instructions, which callgrind counts, is the same each time. */
#include "ltdic.h"

#include <stdio.h>
#include <stdlib.h>

static ltdic_bytes request;

/* One association. Returns 0 where it was not rejected. */
static int ask(ltdic_server *server, ltdic_loop *loop, const ltdic_address *peer)
{
    ltdic_net *net = ltdic_net_new(loop, NULL), *whose;
    ltdic_batch batch;
    ltdic_indication told;
    int rejected = 0, over = 0;
    ltdic_net_connect(net, peer, NULL);
    while (!over) {
        ltdic_server_run(server, &batch, 0, 0);
        ltdic_loop_wait(loop, 0);
        while (ltdic_loop_next(loop, &whose, &told) == LTDIC_OK) {
            if (told.kind == LTDIC_CONNECTED) {
                ltdic_net_send(net, request);
            }
            rejected |= told.kind == LTDIC_RECEIVED && told.type == LTDIC_ASSOCIATE_RJ;
            over |= told.kind == LTDIC_CLOSED;
            ltdic_net_done(whose);
        }
    }
    ltdic_net_free(net);
    return rejected;
}

int main(int argc, char **argv)
{
    static uint8_t data[1 << 16];
    uint8_t room[64];
    FILE *file = argc == 3 ? fopen(argv[1], "rb") : NULL;
    if (file == NULL) {
        return 2;
    }
    request = (ltdic_bytes){data, fread(data, 1, sizeof data, file)};
    fclose(file);
    ltdic_admission *admission = ltdic_admission_new();
    ltdic_admission_add_called(admission, "NOBODY");
    ltdic_loop *loop = ltdic_loop_new(), *acceptors = ltdic_loop_new();
    ltdic_server *server = ltdic_server_new(acceptors, admission);
    ltdic_address address = {"127.0.0.1", 0, LTDIC_IP_V4};
    ltdic_buffer host = {room, sizeof room, 0};
    if (ltdic_server_listen(server, &address, 0) != LTDIC_OK ||
        ltdic_server_name(server, &host, &address.port) != LTDIC_OK) {
        return 1;
    }
    int rejected = 1;
    for (long left = atol(argv[2]); left > 0; left--) {
        rejected &= ask(server, loop, &address);
    }
    ltdic_loop_free(loop);
    ltdic_loop_free(acceptors); /* with the server */
    ltdic_admission_free(admission);
    return !rejected;
}
