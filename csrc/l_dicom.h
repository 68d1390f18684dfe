/* SPDX-License-Identifier: MIT */
/** @file l_dicom.h
 *  The association part of the L_Dicom API, with C-ECHO; data sets and the other messages of PS3.7
 *  are not in it. Included by ltdic.h; do not include it alone.
 *
 *  Without a mark, the names, parameters and values of a declaration are documented for C. Marks:
 *
 *    [derived: X]       they follow from X: from what is documented for C++, COM or .NET, from
 *                       another declaration, or from the standard
 *    [parameters: own]  the name is documented; parameters and result are ltdic's own choice
 *    [own]              all of it is ltdic's own choice
 *
 *  A mark above a group holds for the whole group, unless a declaration has its own. `const` in
 *  parameters and results is ltdic's own choice everywhere.
 *
 *  Threads: each thread has handles, a loop and a start-up count of its own. A handle is used on
 *  the thread that created it; on another one it is an unknown handle. A thread frees its handles
 *  before it ends. An associate object may be used on any thread, on one at a time; one that
 *  belongs to the library, on the thread of its HDICOMNET.
 *
 *  Callbacks run on the thread that pumps (L_DicomBreathe, L_DicomWait), never inside another
 *  function. Any function may be called from one; freeing the callback's own handle is fine. Events
 *  of one handle never overlap: while a callback of a handle runs, pumping from inside it serves
 *  the other handles only. At most 32 pumps run one inside the other: what a further one would
 *  dispatch waits for those outside it.
 *
 *  Order, each once and all of one handle:
 *    listener             ACCEPTCALLBACK for each connection
 *    L_DicomConnect       CONNECTCALLBACK
 *    any PDU sent         SENDCALLBACK, before what the peer sent after it
 *    any PDU received     RECEIVECALLBACK, then the one of its kind
 *    a C-ECHO received    RECEIVECALLBACK and RECEIVEDATACALLBACK for each piece, then
 *                         RECEIVECECHOREQUESTCALLBACK or RECEIVECECHORESPONSECALLBACK
 *    a rejection          RECEIVECALLBACK, RECEIVEASSOCIATEREJECTCALLBACK with the three
 *                         bytes as they came, CLOSECALLBACK
 *    the end              CLOSECALLBACK, the last of a connection that was up
 *
 *  The library answers nothing for its user but what PS3.8 has the provider answer: with an
 *  A-ASSOCIATE-RJ a request of another protocol version (1/2/2) or application context (1/1/2),
 *  one beyond L_DicomSetLimits (2/3/2), one for which there is no memory (2/3/1); with an A-ABORT
 *  what breaks the protocol, and at a requestor whatever but a C-ECHO comes in a Verification
 *  context. Then no callback comes but CLOSECALLBACK and, where there was an
 *  association, RECEIVECALLBACK with an error.
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

/* [derived: their use in documented declarations] */
typedef void L_VOID;
typedef int L_BOOL;
typedef int L_INT;
typedef unsigned int L_UINT;
typedef unsigned char L_UCHAR;
typedef uint16_t L_UINT16;
typedef uint32_t L_UINT32;
typedef char L_CHAR;
typedef char L_TCHAR; /* UTF-8 */

/** A connection or a listener. A handle that was freed stays unknown: it is not given out again. */
typedef struct L_DICOMNET *HDICOMNET;
/** An associate object: request or accept. A handle that was freed stays unknown.
 *  [derived: the name of the parameter in COM] */
typedef struct L_DICOMPDU *HDICOMPDU;

/* ---- constants --------------------------------------------------------------------------- */

/* PDU types, as RECEIVECALLBACK and SENDCALLBACK give them. */
#define PDU_UNKNOWN 0x00
#define PDU_ASSOCIATE_REQUEST 0x01
#define PDU_ASSOCIATE_ACCEPT 0x02
#define PDU_ASSOCIATE_REJECT 0x03
#define PDU_DATA_TRANSFER 0x04
#define PDU_RELEASE_REQUEST 0x05
#define PDU_RELEASE_RESPONSE 0x06
#define PDU_ABORT 0x07

/* A-ASSOCIATE-RJ (PS3.8 table 9-21). A reason means something only together with its source. */
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

