/* SPDX-License-Identifier: MIT */
/* ltdic_openssl: TLS for ltdic.h, by OpenSSL 1.1.1 or later. A library of its own, beside ltdic.
 *
 * A context (SSL_CTX) has the certificates and settings of one side; it may be one of these
 * functions, or your own. An endpoint or a server then uses it for each connection. The thread that
 * drives the loop does the handshakes, which never wait: the deadlines of connecting and of ARTIM
 * hold. Each end tells the peer first (close_notify). */
#ifndef LTDIC_OPENSSL_H
#define LTDIC_OPENSSL_H

#include "ltdic.h"

#include <openssl/ssl.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Files in PEM. */
typedef struct ltdic_openssl_files {
    size_t size;             /**< sizeof(ltdic_openssl_files) when the caller was compiled */
    const char *certificate; /**< of this end, with its chain; NULL: none, a client needs none */
    const char *key;         /**< NULL: it is in `certificate` */
    const char *authorities; /**< who may have signed the peer's certificate. NULL: a client trusts
                                those of the system, a server asks for no certificate */
} ltdic_openssl_files;

/** Make a context with the settings of BCP 195 (RFC 9325): TLS 1.2 and 1.3, forward secrecy and
 *  authenticated encryption alone, no renegotiation, no compression. A client verifies the server;
 *  a server needs a certificate, and with `authorities` refuses clients without one of theirs.
 *  @return NULL if a file cannot be used, or without memory: ERR_get_error of OpenSSL says why.
 * Free it with SSL_CTX_free */
LTDIC_API SSL_CTX *ltdic_openssl_client_context(const ltdic_openssl_files *files);
LTDIC_API SSL_CTX *ltdic_openssl_server_context(const ltdic_openssl_files *files);

/** TLS of one endpoint. It is freed with the endpoint. Opaque. */
typedef struct ltdic_openssl ltdic_openssl;

/** Sets TLS as the transport of an endpoint that is to connect, as ltdic_net_set_transport does.
 *  @param context  is referred to, so that the caller may free it
 *  @param host  the name or numeric address that the peer's certificate must be for; NULL: any
 *  @return NULL if there is no memory, or for a host that is neither, such as "" */
LTDIC_API ltdic_openssl *ltdic_openssl_connect(ltdic_net *net, SSL_CTX *context, const char *host);
/** Does the same with an SSL of your own, for one connection: the next one fails. It must have been
 *  told whether it is a client's or a server's (SSL_set_connect_state, SSL_set_accept_state), and
 * the name to expect (SSL_set1_host). Its BIO is replaced.
 *  @param ssl  belongs to the endpoint then, but not where NULL is returned */
LTDIC_API ltdic_openssl *ltdic_openssl_use(ltdic_net *net, SSL *ssl);
/** Sets TLS for each connection that a server accepts after this call.
 *  @param context  must exist as long as the server */
LTDIC_API void ltdic_openssl_serve(ltdic_server *server, SSL_CTX *context);

/** Returns the SSL of the connection, such as for SSL_get_peer_certificate; NULL before the
 *  handshake has begun and after the end. */
LTDIC_API SSL *ltdic_openssl_ssl(const ltdic_openssl *tls);
/** Returns why the last handshake or connection failed, for ERR_reason_error_string: an alert of
 * the peer, or what OpenSSL found; 0: TLS did not fail. After a handshake, SSL_get_verify_result of
 *  OpenSSL says more about a certificate. */
LTDIC_API unsigned long ltdic_openssl_error(const ltdic_openssl *tls);

#ifdef __cplusplus
}
#endif

#endif
