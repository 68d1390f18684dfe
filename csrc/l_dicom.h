/* SPDX-License-Identifier: MIT */
/** @file l_dicom.h
 *  The association part of the L_Dicom API, with C-ECHO, without data sets and other messages of
 *  PS3.7. ltdic.h includes it; do not include it alone.
 *
 *  Without a mark, the names, parameters and values of a declaration are documented for C. Marks:
 *
 *    [derived: X]       they follow from X: the documentation for C++, COM or .NET, another
 *                       declaration, or the standard
 *    [parameters: own]  the name is documented; parameters and result are ltdic's own choice
 *    [own]              all of it is ltdic's own choice
 *
 *  A mark above a group holds for the whole group, unless a declaration has its own. `const` in
 *  parameters and results is ltdic's own choice everywhere.
 *
 *  Threads: each thread has handles, a loop and a start-up count of its own. A handle can be used
 *  only on the thread that created it; on another one it is an unknown handle. A thread must free
 *  its handles before it ends. An associate object may be used on any thread, on one at a time; one
 *  that belongs to the library, on the thread of its HDICOMNET only.
 *
 *  Callbacks run on the thread that calls L_DicomBreathe or L_DicomWait ("pumps"), inside these two
 *  functions only. A callback may call any function, and may free its own handle. The callbacks of
 *  one handle never overlap: while one of them runs, a pump that it calls dispatches events of the
 *  other handles only. At most 32 pumps may be nested: one more dispatches nothing; its events wait
 *  for the outer ones.
 *
 *  Order of the callbacks of one handle, each called once:
 *    listener             ACCEPTCALLBACK for each connection
 *    L_DicomConnect       CONNECTCALLBACK
 *    any PDU sent         SENDCALLBACK, before callbacks for PDUs that the peer sent after it
 *    any PDU received     RECEIVECALLBACK, then the callback for its type
 *    a C-ECHO received    RECEIVECALLBACK and RECEIVEDATACALLBACK for each piece, then
 *                         RECEIVECECHOREQUESTCALLBACK or RECEIVECECHORESPONSECALLBACK
 *    a rejection          RECEIVECALLBACK, RECEIVEASSOCIATEREJECTCALLBACK with the three
 *                         bytes as received, CLOSECALLBACK
 *    the end              CLOSECALLBACK, the last callback of a connection that was up
 *
 *  The library answers for its user only where PS3.8 has the provider answer. It sends
 *    A-ASSOCIATE-RJ to a request of another protocol version (1/2/2) or another application context
 *                   (1/1/2), to one beyond L_DicomSetLimits (2/3/2), and to one for which there is
 *                   no memory (2/3/1);
 *    A-ABORT        to a peer that breaks the protocol and, at a requestor, to one that sends
 *                   anything but a C-ECHO in a Verification context.
 *  Then the only callbacks are CLOSECALLBACK and, if there was an association, before it
 *  RECEIVECALLBACK with an error.
 */
#ifndef LTDIC_L_DICOM_H
#define LTDIC_L_DICOM_H

#ifndef TRUE
#define TRUE 1
#endif
#ifndef FALSE
#define FALSE 0
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* [cdef] */

/* Types. [derived: their use in documented declarations] */
typedef void L_VOID;
typedef int L_BOOL;
typedef int L_INT;
typedef unsigned int L_UINT;
typedef unsigned char L_UCHAR;
typedef uint16_t L_UINT16;
typedef uint32_t L_UINT32;
typedef char L_CHAR;
typedef char L_TCHAR; /* UTF-8 */

/** A connection or a listener. A handle that was freed stays unknown: its value is not used again.
 */
typedef struct L_DICOMNET *HDICOMNET;
/** An associate object: request or accept. A handle that was freed stays unknown.
 *  [derived: the name of the parameter in COM] */
typedef struct L_DICOMPDU *HDICOMPDU;

/* ---- constants --------------------------------------------------------------------------- */

/* PDU types: the nType of RECEIVECALLBACK and SENDCALLBACK. */
#define PDU_UNKNOWN 0x00
#define PDU_ASSOCIATE_REQUEST 0x01
#define PDU_ASSOCIATE_ACCEPT 0x02
#define PDU_ASSOCIATE_REJECT 0x03
#define PDU_DATA_TRANSFER 0x04
#define PDU_RELEASE_REQUEST 0x05
#define PDU_RELEASE_RESPONSE 0x06
#define PDU_ABORT 0x07