/* Codes that functions return and callbacks get as nError: DICOM_SUCCESS, or above 0. [own] */
#define DICOM_SUCCESS 0            /* [derived: its value: C++] */
#define DICOM_ERROR_PARAMETER 1    /* an argument is out of range */
#define DICOM_ERROR_HANDLE 2       /* unknown: freed, made up, or of another thread */
#define DICOM_ERROR_MEMORY 3       /* out of memory */
#define DICOM_ERROR_STATE 4        /* not in this state; nothing was changed */
#define DICOM_ERROR_ADDRESS 5      /* host or port cannot be resolved or bound */
#define DICOM_ERROR_CONNECT 6      /* refused or unreachable */
#define DICOM_ERROR_CLOSED 7       /* the connection was lost */
#define DICOM_ERROR_TIMEOUT 8      /* the time was up */
#define DICOM_ERROR_ABORTED 9      /* the peer sent A-ABORT */
#define DICOM_ERROR_PROTOCOL 10    /* the peer broke PS3.8 and was sent an A-ABORT */
#define DICOM_ERROR_SYSTEM 11      /* the operating system refused; errno says why */
#define DICOM_ERROR_BUSY 12        /* too much is waiting to be sent */
#define DICOM_ERROR_INTERRUPTED 13 /* a signal, or L_DicomBreakWait, ended the wait */

/** One English line about a return value. [own] */
L_LTDIC_API const L_TCHAR *L_DicomErrorText(L_INT nError);

/* ---- callbacks --------------------------------------------------------------------------- */

/** Listener: a connection is pending; L_DicomAccept takes it. Told once for each.
 *  [parameters: own] */
typedef L_VOID(EXT_CALLBACK *ACCEPTCALLBACK)(HDICOMNET hNet, L_INT nError, L_VOID *UserData);
/** The connection asked for is up (nError 0), or not: DICOM_ERROR_CONNECT, DICOM_ERROR_TIMEOUT.
 *  [parameters: own] */
typedef L_VOID(EXT_CALLBACK *CONNECTCALLBACK)(HDICOMNET hNet, L_INT nError, L_VOID *UserData);
/** A connection that was up is over, whoever ended it. nError 0: after reject, release, an abort
 *  of our own or L_DicomClose; else the cause: CLOSED, TIMEOUT, ABORTED, PROTOCOL, MEMORY. [own] */
typedef L_VOID(EXT_CALLBACK *CLOSECALLBACK)(HDICOMNET hNet, L_INT nError, L_VOID *UserData);
/** Any PDU, header included, before the callback for its kind. A P-DATA-TF comes in pieces, as they
 *  arrive, each before its RECEIVEDATACALLBACK: together they are the PDU. pBuffer lives until this
 *  returns. With an error no other callback follows but CLOSECALLBACK, and an A-ABORT was sent:
 *  DICOM_ERROR_PROTOCOL for what broke PS3.8, DICOM_ERROR_MEMORY for what there was no memory for,
 *  DICOM_ERROR_TIMEOUT, with PDU_UNKNOWN, where nothing came in time. [derived: .NET] */
typedef L_VOID(EXT_CALLBACK *RECEIVECALLBACK)(HDICOMNET hNet, L_INT nError, L_UCHAR nType,
                                              L_UCHAR *pBuffer, L_UINT32 nBytes, L_VOID *UserData);
/** A PDU has gone to the system, or was lost with its connection: DICOM_ERROR_CLOSED. nBytes is its
 *  size, header included. */
typedef L_VOID(EXT_CALLBACK *SENDCALLBACK)(HDICOMNET hNet, L_INT nError, L_UCHAR nType,
                                           L_UINT32 nBytes, L_VOID *UserData);
/** hPDU belongs to the library and lives until this returns; L_DicomFreeAssociate does nothing to
 *  it. [parameters: own] */
typedef L_VOID(EXT_CALLBACK *RECEIVEASSOCIATEREQUESTCALLBACK)(HDICOMNET hNet, HDICOMPDU hPDU,
                                                              L_VOID *UserData);
/** hPDU says what was agreed: see L_DicomGetAssociate. [parameters: own] */
typedef L_VOID(EXT_CALLBACK *RECEIVEASSOCIATEACCEPTCALLBACK)(HDICOMNET hNet, HDICOMPDU hPDU,
                                                             L_VOID *UserData);
