// The entry points of the driver that our code calls, by NVIDIA's documentation of the driver API.

#include <chrono>
#include <cstring>
#include <string>

#include "control.h"
#include "kernels.h"
#include "memory.h"
#include "work.h"

#define EXPORT extern "C" __attribute__((visibility("default")))

// Ends the function where the call was told to fail.
#define ENTER(function)                                                                                                \
    Call call(function);                                                                                               \
    if (call.refused) return call.refused

// The same for functions that need a current context.
#define ENTER_CONTEXT(function)                                                                                        \
    ENTER(function);                                                                                                   \
    if (!current_context) return INVALID_CONTEXT

using namespace emulator;

namespace {

struct Profile {
    const char* name;
    int major, minor, multiprocessors;
    bool integrated, concurrent_managed;
};

const Profile* profile() {
    static const Profile known[] = {
        {"nano", 5, 3, 1, true, false},
        {"orin", 8, 7, 16, true, false},
        {"discrete", 9, 0, 132, false, true},
    };
    static const std::string wanted = setting("REVOADA_EMULATOR_DEVICE", "discrete");
    for (const Profile& one : known)
        if (wanted == one.name) return &one;
    return nullptr;
}

struct Context {
    int users = 0;
};
Context primary;
thread_local Context* current_context = nullptr;

struct Module {
    std::string image;
};

struct Name {
    int code;
    const char* name;
    const char* text;
};

const Name* name_of(int code) {
    static const Name names[] = {
        {SUCCESS, "CUDA_SUCCESS", "no error"},
        {INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
        {OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
        {NO_DEVICE, "CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"},
        {INVALID_DEVICE, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"},
        {INVALID_IMAGE, "CUDA_ERROR_INVALID_IMAGE", "device kernel image is invalid"},
        {INVALID_CONTEXT, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context"},
        {NO_BINARY_FOR_GPU, "CUDA_ERROR_NO_BINARY_FOR_GPU", "no kernel image is available for execution on the device"},
        {INVALID_HANDLE, "CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"},
        {NOT_FOUND, "CUDA_ERROR_NOT_FOUND", "named symbol not found"},
        {NOT_READY, "CUDA_ERROR_NOT_READY", "device not ready"},
        {700, "CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access was encountered"},
        {719, "CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure"},
        {CAPTURE_UNSUPPORTED, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED", "operation not permitted when stream is capturing"},
        {CAPTURE_UNMATCHED, "CUDA_ERROR_STREAM_CAPTURE_UNMATCHED", "the capture was not initiated in this stream"},
        {CAPTURE_ISOLATION, "CUDA_ERROR_STREAM_CAPTURE_ISOLATION", "dependency created on uncaptured work in another stream"},
        {CAPTURED_EVENT, "CUDA_ERROR_CAPTURED_EVENT", "operation not permitted on an event last recorded in a capturing stream"},
    };
    for (const Name& name : names)
        if (name.code == code) return &name;
    return nullptr;
}

double now_milliseconds() {
    auto since = std::chrono::steady_clock::now().time_since_epoch();
    return std::chrono::duration<double, std::milli>(since).count();
}

// What is no part of a graph, asked of a stream that is captured.
int refuse_capture(Stream& stream) {
    if (!stream.capturing) return SUCCESS;
    stream.capture_broken = CAPTURE_UNSUPPORTED;
    return CAPTURE_UNSUPPORTED;
}

// How long an ELF file is whose section headers come last, as they do.
size_t elf_size(const char* image) {
    uint64_t sections, segments;
    uint16_t segment_bytes, segment_count, section_bytes, section_count;
    std::memcpy(&segments, image + 32, 8);
    std::memcpy(&sections, image + 40, 8);
    std::memcpy(&segment_bytes, image + 54, 2);
    std::memcpy(&segment_count, image + 56, 2);
    std::memcpy(&section_bytes, image + 58, 2);
    std::memcpy(&section_count, image + 60, 2);
    uint64_t after_sections = sections + uint64_t(section_bytes) * section_count;
    uint64_t after_segments = segments + uint64_t(segment_bytes) * segment_count;
    return after_sections > after_segments ? after_sections : after_segments;
}

}  // namespace

EXPORT int cuGetErrorName(int code, const char** text) {
    const Name* name = name_of(code);
    *text = name ? name->name : nullptr;
    return name ? SUCCESS : INVALID_VALUE;
}

EXPORT int cuGetErrorString(int code, const char** text) {
    const Name* name = name_of(code);
    *text = name ? name->text : nullptr;
    return name ? SUCCESS : INVALID_VALUE;
}

EXPORT int cuInit(unsigned flags) {
    ENTER("cuInit");
    if (flags) return INVALID_VALUE;
    return profile() ? SUCCESS : NO_DEVICE;
}

// NVIDIA's own libraries ask for private functions by identifier, NVRTC among them. There are none.
EXPORT int cuGetExportTable(const void** table, const void*) {
    ENTER("cuGetExportTable");
    *table = nullptr;
    return NOT_FOUND;
}

EXPORT int cuDriverGetVersion(int* version) {
    ENTER("cuDriverGetVersion");
    *version = 12020;
    return SUCCESS;
}

EXPORT int cuDeviceGetCount(int* count) {
    ENTER("cuDeviceGetCount");
    *count = 1;
    return SUCCESS;
}

EXPORT int cuDeviceGet(int* device, int ordinal) {
    ENTER("cuDeviceGet");
    *device = 0;
    return ordinal == 0 ? SUCCESS : INVALID_DEVICE;
}

EXPORT int cuDeviceGetName(char* name, int length, int device) {
    ENTER("cuDeviceGetName");
    if (device != 0 || length <= 0) return INVALID_VALUE;
    std::string text = std::string("emulator (") + profile()->name + ")";
    std::strncpy(name, text.c_str(), static_cast<size_t>(length) - 1);
    name[length - 1] = 0;
    return SUCCESS;
}

EXPORT int cuDeviceTotalMem_v2(size_t* bytes, int device) {
    ENTER("cuDeviceTotalMem_v2");
    *bytes = memory_total();
    return device == 0 ? SUCCESS : INVALID_DEVICE;
}

EXPORT int cuDeviceGetAttribute(int* value, int attribute, int device) {
    ENTER("cuDeviceGetAttribute");
    if (device != 0) return INVALID_DEVICE;
    const Profile& is = *profile();
    switch (attribute) {
    case 16: *value = is.multiprocessors; return SUCCESS;
    case 18: *value = is.integrated; return SUCCESS;
    case 19: *value = 1; return SUCCESS;  // maps memory of the host
    case 33: *value = 7; return SUCCESS;  // bus of PCI
    case 34: *value = 0; return SUCCESS;  // device there
    case 41: *value = 1; return SUCCESS;  // unified addressing
    case 50: *value = 0; return SUCCESS;  // domain of PCI
    case 75: *value = is.major; return SUCCESS;
    case 76: *value = is.minor; return SUCCESS;
    case 83: *value = 1; return SUCCESS;  // managed memory
    case 89: *value = is.concurrent_managed; return SUCCESS;
    default: return INVALID_VALUE;
    }
}

EXPORT int cuDevicePrimaryCtxRetain(Context** context, int device) {
    ENTER("cuDevicePrimaryCtxRetain");
    if (device != 0) return INVALID_DEVICE;
    if (primary.users++ == 0) made(Handle::Context, &primary);
    *context = &primary;
    return SUCCESS;
}

EXPORT int cuDevicePrimaryCtxRelease_v2(int device) {
    ENTER("cuDevicePrimaryCtxRelease_v2");
    if (device != 0 || primary.users == 0) return INVALID_CONTEXT;
    if (--primary.users == 0) gone(Handle::Context, &primary);
    return SUCCESS;
}

EXPORT int cuCtxSetCurrent(Context* context) {
    ENTER("cuCtxSetCurrent");
    if (context && !alive(Handle::Context, context)) return INVALID_CONTEXT;
    current_context = context;
    return SUCCESS;
}

EXPORT int cuCtxSynchronize() {
    ENTER_CONTEXT("cuCtxSynchronize");
    return run_everything();
}

EXPORT int cuMemGetInfo_v2(size_t* free, size_t* total) {
    ENTER_CONTEXT("cuMemGetInfo_v2");
    *free = memory_free();
    *total = memory_total();
    return SUCCESS;
}

EXPORT int cuMemAlloc_v2(void** address, size_t bytes) {
    ENTER_CONTEXT("cuMemAlloc_v2");
    if (bytes == 0) return INVALID_VALUE;
    *address = allocate(Kind::Device, bytes);
    return *address ? SUCCESS : OUT_OF_MEMORY;
}

EXPORT int cuMemAllocManaged(void** address, size_t bytes, unsigned flags) {
    ENTER_CONTEXT("cuMemAllocManaged");
    if (bytes == 0 || (flags != 1 && flags != 2)) return INVALID_VALUE;
    *address = allocate(Kind::Managed, bytes);
    if (!*address) return OUT_OF_MEMORY;
    attach(*address, profile()->concurrent_managed || flags == 2);
    return SUCCESS;
}

EXPORT int cuMemHostAlloc(void** address, size_t bytes, unsigned) {
    ENTER_CONTEXT("cuMemHostAlloc");
    if (bytes == 0) return INVALID_VALUE;
    *address = allocate(Kind::Pinned, bytes);
    return *address ? SUCCESS : OUT_OF_MEMORY;
}

EXPORT int cuMemFree_v2(void* address) {
    ENTER_CONTEXT("cuMemFree_v2");
    if (int code = run_everything()) return code;
    return release(address, false) ? SUCCESS : INVALID_VALUE;
}

// Unlike memory of the device, this is gone at once, whoever still uses it.
EXPORT int cuMemFreeHost(void* address) {
    ENTER_CONTEXT("cuMemFreeHost");
    return release(address, true) ? SUCCESS : INVALID_VALUE;
}

EXPORT int cuMemHostGetDevicePointer_v2(void** device, void* host, unsigned flags) {
    ENTER_CONTEXT("cuMemHostGetDevicePointer_v2");
    if (flags || !is_pinned(host, 1)) return INVALID_VALUE;
    *device = host;
    return SUCCESS;
}

EXPORT int cuMemcpyHtoDAsync_v2(void* target, const void* source, size_t bytes, Stream* stream) {
    ENTER_CONTEXT("cuMemcpyHtoDAsync_v2");
    if (!alive(Handle::Stream, stream)) return INVALID_HANDLE;
    if (!device_reaches(target, bytes)) return INVALID_VALUE;
    bool pinned = is_pinned(source, bytes);
    enqueue(*stream, [=] {
        if (pinned && !is_pinned(source, bytes)) fatal("a copy from page-locked memory outlives the memory");
        std::memcpy(target, source, bytes);
        return SUCCESS;
    });
    // Other memory may be reused as soon as the call is over.
    return pinned || stream->capturing ? SUCCESS : run(*stream, nullptr);
}

EXPORT int cuMemcpyDtoHAsync_v2(void* target, const void* source, size_t bytes, Stream* stream) {
    ENTER_CONTEXT("cuMemcpyDtoHAsync_v2");
    if (!alive(Handle::Stream, stream)) return INVALID_HANDLE;
    if (!device_reaches(source, bytes)) return INVALID_VALUE;
    bool pinned = is_pinned(target, bytes);
    enqueue(*stream, [=] {
        if (pinned && !is_pinned(target, bytes)) fatal("a copy into page-locked memory outlives the memory");
        std::memcpy(target, source, bytes);
        return SUCCESS;
    });
    return pinned || stream->capturing ? SUCCESS : run(*stream, nullptr);
}

EXPORT int cuMemsetD8Async(void* target, unsigned char byte, size_t bytes, Stream* stream) {
    ENTER_CONTEXT("cuMemsetD8Async");
    if (!alive(Handle::Stream, stream)) return INVALID_HANDLE;
    if (!device_reaches(target, bytes)) return INVALID_VALUE;
    enqueue(*stream, [=] {
        std::memset(target, byte, bytes);
        return SUCCESS;
    });
    return SUCCESS;
}

EXPORT int cuStreamCreate(Stream** stream, unsigned) {
    ENTER_CONTEXT("cuStreamCreate");
    *stream = new Stream();
    made(Handle::Stream, *stream);
    return SUCCESS;
}

EXPORT int cuStreamDestroy_v2(Stream* stream) {
    ENTER_CONTEXT("cuStreamDestroy_v2");
    if (!alive(Handle::Stream, stream)) return INVALID_HANDLE;
    int code = run(*stream, nullptr);
    gone(Handle::Stream, stream);
    delete stream;
    return code;
}

EXPORT int cuStreamSynchronize(Stream* stream) {
    ENTER_CONTEXT("cuStreamSynchronize");
    if (!alive(Handle::Stream, stream)) return INVALID_HANDLE;
    if (int code = refuse_capture(*stream)) return code;
    return run(*stream, nullptr);
}

EXPORT int cuStreamWaitEvent(Stream* stream, Event* event, unsigned) {
    ENTER_CONTEXT("cuStreamWaitEvent");
    if (!alive(Handle::Stream, stream) || !alive(Handle::Event, event)) return INVALID_HANDLE;
    if (!event->mark) return SUCCESS;
    if (stream->capturing && !event->captured) {
        stream->capture_broken = CAPTURE_ISOLATION;
        return CAPTURE_ISOLATION;
    }
    enqueue(*stream, [mark = event->mark] {
        // A stream that was destroyed has reached all its marks.
        return mark->reached ? SUCCESS : static_cast<Code>(run(*mark->stream, mark.get()));
    });
    return SUCCESS;
}

EXPORT int cuStreamAttachMemAsync(Stream* stream, void* address, size_t bytes, unsigned flags) {
    ENTER_CONTEXT("cuStreamAttachMemAsync");
    if (!alive(Handle::Stream, stream)) return INVALID_HANDLE;
    if (int code = refuse_capture(*stream)) return code;
    if (bytes || (flags != 1 && flags != 2)) return INVALID_VALUE;
    bool to_host = flags == 2;
    // The CPU loses it at once and has it back when the stream gets there.
    if (!to_host && !attach(address, false)) return INVALID_VALUE;
    enqueue(*stream, [=] { return attach(address, to_host) ? SUCCESS : INVALID_VALUE; });
    return SUCCESS;
}

EXPORT int cuStreamBeginCapture_v2(Stream* stream, int) {
    ENTER_CONTEXT("cuStreamBeginCapture_v2");
    if (!alive(Handle::Stream, stream)) return INVALID_HANDLE;
    if (stream->capturing) return INVALID_VALUE;
    stream->capturing = true;
    stream->capture_broken = SUCCESS;
    return SUCCESS;
}

EXPORT int cuStreamEndCapture(Stream* stream, Graph** graph) {
    ENTER_CONTEXT("cuStreamEndCapture");
    if (!alive(Handle::Stream, stream)) return INVALID_HANDLE;
    if (!stream->capturing) return CAPTURE_UNMATCHED;
    stream->capturing = false;
    std::vector<Work> work = std::move(stream->captured);
    stream->captured.clear();
    *graph = nullptr;
    if (stream->capture_broken) return stream->capture_broken;
    *graph = new Graph{std::move(work)};
    made(Handle::Graph, *graph);
    return SUCCESS;
}

EXPORT int cuGraphInstantiateWithFlags(Graph** executable, Graph* graph, unsigned long long) {
    ENTER_CONTEXT("cuGraphInstantiateWithFlags");
    if (!alive(Handle::Graph, graph)) return INVALID_HANDLE;
    *executable = new Graph(*graph);
    made(Handle::GraphExec, *executable);
    return SUCCESS;
}

EXPORT int cuGraphLaunch(Graph* executable, Stream* stream) {
    ENTER_CONTEXT("cuGraphLaunch");
    if (!alive(Handle::GraphExec, executable) || !alive(Handle::Stream, stream)) return INVALID_HANDLE;
    if (call.breaks) enqueue(*stream, [code = call.breaks] { return code; });
    for (const Work& work : executable->work) enqueue(*stream, work);
    return SUCCESS;
}

EXPORT int cuGraphDestroy(Graph* graph) {
    ENTER_CONTEXT("cuGraphDestroy");
    if (!gone(Handle::Graph, graph)) return INVALID_HANDLE;
    delete graph;
    return SUCCESS;
}

EXPORT int cuGraphExecDestroy(Graph* executable) {
    ENTER_CONTEXT("cuGraphExecDestroy");
    if (!gone(Handle::GraphExec, executable)) return INVALID_HANDLE;
    delete executable;
    return SUCCESS;
}

EXPORT int cuEventCreate(Event** event, unsigned flags) {
    ENTER_CONTEXT("cuEventCreate");
    *event = new Event{(flags & 2) == 0, false, nullptr};
    made(Handle::Event, *event);
    return SUCCESS;
}

EXPORT int cuEventDestroy_v2(Event* event) {
    ENTER_CONTEXT("cuEventDestroy_v2");
    if (!gone(Handle::Event, event)) return INVALID_HANDLE;
    delete event;
    return SUCCESS;
}

EXPORT int cuEventRecord(Event* event, Stream* stream) {
    ENTER_CONTEXT("cuEventRecord");
    if (!alive(Handle::Event, event) || !alive(Handle::Stream, stream)) return INVALID_HANDLE;
    auto mark = std::make_shared<Mark>();
    mark->stream = stream;
    event->mark = mark;
    event->captured = stream->capturing;
    enqueue(*stream, [mark] {
        mark->milliseconds = now_milliseconds();
        mark->reached = true;
        return SUCCESS;
    });
    return SUCCESS;
}

EXPORT int cuEventQuery(Event* event) {
    ENTER_CONTEXT("cuEventQuery");
    if (!alive(Handle::Event, event)) return INVALID_HANDLE;
    if (event->captured) return CAPTURED_EVENT;
    return !event->mark || event->mark->reached ? SUCCESS : NOT_READY;
}

EXPORT int cuEventSynchronize(Event* event) {
    ENTER_CONTEXT("cuEventSynchronize");
    if (!alive(Handle::Event, event)) return INVALID_HANDLE;
    if (event->captured) return CAPTURED_EVENT;
    if (!event->mark || event->mark->reached) return SUCCESS;
    return run(*event->mark->stream, event->mark.get());
}

EXPORT int cuEventElapsedTime(float* milliseconds, Event* start, Event* end) {
    ENTER_CONTEXT("cuEventElapsedTime");
    if (!alive(Handle::Event, start) || !alive(Handle::Event, end)) return INVALID_HANDLE;
    if (!start->timed || !end->timed || !start->mark || !end->mark) return INVALID_HANDLE;
    if (!start->mark->reached || !end->mark->reached) return NOT_READY;
    *milliseconds = static_cast<float>(end->mark->milliseconds - start->mark->milliseconds);
    return SUCCESS;
}

EXPORT int cuModuleLoadData(Module** module, const void* image) {
    ENTER_CONTEXT("cuModuleLoadData");
    const char* bytes = static_cast<const char*>(image);
    std::string known;
    if (std::memcmp(bytes, "\x7f" "ELF", 4) == 0) {
        known.assign(bytes, elf_size(bytes));
    } else {
        known = bytes;
        int architecture = 0;
        if (std::sscanf(bytes, "EMULATED IMAGE sm_%d", &architecture) == 1) {
            if (architecture != profile()->major * 10 + profile()->minor) return NO_BINARY_FOR_GPU;
        } else if (known.find(".version") == std::string::npos && known.find("EMULATED PTX") != 0) {
            return INVALID_IMAGE;
        }
    }
    *module = new Module{known};
    made(Handle::Module, *module);
    return SUCCESS;
}

EXPORT int cuModuleUnload(Module* module) {
    ENTER_CONTEXT("cuModuleUnload");
    if (int code = run_everything()) return code;
    if (!gone(Handle::Module, module)) return INVALID_HANDLE;
    delete module;
    return SUCCESS;
}

EXPORT int cuModuleGetFunction(const Bind** function, Module* module, const char* name) {
    ENTER_CONTEXT("cuModuleGetFunction");
    if (!alive(Handle::Module, module)) return INVALID_HANDLE;
    auto found = kernels().find(name);
    if (found == kernels().end() || module->image.find(name) == std::string::npos) return NOT_FOUND;
    *function = &found->second;
    return SUCCESS;
}

EXPORT int cuLaunchKernel(const Bind* function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                          unsigned block_y, unsigned block_z, unsigned shared_bytes, Stream* stream, void** parameters,
                          void** extra) {
    ENTER_CONTEXT("cuLaunchKernel");
    if (!alive(Handle::Stream, stream)) return INVALID_HANDLE;
    Dimensions grid{grid_x, grid_y, grid_z}, block{block_x, block_y, block_z};
    bool empty = !grid_x || !grid_y || !grid_z || !block_x || !block_y || !block_z;
    // The limits of every device since compute capability 3.
    bool too_large = grid_y > 65535 || grid_z > 65535 || block_z > 64 || block_x * block_y * block_z > 1024;
    if (empty || too_large || shared_bytes || extra) return INVALID_VALUE;
    enqueue(*stream, [thread = (*function)(parameters), grid, block, code = call.breaks] {
        if (code) return code;
        run_grid(thread, grid, block);
        return static_cast<int>(SUCCESS);
    });
    return SUCCESS;
}

// With it other emulated libraries put work of their own on a stream: while it runs, it reaches all memory.
EXPORT int cuLaunchHostFunc(Stream* stream, void (*function)(void*), void* data) {
    ENTER_CONTEXT("cuLaunchHostFunc");
    if (!alive(Handle::Stream, stream)) return INVALID_HANDLE;
    enqueue(*stream, [=, code = call.breaks] {
        if (!code) function(data);
        return code;
    });
    return SUCCESS;
}
