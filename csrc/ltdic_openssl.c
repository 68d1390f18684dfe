/* SPDX-License-Identifier: MIT */
/* TLS as a transport. OpenSSL reads and sends by a BIO over ltdic_tcp_read and ltdic_tcp_send, so
 * that a signal or a closed connection has no other effect than without TLS. */
#include "ltdic_openssl.h"

#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum {
    RECORD = 16384,         /* bytes of data in a record at most (RFC 8446 5.1) */
    MOST_RECORDS = 32,      /* records that are decrypted in one call */
    MOST_HANDSHAKE = 65536, /* bytes that a peer may send until the handshake is done */
    MOST_HOST = 255
};

struct ltdic_openssl {
    SSL_CTX *context; /* makes `ssl` for each connection; NULL: `ssl` is the caller's, for one */
    SSL *ssl;         /* NULL: there is no connection */
    unsigned long error;
    int descriptor;
    bool server;
    bool begun;
    bool drained; /* the TCP connection had no more when it was read the last time */
    bool established;
    bool ended;               /* the TCP connection has no more */
    bool lost;                /* by a reset */
    size_t handshake;         /* bytes received until it was established */
    char host[MOST_HOST + 1]; /* "": any, for the caller gave none */
};

/* ---- the connection ----------------------------------------------------------------------- */

static int bio_read(BIO *bio, char *data, size_t room, size_t *size)
{
    ltdic_openssl *t = BIO_get_data(bio);
    const int result = ltdic_tcp_read(t->descriptor, (uint8_t *)data, room, size);
    BIO_clear_retry_flags(bio);
    t->drained = *size == 0;
    if (*size > 0) {
        t->handshake += t->established ? 0 : *size;
        return 1;
    }
    if (result == LTDIC_TRANSPORT_END || result == LTDIC_TRANSPORT_LOST) {
        t->ended = true;
        t->lost = result == LTDIC_TRANSPORT_LOST;
    } else {
        BIO_set_retry_read(bio);
    }
    return 0;
}

static int bio_write(BIO *bio, const char *data, size_t length, size_t *size)
{
    const ltdic_openssl *t = BIO_get_data(bio);
    const ltdic_bytes bytes = {(const uint8_t *)data, length};
    const int result = ltdic_tcp_send(t->descriptor, bytes, size);
    BIO_clear_retry_flags(bio);
    if (*size > 0) {
        return 1;
    }
    if (result != LTDIC_TRANSPORT_LOST && result != LTDIC_TRANSPORT_END) {
        BIO_set_retry_write(bio);
    }
    return 0;
}

static long bio_control(BIO *bio, int what, long number, void *pointer)
{
    (void)number;
    (void)pointer;
    const ltdic_openssl *t = BIO_get_data(bio);
    return what == BIO_CTRL_FLUSH ? 1 : what == BIO_CTRL_EOF ? t != NULL && t->ended : 0;
}

static BIO_METHOD *method;

static void make_method(void)
{
    method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "ltdic");
    if (method != NULL) {
        BIO_meth_set_read_ex(method, bio_read);
        BIO_meth_set_write_ex(method, bio_write);
        BIO_meth_set_ctrl(method, bio_control);
    }
}

/* Makes OpenSSL read from and send to the descriptor. Returns false if there is no memory. */
static bool use_descriptor(ltdic_openssl *t)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, make_method);
    BIO *bio = method == NULL ? NULL : BIO_new(method);
    if (bio == NULL) {
        return false;
    }
    BIO_set_data(bio, t);
    BIO_set_init(bio, 1);
    SSL_set_bio(t->ssl, bio, bio);
    return true;
}

/* ---- the transport ------------------------------------------------------------------------ */

static bool expect_host(ltdic_openssl *t)
{
    X509_VERIFY_PARAM *wanted = SSL_get0_param(t->ssl);
    return t->host[0] == '\0' || X509_VERIFY_PARAM_set1_ip_asc(wanted, t->host) == 1 ||
           (SSL_set1_host(t->ssl, t->host) == 1 && SSL_set_tlsext_host_name(t->ssl, t->host) == 1);
}

/* Begins a connection. Returns false if there is no memory, or for a second one of the caller's
 * SSL. */
