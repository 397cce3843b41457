#include "memory.h"

#include <cstdlib>
#include <cstring>
#include <map>

#include <sys/mman.h>
#include <unistd.h>

#include "control.h"

namespace emulator {

namespace {

struct Allocation {
    Kind kind;
    // All pages, a forbidden one behind them included.
    char* pages;
    size_t pages_bytes;
    size_t bytes;
    // Managed memory only.
    bool host_has_it;
};

// What drivers align to.
const size_t ALIGNMENT = 256;
// Behind a buffer, up to the forbidden page.
const unsigned char WATCHED = 0xa5;
const size_t PAGE = static_cast<size_t>(sysconf(_SC_PAGESIZE));

std::map<char*, Allocation>& allocations() {
    static std::map<char*, Allocation> all;
    return all;
}

size_t used = 0;

size_t rounded(size_t bytes, size_t to) {
    return (bytes + to - 1) / to * to;
}

const char* name_of(Kind kind) {
    return kind == Kind::Device ? "device" : kind == Kind::Pinned ? "pinned" : "managed";
}

// How many `Reach` there are: one may be made inside another, where a stream waits for a second one.
int reaches = 0;

void protect(const Allocation& allocation) {
    if (reaches) return;
    bool host = allocation.kind == Kind::Pinned || (allocation.kind == Kind::Managed && allocation.host_has_it);
    mprotect(allocation.pages, allocation.pages_bytes - PAGE, host ? PROT_READ | PROT_WRITE : PROT_NONE);
}

// The allocation that holds these bytes.
std::map<char*, Allocation>::iterator find(const void* address, size_t bytes) {
    char* start = static_cast<char*>(const_cast<void*>(address));
    auto next = allocations().upper_bound(start);
    if (next == allocations().begin()) return allocations().end();
    auto found = std::prev(next);
    size_t offset = static_cast<size_t>(start - found->first);
    bool inside = offset <= found->second.bytes && bytes <= found->second.bytes - offset;
    return inside ? found : allocations().end();
}

}  // namespace

void* allocate(Kind kind, size_t bytes) {
    if (bytes > memory_free()) return nullptr;
    size_t occupied = rounded(bytes, ALIGNMENT), pages_bytes = rounded(occupied, PAGE) + PAGE;
    void* mapped = mmap(nullptr, pages_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapped == MAP_FAILED) return nullptr;
    char* pages = static_cast<char*>(mapped);
    char* forbidden = pages + pages_bytes - PAGE;
    mprotect(forbidden, PAGE, PROT_NONE);
    char* start = forbidden - occupied;
    std::memset(start, 0xcd, bytes);
    std::memset(start + bytes, WATCHED, occupied - bytes);
    Allocation allocation{kind, pages, pages_bytes, bytes, true};
    allocations()[start] = allocation;
    protect(allocation);
    used += bytes;
    note("+%s %p", name_of(kind), static_cast<void*>(start));
    return start;
}

bool release(void* address, bool pinned) {
    auto found = allocations().find(static_cast<char*>(address));
    if (found == allocations().end() || (found->second.kind == Kind::Pinned) != pinned) return false;
    Allocation allocation = found->second;
    mprotect(allocation.pages, allocation.pages_bytes - PAGE, PROT_READ);
    for (char* byte = found->first + allocation.bytes; byte < allocation.pages + allocation.pages_bytes - PAGE; byte++)
        if (static_cast<unsigned char>(*byte) != WATCHED)
            fatal("something was written %zu bytes behind a buffer of %zu", byte - found->first - allocation.bytes,
                  allocation.bytes);
    munmap(allocation.pages, allocation.pages_bytes);
    allocations().erase(found);
    used -= allocation.bytes;
    note("-%s %p", name_of(allocation.kind), address);
    return true;
}

bool device_reaches(const void* address, size_t bytes) {
    return find(address, bytes) != allocations().end();
}

bool is_pinned(const void* address, size_t bytes) {
    auto found = find(address, bytes);
    return found != allocations().end() && found->second.kind == Kind::Pinned;
}

size_t memory_total() {
    static const size_t total = std::strtoull(setting("REVOADA_EMULATOR_MEMORY", "1073741824").c_str(), nullptr, 10);
    return total;
}

size_t memory_free() {
    return memory_total() > used ? memory_total() - used : 0;
}

bool attach(void* address, bool to_host) {
    auto found = allocations().find(static_cast<char*>(address));
    if (found == allocations().end() || found->second.kind != Kind::Managed) return false;
    found->second.host_has_it = to_host;
    protect(found->second);
    return true;
}

Reach::Reach() {
    if (reaches++) return;
    for (auto& item : allocations())
        mprotect(item.second.pages, item.second.pages_bytes - PAGE, PROT_READ | PROT_WRITE);
}

Reach::~Reach() {
    if (--reaches) return;
    for (auto& item : allocations()) protect(item.second);
}

}  // namespace emulator
