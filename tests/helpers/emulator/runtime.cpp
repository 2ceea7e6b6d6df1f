// Runs the threads of a launch as fibers on one thread of the processor.
//
// A fiber runs until it waits (for its block, its warp, a condition) or returns. The
// scheduler works in rounds; the order inside a round is the caller's choice: ascending, descending
// or shuffled. A kernel without races gives the same result in all of them.
//
// Found and reported, with the threads concerned: barriers that not all threads reach, or that they
// reach at different places; launches in which nobody can go on, or that do not end; accesses
// outside of shared memory and of guarded arrays, or not aligned; divisions of integers by zero;
// accesses to the shared memory of blocks that have returned.
//
// Not modelled: the order in which other threads see writes that no barrier separates.

#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <sys/time.h>
#include <ucontext.h>

#include "services.h"

namespace umx_emulated {
Thread* current;
dim3 grid_size, block_size;
}  // namespace umx_emulated

namespace {

// So often a loop of a kernel may look in vain while nobody else runs.
constexpr size_t IDLE_ROUNDS = 100000;

Machine scheduler;
pthread_t launching_thread;
volatile sig_atomic_t expired;
uint64_t random_state;

size_t random_below(size_t n) {
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (random_state >> 11) % n;
}

void to_scheduler() { me()->machine.leave_for(scheduler); }

void fiber_main() {
    launch->call(launch->arguments);
    me()->state = RETURNED;
    to_scheduler();
    __builtin_unreachable();
}

// ------------------------------------------------------------------ signals

constexpr int SIGNALS[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGALRM};
constexpr size_t NB_SIGNALS = sizeof SIGNALS / sizeof SIGNALS[0];

// Library and offset of an instruction, which launching.py turns into a line.
std::string place(void* context) {
    const auto& machine = static_cast<ucontext_t*>(context)->uc_mcontext;
#if defined(__x86_64__)
    auto* instruction = reinterpret_cast<unsigned char*>(machine.gregs[REG_RIP]);
#elif defined(__aarch64__)
    auto* instruction = reinterpret_cast<unsigned char*>(machine.pc);
#else
    unsigned char* instruction = nullptr;
    (void)machine;
#endif
    Dl_info info;
    if (!dladdr(instruction, &info)) return "";
    return text("\x01%s\x01%#lx", info.dli_fname,
                static_cast<unsigned long>(instruction -
                                           static_cast<unsigned char*>(info.dli_fbase)));
}

[[noreturn]] void stop_expired() {
    stop(text("it runs for more than %g s", launch->seconds) +
         (umx_emulated::current ? "; now " + who() : ""));
}

void on_signal(int number, siginfo_t* info, void* context) {
    if (!pthread_equal(pthread_self(), launching_thread)) {
        if (number == SIGALRM)
            pthread_kill(launching_thread, SIGALRM);
        else
            signal(number, SIG_DFL);  // not ours: crash when the instruction runs again
        return;
    }
    if (number == SIGALRM) {
        expired = 1;
        if (umx_emulated::current) stop_expired();
        return;
    }
    if (number == SIGFPE) stop(who() + " divides by zero" + place(context));
    // The code of an unaligned access traps; if it is not checked, the processor does not say where.
    if (number == SIGILL || info->si_code == SI_KERNEL)
        stop(who() + " accesses memory that is not aligned to its type" + place(context));
    stop(who() + " touches " + describe_address(static_cast<unsigned char*>(info->si_addr)) +
         place(context));
}

// ------------------------------------------------------------------ blocks

void start_block(BlockState& block, size_t linear, size_t slot) {
    const unsigned *grid = launch->grid, *size = launch->block;
    block.index = {unsigned(linear % grid[0]), unsigned(linear / grid[0] % grid[1]),
                   unsigned(linear / grid[0] / grid[1])};
    if (!block.memory.pages) block.memory.allocate(launch->shared_bytes);
    block.shared = block.memory.first;
    memset(block.shared, UNWRITTEN, block.memory.bytes);

    const unsigned nb_threads = size[0] * size[1] * size[2];
    const unsigned nb_warps = (nb_threads + 31) / 32;
    block.barrier = Barrier();
    block.barrier.what = "__syncthreads";
    block.barrier.expected = nb_threads;
    block.nb_running = nb_threads;
    for (unsigned i = 0; i < nb_threads; ++i) {
        umx_emulated::Warp& warp = warps[slot * nb_warps + i / 32];
        if (i % 32 == 0) {
            warp = umx_emulated::Warp();
            warp.barrier.what = "a barrier or shuffle of a warp";
            warp.barrier.expected = std::min(nb_threads - i, 32u);
        }
        Fiber& fiber = fibers[slot * nb_threads + i];
        fiber.number = slot * nb_threads + i;
        fiber.linear = i;
        fiber.index = {i % size[0], i / size[0] % size[1], i / size[0] / size[1]};
        fiber.block = &block;
        fiber.warp = &warp;
        fiber.lane = i % 32;
        fiber.machine.begin(fiber_main, stacks, fiber.number);
        make_ready(&fiber);
    }
}

void finish_block(BlockState& block) {
    if (!block.memory.intact())
        stop("block " + name_of(block.index) +
             text(" writes outside of its shared memory of %zu bytes", block.memory.bytes));
}

// ------------------------------------------------------------------ rounds

void put_in_order(std::vector<size_t>& round) {
    if (launch->order == SHUFFLED) {
        for (size_t i = round.size(); i > 1; --i) std::swap(round[i - 1], round[random_below(i)]);
        return;
    }
    if (!std::is_sorted(round.begin(), round.end())) std::sort(round.begin(), round.end());
    if (launch->order == DESCENDING) std::reverse(round.begin(), round.end());
}

void check_polling() {
    if (!nb_polling) return;
    for (Fiber& fiber : fibers) {
        if (fiber.state != POLLING) continue;
        umx_emulated::current = &fiber;
        if (fiber.condition(fiber.context)) {
            --nb_polling;
            make_ready(&fiber);
        }
    }
    umx_emulated::current = nullptr;
}

// Whether the next round has anybody.
bool find_ready() {
    check_polling();
    return !next_round.empty();
}

// Run the blocks that are alive until all have returned.
void run_blocks() {
    std::vector<size_t> round;
    size_t nb_idle_rounds = 0;
    while (true) {
        if (expired) stop_expired();
        if (launch->order == SHUFFLED && random_below(2)) {
            next_round.insert(next_round.end(), paused.begin(), paused.end());
            paused.clear();
        }
        if (!find_ready()) {
            // Only loops that wait are left; one of them may find what it waits for.
            if (paused.empty() || ++nb_idle_rounds > IDLE_ROUNDS) break;
            next_round.swap(paused);
        }
        round.swap(next_round);
        next_round.clear();
        put_in_order(round);
        for (size_t number : round) {
            Fiber& fiber = fibers[number];
            fiber.state = READY;
            umx_emulated::current = &fiber;
            scheduler.leave_for(fiber.machine);
            umx_emulated::current = nullptr;
            if (fiber.state != PAUSED) nb_idle_rounds = 0;
            if (fiber.state == RETURNED) {
                auto& block = *static_cast<BlockState*>(fiber.block);
                if (--block.nb_running == 0) finish_block(block);
            }
        }
    }
    for (const BlockState& block : blocks)
        if (block.nb_running) stop_stuck();
}

void run_grid() {
    const unsigned *grid = launch->grid, *size = launch->block;
    const size_t nb_threads = size_t(size[0]) * size[1] * size[2];
    const size_t nb_blocks = size_t(grid[0]) * grid[1] * grid[2];
    const size_t nb_alive = launch->together ? nb_blocks : 1;
    stacks.reserve(nb_alive * nb_threads);
    fibers.assign(nb_alive * nb_threads, Fiber());
    blocks.assign(nb_alive, BlockState());
    warps.assign(nb_alive * ((nb_threads + 31) / 32), umx_emulated::Warp());

    std::vector<size_t> waves(nb_blocks / nb_alive);
    for (size_t i = 0; i < waves.size(); ++i) waves[i] = i;
    put_in_order(waves);
    for (size_t wave : waves) {
        for (size_t i = 0; i < nb_alive; ++i) start_block(blocks[i], wave * nb_alive + i, i);
        run_blocks();
    }
}

void check_arrays() {
    for (auto& entry : arrays) {
        if (entry.second.intact()) continue;
        entry.second.repair();
        if (failure.empty())
            failure = text("it writes outside of an array of %zu bytes", entry.second.bytes);
    }
}

}  // namespace

