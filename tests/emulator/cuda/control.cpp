#include "control.h"

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <vector>

#include <fcntl.h>
#include <unistd.h>

namespace emulator {

namespace {

struct Failure {
    std::string function;
    unsigned nth;
    int code;
};

std::recursive_mutex& mutex() {
    static std::recursive_mutex one;
    return one;
}

int broken = SUCCESS;

bool breaks_context(int code) {
    return code == 214 || (code >= 700 && code <= 719 && code != 704 && code != 705);
}

// `cuMemAlloc_v2:3:2,cuLaunchKernel:1:700`
std::vector<Failure> read_failures() {
    std::vector<Failure> failures;
    std::string text = setting("REVOADA_EMULATOR_FAIL", "");
    for (size_t start = 0; start < text.size();) {
        size_t end = text.find(',', start);
        if (end == std::string::npos) end = text.size();
        std::string item = text.substr(start, end - start);
        size_t first = item.find(':'), second = item.rfind(':');
        if (first == std::string::npos || first == second) fatal("`%s` is no failure", item.c_str());
        failures.push_back({item.substr(0, first), static_cast<unsigned>(std::atoi(item.c_str() + first + 1)),
                            std::atoi(item.c_str() + second + 1)});
        start = end + 1;
    }
    return failures;
}

void write_line(int file, const char* format, va_list arguments) {
    char line[512];
    int length = std::vsnprintf(line, sizeof line - 1, format, arguments);
    if (length < 0) return;
    if (length > static_cast<int>(sizeof line) - 2) length = sizeof line - 2;
    line[length] = '\n';
    // One write, so that lines of two libraries do not mix. A log that cannot be written shows in the test.
    if (write(file, line, length + 1) < 0) return;
}

}  // namespace

std::string setting(const char* name, const char* otherwise) {
    const char* value = std::getenv(name);
    return value ? value : otherwise;
}

void note(const char* format, ...) {
    static const int file = [] {
        std::string path = setting("REVOADA_EMULATOR_LOG", "");
        return path.empty() ? -1 : open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    }();
    if (file < 0) return;
    va_list arguments;
    va_start(arguments, format);
    write_line(file, format, arguments);
    va_end(arguments);
}

void fatal(const char* format, ...) {
    va_list arguments;
    va_start(arguments, format);
    std::fputs("emulator: ", stderr);
    write_line(STDERR_FILENO, format, arguments);
    va_end(arguments);
    std::abort();
}

Call::Call(const char* function) : refused(SUCCESS), alone(mutex()) {
    static const std::vector<Failure> failures = read_failures();
    static std::map<std::string, unsigned> counts;
    note("%s", function);
    unsigned nth = ++counts[function];
    refused = broken;
    if (refused) return;
    for (const Failure& failure : failures) {
        if (failure.function != function || failure.nth != nth) continue;
        if (breaks_context(failure.code) && std::strstr(function, "Launch")) {
            breaks = failure.code;
            return;
        }
        refused = failure.code;
        if (breaks_context(failure.code)) poison(failure.code);
        return;
    }
}

void poison(int code) {
    if (!broken) broken = code;
}

int poisoned() {
    return broken;
}

}  // namespace emulator