/** The SCP has called L_DicomSendAssociateReject. The three bytes are raw: any value may come. */
typedef L_VOID(EXT_CALLBACK *RECEIVEASSOCIATEREJECTCALLBACK)(HDICOMNET hNet, L_UCHAR nResult,
                                                             L_UCHAR nSource, L_UCHAR nReason,
                                                             L_VOID *UserData);
/** Some of a PDV, as it came; pData lives until this returns. nControl: bit 0 command, bit 1 last
 *  (PS3.8 E.2), which is set only with the last bytes of the PDV. [parameters: own;
 *  .NET has a command set and a data set] */
typedef L_VOID(EXT_CALLBACK *RECEIVEDATACALLBACK)(HDICOMNET hNet, L_UCHAR nPresentationID,
                                                  L_UCHAR nControl, const L_UCHAR *pData,
                                                  L_UINT32 nBytes, L_VOID *UserData);
/** [parameters: own] */
typedef L_VOID(EXT_CALLBACK *RECEIVERELEASEREQUESTCALLBACK)(HDICOMNET hNet, L_VOID *UserData);
/** [parameters: own] */
typedef L_VOID(EXT_CALLBACK *RECEIVERELEASERESPONSECALLBACK)(HDICOMNET hNet, L_VOID *UserData);
/** The bytes are raw; nReason means something only with PDU_ABORT_SOURCE_PROVIDER.
 *  [derived: COM] */
typedef L_VOID(EXT_CALLBACK *RECEIVEABORTCALLBACK)(HDICOMNET hNet, L_UCHAR nSource, L_UCHAR nReason,
                                                   L_VOID *UserData);
/** L_DicomSendCEchoResponse answers it. [derived: .NET] */
typedef L_VOID(EXT_CALLBACK *RECEIVECECHOREQUESTCALLBACK)(HDICOMNET hNet, L_UCHAR nPresentationID,
                                                          L_UINT16 nMessageID, L_TCHAR *pszClass,
                                                          L_VOID *UserData);
/** [derived: C++] pszClass is "" where the response has none: it is optional there (PS3.7 table
 *  9.1-5). */
typedef L_VOID(EXT_CALLBACK *RECEIVECECHORESPONSECALLBACK)(HDICOMNET hNet, L_UCHAR nPresentationID,
                                                           L_UINT16 nMessageID, L_TCHAR *pszClass,
                                                           L_UINT16 nStatus, L_VOID *UserData);

/** One slot for each callback; NULL where none is wanted. [own; slots are named as those of
 *  DICOMPRINTSCUCALLBACK, which has no size] */
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

/** Counted, for the calling thread; may come before or after L_DicomCreateNet. [parameters: own] */
L_LTDIC_API L_INT L_DicomStartUp(L_VOID);
/** The last one frees what handles the calling thread still has, without callbacks. [own] */
L_LTDIC_API L_VOID L_DicomShutDown(L_VOID);

/** [derived: C++]
 *  @param pszPath  ignored, for source compatibility
 *  @param nMode    DICOM_SECURE_NONE
 *  @return NULL when out of memory or descriptors, or for another mode */
L_LTDIC_API HDICOMNET L_DicomCreateNet(const L_TCHAR *pszPath, L_INT nMode);
/** Closes without a callback. A PDU sent just before still goes out. [own] */
L_LTDIC_API L_VOID L_DicomFreeNet(HDICOMNET hNet);

/** Copies the struct. Takes effect with the next callback; may be called again at any time.
 *  [parameters: own] */
L_LTDIC_API L_INT L_DicomSetCallback(HDICOMNET hNet, const DICOMNETCALLBACK *pCallback,
                                     L_VOID *pUserData);
/** [own]
 *  @param[in,out] pCallback   uStructSize says how much of it to fill
 *  @param[out]    ppUserData  may be NULL */
L_LTDIC_API L_INT L_DicomGetCallback(HDICOMNET hNet, DICOMNETCALLBACK *pCallback,
                                     L_VOID **ppUserData);

/** Deadlines of this handle, milliseconds; they take effect for what begins after this. [own]
 *  @param nArtim     PS3.8's ARTIM timer: for an associate request to be there whole, and for the
 *                    peer to close at the end. 0: 30000, as to begin with
 *  @param nResponse  for a connection to be up, and for the answer to an associate or release
 *                    request to be there whole; 0: for ever
 *  @param nIdle      while associated, without a byte of data in either direction; 0: for ever */