static bool begin(ltdic_openssl *t, int descriptor)
{
    t->descriptor = descriptor;
    t->begun = true;
    t->established = t->ended = t->lost = false;
    t->handshake = 0;
    t->error = 0;
    if (t->context != NULL) {
        t->ssl = SSL_new(t->context);
    }
    if (t->ssl == NULL || !use_descriptor(t)) {
        return false;
    }
    SSL_clear_mode(t->ssl, SSL_MODE_AUTO_RETRY); /* each record counts, see read_tls */
    SSL_set_mode(t->ssl, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                             SSL_MODE_RELEASE_BUFFERS);
    if (t->context == NULL) {
        return true;
    }
    if (t->server) {
        SSL_set_accept_state(t->ssl);
    } else {
        SSL_set_connect_state(t->ssl);
    }
    return t->server || expect_host(t);
}

/* Returns what a call of OpenSSL that did not succeed means. */
static int result_of(ltdic_openssl *t, int returned)
{
    switch (SSL_get_error(t->ssl, returned)) {
    case SSL_ERROR_WANT_READ:
        return LTDIC_TRANSPORT_WANT_READ;
    case SSL_ERROR_WANT_WRITE:
        return LTDIC_TRANSPORT_WANT_WRITE;
    case SSL_ERROR_ZERO_RETURN:
        return LTDIC_TRANSPORT_END;
    default:
        break;
    }
    if (t->ended) { /* without close_notify: a PDU that is cut off is found by its length */
        return t->lost ? LTDIC_TRANSPORT_LOST : LTDIC_TRANSPORT_END;
    }
    t->error = t->error != 0 ? t->error : ERR_peek_error();
    return LTDIC_TRANSPORT_LOST;
}

static int open_tls(void *state, int descriptor)
{
    ltdic_openssl *t = state;
    ERR_clear_error();
    if (!t->begun && !begin(t, descriptor)) {
        t->error = ERR_peek_error();
        return LTDIC_TRANSPORT_LOST;
    }
    ERR_clear_error(); /* a host that is no address */
    const int returned = SSL_do_handshake(t->ssl);
    if (returned == 1) {
        t->established = true;
        return LTDIC_TRANSPORT_DONE;
    }
    return t->handshake > MOST_HANDSHAKE ? LTDIC_TRANSPORT_LOST : result_of(t, returned);
}

static int read_tls(void *state, int descriptor, uint8_t *data, size_t room, size_t *size)
{
    ltdic_openssl *t = state;
    (void)descriptor;
    *size = 0;
    ERR_clear_error();
    for (int i = 0; i < MOST_RECORDS && *size < room; i++) {
        size_t got = 0;
        const int returned = SSL_read_ex(t->ssl, data + *size, room - *size, &got);
        const int result = returned == 1 ? LTDIC_TRANSPORT_DONE : result_of(t, returned);
        *size += got;
        if (result != LTDIC_TRANSPORT_DONE && (result != LTDIC_TRANSPORT_WANT_READ || t->drained)) {
            return result; /* else it was a record without data, such as new keys */
        }
    }
    return LTDIC_TRANSPORT_DONE;
}

/* Copies the first bytes of the output, one record at most. Returns how many. */
static size_t gather(const ltdic_output *output, uint8_t *record)
{
    size_t size = 0;
    for (size_t i = 0; i < output->count && size < RECORD; i++) {
        const ltdic_bytes part = output->parts[i];
        const size_t room = RECORD - size;
        memcpy(record + size, part.data, part.size < room ? part.size : room);
        size += part.size < room ? part.size : room;
    }
    return size;
}

static int send_tls(void *state, int descriptor, const ltdic_output *output, size_t *size)
{
    ltdic_openssl *t = state;
    uint8_t record[RECORD];
    (void)descriptor;
    *size = 0;
    ERR_clear_error();
    const int returned = SSL_write_ex(t->ssl, record, gather(output, record), size);
    return returned == 1 ? LTDIC_TRANSPORT_DONE : result_of(t, returned);
}

static size_t pending(void *state)
{
    return ((const ltdic_openssl *)state)->handshake;
}

static void close_tls(void *state, int descriptor, int orderly)
{
    ltdic_openssl *t = state;
    (void)descriptor;
    if (t->ssl == NULL) {
        return;
    }
    if (orderly && t->established && t->error == 0) {
        ERR_clear_error();
        SSL_shutdown(t->ssl); /* close_notify, if the connection takes it at once */
    }
    SSL_free(t->ssl);
    t->ssl = NULL;
    t->begun = false;
    ERR_clear_error();
}

static void free_tls(void *state)
{
    ltdic_openssl *t = state;
    SSL_free(t->ssl);
    SSL_CTX_free(t->context);
    free(t);
}