/* A-ASSOCIATE-RJ (PS3.8 table 9-21). The meaning of a reason depends on the source. */
#define PDU_REJECT_RESULT_PERMANENT 1
#define PDU_REJECT_RESULT_TRANSIENT 2
#define PDU_REJECT_SOURCE_USER 1
#define PDU_REJECT_SOURCE_PROVIDER1 2   /* ACSE */
#define PDU_REJECT_SOURCE_PROVIDER2 3   /* presentation */
#define PDU_REJECT_REASON_UNKNOWN 1     /* USER, PROVIDER1 */
#define PDU_REJECT_REASON_APPLICATION 2 /* USER */
#define PDU_REJECT_REASON_CALLING 3     /* USER */
#define PDU_REJECT_REASON_CALLED 7      /* USER */
#define PDU_REJECT_REASON_VERSION 2     /* PROVIDER1 */
#define PDU_REJECT_REASON_CONGESTION 1  /* PROVIDER2 */
#define PDU_REJECT_REASON_LIMIT 2       /* PROVIDER2 */

/* A-ABORT (PS3.8 table 9-26). [derived: COM; the values of the sources: PS3.8] */
#define PDU_ABORT_SOURCE_USER 0
#define PDU_ABORT_SOURCE_PROVIDER 2
#define PDU_ABORT_REASON_UNKNOWN 0
#define PDU_ABORT_REASON_UNRECOGNIZED 1
#define PDU_ABORT_REASON_UNEXPECTED 2
#define PDU_ABORT_REASON_UNRECOGNIZED_PARAM 4
#define PDU_ABORT_REASON_UNEXPECTED_PARAM 5
#define PDU_ABORT_REASON_INVALID_PARAM 6

/* Result of a presentation context (PS3.8 table 9-18). [own] */
#define PDU_ACCEPT_RESULT_SUCCESS 0
#define PDU_ACCEPT_RESULT_USER_REJECT 1
#define PDU_ACCEPT_RESULT_PROVIDER_REJECT 2
#define PDU_ACCEPT_RESULT_ABSTRACT_SYNTAX 3
#define PDU_ACCEPT_RESULT_TRANSFER_SYNTAX 4

/* User identity (PS3.7 D.3.3.7). [own] */
#define PDU_IDENTITY_USERNAME 1
#define PDU_IDENTITY_PASSCODE 2 /* user name, and passcode as the secondary field */
#define PDU_IDENTITY_KERBEROS 3
#define PDU_IDENTITY_SAML 4
#define PDU_IDENTITY_JWT 5

#define DICOM_IPTYPE_NONE 0
#define DICOM_IPTYPE_IPV4 1
#define DICOM_IPTYPE_IPV6 2
#define DICOM_IPTYPE_IPV4_OR_IPV6 3

#define DICOM_SECURE_NONE 0 /* [own] */

/* Priority, (0000,0700) of a command set. The documentation for C spells HIGH without its I. */
#define COMMAND_PRIORITY_MEDIUM 0x0000
#define COMMAND_PRIORTY_HIGH 0x0001
#define COMMAND_PRIORITY_HIGH 0x0001 /* [derived: C++] */
#define COMMAND_PRIORITY_LOW 0x0002

/* Status, (0000,0900). [derived: COM and DICOMPRINTSCUCALLBACK; the values: PS3.7 annex C] */
#define COMMAND_STATUS_SUCCESS 0x0000
#define COMMAND_STATUS_PENDING 0xFF00

/* Command data set type, (0000,0800). [derived: the values: .NET and PS3.7 E.1] */
#define COMMAND_DATASET_PRESENT 0x0000
#define COMMAND_DATASET_ABSENT 0x0101

/* Codes that functions return and callbacks get as nError; errors are above 0. [own] */
#define DICOM_SUCCESS 0            /* [derived: its value: C++] */
#define DICOM_ERROR_PARAMETER 1    /* an argument is out of range */
#define DICOM_ERROR_HANDLE 2       /* unknown handle: freed, invented, or of another thread */
#define DICOM_ERROR_MEMORY 3       /* out of memory */
#define DICOM_ERROR_STATE 4        /* not possible in this state; nothing was changed */
#define DICOM_ERROR_ADDRESS 5      /* host or port cannot be resolved or bound */
#define DICOM_ERROR_CONNECT 6      /* refused or unreachable */
#define DICOM_ERROR_CLOSED 7       /* the connection was lost */
#define DICOM_ERROR_TIMEOUT 8      /* a deadline has passed */
#define DICOM_ERROR_ABORTED 9      /* the peer sent A-ABORT */
#define DICOM_ERROR_PROTOCOL 10    /* the peer broke PS3.8 and was sent an A-ABORT */
#define DICOM_ERROR_SYSTEM 11      /* the operating system refused; errno says why */
#define DICOM_ERROR_BUSY 12        /* too much waits to be sent, or is received and incomplete */
#define DICOM_ERROR_INTERRUPTED 13 /* a signal, or L_DicomBreakWait, ended the wait */