L_LTDIC_API L_INT L_DicomSetTimeouts(HDICOMNET hNet, L_UINT32 nArtim, L_UINT32 nResponse,
                                     L_UINT32 nIdle);
/** Bounds for what the listener hNet accepted; 0: none. [own]
 *  Besides, all associate requests together that are not whole may have 64 MiB: beyond that the
 *  connection that began first is aborted, and its CLOSECALLBACK has DICOM_ERROR_BUSY.
 *  @param nAssociations  an associate request beyond so many is rejected with 2/3/2; a connection
 *                        without a request does not count; none to begin with
 *  @param nConnections   connections beyond so many stay pending, without an ACCEPTCALLBACK, until
 *                        others are closed; to begin with, three quarters of the descriptors that
 *                        the process may have */
L_LTDIC_API L_INT L_DicomSetLimits(HDICOMNET hNet, L_UINT32 nAssociations, L_UINT32 nConnections);

/* ---- connections ------------------------------------------------------------------------- */

/** [derived: C++, L_DicomListenExt]
 *  @param pszHostAddress  NULL or "": the address of this computer's name; "*": all addresses
 *  @param nHostPort       0: the first free one; L_DicomGetHostInfo tells which
 *  @param nNbPeers        connections that may wait; at least 1024 */
L_LTDIC_API L_INT L_DicomListen(HDICOMNET hNet, const L_TCHAR *pszHostAddress, L_UINT nHostPort,
                                L_INT nNbPeers);
/** @param nIpType  DICOM_IPTYPE_... */
L_LTDIC_API L_INT L_DicomListenExt(HDICOMNET hNet, const L_TCHAR *pszHostAddress, L_UINT nHostPort,
                                   L_INT nNbPeers, L_INT nIpType);
/** Give the oldest pending connection of the listener hNet to the unused handle hNetClient. ARTIM
 *  runs until the associate request is there. [parameters: own]
 *  @return DICOM_ERROR_STATE when none is pending or hNetClient is in use */
L_LTDIC_API L_INT L_DicomAccept(HDICOMNET hNet, HDICOMNET hNetClient);
/** Returns at once; CONNECTCALLBACK tells how it went. (A host name is resolved first, which can
 *  take the system's time; a number cannot.) [parameters: own]
 *  @param pszHostAddress, nHostPort  of this end; NULL or "" and 0: the system chooses */
L_LTDIC_API L_INT L_DicomConnect(HDICOMNET hNet, const L_TCHAR *pszHostAddress, L_UINT nHostPort,
                                 const L_TCHAR *pszPeerAddress, L_UINT nPeerPort);
/** [parameters: own] @param nIpType  DICOM_IPTYPE_... */
L_LTDIC_API L_INT L_DicomConnectExt(HDICOMNET hNet, const L_TCHAR *pszHostAddress, L_UINT nHostPort,
                                    const L_TCHAR *pszPeerAddress, L_UINT nPeerPort, L_INT nIpType);
/** Closes at once. A connection that was up still gets its CLOSECALLBACK. [parameters: own] */
L_LTDIC_API L_INT L_DicomClose(HDICOMNET hNet);
/** [own] */
L_LTDIC_API L_BOOL L_DicomIsConnected(HDICOMNET hNet);
/** [own] */
L_LTDIC_API L_BOOL L_DicomIsAssociated(HDICOMNET hNet);
/** Numeric address and port of this end. [own]
 *  @param[out] pszAddress  nSize bytes; 46 hold any address
 *  @param[out] pnPort      may be NULL
 *  @return DICOM_ERROR_STATE when there is no connection, DICOM_ERROR_PARAMETER when too short */
L_LTDIC_API L_INT L_DicomGetHostInfo(HDICOMNET hNet, L_TCHAR *pszAddress, L_UINT nSize,
                                     L_UINT *pnPort);
/** The same of the other end. [own] */
L_LTDIC_API L_INT L_DicomGetPeerInfo(HDICOMNET hNet, L_TCHAR *pszAddress, L_UINT nSize,
                                     L_UINT *pnPort);

/** Call the callbacks of everything that is ready on this thread. Never blocks. Inside 32 other
 *  pumps it does nothing. [parameters: own] */
