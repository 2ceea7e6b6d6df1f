// What kernels ask of the runtime: barriers, shuffles, clusters.
#pragma once

#include "state.h"

namespace {

void to_scheduler();

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
        const std::string here = who();
        umx_emulated::current = barrier.waiting[0];
        stop(here + text(" reaches %s at %s:%d, but ", barrier.what, base_name(file), line) +
             who() + text(" waits at %s:%d", base_name(barrier.file), barrier.line));
    }
    if (barrier.waiting.size() + 1 == barrier.expected) {
        for (Fiber* other : barrier.waiting) make_ready(other);
        barrier.waiting.clear();
        // The last one does not go on at once, or it would always be ahead of the others.
        make_ready(fiber);
    } else {
        barrier.waiting.push_back(fiber);
        fiber->state = AT_BARRIER;
        fiber->barrier = &barrier;
    }
    to_scheduler();
}

// An mbarrier: expected arrivals in bits 0-19, pending ones in 20-39, bytes to come in 40-61, the
// parity of the current phase in bit 63. The hardware keeps another secret layout.
constexpr uint64_t ARRIVALS = (1ull << 20) - 1;
constexpr uint64_t BYTES = ((1ull << 22) - 1) << 40;

// Whether that completed the phase.
bool complete_if_due(unsigned long long& barrier) {
    if ((barrier & BYTES) || (barrier >> 20 & ARRIVALS)) return false;
    const uint64_t expected = barrier & ARRIVALS;
    barrier = (barrier >> 63 ^ 1) << 63 | expected << 20 | expected;
    return true;
}

void arrive_once(unsigned long long& barrier) {
    if (!(barrier >> 20 & ARRIVALS)) stop(who() + " arrives at an mbarrier that expects no more");
    barrier -= 1ull << 20;
}

void count_bytes(unsigned long long& barrier, int64_t bytes) {
    const uint64_t sum = (barrier & BYTES) + (static_cast<uint64_t>(bytes) << 40);
    barrier = (barrier & ~BYTES) | (sum & BYTES);
}

// Let an asynchronous store happen; whether that completed a phase.
bool deliver(size_t index) {
    std::swap(stores[index], launch->order == ASCENDING ? stores.front() : stores.back());
    const AsyncStore store = launch->order == ASCENDING ? stores.front() : stores.back();
    launch->order == ASCENDING ? stores.pop_front() : stores.pop_back();
    memcpy(reinterpret_cast<void*>(store.to), store.value, store.bytes);
    auto& barrier = *reinterpret_cast<unsigned long long*>(store.barrier);
    count_bytes(barrier, -int64_t(store.bytes));
    return complete_if_due(barrier);
}

const BlockState* owner(unsigned long address, unsigned bytes) {
    for (const BlockState* block : my_block().cluster->blocks) {
        const auto first = reinterpret_cast<unsigned long>(block->shared);
        if (address >= first && address + bytes <= first + block->memory.bytes) return block;
    }
    return nullptr;
}

}  // namespace

namespace umx_emulated {

void fail(const char* format, ...) {
    char buffer[400];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(buffer, sizeof buffer, format, arguments);
    va_end(arguments);
    stop(who() + ": " + buffer);
}

void sync_block(const char* file, int line) { arrive(my_block().barrier, file, line); }

void sync_warp(unsigned mask, const char* file, int line) {
    if (mask != 0xffffffffu) fail("the mask of a warp is %#x instead of all lanes", mask);
    arrive(me()->warp->barrier, file, line);
}

uint64_t exchange(uint64_t value, unsigned source, unsigned mask, const char* file, int line) {
    Warp& warp = *me()->warp;
    if (source >= warp.barrier.expected) fail("a shuffle reads lane %u, which is not there", source);
    const unsigned lane = me()->lane;
    uint64_t* values = warp.values[warp.turn[lane]++ % 2];
    values[lane] = value;
    sync_warp(mask, file, line);
    return values[source];
}

void sync_cluster(const char* file, int line) { arrive(my_block().cluster->barrier, file, line); }

void wait_until_true(bool (*condition)(void*), void* context, const char* what) {
    Fiber* fiber = me();
    fiber->condition = condition;
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

unsigned cluster_rank() { return my_block().rank; }
unsigned cluster_size() { return launch->cluster; }

void* cluster_map(void* local, unsigned rank) {
    const BlockState& block = my_block();
    const long offset = static_cast<unsigned char*>(local) - block.shared;
    if (offset < 0 || offset >= long(block.memory.bytes))
        fail("cluster_map of an address that is not in its shared memory");
    if (rank >= launch->cluster) fail("cluster_map to block %u of %u", rank, launch->cluster);
    return block.cluster->blocks[rank]->shared + offset;
}

void mbarrier_init(unsigned long long* barrier, unsigned count) {
    if (count < 1 || count > ARRIVALS) fail("mbarrier_init with %u arrivals", count);
    *barrier = uint64_t(count) << 20 | count;
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
    if (to % bytes || barrier % 8) fail("an asynchronous store of %u bytes is not aligned", bytes);
    const BlockState* target = owner(to, bytes);
    if (!target) fail("an asynchronous store goes outside of shared memory");
    if (target != owner(barrier, 8))
        fail("an asynchronous store and its mbarrier belong to different blocks");
    AsyncStore store = {{}, bytes, to, barrier};
    memcpy(store.value, value, bytes);
    stores.push_back(store);
}

}  // namespace umx_emulated