/** Returns one English line about a code of these. [own] */
L_LTDIC_API const L_TCHAR *L_DicomErrorText(L_INT nError);

/* ---- callbacks --------------------------------------------------------------------------- */

/** A connection is pending at this listener; L_DicomAccept accepts it. Called once for each.
 *  [parameters: own] */
typedef L_VOID(EXT_CALLBACK *ACCEPTCALLBACK)(HDICOMNET hNet, L_INT nError, L_VOID *UserData);
/** The connection that L_DicomConnect began is up (nError 0), or has failed: DICOM_ERROR_CONNECT,
 *  DICOM_ERROR_TIMEOUT. [parameters: own] */
typedef L_VOID(EXT_CALLBACK *CONNECTCALLBACK)(HDICOMNET hNet, L_INT nError, L_VOID *UserData);
/** A connection that was up has ended, at either end. nError is 0 after a rejection, a release,
 *  L_DicomSendAbort or L_DicomClose; else the cause: DICOM_ERROR_CLOSED, _TIMEOUT, _ABORTED,
 *  _PROTOCOL, _MEMORY. [own] */
typedef L_VOID(EXT_CALLBACK *CLOSECALLBACK)(HDICOMNET hNet, L_INT nError, L_VOID *UserData);
/** A PDU of any type was received: its bytes, header included, before the callback for its type. A
 *  P-DATA-TF comes in pieces as they arrive, each before its RECEIVEDATACALLBACK; together they
 *  are the PDU. pBuffer is valid until the callback returns. After an error an A-ABORT was sent,
 *  and only CLOSECALLBACK follows: DICOM_ERROR_PROTOCOL for a PDU that breaks PS3.8,
 *  DICOM_ERROR_MEMORY for one for which there was no memory, DICOM_ERROR_TIMEOUT, with
 *  PDU_UNKNOWN, if no PDU came in time. [derived: .NET] */
typedef L_VOID(EXT_CALLBACK *RECEIVECALLBACK)(HDICOMNET hNet, L_INT nError, L_UCHAR nType,
                                              L_UCHAR *pBuffer, L_UINT32 nBytes, L_VOID *UserData);
/** A PDU was handed to the system, or was lost with its connection: DICOM_ERROR_CLOSED. nBytes is
 *  its size, header included. */
typedef L_VOID(EXT_CALLBACK *SENDCALLBACK)(HDICOMNET hNet, L_INT nError, L_UCHAR nType,
                                           L_UINT32 nBytes, L_VOID *UserData);
/** An A-ASSOCIATE-RQ was received. hPDU belongs to the library and is valid until the callback
 *  returns; L_DicomFreeAssociate does nothing to it. [parameters: own] */
typedef L_VOID(EXT_CALLBACK *RECEIVEASSOCIATEREQUESTCALLBACK)(HDICOMNET hNet, HDICOMPDU hPDU,
                                                              L_VOID *UserData);
/** An A-ASSOCIATE-AC was received. hPDU is the agreement: see L_DicomGetAssociate.
 *  [parameters: own] */
typedef L_VOID(EXT_CALLBACK *RECEIVEASSOCIATEACCEPTCALLBACK)(HDICOMNET hNet, HDICOMPDU hPDU,
                                                             L_VOID *UserData);
/** An A-ASSOCIATE-RJ was received, as an SCP sends it with L_DicomSendAssociateReject. The three
 *  bytes are those of the PDU: any value is possible. */
typedef L_VOID(EXT_CALLBACK *RECEIVEASSOCIATEREJECTCALLBACK)(HDICOMNET hNet, L_UCHAR nResult,
                                                             L_UCHAR nSource, L_UCHAR nReason,
                                                             L_VOID *UserData);
/** A piece of a PDV was received; pData is valid until the callback returns. nControl: bit 0 is
 *  command, bit 1 last (PS3.8 E.2), which is set only with the last bytes of the PDV.
 *  [parameters: own; .NET has a command set and a data set] */
typedef L_VOID(EXT_CALLBACK *RECEIVEDATACALLBACK)(HDICOMNET hNet, L_UCHAR nPresentationID,
                                                  L_UCHAR nControl, const L_UCHAR *pData,
                                                  L_UINT32 nBytes, L_VOID *UserData);
/** [parameters: own] */
typedef L_VOID(EXT_CALLBACK *RECEIVERELEASEREQUESTCALLBACK)(HDICOMNET hNet, L_VOID *UserData);
/** [parameters: own] */
typedef L_VOID(EXT_CALLBACK *RECEIVERELEASERESPONSECALLBACK)(HDICOMNET hNet, L_VOID *UserData);
/** An A-ABORT was received, with these two bytes. nReason is significant only with
 *  PDU_ABORT_SOURCE_PROVIDER. [derived: COM] */
