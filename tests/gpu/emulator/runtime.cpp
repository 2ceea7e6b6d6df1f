// Runs the threads of a launch as fibers on one thread of the processor.
//
// A fiber runs until it waits (for its block, its warp, its cluster, a condition) or returns. The
// scheduler works in rounds; the order inside a round is the caller's choice: ascending, descending
// or shuffled. A program without races gives the same result in all of them.
//
// Found and reported, with the threads concerned: barriers that not all threads reach or that they
// reach at different places, launches in which nobody can go on or that do not end, accesses outside
// of shared memory and outside of guarded arrays, stores to blocks that have returned.

#include "cuda.h"

#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/time.h>
#ifndef __x86_64__
#include <ucontext.h>
#endif

#include <algorithm>
#include <map>
#include <string>
#include <vector>

using umx_emulated::Thread;

namespace {

constexpr size_t PAGE = 4096;
constexpr size_t STACK = 64 * 1024;
// So often a loop may look in vain while nobody else runs.
constexpr size_t IDLE_ROUNDS = 100000;
constexpr unsigned char CANARY = 0xa5;
// A quiet NaN in every lane, as float and as double, and an absurd integer.
constexpr unsigned char UNWRITTEN = 0xff;

struct Fiber;
struct BlockState;

// Threads that wait for each other.
struct Barrier {
    const char* what = "";
    unsigned expected = 0;
    const char* file = nullptr;
    int line = 0;
    std::vector<Fiber*> waiting;
};

enum State { READY, AT_BARRIER, POLLING, PAUSED, RETURNED };

struct Fiber : Thread {
    State state = READY;
    size_t number = 0;  // in the wave
    unsigned linear = 0;  // in the block
    Barrier* barrier = nullptr;
    bool (*ready)(void*) = nullptr;
    void* context = nullptr;
    const char* what = "";
#ifdef __x86_64__
    void* stack_pointer = nullptr;
#else
    ucontext_t machine;
#endif
};

struct ClusterState {
    Barrier barrier;
    std::vector<BlockState*> blocks;
};

struct BlockState : umx_emulated::Block {
    Barrier barrier;
    ClusterState* cluster = nullptr;
    unsigned rank = 0;
    unsigned nb_running = 0;
    unsigned char* pages = nullptr;
    std::vector<umx_emulated::Warp*> warps;
};

struct AsyncStore {
    unsigned char value[16];
    unsigned bytes;
    unsigned long to, barrier;
};

struct GuardedArray {
    size_t bytes;
    unsigned char *pages, *end;
};

}  // namespace

struct umx_emulated::Warp {
    Barrier barrier;
    // Two sets, because a lane may already give its next value while others still read.
    uint64_t values[2][32];
    unsigned turn[32] = {};
};

namespace umx_emulated {
Thread* current;
dim3 grid_size, block_size;
}  // namespace umx_emulated

extern "C" struct Launch {
    void (*call)(void**);
    void** arguments;
    const char* name;
    unsigned grid[3], block[3];
    unsigned shared_bytes;
    unsigned cluster;      // blocks per cluster, at least 1
    int together;          // whether all blocks are alive at once
    int order;             // 0 ascending, 1 descending, 2 shuffled
    unsigned long long seed;
    double seconds;        // limit
};

