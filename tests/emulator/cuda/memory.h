// Memory of the emulated device: pages of the CPU's, out of its reach unless they are meant for it.
#pragma once

#include <cstddef>
#include <cstdint>

namespace emulator {

enum class Kind { Device, Pinned, Managed };

// Allocates, or returns null where the device has no more.
void* allocate(Kind kind, size_t bytes);
// Whether it was allocated; ends the program where bytes behind it were written.
bool release(void* address, bool pinned);

// Whether `bytes` from `address` on lie in one allocation that the device reaches.
bool device_reaches(const void* address, size_t bytes);
// The same of page-locked memory.
bool is_pinned(const void* address, size_t bytes);

size_t memory_total();
size_t memory_free();

// Gives managed memory to the CPU or the device; whether it is managed memory.
bool attach(void* address, bool to_host);

// While one is there, all memory can be touched.
class Reach {
  public:
    Reach();
    ~Reach();
};

}  // namespace emulator
