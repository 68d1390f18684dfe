/* SPDX-License-Identifier: MIT */

/* The network contender over DCMTK: its ASC_ and DIMSE_ functions, blocking, in the way of its own
 * tools. There is no codec contender: libdcmnet does not export its encoder and decoder of PDUs.
 *
 *     dcmtk accept reject|echo|receive DIR [MAX]
 *     dcmtk request DIR
 *
 * DIR is not read: the library makes its own PDUs. TCP_NODELAY, off by default, is on here.
 */

#include "dcmtk/config/osconfig.h"

#include "dcmtk/dcmdata/dctk.h"
#include "dcmtk/dcmnet/assoc.h"
#include "dcmtk/dcmnet/dimse.h"
#include "dcmtk/oflog/oflog.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace
{

const int TIMEOUT = 30; /* seconds */
const int BACKLOG = 1024;
const int SPARE = 2; /* least number of threads that wait for an association */
const int VERIFICATION_CONTEXT = 1;
const int STORAGE_CONTEXT = 3;
const char *const ABSTRACT[] = {UID_VerificationSOPClass, UID_SecondaryCaptureImageStorage};
const char *const TRANSFER[] = {UID_LittleEndianImplicitTransferSyntax};

using Clock = std::chrono::steady_clock;

void check(const OFCondition &condition, const char *what)
{
    if (condition.bad()) {
        throw std::runtime_error(std::string(what) + ": " + condition.text());
    }
}

T_ASC_Network *network(T_ASC_NetworkRole role)
{
    T_ASC_Network *made = nullptr;
    check(ASC_initializeNetwork(role, 0, TIMEOUT, &made), "network");
    return made;
}

/* ---- accept ---- */

enum class Mode { reject, echo, receive };

struct Acceptor {
    Mode mode;
    long max;
    T_ASC_Network *network;
    std::atomic<int> spare;
    std::atomic<unsigned long long> received;
};

/* The library can only listen on every interface, with a backlog of 50. A socket bound to the
 * loopback interface takes the place of its own. */
int listen_on_loopback(T_ASC_Network *network)
{
    sockaddr_in address = {};
    socklen_t length = sizeof address;
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    if (listener < 0 || bind(listener, (sockaddr *)&address, length) != 0 ||
        listen(listener, BACKLOG) != 0 ||
        getsockname(listener, (sockaddr *)&address, &length) != 0 ||
        dup2(listener, DUL_networkSocket(network->network)) < 0) {
        throw std::runtime_error(strerror(errno));
    }
    close(listener);
    return ntohs(address.sin_port);
}

OFCondition reject(T_ASC_Association *association)
{
    const T_ASC_RejectParameters because = {ASC_RESULT_REJECTEDPERMANENT, ASC_SOURCE_SERVICEUSER,
                                            ASC_REASON_SU_CALLEDAETITLENOTRECOGNIZED};
    return ASC_rejectAssociation(association, &because);
}

OFCondition store(Acceptor &acceptor, T_ASC_Association *association, T_DIMSE_C_StoreRQ &request,
                  T_ASC_PresentationContextID id)
{
    DIC_UL bytes = 0;
    DIC_UL fragments = 0;
    OFCondition condition = DIMSE_ignoreDataSet(association, DIMSE_BLOCKING, 0, &bytes, &fragments);
    if (condition.bad()) {
        return condition;
    }
    acceptor.received += bytes;
    T_DIMSE_C_StoreRSP response = {};
    response.DimseStatus = STATUS_Success;
    return DIMSE_sendStoreResponse(association, id, &request, &response, nullptr);
}

OFCondition answer(Acceptor &acceptor, T_ASC_Association *association)
{
    T_ASC_PresentationContextID id = 0;
    T_DIMSE_Message message;
    OFCondition condition =
        DIMSE_receiveCommand(association, DIMSE_BLOCKING, 0, &id, &message, nullptr);
    if (condition.bad()) {
        return condition;
    }
    switch (message.CommandField) {
    case DIMSE_C_ECHO_RQ:
        return DIMSE_sendEchoResponse(association, id, &message.msg.CEchoRQ, STATUS_Success,
                                      nullptr);
    case DIMSE_C_STORE_RQ:
        return store(acceptor, association, message.msg.CStoreRQ, id);
    default:
        return DIMSE_BADCOMMANDTYPE;
    }
}

OFCondition serve(Acceptor &acceptor, T_ASC_Association *association)
{
    if (acceptor.mode == Mode::reject) {
        return reject(association);
    }
    OFCondition condition = ASC_acceptContextsWithPreferredTransferSyntaxes(
        association->params, const_cast<const char **>(ABSTRACT), 2,
        const_cast<const char **>(TRANSFER), 1);
    if (condition.good()) {
        condition = ASC_acknowledgeAssociation(association);
    }
    while (condition.good()) {
        condition = answer(acceptor, association);
    }
    if (condition == DUL_PEERREQUESTEDRELEASE) {
        return ASC_acknowledgeRelease(association);
    }
    if (condition != DUL_PEERABORTEDASSOCIATION) {
        ASC_abortAssociation(association);
    }
    return condition;
}

/* Several threads wait for the next association; one more is started when few are left. No other
 * way of the library does less for an association: DcmSCPPool starts a thread for each, and reads
 * every request in the listening thread; storescp --fork starts a process. */
void accept_for_ever(Acceptor &acceptor)
{
    for (;;) {
        T_ASC_Association *association = nullptr;
        OFCondition condition =
            ASC_receiveAssociation(acceptor.network, &association, acceptor.max);
        if (acceptor.spare.fetch_sub(1) <= SPARE) {
            acceptor.spare.fetch_add(1);
            std::thread(accept_for_ever, std::ref(acceptor)).detach();
        }
        if (condition.good()) {
            serve(acceptor, association);
            ASC_dropSCPAssociation(association); /* waits until the requestor closes */
        }
        ASC_destroyAssociation(&association);
        acceptor.spare.fetch_add(1);
    }
}

int accept_main(const std::string &mode, long max)
{
    static Acceptor acceptor;
    acceptor.mode = mode == "reject" ? Mode::reject : mode == "echo" ? Mode::echo : Mode::receive;
    acceptor.max = max;
    acceptor.network = network(NET_ACCEPTOR);
    int port = listen_on_loopback(acceptor.network);
    acceptor.spare = SPARE;
    for (int i = 0; i < SPARE; i++) {
        std::thread(accept_for_ever, std::ref(acceptor)).detach();
    }
    printf("%d\n", port);
    fflush(stdout);
    while (getchar() != EOF) {
    }
    _exit(0);
}

/* ---- request ---- */

struct Order {
    std::string mode;
    int port;
    long count;
    long at_once;
    long size;
};

class Association
{
  public:
    Association(T_ASC_Network *network, int port, long max)
    {
        const std::string address = "127.0.0.1:" + std::to_string(port);
        const char **transfer = const_cast<const char **>(TRANSFER);
        T_ASC_Parameters *made = nullptr;
        check(ASC_createAssociationParameters(&made, max), "parameters");
        ASC_setAPTitles(made, "BENCH", "ARCHIVE", nullptr);
        ASC_setPresentationAddresses(made, "localhost", address.c_str());
        ASC_addPresentationContext(made, VERIFICATION_CONTEXT, ABSTRACT[0], transfer, 1);
        ASC_addPresentationContext(made, STORAGE_CONTEXT, ABSTRACT[1], transfer, 1);
        outcome = ASC_requestAssociation(network, made, &association);
        if (association == nullptr) {
            ASC_destroyAssociationParameters(&made);
        }
    }

    ~Association()
    {
        if (association != nullptr) {
            ASC_destroyAssociation(&association);
        }
    }

    Association(const Association &) = delete;
    Association &operator=(const Association &) = delete;

    void must_be_rejected()
    {
        T_ASC_RejectParameters because = {};
        if (outcome != DUL_ASSOCIATIONREJECTED) {
            throw std::runtime_error(std::string("not rejected: ") + outcome.text());
        }
        ASC_getRejectParameters(association->params, &because);
        if (because.result != ASC_RESULT_REJECTEDPERMANENT ||
            because.source != ASC_SOURCE_SERVICEUSER ||
            because.reason != ASC_REASON_SU_CALLEDAETITLENOTRECOGNIZED) {
            throw std::runtime_error("rejected with other codes");
        }
    }

    void must_be_accepted()
    {
        check(outcome, "association");
    }

    void echo()
    {
        DIC_US status = 1;
        check(DIMSE_echoUser(association, association->nextMsgID++, DIMSE_BLOCKING, 0, &status,
                             nullptr),
              "echo");
        if (status != STATUS_Success) {
            throw std::runtime_error("echo: status");
        }
    }

    void send(DcmDataset *content)
    {
        T_DIMSE_C_StoreRQ request = {};
        T_DIMSE_C_StoreRSP response = {};
        request.MessageID = association->nextMsgID++;
        request.DataSetType = DIMSE_DATASET_PRESENT;
        request.Priority = DIMSE_PRIORITY_MEDIUM;
        OFStandard::strlcpy(request.AffectedSOPClassUID, ABSTRACT[1], sizeof(DIC_UI));
        OFStandard::strlcpy(request.AffectedSOPInstanceUID, "1.2.3", sizeof(DIC_UI));
        check(DIMSE_storeUser(association, STORAGE_CONTEXT, &request, nullptr, content, nullptr,
                              nullptr, DIMSE_BLOCKING, 0, &response, nullptr),
              "store");
        if (response.DimseStatus != STATUS_Success) {
            throw std::runtime_error("store: status");
        }
    }

    void release()
    {
        check(ASC_releaseAssociation(association), "release");
    }

  private:
    T_ASC_Association *association = nullptr;
    OFCondition outcome;
};

/* Runs `work` in `threads` threads; throws the first error of any of them. */
void at_once(long threads, const std::function<void(long)> &work)
{
    std::vector<std::string> faults(threads);
    std::vector<std::thread> running;
    auto guarded = [&](long i) {
        try {
            work(i);
        } catch (const std::exception &fault) {
            faults[i] = fault.what();
        }
    };
    if (threads == 1) {
        guarded(0);
    } else {
        for (long i = 0; i < threads; i++) {
            running.emplace_back(guarded, i);
        }
    }
    for (auto &thread : running) {
        thread.join();
    }
    for (const auto &fault : faults) {
        if (!fault.empty()) {
            throw std::runtime_error(fault);
        }
    }
}

Clock::duration many(T_ASC_Network *network, const Order &order)
{
    std::atomic<long> left(order.count);
    const bool rejected = order.mode == "reject";
    auto start = Clock::now();
    at_once(order.at_once, [&](long) {
        while (left.fetch_sub(1) > 0) {
            Association association(network, order.port, ASC_DEFAULTMAXPDU);
            if (rejected) {
                association.must_be_rejected();
            } else {
                association.must_be_accepted();
                association.echo();
                association.release();
            }
        }
    });
    return Clock::now() - start;
}

Clock::duration latency(T_ASC_Network *network, const Order &order)
{
    Association association(network, order.port, ASC_DEFAULTMAXPDU);
    association.must_be_accepted();
    auto start = Clock::now();
    for (long i = 0; i < order.count; i++) {
        association.echo();
    }
    auto taken = Clock::now() - start;
    association.release();
    return taken;
}

/* The library sends data sets, not bytes. The encoded length of this one is `size`: eight bytes of
 * tag and length, then zeros. */
std::unique_ptr<DcmDataset> data_set(long size)
{
    const Uint32 words = (Uint32)((size - 8) / 2);
    std::unique_ptr<DcmDataset> made(new DcmDataset);
    DcmPixelData *pixels = new DcmPixelData(DCM_PixelData);
    Uint16 *content = nullptr;
    pixels->setVR(EVR_OW);
    check(pixels->createUint16Array(words, content), "pixels");
    memset(content, 0, (size_t)words * 2);
    check(made->insert(pixels), "pixels");
    return made;
}

/* The library fills a P-DATA-TF to the smaller of the acceptor's maximum length and
 * dcmMaxOutgoingPDUSize, less 12. Each thread has a data set of its own: writing one changes it. */
Clock::duration send(T_ASC_Network *network, const Order &order)
{
    std::vector<std::unique_ptr<DcmDataset>> contents;
    for (long i = 0; i < order.at_once; i++) {
        contents.push_back(data_set(order.count));
    }
    dcmMaxOutgoingPDUSize.set((Uint32)order.size);
    auto start = Clock::now();
    at_once(order.at_once, [&](long i) {
        Association association(network, order.port, ASC_DEFAULTMAXPDU);
        association.must_be_accepted();
        association.send(contents[i].get());
        association.release();
    });
    return Clock::now() - start;
}

Clock::duration carry_out(T_ASC_Network *network, const Order &order)
{
    if (order.mode == "reject" || order.mode == "echo") {
        return many(network, order);
    }
    if (order.mode == "latency") {
        return latency(network, order);
    }
    if (order.mode == "send") {
        return send(network, order);
    }
    throw std::runtime_error("unsupported");
}

int request_main()
{
    T_ASC_Network *requestor = network(NET_REQUESTOR);
    char mode[16];
    Order order;
    while (scanf("%15s %d %ld %ld %ld", mode, &order.port, &order.count, &order.at_once,
                 &order.size) == 5) {
        order.mode = mode;
        try {
            auto taken = carry_out(requestor, order);
            printf("%lld\n",
                   (long long)std::chrono::duration_cast<std::chrono::nanoseconds>(taken).count());
        } catch (const std::exception &fault) {
            std::string text = fault.what();
            printf("error %s\n", text.substr(0, text.find('\n')).c_str());
        }
        fflush(stdout);
    }
    ASC_dropNetwork(&requestor);
    return 0;
}

} // namespace

int main(int argc, char **argv)
{
    OFLog::configure(OFLogger::OFF_LOG_LEVEL);
    dcmDataDict.isDictionaryLoaded();    /* loads it now, not at the first command */
    dcmDisableGethostbyaddr.set(OFTrue); /* no look-up of the name of each requestor */
    setenv("TCP_NODELAY", "1", 1);
    const std::string what = argc > 1 ? argv[1] : "";
    try {
        if (what == "accept" && argc > 3) {
            return accept_main(argv[2], argc > 4 ? atol(argv[4]) : ASC_DEFAULTMAXPDU);
        }
        if (what == "request") {
            return request_main();
        }
    } catch (const std::exception &fault) {
        fprintf(stderr, "%s\n", fault.what());
        return 1;
    }
    fprintf(stderr, "dcmtk accept MODE DIR [MAX] | dcmtk request DIR\n");
    return 2;
}