L_LTDIC_API L_VOID L_DicomBreathe(L_VOID);
/** Work like L_DicomBreathe, but sleep until something of hNet, or of a handle accepted from the
 * listener hNet, has been dispatched, or the time is up. Other handles are served meanwhile. [own]
 *  @return DICOM_SUCCESS, DICOM_ERROR_TIMEOUT, DICOM_ERROR_INTERRUPTED, DICOM_ERROR_HANDLE;
 *          DICOM_ERROR_STATE, at once and without a callback, inside 32 other pumps */
L_LTDIC_API L_INT L_DicomWait(HDICOMNET hNet, L_UINT32 nMilliseconds);
/** Make the L_DicomWait that runs on this thread return once what is ready has been dispatched.
 *  [own]
 *  @param hNet  any handle of this thread, or NULL */
L_LTDIC_API L_VOID L_DicomBreakWait(HDICOMNET hNet);

/* ---- associations ------------------------------------------------------------------------ */

/** hPDU must be a request; it is copied. May be called before CONNECTCALLBACK has come. What the
 *  peer sends before it is only looked at after it. [derived: COM] */
L_LTDIC_API L_INT L_DicomSendAssociateRequest(HDICOMNET hNet, HDICOMPDU hPDU);
/** hPDU must be an accept; it is copied. Contexts of the request that hPDU does not have are
 *  answered with result 1 (user rejection). Titles are those of the request.
 *  [derived: L_DicomSendAssociateRequest]
 *  @return DICOM_ERROR_PARAMETER too when it answers what was not asked, or accepts a context
 *          without exactly one transfer syntax, which must be one of the request's */
L_LTDIC_API L_INT L_DicomSendAssociateAccept(HDICOMNET hNet, HDICOMPDU hPDU);
/** Any of the 16 combinations of PS3.8 table 9-21; for others DICOM_ERROR_PARAMETER, and nothing
 *  is sent. The requestor closes the connection; if it does not, ARTIM does. */
L_LTDIC_API L_INT L_DicomSendAssociateReject(HDICOMNET hNet, L_UCHAR nResult, L_UCHAR nSource,
                                             L_UCHAR nReason);
/** [parameters: own] */
L_LTDIC_API L_INT L_DicomSendReleaseRequest(HDICOMNET hNet);
/** [parameters: own] */
L_LTDIC_API L_INT L_DicomSendReleaseResponse(HDICOMNET hNet);
/** The agreement: the accept that was received or sent, with the request's abstract syntaxes in
 *  its contexts, and without contexts that the request does not have. It belongs to the library and
 *  lives until hNet is freed, connects or accepts anew; L_DicomFreeAssociate does nothing to it.
 *  [own]
 *  @return NULL where nothing has been agreed */
L_LTDIC_API HDICOMPDU L_DicomGetAssociate(HDICOMNET hNet);
/** PDU_ABORT_SOURCE_USER or _PROVIDER; where there is nothing to abort, nothing happens.
 *  [derived: COM] */
L_LTDIC_API L_INT L_DicomSendAbort(HDICOMNET hNet, L_UCHAR nSource, L_UCHAR nReason);

/* ---- data -------------------------------------------------------------------------------- */

/** Send one command or data set as bytes, of any length, cut into P-DATA-TF of one PDV each, as
 *  large as the peer takes. The bytes are the caller's again when this returns; those that the
 *  system does not take at once are copied.
 *  [parameters: own; .NET has a command set and a data set]
 *
 *  SENDCALLBACK tells of each PDU that has gone. Whoever must bound the memory of large data sends
 *  it in parts, the next when SENDCALLBACK has told of the last PDU of the one before.
 *
 *  @param nControl  bit 0: a command; bit 1: these bytes end it, else more of it follow
 *  @param nBytes    any number; all the parts of a command or data set together are even
 *  @return DICOM_ERROR_STATE where data cannot be sent now, or not of this kind or context: a
 *          message is one command, then maybe one data set, in one context (PS3.8 E.1);
 *          DICOM_ERROR_PARAMETER for a context that was not accepted, an odd whole, or a peer that
 *          takes no PDU with data; DICOM_ERROR_BUSY where data waits already and this would make it
 *          more than 1 MiB, or where SENDCALLBACK has not told of 1024 calls yet: try again after a
 *          SENDCALLBACK */
L_LTDIC_API L_INT L_DicomSendData(HDICOMNET hNet, L_UCHAR nPresentationID, L_UCHAR nControl,
                                  const L_UCHAR *pData, size_t nBytes);
/** [derived: .NET]
 *  @param pszClass  NULL: the Verification SOP class
 *  @return as L_DicomSendData */
