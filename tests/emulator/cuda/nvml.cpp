// An NVML that knows one card and says what it is told to: by NVIDIA's documentation of the library.

#include <cstdlib>
#include <cstring>
#include <string>

#include "control.h"

#define EXPORT extern "C" __attribute__((visibility("default")))

using namespace emulator;

namespace {

// Of `nvmlReturn_t`.
enum Answer { FINE = 0, UNINITIALIZED = 1, NOT_SUPPORTED = 3, NOT_THERE = 6 };

int users = 0;
int card;
unsigned long long counted = 0;

}  // namespace

EXPORT const char* nvmlErrorString(int answer) {
    switch (answer) {
    case FINE: return "Success";
    case UNINITIALIZED: return "Uninitialized";
    case NOT_SUPPORTED: return "Not Supported";
    case NOT_THERE: return "Not Found";
    default: return "Unknown Error";
    }
}

EXPORT int nvmlInit_v2() {
    Call call("nvmlInit_v2");
    if (users++ == 0) note("+NVML");
    return FINE;
}

EXPORT int nvmlShutdown() {
    Call call("nvmlShutdown");
    if (!users) return UNINITIALIZED;
    if (--users == 0) note("-NVML");
    return FINE;
}

// The driver says that its device is there.
EXPORT int nvmlDeviceGetHandleByPciBusId_v2(const char* bus_id, void** handle) {
    Call call("nvmlDeviceGetHandleByPciBusId_v2");
    if (!users) return UNINITIALIZED;
    if (std::strcmp(bus_id, "00000000:07:00.0")) return NOT_THERE;
    *handle = &card;
    return FINE;
}

EXPORT int nvmlDeviceGetPowerUsage(void* handle, unsigned* milliwatts) {
    Call call("nvmlDeviceGetPowerUsage");
    if (!users) return UNINITIALIZED;
    if (handle != &card) fatal("a card that is none was asked for its power");
    std::string power = setting("REVOADA_EMULATOR_MILLIWATTS", ""), energy = setting("REVOADA_EMULATOR_MILLIJOULES", "");
    if (power.empty() && energy.empty()) return NOT_SUPPORTED;
    // Who counts energy is not to be asked for power alone.
    *milliwatts = power.empty() ? 1 : static_cast<unsigned>(std::atoi(power.c_str()));
    return FINE;
}

EXPORT int nvmlDeviceGetTotalEnergyConsumption(void* handle, unsigned long long* millijoules) {
    Call call("nvmlDeviceGetTotalEnergyConsumption");
    if (!users) return UNINITIALIZED;
    if (handle != &card) fatal("a card that is none was asked for its energy");
    std::string energy = setting("REVOADA_EMULATOR_MILLIJOULES", "");
    if (energy.empty()) return NOT_SUPPORTED;
    counted += static_cast<unsigned long long>(std::atoi(energy.c_str()));
    *millijoules = counted;
    return FINE;
}