typedef L_VOID(EXT_CALLBACK *RECEIVEABORTCALLBACK)(HDICOMNET hNet, L_UCHAR nSource, L_UCHAR nReason,
                                                   L_VOID *UserData);
/** A C-ECHO-RQ was received; answer it with L_DicomSendCEchoResponse. [derived: .NET] */
typedef L_VOID(EXT_CALLBACK *RECEIVECECHOREQUESTCALLBACK)(HDICOMNET hNet, L_UCHAR nPresentationID,
                                                          L_UINT16 nMessageID, L_TCHAR *pszClass,
                                                          L_VOID *UserData);
/** A C-ECHO-RSP was received. pszClass is "" if the response has no SOP class, which is optional
 *  (PS3.7 table 9.1-5). [derived: C++] */
typedef L_VOID(EXT_CALLBACK *RECEIVECECHORESPONSECALLBACK)(HDICOMNET hNet, L_UCHAR nPresentationID,
                                                           L_UINT16 nMessageID, L_TCHAR *pszClass,
                                                           L_UINT16 nStatus, L_VOID *UserData);

/** The callbacks of a handle; NULL for those that are not wanted. [own; members are named as those
 *  of DICOMPRINTSCUCALLBACK, which has no size] */
typedef struct DICOMNETCALLBACK {
    L_UINT uStructSize; /**< sizeof(DICOMNETCALLBACK), as the caller was compiled */
    ACCEPTCALLBACK pfnAccept;
    CONNECTCALLBACK pfnConnect;
    CLOSECALLBACK pfnClose;
    RECEIVECALLBACK pfnReceive;
    SENDCALLBACK pfnSend;
    RECEIVEASSOCIATEREQUESTCALLBACK pfnReceiveAssociateRequest;
    RECEIVEASSOCIATEACCEPTCALLBACK pfnReceiveAssociateAccept;
    RECEIVEASSOCIATEREJECTCALLBACK pfnReceiveAssociateReject;
    RECEIVEDATACALLBACK pfnReceiveData;
    RECEIVERELEASEREQUESTCALLBACK pfnReceiveReleaseRequest;
    RECEIVERELEASERESPONSECALLBACK pfnReceiveReleaseResponse;
    RECEIVEABORTCALLBACK pfnReceiveAbort;
    RECEIVECECHOREQUESTCALLBACK pfnReceiveCEchoRequest;
    RECEIVECECHORESPONSECALLBACK pfnReceiveCEchoResponse;
} DICOMNETCALLBACK;

/* ---- handles ----------------------------------------------------------------------------- */

/** Adds 1 to the start-up count of the calling thread. It is not needed before L_DicomCreateNet.
 *  [parameters: own] */
L_LTDIC_API L_INT L_DicomStartUp(L_VOID);
/** Takes 1 from the start-up count of the calling thread. The last call frees the handles that the
 *  thread still has, without callbacks. [own] */
L_LTDIC_API L_VOID L_DicomShutDown(L_VOID);

/** Creates a handle, for a connection or a listener. [derived: C++]
 *  @param pszPath  ignored; it is there for source compatibility
 *  @param nMode    DICOM_SECURE_NONE
 *  @return NULL if there is no memory or no descriptor, or for another mode */
L_LTDIC_API HDICOMNET L_DicomCreateNet(const L_TCHAR *pszPath, L_INT nMode);
/** Closes the connection, without a callback, and frees the handle. A PDU that was submitted before
 *  is still sent. [own] */
L_LTDIC_API L_VOID L_DicomFreeNet(HDICOMNET hNet);

/** Sets the callbacks of a handle and copies the struct. It takes effect with the next callback and
 *  may be called again at any time. [parameters: own] */
L_LTDIC_API L_INT L_DicomSetCallback(HDICOMNET hNet, const DICOMNETCALLBACK *pCallback,
                                     L_VOID *pUserData);
/** Returns the callbacks of a handle. [own]
 *  @param[in,out] pCallback   uStructSize says how much of it to fill
 *  @param[out]    ppUserData  may be NULL */
L_LTDIC_API L_INT L_DicomGetCallback(HDICOMNET hNet, DICOMNETCALLBACK *pCallback,
                                     L_VOID **ppUserData);

/** Sets the deadlines of this handle, in milliseconds. Those that run already keep their time.
 *  [own]
 *  @param nArtim     the ARTIM timer (PS3.8): limits the time until an associate request is
 *                    complete, and until the peer closes at the end; 0: 30000, the default
 *  @param nResponse  limits the time until a connection is up, and until the answer to an
 *                    associate or release request is complete; 0: no limit
 *  @param nIdle      limits the time of an association without a byte of data in either direction;
 *                    0: no limit */
