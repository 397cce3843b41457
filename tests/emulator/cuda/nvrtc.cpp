// An NVRTC whose images are the source itself: only the emulated driver can load them.

#include <cstring>
#include <string>

#include "control.h"

#define EXPORT extern "C" __attribute__((visibility("default")))

using namespace emulator;

namespace {

// Of `nvrtcResult`.
enum Answer { FINE = 0, INVALID_OPTION = 5, COMPILATION = 6 };

struct Program {
    std::string source, log, cubin, ptx;
};

// One for each profile, and no more.
const int ARCHITECTURES[] = {53, 72, 87, 90};

int copy_out(const std::string& text, char* to) {
    std::memcpy(to, text.c_str(), text.size() + 1);
    return FINE;
}

}  // namespace

EXPORT int nvrtcVersion(int* major, int* minor) {
    *major = 12;
    *minor = 9;
    return FINE;
}

EXPORT const char* nvrtcGetErrorString(int answer) {
    return answer == FINE ? "NVRTC_SUCCESS" : answer == COMPILATION ? "NVRTC_ERROR_COMPILATION" : "NVRTC_ERROR_INVALID_OPTION";
}

EXPORT int nvrtcGetNumSupportedArchs(int* count) {
    *count = sizeof ARCHITECTURES / sizeof *ARCHITECTURES;
    return FINE;
}

EXPORT int nvrtcGetSupportedArchs(int* numbers) {
    std::memcpy(numbers, ARCHITECTURES, sizeof ARCHITECTURES);
    return FINE;
}

EXPORT int nvrtcCreateProgram(Program** program, const char* source, const char*, int, const char* const*,
                              const char* const*) {
    *program = new Program{source, "", "", ""};
    return FINE;
}

EXPORT int nvrtcDestroyProgram(Program** program) {
    delete *program;
    *program = nullptr;
    return FINE;
}

EXPORT int nvrtcCompileProgram(Program* program, int count, const char* const* options) {
    Call call("nvrtcCompileProgram");
    if (program->source.find("#error") != std::string::npos) {
        program->log = "error: #error in the source";
        return COMPILATION;
    }
    for (int index = 0; index < count; index++) {
        std::string option = options[index];
        const std::string wanted = "--gpu-architecture=";
        if (option.compare(0, wanted.size(), wanted) == 0) {
            std::string architecture = option.substr(wanted.size());
            if (architecture.compare(0, 3, "sm_") == 0)
                program->cubin = "EMULATED IMAGE " + architecture + "\n" + program->source;
            program->ptx = "EMULATED PTX " + architecture + "\n" + program->source;
        } else if (option != "--std=c++14") {
            return INVALID_OPTION;
        }
    }
    return FINE;
}

EXPORT int nvrtcGetProgramLogSize(Program* program, size_t* size) {
    *size = program->log.size() + 1;
    return FINE;
}

EXPORT int nvrtcGetProgramLog(Program* program, char* log) {
    return copy_out(program->log, log);
}

EXPORT int nvrtcGetCUBINSize(Program* program, size_t* size) {
    *size = program->cubin.size() + 1;
    return FINE;
}

EXPORT int nvrtcGetCUBIN(Program* program, char* cubin) {
    return copy_out(program->cubin, cubin);
}

EXPORT int nvrtcGetPTXSize(Program* program, size_t* size) {
    *size = program->ptx.size() + 1;
    return FINE;
}

EXPORT int nvrtcGetPTX(Program* program, char* ptx) {
    return copy_out(program->ptx, ptx);
}