L_LTDIC_API L_INT L_DicomSendCEchoRequest(HDICOMNET hNet, L_UCHAR nPresentationID,
                                          L_UINT16 nMessageID, const L_TCHAR *pszClass);
/** [derived: C++]
 *  @param nMessageID  of the request
 *  @param nStatus     COMMAND_STATUS_SUCCESS, or another of PS3.7 9.1.5 */
L_LTDIC_API L_INT L_DicomSendCEchoResponse(HDICOMNET hNet, L_UCHAR nPresentationID,
                                           L_UINT16 nMessageID, const L_TCHAR *pszClass,
                                           L_UINT16 nStatus);

/* ---- associate objects ------------------------------------------------------------------- */

/** Empty: protocol version 1 and nothing else. [parameters: own]
 *  @return NULL when out of memory or, where pointers have 32 bits, when there are 16,383 already
 */
L_LTDIC_API HDICOMPDU L_DicomCreateAssociate(L_BOOL bRequest);
/** Does nothing to NULL, to an unknown handle, and to an object that belongs to the library.
 *  [own] */
L_LTDIC_API L_VOID L_DicomFreeAssociate(HDICOMPDU hPDU);
/** Make it empty, a request or an accept. [parameters: own] */
L_LTDIC_API L_INT L_DicomResetAssociate(HDICOMPDU hPDU, L_BOOL bRequest);
/** Fill in what is absent and has a default: the DICOM application context, maximum length 16384,
 * ltdic's implementation class UID and version name; in a request also the titles ANY-SCP and LTDIC
 * and, if there is no context, Verification with Implicit VR Little Endian. [parameters: own] */
L_LTDIC_API L_INT L_DicomDefaultAssociate(HDICOMPDU hPDU);

/* Setters refuse with DICOM_ERROR_PARAMETER what PS3.8 does not allow. Getters of text give "" for
 * what is absent; the text lives until the object is changed or freed. An unknown handle is
 * DICOM_ERROR_HANDLE to setters, and to getters an object in which everything is absent.
 * Down to the presentation contexts, setters are [parameters: own]; getters, and
 * L_DicomSetUserIdentity, are [own]. */
L_LTDIC_API L_INT L_DicomSetCalled(HDICOMPDU hPDU, const L_TCHAR *pszTitle);
L_LTDIC_API const L_TCHAR *L_DicomGetCalled(HDICOMPDU hPDU);
L_LTDIC_API L_INT L_DicomSetCalling(HDICOMPDU hPDU, const L_TCHAR *pszTitle);
L_LTDIC_API const L_TCHAR *L_DicomGetCalling(HDICOMPDU hPDU);
L_LTDIC_API L_INT L_DicomSetApplication(HDICOMPDU hPDU, const L_TCHAR *pszUID);
L_LTDIC_API const L_TCHAR *L_DicomGetApplication(HDICOMPDU hPDU);
/** The largest P-DATA-TF the sender of this object takes (PS3.8 D.1); 0: no limit. */
L_LTDIC_API L_INT L_DicomSetMaxLength(HDICOMPDU hPDU, L_UINT32 nMaxLength);
L_LTDIC_API L_UINT32 L_DicomGetMaxLength(HDICOMPDU hPDU);
L_LTDIC_API L_INT L_DicomSetImplementClass(HDICOMPDU hPDU, const L_TCHAR *pszUID);
L_LTDIC_API const L_TCHAR *L_DicomGetImplementClass(HDICOMPDU hPDU);
L_LTDIC_API L_INT L_DicomSetImplementVersion(HDICOMPDU hPDU, const L_TCHAR *pszName);
L_LTDIC_API const L_TCHAR *L_DicomGetImplementVersion(HDICOMPDU hPDU);

/* Sub-items that are only carried: both sides' users decide what they mean. Where one is absent,
 * getters give FALSE and the value that PS3.7 takes absence for. */

/** Asynchronous operations window (PS3.7 D.3.3.3); 0: any number. Absent: 1 and 1. */
L_LTDIC_API L_INT L_DicomSetAsyncOperations(HDICOMPDU hPDU, L_UINT16 nInvoked, L_UINT16 nPerformed);
L_LTDIC_API L_BOOL L_DicomGetAsyncOperations(HDICOMPDU hPDU, L_UINT16 *pnInvoked,
                                             L_UINT16 *pnPerformed);