L_LTDIC_API L_INT L_DicomSetTimeouts(HDICOMNET hNet, L_UINT32 nArtim, L_UINT32 nResponse,
                                     L_UINT32 nIdle);
/** Limits the connections and associations of the listener hNet; 0: no limit. [own]
 *  Besides, all incomplete associate requests together may have 64 MiB. Beyond that the connection
 *  that began first is aborted, and its CLOSECALLBACK has DICOM_ERROR_BUSY.
 *  @param nAssociations  an associate request beyond so many is rejected with 2/3/2; a connection
 *                        without a request does not count; the default is no limit
 *  @param nConnections   connections beyond so many stay pending, without an ACCEPTCALLBACK, until
 *                        others are closed; the default is three quarters of the descriptors that
 *                        the process may have */
L_LTDIC_API L_INT L_DicomSetLimits(HDICOMNET hNet, L_UINT32 nAssociations, L_UINT32 nConnections);

/* ---- connections ------------------------------------------------------------------------- */

/** Listens for connections, with DICOM_IPTYPE_NONE. [derived: C++, L_DicomListenExt]
 *  @param pszHostAddress  NULL or "": the address of this computer's name; "*": all addresses
 *  @param nHostPort       0: a free port; L_DicomGetHostInfo returns its number
 *  @param nNbPeers        connections that may wait to be accepted; less than 1024 means 1024 */
L_LTDIC_API L_INT L_DicomListen(HDICOMNET hNet, const L_TCHAR *pszHostAddress, L_UINT nHostPort,
                                L_INT nNbPeers);
/** Listens for connections. @param nIpType  DICOM_IPTYPE_... */
L_LTDIC_API L_INT L_DicomListenExt(HDICOMNET hNet, const L_TCHAR *pszHostAddress, L_UINT nHostPort,
                                   L_INT nNbPeers, L_INT nIpType);
/** Gives the oldest pending connection of the listener hNet to the unused handle hNetClient. ARTIM
 *  runs until the associate request is complete. [parameters: own]
 *  @return DICOM_ERROR_STATE if none is pending or hNetClient is in use */
L_LTDIC_API L_INT L_DicomAccept(HDICOMNET hNet, HDICOMNET hNetClient);
/** Begins to connect; CONNECTCALLBACK reports the result. This does not block, except while the
 *  system resolves a host name; a numeric address takes no time. [parameters: own]
 *  @param pszHostAddress, nHostPort  address of this end; NULL or "" and 0: the system chooses */
L_LTDIC_API L_INT L_DicomConnect(HDICOMNET hNet, const L_TCHAR *pszHostAddress, L_UINT nHostPort,
                                 const L_TCHAR *pszPeerAddress, L_UINT nPeerPort);
/** Begins to connect. [parameters: own] @param nIpType  DICOM_IPTYPE_... */
L_LTDIC_API L_INT L_DicomConnectExt(HDICOMNET hNet, const L_TCHAR *pszHostAddress, L_UINT nHostPort,
                                    const L_TCHAR *pszPeerAddress, L_UINT nPeerPort, L_INT nIpType);
/** Closes without delay. A connection that was up still gets its CLOSECALLBACK.
 *  [parameters: own] */
L_LTDIC_API L_INT L_DicomClose(HDICOMNET hNet);
/** Tells whether the connection is up. [own] */
L_LTDIC_API L_BOOL L_DicomIsConnected(HDICOMNET hNet);
/** Tells whether an association is established (Sta6 to Sta12). [own] */
L_LTDIC_API L_BOOL L_DicomIsAssociated(HDICOMNET hNet);
/** Writes the numeric address and the port of this end. [own]
 *  @param[out] pszAddress  nSize bytes; 46 hold any address
 *  @param[out] pnPort      may be NULL
 *  @return DICOM_ERROR_STATE if there is no connection or listener, DICOM_ERROR_PARAMETER if nSize
 *          is too small */
L_LTDIC_API L_INT L_DicomGetHostInfo(HDICOMNET hNet, L_TCHAR *pszAddress, L_UINT nSize,
                                     L_UINT *pnPort);
/** Does the same for the peer's end. [own] */
L_LTDIC_API L_INT L_DicomGetPeerInfo(HDICOMNET hNet, L_TCHAR *pszAddress, L_UINT nSize,
                                     L_UINT *pnPort);

/** Dispatches all events that are ready on this thread: calls their callbacks. Never blocks. Inside
 *  32 other pumps it does nothing. [parameters: own] */