static const ltdic_transport transport = {sizeof transport, open_tls,  read_tls, send_tls,
                                          pending,          close_tls, free_tls};

/* ---- the interface ------------------------------------------------------------------------ */

/* Returns true for what may be a name or a numeric address. */
static bool is_host(const char *host)
{
    static const char characters[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
        ".:_-";
    const size_t length = strlen(host);
    return length > 0 && length <= MOST_HOST && strspn(host, characters) == length &&
           host[0] != '.' && host[0] != '-' && strstr(host, "..") == NULL;
}

static ltdic_openssl *new_tls(SSL_CTX *context, bool server, const char *host)
{
    const size_t length = host == NULL ? 0 : strlen(host);
    ltdic_openssl *t = host != NULL && !is_host(host) ? NULL : calloc(1, sizeof *t);
    if (t != NULL) {
        t->context = context;
        t->server = server;
        memcpy(t->host, length == 0 ? "" : host, length);
    }
    if (t != NULL && context != NULL) {
        SSL_CTX_up_ref(context);
    }
    return t;
}

ltdic_openssl *ltdic_openssl_connect(ltdic_net *net, SSL_CTX *context, const char *host)
{
    ltdic_openssl *t = new_tls(context, false, host);
    if (t != NULL) {
        ltdic_net_set_transport(net, &transport, t);
    }
    return t;
}

ltdic_openssl *ltdic_openssl_use(ltdic_net *net, SSL *ssl)
{
    ltdic_openssl *t = new_tls(NULL, false, NULL);
    if (t != NULL) {
        t->ssl = ssl;
        ltdic_net_set_transport(net, &transport, t);
    }
    return t;
}

static void *make(void *context, ltdic_served_id served)
{
    (void)served;
    return new_tls(context, true, NULL);
}

void ltdic_openssl_serve(ltdic_server *server, SSL_CTX *context)
{
    ltdic_server_set_transport(server, &transport, make, context);
}

SSL *ltdic_openssl_ssl(const ltdic_openssl *tls)
{
    return tls->ssl;
}

unsigned long ltdic_openssl_error(const ltdic_openssl *tls)
{
    return tls->error;
}

/* ---- contexts ----------------------------------------------------------------------------- */

/* What RFC 9325 recommends: 3.1 versions, 3.3 compression, 3.5 renegotiation, 4.2 cipher suites. */
static bool apply_bcp_195(SSL_CTX *context)
{
    SSL_CTX_set_options(context, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION);
    return SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION) == 1 &&
           SSL_CTX_set_cipher_list(context, "ECDHE+AESGCM:ECDHE+CHACHA20") == 1;
}

static bool use_files(SSL_CTX *context, const ltdic_openssl_files *files)
{
    const char *key = files->key != NULL ? files->key : files->certificate;
    const bool identified = files->certificate == NULL ||
                            (SSL_CTX_use_certificate_chain_file(context, files->certificate) == 1 &&
                             SSL_CTX_use_PrivateKey_file(context, key, SSL_FILETYPE_PEM) == 1);
    return identified && (files->authorities == NULL ||
                          SSL_CTX_load_verify_locations(context, files->authorities, NULL) == 1);
}

static SSL_CTX *context_of(const SSL_METHOD *side, const ltdic_openssl_files *files)
{
    SSL_CTX *context = SSL_CTX_new(side);
    if (context != NULL && (!apply_bcp_195(context) || !use_files(context, files))) {
        SSL_CTX_free(context);
        context = NULL;
    }
    return context;
}

SSL_CTX *ltdic_openssl_client_context(const ltdic_openssl_files *files)
{
    SSL_CTX *context = context_of(TLS_client_method(), files);
    if (context != NULL) {
        SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
    }
    if (context != NULL && files->authorities == NULL &&
        SSL_CTX_set_default_verify_paths(context) != 1) {
        SSL_CTX_free(context);
        context = NULL;
    }
    return context;
}

SSL_CTX *ltdic_openssl_server_context(const ltdic_openssl_files *files)
{
    static const unsigned char name[] = "ltdic";
    SSL_CTX *context = context_of(TLS_server_method(), files);
    if (context != NULL) {
        SSL_CTX_set_session_id_context(context, name, sizeof name - 1);
        SSL_CTX_set_verify(context,
                           files->authorities == NULL
                               ? SSL_VERIFY_NONE
                               : SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT,
                           NULL);
    }
    return context;
}
