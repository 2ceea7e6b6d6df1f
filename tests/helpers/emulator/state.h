// What a launch consists of, and how its state is told.
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <map>
#include <string>
#include <vector>

#include "cuda.h"
#include "guard.h"

using umx_emulated::Thread;

// Written by launching.py.
struct Launch {
    void (*call)(void**);
    void** arguments;
    unsigned grid[3], block[3];
    unsigned shared_bytes;
    int together;      // whether all blocks are alive at once
    int order;         // of the threads in a round: 0 ascending, 1 descending, 2 shuffled
    unsigned long long seed;
    double seconds;  // limit
};
enum { ASCENDING, DESCENDING, SHUFFLED };

namespace {

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

enum State {
    READY,
    AT_BARRIER,
    POLLING,  // until a condition is true
    PAUSED,   // in a loop of its own
    RETURNED,
};

struct Fiber : Thread {
    State state = READY;
    size_t number = 0;    // among those alive
    unsigned linear = 0;  // in the block
    Barrier* barrier = nullptr;
    bool (*condition)(void*) = nullptr;
    void* context = nullptr;
    const char* what = "";
    Machine machine;
};

struct BlockState : umx_emulated::Block {
    Barrier barrier;
    unsigned nb_running = 0;
    Guarded memory;
};

}  // namespace

// It is declared for kernels, which never look inside.
#pragma GCC diagnostic ignored "-Wsubobject-linkage"
struct umx_emulated::Warp {
    Barrier barrier;
    // Two sets, because a lane may already give its next value while others still read.
    uint64_t values[2][32];
    unsigned turn[32] = {};
};

namespace {

const Launch* launch;
std::vector<Fiber> fibers;
std::vector<BlockState> blocks;
std::vector<umx_emulated::Warp> warps;
std::vector<size_t> next_round, paused;
size_t nb_polling;
Stacks stacks;
std::map<unsigned char*, Guarded> arrays;  // by first byte

std::string failure;
sigjmp_buf escape;

Fiber* me() { return static_cast<Fiber*>(umx_emulated::current); }
BlockState& my_block() { return *static_cast<BlockState*>(me()->block); }

std::string text(const char* format, ...) __attribute__((format(printf, 1, 2)));
std::string text(const char* format, ...) {
    char buffer[400];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(buffer, sizeof buffer, format, arguments);
    va_end(arguments);
    return buffer;
}

[[noreturn]] void stop(const std::string& message) {
    failure = message;
    siglongjmp(escape, 1);
}

std::string name_of(uint3 i) { return text("(%u, %u, %u)", i.x, i.y, i.z); }

std::string who() {
    return "thread " + name_of(me()->index) + " of block " + name_of(me()->block->index);
}

const char* base_name(const char* path) {
    const char* slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

std::string describe_address(const unsigned char* address) {
    for (const BlockState& block : blocks) {
        const Guarded& memory = block.memory;
        if (!memory.pages || !memory.near(address)) continue;
        const long offset = address - memory.first;
        return text("byte %ld of the shared memory of block ", offset) + name_of(block.index) +
               text(", which has %zu bytes", memory.bytes);
    }
    for (const auto& entry : arrays)
        if (entry.second.near(address))
            return text("byte %ld of an array of %zu bytes", long(address - entry.first),
                        entry.second.bytes);
    if (stacks.overflowed_at(address)) return "its stack beyond its end";
    return text("address %p, which is nowhere near an array", static_cast<const void*>(address));
}

std::string describe_state(const Fiber& fiber) {
    switch (fiber.state) {
        case READY: return "ready";
        case AT_BARRIER:
            return text("at %s (%s:%d)", fiber.barrier->what, base_name(fiber.barrier->file),
                        fiber.barrier->line);
        case POLLING: return text("in %s", fiber.what);
        case PAUSED: return "in a loop that waits";
        case RETURNED: return "returned";
    }
    return "";
}

// "block (0, 0, 0): threads 0-31 at __syncthreads (scan.cu:12); threads 32-63 returned"
std::string describe_block(const BlockState& block) {
    std::string all, state;
    unsigned first = 0, last = 0;
    const auto flush = [&] {
        if (state.empty()) return;
        if (!all.empty()) all += "; ";
        all += first == last ? text("thread %u ", first) : text("threads %u-%u ", first, last);
        all += state;
    };
    for (const Fiber& fiber : fibers) {
        if (fiber.block != &block) continue;
        const std::string its = describe_state(fiber);
        if (its != state) {
            flush();
            state = its;
            first = fiber.linear;
        }
        last = fiber.linear;
    }
    flush();
    return "block " + name_of(block.index) + ": " + all;
}

[[noreturn]] void stop_stuck() {
    std::string message = "no thread can go on:";
    int nb_shown = 0;
    for (const BlockState& block : blocks) {
        if (!block.nb_running) continue;
        if (++nb_shown > 3) {
            message += "\n  and other blocks";
            break;
        }
        message += "\n  " + describe_block(block);
    }
    stop(message);
}

}  // namespace
