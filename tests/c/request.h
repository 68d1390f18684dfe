/* SPDX-License-Identifier: MIT */
/* An A-ASSOCIATE-RQ with one context, for Verification. */
#ifndef LTDIC_TEST_REQUEST_H
#define LTDIC_TEST_REQUEST_H

static const char request[] = "\1\0\0\0\0\x9b\0\1\0\0ANY-SCP         LTDIC           "
                              "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
                              "\x10\0\0\x15"
                              "1.2.840.10008.3.1.1.1"
                              "\x20\0\0\x2e\1\0\0\0"
                              "\x30\0\0\x11"
                              "1.2.840.10008.1.1"
                              "\x40\0\0\x11"
                              "1.2.840.10008.1.2"
                              "\x50\0\0\x08\x51\0\0\4\0\0\x40\0";

#endif
