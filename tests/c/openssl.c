/* SPDX-License-Identifier: MIT */
/* Both ends of ltdic_openssl, for test_openssl.py. The first word of the command line:
 *
 * serve PEM [AUTHORITIES]: accepts the called title ANY-SCP for C-ECHO, and prints its port, then a
 * line for each end.
 *
 * connect PORT HOST AUTHORITIES CALLED [PEM]: requests, and prints what came of it; with two
 * connections of one endpoint, one after the other.
 *
 * use PORT AUTHORITIES: the same with an SSL of its own.
 *
 * flood PORT: sends new keys without end. */
#include "ltdic_openssl.h"

#include <arpa/inet.h>
#include <openssl/err.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition) \
    do { \
        if (!(condition)) { \
            fprintf(stderr, "line %d: %s\n", __LINE__, #condition); \
            ERR_print_errors_fp(stderr); \
            exit(1); \
        } \
    } while (0)

static ltdic_openssl_files files_of(const char *pem, const char *authorities)
{
    return (ltdic_openssl_files){sizeof(ltdic_openssl_files), pem, NULL, authorities};
}

/* ---- acceptor ----------------------------------------------------------------------------- */

static void report_ends(ltdic_server *server, const ltdic_batch *batch)
{
    for (size_t i = 0; i < batch->count; i++) {
        if (batch->events[i].kind == LTDIC_SERVED_ENDED) {
            const ltdic_report *r = ltdic_served_report(server, batch->events[i].served);
            printf("outcome %d, %s\n", r->outcome, ltdic_status_name(r->status));
            fflush(stdout);
        }
    }
}

static int serve(const char *pem, const char *authorities)
{
    ltdic_loop *loop = ltdic_loop_new();
    ltdic_admission *admission = ltdic_admission_new();
    CHECK(ltdic_admission_add_called(admission, "ANY-SCP") == LTDIC_OK);
    CHECK(ltdic_admission_add_context(admission, "1.2.840.10008.1.1") == LTDIC_OK);
    CHECK(ltdic_admission_add_transfer(admission, "1.2.840.10008.1.2") == LTDIC_OK);
    ltdic_server *server = ltdic_server_new(loop, admission);
    const ltdic_openssl_files files = files_of(pem, authorities);
    SSL_CTX *context = ltdic_openssl_server_context(&files);
    CHECK(context != NULL);
    ltdic_openssl_serve(server, context);
    const ltdic_timeouts timeouts = {sizeof timeouts, 1000, 0, 0};
    ltdic_server_set_timeouts(server, &timeouts);
    const ltdic_address address = {"127.0.0.1", 0, LTDIC_IP_V4};
    CHECK(ltdic_server_listen(server, &address, 0) == LTDIC_OK);
    uint8_t host[64];
    ltdic_buffer out = {host, sizeof host, 0};
    uint16_t port;
    CHECK(ltdic_server_name(server, &out, &port) == LTDIC_OK);
    printf("%d\n", port);
    fflush(stdout);
    for (;;) {
        ltdic_batch batch;
        if (ltdic_server_run(server, &batch, LTDIC_WANT_ENDS, 60000) == LTDIC_OK) {
            report_ends(server, &batch);
        }
    }
}

/* ---- requestor ---------------------------------------------------------------------------- */

/* Writes an A-ASSOCIATE-RQ for Verification. */
static size_t write_request(uint8_t *out, size_t room, const char *called)
{
    static const char *const uids[] = {"1.2.840.10008.3.1.1.1", "1.2.840.10008.1.1",
                                       "1.2.840.10008.1.2"};
    uint8_t items[512];
    size_t n = 0;
    const size_t lengths[] = {strlen(uids[0]), strlen(uids[1]), strlen(uids[2])};
    const uint8_t application[] = {0x10, 0, 0, (uint8_t)lengths[0]};
    memcpy(items, application, 4);
    memcpy(items + 4, uids[0], lengths[0]);
    n = 4 + lengths[0];
    const uint8_t context[] = {0x20, 0, 0, (uint8_t)(12 + lengths[1] + lengths[2]), 1, 0, 0, 0};
    memcpy(items + n, context, 8);
    n += 8;
    for (size_t i = 1; i < 3; i++) {
        const uint8_t item[] = {i == 1 ? 0x30 : 0x40, 0, 0, (uint8_t)lengths[i]};
        memcpy(items + n, item, 4);
        memcpy(items + n + 4, uids[i], lengths[i]);
        n += 4 + lengths[i];
    }
    const uint8_t information[] = {0x50, 0, 0, 8, 0x51, 0, 0, 4, 0, 0, 64, 0};
    memcpy(items + n, information, sizeof information);
    n += sizeof information;
    CHECK(room >= 74 + n);
    memset(out, 0, 74);
    out[0] = LTDIC_ASSOCIATE_RQ;
    out[4] = (uint8_t)((68 + n) >> 8);
    out[5] = (uint8_t)(68 + n);
    out[7] = 1;
    memset(out + 10, ' ', 32);
    memcpy(out + 10, called, strlen(called));
    memcpy(out + 26, "TEST", 4);
    memcpy(out + 74, items, n);
    return 74 + n;
}

/* Waits for the next row of the endpoint, and returns its kind. */
static ltdic_event_row next_row(ltdic_requestor *requestor, ltdic_batch *batch, size_t *taken)
{
    while (*taken == batch->count) {
        *taken = 0;
        ltdic_requestor_run(requestor, batch, 10000);
        CHECK(batch->count > 0);
    }
    return batch->events[(*taken)++];
}

static void report_failure(const ltdic_openssl *tls)
{
    const char *why = ERR_reason_error_string(ltdic_openssl_error(tls));
    printf("no connection: %s\n", why == NULL ? "closed" : why);
}

/* Requests an association, releases it if it is accepted, and prints what came. */
static void associate(ltdic_requestor *requestor, ltdic_net *net, const ltdic_openssl *tls,
                      uint16_t port, const char *called)
{
    uint8_t request[1024];
    const ltdic_bytes pdu = {request, write_request(request, sizeof request, called)};
    const ltdic_address peer = {"127.0.0.1", port, LTDIC_IP_V4};
    ltdic_batch batch = {0};
    size_t taken = 0;
    CHECK(ltdic_net_connect(net, &peer, NULL) == LTDIC_OK);
    CHECK(ltdic_net_send(net, pdu) == LTDIC_OK);
    for (;;) {
        const ltdic_event_row row = next_row(requestor, &batch, &taken);
        const uint8_t *bytes = batch.data + row.offset;
        if (row.kind == LTDIC_REQUESTED_FAILED) {
            report_failure(tls);
            return;
        }
        if (row.kind == LTDIC_REQUESTED_PDU && bytes[0] == LTDIC_ASSOCIATE_RJ) {
            printf("rejected %d/%d/%d, ", bytes[7], bytes[8], bytes[9]);
        } else if (row.kind == LTDIC_REQUESTED_PDU && bytes[0] == LTDIC_ASSOCIATE_AC) {
            uint8_t release[LTDIC_FIXED_PDU_SIZE];
            ltdic_encode_fixed(release, LTDIC_RELEASE_RQ, (ltdic_reject){0, 0, 0});
            CHECK(ltdic_net_send(net, (ltdic_bytes){release, sizeof release}) == LTDIC_OK);
            printf("%s, accepted, ", SSL_get_version(ltdic_openssl_ssl(tls)));
        } else if (row.kind == LTDIC_REQUESTED_CLOSED) {
            printf("%s\n", ltdic_status_name(row.status));
            return;
        }
    }
}

static int connect_to(uint16_t port, const char *host, const char *authorities, const char *called,
                      const char *pem)
{
    const ltdic_openssl_files files = files_of(pem, authorities);
    SSL_CTX *context = ltdic_openssl_client_context(&files);
    CHECK(context != NULL);
    ltdic_loop *loop = ltdic_loop_new();
    ltdic_requestor *requestor = ltdic_requestor_new(loop);
    ltdic_net *net = ltdic_requestor_net(requestor, 1);
    const ltdic_openssl *tls = ltdic_openssl_connect(net, context, host);
    CHECK(tls != NULL);
    SSL_CTX_free(context);
    for (int i = 0; i < 2; i++) {
        associate(requestor, net, tls, port, called);
    }
    ltdic_loop_free(loop);
    return 0;
}

static int use(uint16_t port, const char *authorities)
{
    const ltdic_openssl_files files = files_of(NULL, authorities);
    SSL_CTX *context = ltdic_openssl_client_context(&files);
    CHECK(context != NULL);
    SSL *ssl = SSL_new(context);
    SSL_CTX_free(context);
    SSL_set_connect_state(ssl);
    ltdic_loop *loop = ltdic_loop_new();
    ltdic_requestor *requestor = ltdic_requestor_new(loop);
    ltdic_net *net = ltdic_requestor_net(requestor, 1);
    const ltdic_openssl *tls = ltdic_openssl_use(net, ssl);
    CHECK(tls != NULL && ltdic_openssl_ssl(tls) == ssl);
    for (int i = 0; i < 2; i++) {
        associate(requestor, net, tls, port, "ANY-SCP");
    }
    ltdic_loop_free(loop);
    return 0;
}

/* ---- an attacker -------------------------------------------------------------------------- */

/* Sends new keys (RFC 8446 4.6.3) without end, until the connection is lost. */
static int flood(uint16_t port)
{
    const struct sockaddr_in address = {.sin_family = AF_INET,
                                        .sin_port = htons(port),
                                        .sin_addr = {.s_addr = htonl(INADDR_LOOPBACK)}};
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());
    SSL *ssl = SSL_new(context);
    signal(SIGPIPE, SIG_IGN);
    CHECK(connect(fd, (const struct sockaddr *)&address, sizeof address) == 0);
    SSL_set_fd(ssl, fd);
    CHECK(SSL_connect(ssl) == 1);
    puts("connected");
    fflush(stdout);
    while (SSL_key_update(ssl, SSL_KEY_UPDATE_NOT_REQUESTED) == 1 && SSL_do_handshake(ssl) == 1) {
    }
    return 0;
}

int main(int argc, char **argv)
{
    const char *verb = argc > 1 ? argv[1] : "";
    if (strcmp(verb, "serve") == 0 && argc > 2) {
        return serve(argv[2], argc > 3 ? argv[3] : NULL);
    }
    const uint16_t port = argc > 2 ? (uint16_t)atoi(argv[2]) : 0;
    if (strcmp(verb, "connect") == 0 && argc > 5) {
        return connect_to(port, argv[3], argv[4], argv[5], argc > 6 ? argv[6] : NULL);
    }
    if (strcmp(verb, "flood") == 0 && argc > 2) {
        return flood(port);
    }
    if (strcmp(verb, "use") == 0 && argc > 3) {
        return use(port, argv[3]);
    }
    return 2;
}