L_LTDIC_API L_VOID L_DicomBreathe(L_VOID);
/** Does what L_DicomBreathe does, and waits until an event of hNet, or of a handle accepted from
 *  the listener hNet, was dispatched, or nMilliseconds are over. Events of other handles are
 *  dispatched meanwhile. [own]
 *  @return DICOM_SUCCESS, DICOM_ERROR_TIMEOUT, DICOM_ERROR_INTERRUPTED, DICOM_ERROR_HANDLE; inside
 *          32 other pumps DICOM_ERROR_STATE, without waiting and without a callback */
L_LTDIC_API L_INT L_DicomWait(HDICOMNET hNet, L_UINT32 nMilliseconds);
/** Makes the L_DicomWait that runs on this thread return after the events that are ready were
 *  dispatched. [own]
 *  @param hNet  any handle of this thread, or NULL */
L_LTDIC_API L_VOID L_DicomBreakWait(HDICOMNET hNet);

/* ---- associations ------------------------------------------------------------------------ */

/** Sends an A-ASSOCIATE-RQ. hPDU must be a request; it is copied. This may be called before
 *  CONNECTCALLBACK. Bytes that the peer sends before the request are read only after it.
 *  [derived: COM] */
L_LTDIC_API L_INT L_DicomSendAssociateRequest(HDICOMNET hNet, HDICOMPDU hPDU);
/** Sends an A-ASSOCIATE-AC. hPDU must be an accept; it is copied. Contexts of the request that hPDU
 *  lacks are answered with result 1 (user-rejection). Titles are those of the request.
 *  [derived: L_DicomSendAssociateRequest]
 *  @return DICOM_ERROR_PARAMETER also if hPDU has a context that the request lacks, or accepts one
 *          without exactly one transfer syntax, which must be one of the request's */
L_LTDIC_API L_INT L_DicomSendAssociateAccept(HDICOMNET hNet, HDICOMPDU hPDU);
/** Sends an A-ASSOCIATE-RJ with one of the 16 combinations of PS3.8 table 9-21. For others it
 *  returns DICOM_ERROR_PARAMETER and sends nothing. The requestor closes the connection; if it
 *  does not, this end closes when ARTIM expires. */
L_LTDIC_API L_INT L_DicomSendAssociateReject(HDICOMNET hNet, L_UCHAR nResult, L_UCHAR nSource,
                                             L_UCHAR nReason);
/** Sends an A-RELEASE-RQ. [parameters: own] */
L_LTDIC_API L_INT L_DicomSendReleaseRequest(HDICOMNET hNet);
/** Sends an A-RELEASE-RP. [parameters: own] */
L_LTDIC_API L_INT L_DicomSendReleaseResponse(HDICOMNET hNet);
/** Returns the agreement: the accept that was received or sent, with the request's abstract
 *  syntaxes in its contexts, and without contexts that the request lacks. It belongs to the
 *  library and is valid until hNet is freed, connects or accepts again; L_DicomFreeAssociate does
 *  nothing to it. [own]
 *  @return NULL if there is no agreement */
L_LTDIC_API HDICOMPDU L_DicomGetAssociate(HDICOMNET hNet);
/** Sends an A-ABORT, with PDU_ABORT_SOURCE_USER or _PROVIDER. Does nothing if there is nothing to
 *  abort. [derived: COM] */
L_LTDIC_API L_INT L_DicomSendAbort(HDICOMNET hNet, L_UCHAR nSource, L_UCHAR nReason);

/* ---- data -------------------------------------------------------------------------------- */

/** Sends bytes of a command or data set, of any length, as P-DATA-TF of one PDV each, as large as
 *  the peer accepts. pData is not used after this returns: bytes that the system does not take in
 *  the call are copied. [parameters: own; .NET has a command set and a data set]
 *
 *  SENDCALLBACK is called for each PDU that was sent. To bound the memory for large data, send it
 *  in parts: the next one after SENDCALLBACK for the last PDU of the one before.
 *
 *  @param nControl  bit 0: a command; bit 1: these bytes end it, else more of it follow
 *  @param nBytes    any number; all parts of a command or data set together must be even
 *  @return DICOM_ERROR_STATE if data cannot be sent now, or not of this kind or context: a message
 *          is one command, then at most one data set, in one context (PS3.8 E.1);
 *          DICOM_ERROR_PARAMETER for a context that was not accepted, an odd total, or a peer that
 *          accepts no PDU with data; DICOM_ERROR_BUSY if data waits already and this would make it
 *          more than 1 MiB, or if SENDCALLBACK is due for 1024 calls: try again after a
 *          SENDCALLBACK */
L_LTDIC_API L_INT L_DicomSendData(HDICOMNET hNet, L_UCHAR nPresentationID, L_UCHAR nControl,
                                  const L_UCHAR *pData, size_t nBytes);