// ------------------------------------------------------------------ what Python calls

extern "C" {

void* umx_allocate(size_t bytes) {
    Guarded array;
    array.allocate(bytes);
    arrays[array.first] = array;
    return array.first;
}

void umx_free(void* first) {
    const auto entry = arrays.find(static_cast<unsigned char*>(first));
    entry->second.release();
    arrays.erase(entry);
}

// 0, or 1 with a message. One launch at a time.
int umx_launch(const Launch* what, char* message, size_t message_bytes) {
    launch = what;
    launching_thread = pthread_self();
    random_state = (what->seed + 1) * 0x9e3779b97f4a7c15ull;
    umx_emulated::grid_size = {what->grid[0], what->grid[1], what->grid[2]};
    umx_emulated::block_size = {what->block[0], what->block[1], what->block[2]};
    umx_emulated::current = nullptr;
    failure.clear();
    next_round.clear();
    paused.clear();
    nb_polling = 0;
    expired = 0;

    // On a stack of its own, because a fiber may have run out of its stack.
    static unsigned char signal_stack[64 * 1024];
    stack_t ours = {}, theirs;
    ours.ss_sp = signal_stack;
    ours.ss_size = sizeof signal_stack;
    sigaltstack(&ours, &theirs);
    struct sigaction action = {}, before[NB_SIGNALS];
    action.sa_sigaction = on_signal;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    for (size_t i = 0; i < NB_SIGNALS; ++i) sigaction(SIGNALS[i], &action, &before[i]);
    itimerval limit = {}, no_limit = {};
    limit.it_value.tv_sec = time_t(what->seconds);
    limit.it_value.tv_usec = suseconds_t((what->seconds - double(time_t(what->seconds))) * 1e6);
    setitimer(ITIMER_REAL, &limit, nullptr);

    if (sigsetjmp(escape, 1) == 0) run_grid();
    check_arrays();

    setitimer(ITIMER_REAL, &no_limit, nullptr);
    for (size_t i = 0; i < NB_SIGNALS; ++i) sigaction(SIGNALS[i], &before[i], nullptr);
    sigaltstack(&theirs, nullptr);
    for (BlockState& block : blocks) block.memory.release();
    blocks.clear();
    umx_emulated::current = nullptr;
    if (failure.empty()) return 0;
    snprintf(message, message_bytes, "%s", failure.c_str());
    return 1;
}

}  // extern "C"