/** SCP/SCU role selection (PS3.7 D.3.3.4) for one SOP class. Absent: the requestor is its user
 * (SCU), the acceptor its provider (SCP). */
L_LTDIC_API L_INT L_DicomSetRoleSelect(HDICOMPDU hPDU, const L_TCHAR *pszClass, L_BOOL bUser,
                                       L_BOOL bProvider);
L_LTDIC_API L_BOOL L_DicomGetRoleSelect(HDICOMPDU hPDU, const L_TCHAR *pszClass, L_BOOL *pbUser,
                                        L_BOOL *pbProvider);
/** SOP class extended negotiation (PS3.7 D.3.3.5) for one SOP class: bytes. What a getter gives
 *  lives as text does. */
L_LTDIC_API L_INT L_DicomSetExtended(HDICOMPDU hPDU, const L_TCHAR *pszClass, const L_UCHAR *pInfo,
                                     L_UINT nBytes);
L_LTDIC_API L_BOOL L_DicomGetExtended(HDICOMPDU hPDU, const L_TCHAR *pszClass,
                                      const L_UCHAR **ppInfo, L_UINT *pnBytes);
/** User identity (PS3.7 D.3.3.7). In a request: type, whether a response is wanted, primary field
 *  and, for PDU_IDENTITY_PASSCODE, secondary. In an accept: the server response as primary field,
 *  the rest 0. The bytes are wiped with the object. */
L_LTDIC_API L_INT L_DicomSetUserIdentity(HDICOMPDU hPDU, L_UCHAR nType, L_BOOL bResponse,
                                         const L_UCHAR *pPrimary, L_UINT nPrimary,
                                         const L_UCHAR *pSecondary, L_UINT nSecondary);
L_LTDIC_API L_BOOL L_DicomGetUserIdentity(HDICOMPDU hPDU, L_UCHAR *pnType, L_BOOL *pbResponse,
                                          const L_UCHAR **ppPrimary, L_UINT *pnPrimary,
                                          const L_UCHAR **ppSecondary, L_UINT *pnSecondary);

/* Presentation contexts, named by their ID: odd, 1 to 255. */

/** [parameters: own]
 *  @param nResult      PDU_ACCEPT_RESULT_...; of no meaning in a request
 *  @param pszAbstract  abstract syntax; NULL in an accept */
L_LTDIC_API L_INT L_DicomAddPresentation(HDICOMPDU hPDU, L_UCHAR nID, L_UCHAR nResult,
                                         const L_TCHAR *pszAbstract);
/** [derived: COM; the parameter: own] */
L_LTDIC_API L_INT L_DicomDeletePresentation(HDICOMPDU hPDU, L_UCHAR nID);
/** [derived: COM] */
L_LTDIC_API L_INT L_DicomGetPresentationCount(HDICOMPDU hPDU);
/** The ID of the context at a zero-based index; 0 past the last. [own] */
L_LTDIC_API L_UCHAR L_DicomGetPresentation(HDICOMPDU hPDU, L_INT nIndex);
/** [own] */
L_LTDIC_API const L_TCHAR *L_DicomGetAbstract(HDICOMPDU hPDU, L_UCHAR nID);
/** The ID of the first context with this abstract syntax, or 0. [own] */
L_LTDIC_API L_UCHAR L_DicomFindAbstract(HDICOMPDU hPDU, const L_TCHAR *pszAbstract);
/** [parameters: own] */
L_LTDIC_API L_INT L_DicomSetResult(HDICOMPDU hPDU, L_UCHAR nID, L_UCHAR nResult);
/** 255 where there is no such context. [own] */
L_LTDIC_API L_UCHAR L_DicomGetResult(HDICOMPDU hPDU, L_UCHAR nID);
/** [parameters: own] */
L_LTDIC_API L_INT L_DicomAddTransfer(HDICOMPDU hPDU, L_UCHAR nID, const L_TCHAR *pszTransfer);
/** [own] */
L_LTDIC_API L_INT L_DicomGetTransferCount(HDICOMPDU hPDU, L_UCHAR nID);
/** "" past the last. [own] */
L_LTDIC_API const L_TCHAR *L_DicomGetTransfer(HDICOMPDU hPDU, L_UCHAR nID, L_INT nIndex);

/* [end] */

#ifdef __cplusplus
}
#endif

#endif