/** Sends a C-ECHO-RQ. [derived: .NET]
 *  @param pszClass  NULL: the Verification SOP class
 *  @return as L_DicomSendData */
L_LTDIC_API L_INT L_DicomSendCEchoRequest(HDICOMNET hNet, L_UCHAR nPresentationID,
                                          L_UINT16 nMessageID, const L_TCHAR *pszClass);
/** Sends a C-ECHO-RSP. [derived: C++]
 *  @param nMessageID  the message ID of the request
 *  @param nStatus     COMMAND_STATUS_SUCCESS, or another of PS3.7 9.1.5 */
L_LTDIC_API L_INT L_DicomSendCEchoResponse(HDICOMNET hNet, L_UCHAR nPresentationID,
                                           L_UINT16 nMessageID, const L_TCHAR *pszClass,
                                           L_UINT16 nStatus);

/* ---- associate objects ------------------------------------------------------------------- */

/** Creates an associate object with protocol version 1 and nothing else. [parameters: own]
 *  @return NULL if there is no memory or, with pointers of 32 bits, if there are 16,383 already */
L_LTDIC_API HDICOMPDU L_DicomCreateAssociate(L_BOOL bRequest);
/** Frees an associate object. Does nothing with NULL, an unknown handle, or an object that belongs
 *  to the library. [own] */
L_LTDIC_API L_VOID L_DicomFreeAssociate(HDICOMPDU hPDU);
/** Makes it an empty request or accept. [parameters: own] */
L_LTDIC_API L_INT L_DicomResetAssociate(HDICOMPDU hPDU, L_BOOL bRequest);
/** Sets the fields that are absent and have a default: the DICOM application context, maximum
 *  length 16384, ltdic's implementation class UID and version name; in a request also the titles
 *  ANY-SCP and LTDIC and, if there is no context, Verification with Implicit VR Little Endian.
 *  [parameters: own] */
L_LTDIC_API L_INT L_DicomDefaultAssociate(HDICOMPDU hPDU);

/* Setters return DICOM_ERROR_PARAMETER for a value that PS3.8 does not allow. Getters of text give
 * "" for an absent one; the text is valid until the object is changed or freed. For an unknown
 * handle setters return DICOM_ERROR_HANDLE, and getters the values of an empty object.
 * Down to the presentation contexts, setters are [parameters: own]; getters, and
 * L_DicomSetUserIdentity, are [own]. */
L_LTDIC_API L_INT L_DicomSetCalled(HDICOMPDU hPDU, const L_TCHAR *pszTitle);
L_LTDIC_API const L_TCHAR *L_DicomGetCalled(HDICOMPDU hPDU);
L_LTDIC_API L_INT L_DicomSetCalling(HDICOMPDU hPDU, const L_TCHAR *pszTitle);
L_LTDIC_API const L_TCHAR *L_DicomGetCalling(HDICOMPDU hPDU);
L_LTDIC_API L_INT L_DicomSetApplication(HDICOMPDU hPDU, const L_TCHAR *pszUID);
L_LTDIC_API const L_TCHAR *L_DicomGetApplication(HDICOMPDU hPDU);
/** The longest P-DATA-TF that the sender of this object accepts (PS3.8 D.1); 0: no limit. */
L_LTDIC_API L_INT L_DicomSetMaxLength(HDICOMPDU hPDU, L_UINT32 nMaxLength);
L_LTDIC_API L_UINT32 L_DicomGetMaxLength(HDICOMPDU hPDU);
L_LTDIC_API L_INT L_DicomSetImplementClass(HDICOMPDU hPDU, const L_TCHAR *pszUID);
L_LTDIC_API const L_TCHAR *L_DicomGetImplementClass(HDICOMPDU hPDU);
L_LTDIC_API L_INT L_DicomSetImplementVersion(HDICOMPDU hPDU, const L_TCHAR *pszName);
L_LTDIC_API const L_TCHAR *L_DicomGetImplementVersion(HDICOMPDU hPDU);

/* Sub-items that the library only carries: the users of both ends decide what follows from them. If
 * one is absent, getters return FALSE and give the value that PS3.7 defines for that. */

/** Asynchronous operations window (PS3.7 D.3.3.3); 0: any number. Absent: 1 and 1. */
L_LTDIC_API L_INT L_DicomSetAsyncOperations(HDICOMPDU hPDU, L_UINT16 nInvoked, L_UINT16 nPerformed);
L_LTDIC_API L_BOOL L_DicomGetAsyncOperations(HDICOMPDU hPDU, L_UINT16 *pnInvoked,
                                             L_UINT16 *pnPerformed);
