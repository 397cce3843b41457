#include "work.h"

#include <map>

#include "control.h"
#include "memory.h"

namespace emulator {

namespace {

std::map<const void*, Handle>& handles() {
    static std::map<const void*, Handle> all;
    return all;
}

const char* name_of(Handle kind) {
    switch (kind) {
    case Handle::Context: return "context";
    case Handle::Stream: return "stream";
    case Handle::Event: return "event";
    case Handle::Graph: return "graph";
    case Handle::GraphExec: return "executable graph";
    default: return "module";
    }
}

}  // namespace

void made(Handle kind, void* handle) {
    handles()[handle] = kind;
    note("+%s %p", name_of(kind), handle);
}

bool gone(Handle kind, void* handle) {
    if (!alive(kind, handle)) return false;
    handles().erase(handle);
    note("-%s %p", name_of(kind), handle);
    return true;
}

bool alive(Handle kind, const void* handle) {
    auto found = handles().find(handle);
    return found != handles().end() && found->second == kind;
}

void enqueue(Stream& stream, Work work) {
    if (stream.capturing)
        stream.captured.push_back(std::move(work));
    else
        stream.pending.push_back(std::move(work));
}

int run(Stream& stream, const Mark* until) {
    Reach reach;
    while (!stream.pending.empty() && !(until && until->reached)) {
        Work work = std::move(stream.pending.front());
        stream.pending.pop_front();
        if (int code = work()) poison(code);
        if (poisoned()) return poisoned();
    }
    return SUCCESS;
}

int run_everything() {
    for (auto& item : handles())
        if (item.second == Handle::Stream)
            if (int code = run(*static_cast<Stream*>(const_cast<void*>(item.first)), nullptr)) return code;
    return SUCCESS;
}

}  // namespace emulator
