// What the emulator is told by the environment, and what it tells: the log.
#pragma once

#include <mutex>
#include <string>

namespace emulator {

// The codes of `CUresult` that the emulator gives by itself.
enum Code : int {
    SUCCESS = 0,
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    NO_DEVICE = 100,
    INVALID_DEVICE = 101,
    INVALID_IMAGE = 200,
    INVALID_CONTEXT = 201,
    NO_BINARY_FOR_GPU = 209,
    INVALID_HANDLE = 400,
    NOT_FOUND = 500,
    NOT_READY = 600,
    CAPTURE_UNSUPPORTED = 900,
    CAPTURE_UNMATCHED = 903,
    CAPTURE_ISOLATION = 905,
    CAPTURED_EVENT = 907,
};

// A setting, or what stands for it where the environment is silent.
std::string setting(const char* name, const char* otherwise);

// Appends a line to the log.
void note(const char* format, ...) __attribute__((format(printf, 1, 2)));

// Says what is wrong with the program under test, and ends it.
[[noreturn]] void fatal(const char* format, ...) __attribute__((format(printf, 1, 2)));

// One call of a function: counted, noted, alone in the emulator until it is destroyed.
class Call {
  public:
    explicit Call(const char* function);
    // The code that it has to answer at once, 0 where it may go on.
    int refused;
    // For a launch that was told to break the context: with which code, when it runs.
    int breaks = SUCCESS;

  private:
    std::unique_lock<std::recursive_mutex> alone;
};

// Breaks the context: every later call answers `code`.
void poison(int code);
int poisoned();

}  // namespace emulator
