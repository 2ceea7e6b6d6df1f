// Memory whose misuse shows: it is filled with a pattern, and ends at a page that cannot be touched.
#pragma once

#include <string.h>

#include <algorithm>

#include "fiber.h"

namespace {

// A quiet NaN as float and as double, -1 as an integer.
constexpr unsigned char UNWRITTEN = 0xff;
// Where nobody may write.
constexpr unsigned char CANARY = 0xa5;

inline size_t round_up(size_t n, size_t unit) { return (n + unit - 1) / unit * unit; }

struct Guarded {
    size_t bytes = 0;
    unsigned char* first = nullptr;  // aligned to 16, and to no more
    unsigned char* pages = nullptr;
    size_t nb_pages = 0;

    void allocate(size_t nb_bytes) {
        bytes = nb_bytes;
        nb_pages = round_up(std::max(bytes, size_t(1)), PAGE) / PAGE + 2;
        pages = static_cast<unsigned char*>(
            mmap(nullptr, nb_pages * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
        mprotect(pages + PAGE, inner(), PROT_READ | PROT_WRITE);
        first = end() - round_up(bytes, 16);
        memset(pages + PAGE, CANARY, inner());
        memset(first, UNWRITTEN, bytes);
    }
    // Make it intact again, so that a mistake is reported once.
    void repair() {
        memset(pages + PAGE, CANARY, static_cast<size_t>(first - pages) - PAGE);
        memset(first + bytes, CANARY, static_cast<size_t>(end() - first) - bytes);
    }
    void release() {
        if (pages) munmap(pages, nb_pages * PAGE);
        pages = nullptr;
    }
    bool intact() const {
        const auto clean = [](const unsigned char* from, const unsigned char* to) {
            return std::all_of(from, to, [](unsigned char byte) { return byte == CANARY; });
        };
        return clean(pages + PAGE, first) && clean(first + bytes, end());
    }
    // Whether an address is of this memory or of the pages around it.
    bool near(const unsigned char* address) const {
        return address >= pages && address < pages + nb_pages * PAGE;
    }
    unsigned char* end() const { return pages + PAGE + inner(); }
    size_t inner() const { return (nb_pages - 2) * PAGE; }
};

}  // namespace
