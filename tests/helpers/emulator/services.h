// What kernels ask of the runtime: barriers and shuffles.
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

}  // namespace umx_emulated
