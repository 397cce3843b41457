// Streams, events and graphs: work that runs as late as it may.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <vector>

namespace emulator {

// Something to do; answers a code of `CUresult`.
using Work = std::function<int()>;

struct Stream;

// One recording of an event.
struct Mark {
    bool reached = false;
    Stream* stream = nullptr;
    double milliseconds = 0;
};

struct Event {
    bool timed;
    // Recorded while its stream was captured.
    bool captured = false;
    std::shared_ptr<Mark> mark;
};

struct Stream {
    std::deque<Work> pending;
    bool capturing = false;
    // What may not be captured was asked for.
    int capture_broken = 0;
    std::vector<Work> captured;
};

struct Graph {
    std::vector<Work> work;
};

// Every handle given out, with what it is.
enum class Handle { Context, Stream, Event, Graph, GraphExec, Module };
void made(Handle kind, void* handle);
// Whether it was alive.
bool gone(Handle kind, void* handle);
bool alive(Handle kind, const void* handle);

// Takes work, or captures it.
void enqueue(Stream& stream, Work work);
// Runs what a stream holds, up to and including a mark where one is given.
int run(Stream& stream, const Mark* until);
int run_everything();

}  // namespace emulator