/** SCP/SCU role selection (PS3.7 D.3.3.4) for one SOP class. Absent: the requestor is its user
 *  (SCU), the acceptor its provider (SCP). */
L_LTDIC_API L_INT L_DicomSetRoleSelect(HDICOMPDU hPDU, const L_TCHAR *pszClass, L_BOOL bUser,
                                       L_BOOL bProvider);
L_LTDIC_API L_BOOL L_DicomGetRoleSelect(HDICOMPDU hPDU, const L_TCHAR *pszClass, L_BOOL *pbUser,
                                        L_BOOL *pbProvider);
/** SOP class extended negotiation (PS3.7 D.3.3.5) for one SOP class: bytes. Those that the getter
 *  gives are valid as long as text. */
L_LTDIC_API L_INT L_DicomSetExtended(HDICOMPDU hPDU, const L_TCHAR *pszClass, const L_UCHAR *pInfo,
                                     L_UINT nBytes);
L_LTDIC_API L_BOOL L_DicomGetExtended(HDICOMPDU hPDU, const L_TCHAR *pszClass,
                                      const L_UCHAR **ppInfo, L_UINT *pnBytes);
/** User identity (PS3.7 D.3.3.7). In a request: type, whether a response is wanted, primary field
 *  and, for PDU_IDENTITY_PASSCODE, secondary field. In an accept: the server response as primary
 *  field, the rest 0. The bytes are wiped before their memory is freed. */
L_LTDIC_API L_INT L_DicomSetUserIdentity(HDICOMPDU hPDU, L_UCHAR nType, L_BOOL bResponse,
                                         const L_UCHAR *pPrimary, L_UINT nPrimary,
                                         const L_UCHAR *pSecondary, L_UINT nSecondary);
L_LTDIC_API L_BOOL L_DicomGetUserIdentity(HDICOMPDU hPDU, L_UCHAR *pnType, L_BOOL *pbResponse,
                                          const L_UCHAR **ppPrimary, L_UINT *pnPrimary,
                                          const L_UCHAR **ppSecondary, L_UINT *pnSecondary);

/* Presentation contexts. nID is the presentation context ID: odd, 1 to 255. */

/** Adds a context after those that there are. [parameters: own]
 *  @param nResult      PDU_ACCEPT_RESULT_...; ignored in a request
 *  @param pszAbstract  abstract syntax; NULL in an accept */
L_LTDIC_API L_INT L_DicomAddPresentation(HDICOMPDU hPDU, L_UCHAR nID, L_UCHAR nResult,
                                         const L_TCHAR *pszAbstract);
/** Removes a context and its syntaxes. [derived: COM; the parameter: own] */
L_LTDIC_API L_INT L_DicomDeletePresentation(HDICOMPDU hPDU, L_UCHAR nID);
/** Returns the number of contexts. [derived: COM] */
L_LTDIC_API L_INT L_DicomGetPresentationCount(HDICOMPDU hPDU);
/** Returns the ID of the context at a zero-based index; 0 past the last. [own] */
L_LTDIC_API L_UCHAR L_DicomGetPresentation(HDICOMPDU hPDU, L_INT nIndex);
/** Returns the abstract syntax of a context; "" if it has none. [own] */
L_LTDIC_API const L_TCHAR *L_DicomGetAbstract(HDICOMPDU hPDU, L_UCHAR nID);
/** Returns the ID of the first context with this abstract syntax, or 0. [own] */
L_LTDIC_API L_UCHAR L_DicomFindAbstract(HDICOMPDU hPDU, const L_TCHAR *pszAbstract);
/** Sets the result of a context of an accept. [parameters: own] */
L_LTDIC_API L_INT L_DicomSetResult(HDICOMPDU hPDU, L_UCHAR nID, L_UCHAR nResult);
/** Returns the result of a context; 255 if there is no such context. [own] */
L_LTDIC_API L_UCHAR L_DicomGetResult(HDICOMPDU hPDU, L_UCHAR nID);
/** Adds a transfer syntax after those that the context has. [parameters: own] */
L_LTDIC_API L_INT L_DicomAddTransfer(HDICOMPDU hPDU, L_UCHAR nID, const L_TCHAR *pszTransfer);
/** Returns the number of transfer syntaxes of a context. [own] */
L_LTDIC_API L_INT L_DicomGetTransferCount(HDICOMPDU hPDU, L_UCHAR nID);
/** Returns a transfer syntax at a zero-based index; "" past the last. [own] */
L_LTDIC_API const L_TCHAR *L_DicomGetTransfer(HDICOMPDU hPDU, L_UCHAR nID, L_INT nIndex);

/* [end] */

#ifdef __cplusplus
}
#endif

#endif