namespace {

const Launch* launch;
std::vector<Fiber> fibers;
std::vector<BlockState> blocks;
std::vector<ClusterState> clusters;
std::vector<umx_emulated::Warp> warps;
std::vector<AsyncStore> stores;
std::vector<size_t> next_round, paused;
std::map<unsigned char*, GuardedArray> guarded;  // by first byte
unsigned char* stacks;
size_t nb_stacks;
size_t nb_polling;
std::string failure;
sigjmp_buf escape;
pthread_t launching_thread;
uint64_t random_state;
volatile sig_atomic_t expired;

unsigned random_below(size_t n) {
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return static_cast<unsigned>((random_state >> 11) % n);
}

Fiber* me() { return static_cast<Fiber*>(umx_emulated::current); }
BlockState* block_of(const Thread* thread) { return static_cast<BlockState*>(thread->block); }

std::string text(const char* format, ...) __attribute__((format(printf, 1, 2)));
std::string text(const char* format, ...) {
    char buffer[400];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(buffer, sizeof buffer, format, arguments);
    va_end(arguments);
    return buffer;
}

std::string name_of(uint3 i) { return text("(%u, %u, %u)", i.x, i.y, i.z); }

std::string where(const Thread* thread) {
    return "thread " + name_of(thread->index) + " of block " + name_of(thread->block->index);
}

const char* base_name(const char* path) {
    const char* slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

}  // namespace

// ------------------------------------------------------------------ switching between fibers

#ifdef __x86_64__
asm(R"(
.text
.type umx_switch, @function
umx_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size umx_switch, .-umx_switch
)");
extern "C" void umx_switch(void** save, void* load) asm("umx_switch");
#endif

namespace {

#ifdef __x86_64__
void* scheduler;
#else
ucontext_t scheduler;
#endif

void to_scheduler() {
#ifdef __x86_64__
    umx_switch(&me()->stack_pointer, scheduler);
#else
    swapcontext(&me()->machine, &scheduler);
#endif
}

void fiber_main() {
    launch->call(launch->arguments);
    me()->state = RETURNED;
    to_scheduler();
    __builtin_unreachable();
}

void prepare_stack(Fiber& fiber, unsigned char* bottom) {
#ifdef __x86_64__
    // At its first instruction a function expects the stack 8 bytes off a multiple of 16.
    void** top = reinterpret_cast<void**>(bottom + STACK) - 1;
    top[0] = nullptr;
    *--top = reinterpret_cast<void*>(fiber_main);
    fiber.stack_pointer = top - 6;
#else
    getcontext(&fiber.machine);
    fiber.machine.uc_stack.ss_sp = bottom + PAGE;
    fiber.machine.uc_stack.ss_size = STACK - PAGE;
    fiber.machine.uc_link = nullptr;
    makecontext(&fiber.machine, fiber_main, 0);
#endif
}

void resume(Fiber& fiber) {
    umx_emulated::current = &fiber;
#ifdef __x86_64__
    umx_switch(&scheduler, fiber.stack_pointer);
#else
    swapcontext(&scheduler, &fiber.machine);
#endif
}

void make_stacks(size_t count) {
    if (count <= nb_stacks) return;
    if (stacks) munmap(stacks, nb_stacks * STACK);
    stacks = static_cast<unsigned char*>(mmap(nullptr, count * STACK, PROT_READ | PROT_WRITE,
                                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    nb_stacks = count;
    for (size_t i = 0; i < count; ++i) mprotect(stacks + i * STACK, PAGE, PROT_NONE);
}

// ------------------------------------------------------------------ memory with guards

size_t round_up(size_t n, size_t unit) { return (n + unit - 1) / unit * unit; }

// Memory that ends at a page which cannot be touched, and begins soon after one.
unsigned char* guarded_pages(size_t bytes, unsigned char** pages, unsigned char** end) {
    const size_t inside = round_up(std::max(bytes, size_t(1)), PAGE);
    unsigned char* start = static_cast<unsigned char*>(
        mmap(nullptr, inside + 2 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    mprotect(start + PAGE, inside, PROT_READ | PROT_WRITE);
    *pages = start;
    *end = start + PAGE + inside;
    unsigned char* first = *end - round_up(bytes, 16);
    memset(start + PAGE, CANARY, inside);
    return first;
}

bool canaries_intact(const unsigned char* pages, const unsigned char* first, size_t bytes,
                     const unsigned char* end) {
    for (const unsigned char* p = pages + PAGE; p < first; ++p)
        if (*p != CANARY) return false;
    for (const unsigned char* p = first + bytes; p < end; ++p)
        if (*p != CANARY) return false;
    return true;
}

// ------------------------------------------------------------------ failures

[[noreturn]] void stop(const std::string& message) {
    failure = message;
    siglongjmp(escape, 1);
}

std::string describe_address(const unsigned char* address) {
    for (const BlockState& block : blocks) {
        if (!block.pages) continue;
        const unsigned char* end = block.shared + round_up(launch->shared_bytes, 16);
        if (address >= block.pages && address < end + PAGE) {
            if (address >= block.shared && address < end)
                return "shared memory of block " + name_of(block.index) + ", which has returned";
            return text("byte %ld of the shared memory of block ", long(address - block.shared)) +
                   name_of(block.index) + text(", which has %u bytes", launch->shared_bytes);
        }
    }
    for (const auto& entry : guarded) {
        const GuardedArray& array = entry.second;
        if (address >= array.pages && address < array.end + PAGE)
            return text("byte %ld of an array of %zu bytes", long(address - entry.first),
                        array.bytes);
    }
    for (size_t i = 0; i < nb_stacks; ++i)
        if (address >= stacks + i * STACK && address < stacks + i * STACK + PAGE)
            return "its stack beyond its end";
    return text("address %p, which is nowhere near an array", static_cast<const void*>(address));
}

[[noreturn]] void stop_expired() {
    stop(text("it runs for more than %g s; now ", launch->seconds) +
         (umx_emulated::current ? where(me()) : "between threads"));
}

void on_signal(int number, siginfo_t* info, void*) {
    if (!pthread_equal(pthread_self(), launching_thread)) {
        if (number == SIGALRM) {
            pthread_kill(launching_thread, SIGALRM);
            return;
        }
        signal(number, SIG_DFL);  // not ours: crash when the instruction runs again
        return;
    }
    if (number == SIGALRM) {
        expired = 1;
        if (umx_emulated::current) stop_expired();
        return;
    }
    stop((umx_emulated::current ? where(me()) : "an asynchronous store") + " touches " +
         describe_address(static_cast<unsigned char*>(info->si_addr)));
}

// "threads 0-31 wait at __syncthreads (scan.cu:12); threads 32-63 have returned"
std::string describe_block(const BlockState& block) {
    std::string out;
    std::string running;
    unsigned first = 0, last = 0;
    auto flush = [&] {
        if (running.empty()) return;
        if (!out.empty()) out += "; ";
        out += first == last ? text("thread %u ", first) : text("threads %u-%u ", first, last);
        out += running;
    };
    for (const Fiber& fiber : fibers) {
        if (fiber.block != &block) continue;
        std::string state = "ready";
        if (fiber.state == RETURNED) state = "returned";
        if (fiber.state == POLLING) state = std::string("in ") + fiber.what;
        if (fiber.state == PAUSED) state = "in a loop that waits";
        if (fiber.state == AT_BARRIER)
            state = std::string("at ") + fiber.barrier->what + " (" +
                    base_name(fiber.barrier->file) + text(":%d)", fiber.barrier->line);
        if (state != running) {
            flush();
            running = state;
            first = fiber.linear;
        }
        last = fiber.linear;
    }
    flush();
    return "block " + name_of(block.index) + ": " + out;
}

[[noreturn]] void stop_stuck() {
    std::string message = "no thread can go on:";
    int shown = 0;
    for (const BlockState& block : blocks) {
        if (!block.nb_running) continue;
        if (++shown > 3) {
            message += "\n  ...";
            break;
        }
        message += "\n  " + describe_block(block);
    }
    stop(message);
}

// ------------------------------------------------------------------ waiting

void make_ready(Fiber* fiber) {
    fiber->state = READY;
    next_round.push_back(fiber->number);
}

void arrive(Barrier& barrier, const char* file, int line) {
    Fiber* fiber = me();
    if (barrier.waiting.empty()) {
        barrier.file = file;
        barrier.line = line;
    } else if (barrier.line != line || strcmp(barrier.file, file) != 0) {
        stop(where(fiber) + " reaches " + barrier.what +
             text(" at %s:%d, but ", base_name(file), line) + where(barrier.waiting[0]) +
             text(" waits at %s:%d", base_name(barrier.file), barrier.line));
    }
    if (barrier.waiting.size() + 1 == barrier.expected) {
        for (Fiber* other : barrier.waiting) make_ready(other);
        barrier.waiting.clear();
        // The last one does not run on at once: it must not always be ahead.
        make_ready(fiber);
    } else {
        barrier.waiting.push_back(fiber);
        fiber->state = AT_BARRIER;
        fiber->barrier = &barrier;
    }
    to_scheduler();
}

constexpr unsigned long long COUNT = (1ull << 20) - 1;

void complete_if_due(unsigned long long& barrier) {
    const auto pending = (barrier >> 20) & COUNT;
    const auto bytes = (barrier >> 40) & ((1ull << 22) - 1);
    if (pending || bytes) return;
    const auto expected = barrier & COUNT;
    barrier = ((barrier >> 63 ^ 1) << 63) | expected << 20 | expected;
}

void arrive_once(unsigned long long& barrier) {
    if (!((barrier >> 20) & COUNT))
        stop(where(me()) + " arrives at an mbarrier where nobody is expected");
    barrier -= 1ull << 20;
}

void count_bytes(unsigned long long& barrier, long bytes) {
    const unsigned long long mask = ((1ull << 22) - 1) << 40;
    const unsigned long long sum = (barrier & mask) + (static_cast<unsigned long long>(bytes) << 40);
    barrier = (barrier & ~mask) | (sum & mask);
}

void deliver(size_t index) {
    const AsyncStore store = stores[index];
    stores.erase(stores.begin() + static_cast<long>(index));
    memcpy(reinterpret_cast<void*>(store.to), store.value, store.bytes);
    auto& barrier = *reinterpret_cast<unsigned long long*>(store.barrier);
    count_bytes(barrier, -long(store.bytes));
    complete_if_due(barrier);
}

void check_polling() {
    if (!nb_polling) return;
    for (Fiber& fiber : fibers) {
        if (fiber.state != POLLING) continue;
        umx_emulated::current = &fiber;
        if (fiber.ready(fiber.context)) {
            --nb_polling;
            make_ready(&fiber);
        }
    }
    umx_emulated::current = nullptr;
}

// ------------------------------------------------------------------ one wave of blocks

void start_block(BlockState& block, unsigned linear, size_t index_in_wave) {
    const unsigned* grid = launch->grid;
    block.index = {linear % grid[0], linear / grid[0] % grid[1], linear / grid[0] / grid[1]};
    unsigned char* end;
    if (!block.pages) block.shared = guarded_pages(launch->shared_bytes, &block.pages, &end);
    memset(block.shared, UNWRITTEN, launch->shared_bytes);

    const unsigned* size = launch->block;
    const unsigned nb_threads = size[0] * size[1] * size[2];
    const unsigned nb_warps = (nb_threads + 31) / 32;
    block.barrier = Barrier();
    block.barrier.what = "__syncthreads";
    block.barrier.expected = nb_threads;
    block.nb_running = nb_threads;
    for (unsigned i = 0; i < nb_threads; ++i) {
        Fiber& fiber = fibers[index_in_wave * nb_threads + i];
        umx_emulated::Warp& warp = warps[index_in_wave * nb_warps + i / 32];
        if (i % 32 == 0) {
            warp.barrier = Barrier();
            warp.barrier.what = "a warp's barrier or shuffle";
            warp.barrier.expected = std::min(nb_threads - i, 32u);
            std::fill(warp.turn, warp.turn + 32, 0u);
        }
        fiber.index = {i % size[0], i / size[0] % size[1], i / size[0] / size[1]};
        fiber.block = &block;
        fiber.warp = &warp;
        fiber.lane = i % 32;
        fiber.linear = i;
        fiber.number = index_in_wave * nb_threads + i;
        fiber.barrier = nullptr;
        prepare_stack(fiber, stacks + fiber.number * STACK);
        make_ready(&fiber);
    }
}

void finish_block(BlockState& block) {
    const unsigned char* end = block.shared + round_up(launch->shared_bytes, 16);
    if (!canaries_intact(block.pages, block.shared, launch->shared_bytes, end))
        stop("block " + name_of(block.index) + " writes outside of its shared memory of " +
             text("%u bytes", launch->shared_bytes));
    // Others of its cluster must not touch it any more.
    if (launch->cluster > 1)
        mprotect(block.pages + PAGE, static_cast<size_t>(end - block.pages) - PAGE, PROT_NONE);
}

void sort_round(std::vector<size_t>& round) {
    if (launch->order == 2) {
        for (size_t i = round.size(); i > 1; --i) std::swap(round[i - 1], round[random_below(i)]);
        return;
    }
    std::sort(round.begin(), round.end());
    if (launch->order == 1) std::reverse(round.begin(), round.end());
}

void run_wave() {
    std::vector<size_t> round;
    size_t nb_idle_rounds = 0;
    while (true) {
        if (expired) stop_expired();
        // Asynchronous stores come as late as they can, or at any time.
        if (launch->order == 2 && !stores.empty() && random_below(4) == 0)
            deliver(random_below(stores.size()));
        check_polling();
        if (next_round.empty()) {
            if (stores.empty()) {
                if (paused.empty() || ++nb_idle_rounds > IDLE_ROUNDS) break;
                // Only loops that wait are left; one of them may find what it waits for.
                next_round.swap(paused);
                continue;
            }
            deliver(launch->order == 0 ? 0
                    : launch->order == 1 ? stores.size() - 1
                                         : random_below(stores.size()));
            continue;
        }
        if (launch->order == 2 && random_below(2)) {
            next_round.insert(next_round.end(), paused.begin(), paused.end());
            paused.clear();
        }
        round.swap(next_round);
        next_round.clear();
        sort_round(round);
        for (size_t number : round) {
            Fiber& fiber = fibers[number];
            fiber.state = READY;
            resume(fiber);
            if (fiber.state != PAUSED) nb_idle_rounds = 0;
            umx_emulated::current = nullptr;
            if (fiber.state == RETURNED && --block_of(&fiber)->nb_running == 0)
                finish_block(*block_of(&fiber));
        }
    }
    for (const BlockState& block : blocks)
        if (block.nb_running) stop_stuck();
}

void run_grid() {
    const unsigned* size = launch->block;
    const unsigned* grid = launch->grid;
    const size_t nb_threads = size_t(size[0]) * size[1] * size[2];
    const size_t nb_blocks = size_t(grid[0]) * grid[1] * grid[2];
    const size_t in_wave = launch->together ? nb_blocks : launch->cluster;
    make_stacks(in_wave * nb_threads);
    fibers.assign(in_wave * nb_threads, Fiber());
    blocks.assign(in_wave, BlockState());
    warps.assign(in_wave * ((nb_threads + 31) / 32), umx_emulated::Warp());
    clusters.assign(in_wave / launch->cluster, ClusterState());

    std::vector<size_t> order(nb_blocks / in_wave);
    for (size_t i = 0; i < order.size(); ++i) order[i] = i;
    sort_round(order);
    for (size_t wave : order) {
        stores.clear();
        next_round.clear();
        paused.clear();
        nb_polling = 0;
        for (size_t i = 0; i < in_wave; ++i) {
            BlockState& block = blocks[i];
            ClusterState& cluster = clusters[i / launch->cluster];
            if (i % launch->cluster == 0) {
                cluster = ClusterState();
                cluster.barrier.what = "cluster_sync";
                cluster.barrier.expected = static_cast<unsigned>(nb_threads * launch->cluster);
            }
            cluster.blocks.push_back(&block);
            block.cluster = &cluster;
            block.rank = static_cast<unsigned>(i % launch->cluster);
            if (block.pages && launch->cluster > 1)
                mprotect(block.pages + PAGE, round_up(std::max(launch->shared_bytes, 1u), PAGE),
                         PROT_READ | PROT_WRITE);
            start_block(block, static_cast<unsigned>(wave * in_wave + i), i);
        }
        run_wave();
    }
}

}  // namespace

// ------------------------------------------------------------------ what kernels call

namespace umx_emulated {

void fail(const char* format, ...) {
    char buffer[400];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(buffer, sizeof buffer, format, arguments);
    va_end(arguments);
    stop(where(me()) + ": " + buffer);
}

void sync_block(const char* file, int line) { arrive(block_of(me())->barrier, file, line); }

void sync_warp(unsigned mask, const char* file, int line) {
    if (mask != 0xffffffffu) fail("the mask of a warp is %#x instead of all lanes", mask);
    arrive(me()->warp->barrier, file, line);
}

uint64_t exchange(uint64_t value, unsigned source, unsigned mask, const char* file, int line) {
    Warp& warp = *me()->warp;
    const unsigned lane = me()->lane;
    uint64_t* values = warp.values[warp.turn[lane]++ % 2];
    values[lane] = value;
    if (source >= warp.barrier.expected) fail("a shuffle reads lane %u, which is not there", source);
    sync_warp(mask, file, line);
    return values[source];
}

void sync_cluster(const char* file, int line) {
    arrive(block_of(me())->cluster->barrier, file, line);
}

void wait_until_true(bool (*ready)(void*), void* context, const char* what) {
    Fiber* fiber = me();
    fiber->ready = ready;
    fiber->context = context;
    fiber->what = what;
    fiber->state = POLLING;
    ++nb_polling;
    to_scheduler();
}

void pause() {
    me()->state = PAUSED;
    paused.push_back(me()->number);
    to_scheduler();
}

unsigned cluster_rank() { return block_of(me())->rank; }
unsigned cluster_size() { return launch->cluster; }

void* cluster_map(void* local, unsigned rank) {
    const BlockState& block = *block_of(me());
    const long offset = static_cast<unsigned char*>(local) - block.shared;
    if (offset < 0 || offset >= long(launch->shared_bytes))
        fail("cluster_map of an address that is not in shared memory");
    if (rank >= launch->cluster) fail("cluster_map to block %u of %u", rank, launch->cluster);
    return block.cluster->blocks[rank]->shared + offset;
}

void mbarrier_init(unsigned long long* barrier, unsigned count) {
    if (count < 1 || count > COUNT) fail("mbarrier_init with %u arrivals", count);
    if (reinterpret_cast<uintptr_t>(barrier) % 8) fail("an mbarrier is not aligned to 8 bytes");
    *barrier = static_cast<unsigned long long>(count) << 20 | count;
}

void mbarrier_expect_bytes(unsigned long long* barrier, unsigned bytes) {
    count_bytes(*barrier, bytes);
    arrive_once(*barrier);
    complete_if_due(*barrier);
}

void mbarrier_arrive_remote(unsigned long long* barrier, unsigned rank) {
    auto& remote = *static_cast<unsigned long long*>(cluster_map(barrier, rank));
    arrive_once(remote);
    complete_if_due(remote);
}

void mbarrier_wait_parity(unsigned long long* barrier, unsigned parity) {
    wait_until([=] { return (*barrier >> 63) != parity; }, "mbarrier_wait_parity");
}

void store_async(unsigned long to, const void* value, unsigned bytes, unsigned long barrier) {
    if (to % bytes) fail("an asynchronous store of %u bytes is not aligned", bytes);
    const BlockState* owners[2] = {};
    const unsigned long addresses[2] = {to, barrier};
    for (int i = 0; i < 2; ++i)
        for (const BlockState* block : block_of(me())->cluster->blocks) {
            const unsigned long first = reinterpret_cast<unsigned long>(block->shared);
            if (addresses[i] >= first && addresses[i] < first + launch->shared_bytes)
                owners[i] = block;
        }
    if (!owners[0]) fail("an asynchronous store goes outside of shared memory");
    if (owners[0] != owners[1])
        fail("an asynchronous store and its mbarrier belong to different blocks");
    AsyncStore store = {{}, bytes, to, barrier};
    memcpy(store.value, value, bytes);
    stores.push_back(store);
}

}  // namespace umx_emulated

// ------------------------------------------------------------------ what Python calls

extern "C" {

// Memory of an array, filled so that what is not written shows, with pages behind and before it
// that cannot be touched.
void* umx_allocate(size_t bytes) {
    GuardedArray array = {bytes, nullptr, nullptr};
    unsigned char* first = guarded_pages(bytes, &array.pages, &array.end);
    memset(first, UNWRITTEN, bytes);
    guarded[first] = array;
    return first;
}

// Whether only bytes of the array were written.
int umx_intact(void* first) {
    const auto& array = guarded.at(static_cast<unsigned char*>(first));
    return canaries_intact(array.pages, static_cast<unsigned char*>(first), array.bytes, array.end);
}

void umx_free(void* first) {
    const auto entry = guarded.find(static_cast<unsigned char*>(first));
    if (entry == guarded.end()) return;
    munmap(entry->second.pages, static_cast<size_t>(entry->second.end - entry->second.pages) + PAGE);
    guarded.erase(entry);
}

// 0, or 1 with a message. One launch at a time.
int umx_launch(const Launch* what, char* message, size_t message_bytes) {
    launch = what;
    launching_thread = pthread_self();
    random_state = what->seed * 0x9e3779b97f4a7c15ull + 0x2545f4914f6cdd1dull;
    umx_emulated::grid_size = {what->grid[0], what->grid[1], what->grid[2]};
    umx_emulated::block_size = {what->block[0], what->block[1], what->block[2]};
    umx_emulated::current = nullptr;
    failure.clear();
    expired = 0;

    // A fiber may have run out of its own stack.
    static unsigned char signal_stack[64 * 1024];
    stack_t ours = {}, theirs;
    ours.ss_sp = signal_stack;
    ours.ss_size = sizeof signal_stack;
    sigaltstack(&ours, &theirs);
    struct sigaction action = {}, old[3];
    action.sa_sigaction = on_signal;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    const int signals[3] = {SIGSEGV, SIGBUS, SIGALRM};
    for (int i = 0; i < 3; ++i) sigaction(signals[i], &action, &old[i]);
    itimerval limit = {}, old_limit;
    limit.it_value.tv_sec = static_cast<time_t>(what->seconds);
    limit.it_value.tv_usec =
        static_cast<suseconds_t>((what->seconds - double(limit.it_value.tv_sec)) * 1e6);
    setitimer(ITIMER_REAL, &limit, &old_limit);

    if (sigsetjmp(escape, 1) == 0) run_grid();

    setitimer(ITIMER_REAL, &old_limit, nullptr);
    for (int i = 0; i < 3; ++i) sigaction(signals[i], &old[i], nullptr);
    sigaltstack(&theirs, nullptr);
    for (BlockState& block : blocks)
        if (block.pages)
            munmap(block.pages,
                   round_up(std::max(what->shared_bytes, 1u), PAGE) + 2 * PAGE);
    blocks.clear();
    umx_emulated::current = nullptr;
    if (failure.empty()) return 0;
    snprintf(message, message_bytes, "%s", failure.c_str());
    return 1;
}

}  // extern "C"
