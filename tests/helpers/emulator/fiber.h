// Stacks and the switch from one to another.
#pragma once

#include <stddef.h>
#include <sys/mman.h>
#if !defined(__x86_64__) || defined(UMX_PORTABLE_SWITCH)
#define UMX_PORTABLE_SWITCH
#include <ucontext.h>
#endif

namespace {

constexpr size_t PAGE = 4096;
constexpr size_t STACK = 64 * 1024;

// Stacks side by side; the last page of each (they grow downwards) cannot be touched.
struct Stacks {
    unsigned char* memory = nullptr;
    size_t count = 0;

    void reserve(size_t wanted) {
        if (wanted <= count) return;
        if (memory) munmap(memory, count * STACK);
        memory = static_cast<unsigned char*>(mmap(nullptr, wanted * STACK, PROT_READ | PROT_WRITE,
                                                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1,
                                                  0));
        count = wanted;
        for (size_t i = 0; i < count; ++i) mprotect(bottom(i), PAGE, PROT_NONE);
    }
    unsigned char* bottom(size_t i) const { return memory + i * STACK; }
    unsigned char* top(size_t i) const { return bottom(i) + STACK; }
    bool overflowed_at(const unsigned char* address) const {
        return address >= memory && address < memory + count * STACK &&
               static_cast<size_t>(address - memory) % STACK < PAGE;
    }
};

}  // namespace

#ifndef UMX_PORTABLE_SWITCH

// Saves what the calling convention has functions keep, by hand: swapcontext() would ask the kernel
// for the signal mask every time, and a scan switches millions of times.
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

namespace {

struct Machine {
    void* stack_pointer = nullptr;

    void begin(void (*function)(), const Stacks& stacks, size_t i) {
        // At its first instruction a function expects the stack 8 bytes off a multiple of 16.
        void** top = reinterpret_cast<void**>(stacks.top(i)) - 1;
        *top = nullptr;
        *--top = reinterpret_cast<void*>(function);
        stack_pointer = top - 6;
    }
    void leave_for(Machine& other) { umx_switch(&stack_pointer, other.stack_pointer); }
};

}  // namespace

#else

namespace {

struct Machine {
    ucontext_t context;

    void begin(void (*function)(), const Stacks& stacks, size_t i) {
        getcontext(&context);
        context.uc_stack.ss_sp = stacks.bottom(i) + PAGE;
        context.uc_stack.ss_size = size_t(stacks.top(i) - stacks.bottom(i)) - PAGE;
        context.uc_link = nullptr;
        makecontext(&context, function, 0);
    }
    void leave_for(Machine& other) { swapcontext(&context, &other.context); }
};

}  // namespace

#endif
