// A TensorRT 10 that runs plans of the emulator's own, over the emulated driver's memory and streams. Every function that
// our shim does not call ends the program: `strict.h`, made from NVIDIA's headers, has them.

#include <cstring>
#include <map>
#include <memory>
#include <string>

#include <dlfcn.h>

#include <NvInfer.h>

#include "control.h"
#include "plan.h"
#include "strict.h"
#include "types.h"

#define EXPORT extern "C" __attribute__((visibility("default")))

using namespace emulator;
using namespace nvinfer1;

namespace {

Dims to_dims(const Shape& shape) {
    Dims dims{};
    dims.nbDims = static_cast<int32_t>(shape.size());
    for (size_t i = 0; i < shape.size(); i++) dims.d[i] = shape[i] < 0 ? -1 : shape[i];
    return dims;
}

Dims no_dims() {
    Dims dims{};
    dims.nbDims = -1;
    return dims;
}

// As TensorRT says it, for a call that was told to fail with a code of `CUresult`.
void report(IErrorRecorder* recorder, int code) {
    if (!recorder) return;
    if (code == OUT_OF_MEMORY)
        recorder->reportError(ErrorCode::kFAILED_ALLOCATION,
                              "Error Code 2: OutOfMemory (Requested size was 1073741824 bytes.)");
    else
        recorder->reportError(ErrorCode::kINTERNAL_ERROR,
                              ("Error Code 1: Cuda Runtime (cudaError " + std::to_string(code) + ": told to fail)").c_str());
}

// A function of the driver's, which is the process's own.
template <typename Function>
Function driver(const char* name) {
    void* library = dlopen("libcuda.so.1", RTLD_NOW);
    auto function = reinterpret_cast<Function>(library ? dlsym(library, name) : nullptr);
    if (!function) fatal("libcuda.so.1 is not the emulator's");
    return function;
}

int launch_host_func(void* stream, void (*function)(void*), void* data) {
    static const auto launch = driver<int (*)(void*, void (*)(void*), void*)>("cuLaunchHostFunc");
    return launch(stream, function, data);
}

int synchronize(void* stream) {
    static const auto wait = driver<int (*)(void*)>("cuStreamSynchronize");
    return wait(stream);
}

// One `enqueueV3`, kept for good: a graph repeats it, and one that runs too late shall be noticed.
struct Run {
    Plan plan;
    std::vector<Bound> inputs, outputs;
    void* workspace;
    std::shared_ptr<bool> context_alive;
};

void execute(void* data) {
    Run& run = *static_cast<Run*>(data);
    if (!*run.context_alive) fatal("a plan runs after its context was destroyed");
    if (run.plan.workspace_bytes) std::memset(run.workspace, 0x5a, run.plan.workspace_bytes);
    calculate(run.plan.operation, run.inputs, run.outputs);
}

class Context final : public IExecutionContext, strict::ExecutionContext {
  public:
    Context(const Plan& plan, bool own_memory) : plan(plan), own_memory(own_memory) {
        mImpl = this;
        note("+execution context %p", static_cast<void*>(this));
        forget_shapes();
    }

    ~Context() noexcept override {
        *living = false;
        note("-execution context %p", static_cast<void*>(this));
    }

    void setErrorRecorder(IErrorRecorder* to) noexcept override { recorder = to; }

    void setProfiler(IProfiler* to) noexcept override {
        Call call("setProfiler");
        profiler = to;
    }

    bool setOptimizationProfileAsync(int32_t to, cudaStream_t) noexcept override {
        Call call("setOptimizationProfileAsync");
        if (to < 0 || static_cast<size_t>(to) >= plan.profiles) return false;
        note("optimization profile %d", to);
        profile = static_cast<size_t>(to);
        forget_shapes();
        return true;
    }

    bool setInputShape(const char* name, const Dims& dims) noexcept override {
        Call call("setInputShape");
        for (const Port& port : plan.ports) {
            if (!port.input || port.name != name) continue;
            Shape shape(dims.d, dims.d + dims.nbDims);
            bool fits = shape.size() == port.shape.size();
            const Range& range = port.profiles[profile];
            for (size_t i = 0; fits && i < shape.size(); i++) fits = range.min[i] <= shape[i] && shape[i] <= range.max[i];
            if (!fits && recorder)
                recorder->reportError(ErrorCode::kINVALID_ARGUMENT, "Error Code 3: API Usage Error (outside the profile.)");
            if (fits) shapes[name] = shape;
            return fits;
        }
        return false;
    }

    Dims getTensorShape(const char* name) const noexcept override {
        for (const Port& port : plan.ports)
            if (port.name == name) return to_dims(shape_of(port));
        return no_dims();
    }

    bool setTensorAddress(const char* name, void* address) noexcept override {
        addresses[name] = static_cast<char*>(address);
        return true;
    }

    void setDeviceMemoryV2(void* memory, int64_t size) noexcept override {
        if (own_memory) fatal("a context with memory of its own was given some");
        if (size >= static_cast<int64_t>(plan.workspace_bytes)) workspace = memory;
    }

    bool enqueueV3(cudaStream_t stream) noexcept override {
        int refused;
        {
            Call call("enqueueV3");
            refused = call.refused;
        }
        if (!refused && plan.workspace_bytes && !workspace) refused = INVALID_VALUE;
        auto run = new Run{plan, {}, {}, workspace, living};
        for (const Port& port : plan.ports) {
            Shape shape = shape_of(port);
            for (int64_t length : shape)
                if (length < 0) refused = INVALID_VALUE;
            char* address = addresses[port.name];
            if (!address) refused = INVALID_VALUE;
            (port.input ? run->inputs : run->outputs).push_back({port, shape, address});
        }
        if (!refused) refused = launch_host_func(stream, execute, run);
        // Whoever listens to layers waits for them; a stream that is captured cannot be waited for.
        if (!refused && profiler) refused = synchronize(stream);
        if (!refused && profiler)
            for (const Layer& layer : plan.layers)
                profiler->reportLayerTime(layer.name.c_str(), static_cast<float>(layer.microseconds) / 1000);
        if (refused) report(recorder, refused);
        return !refused;
    }

  private:
    void forget_shapes() {
        for (const Port& port : plan.ports)
            if (port.input) shapes[port.name] = port.shape;
    }

    Shape shape_of(const Port& port) const {
        if (port.input) return shapes.at(port.name);
        Shape open, shape = port.shape;
        for (const Port& first : plan.ports) {
            if (!first.input) continue;
            for (size_t i = 0; i < first.shape.size(); i++)
                if (first.shape[i] == -1) open.push_back(shapes.at(first.name)[i]);
            break;
        }
        size_t next = 0;
        for (int64_t& length : shape)
            if (length == -1 && next < open.size()) length = open[next++];
        return shape;
    }

    Plan plan;
    size_t profile = 0;
    bool own_memory;
    void* workspace = nullptr;
    std::map<std::string, Shape> shapes;
    std::map<std::string, char*> addresses;
    IErrorRecorder* recorder = nullptr;
    IProfiler* profiler = nullptr;
    std::shared_ptr<bool> living = std::make_shared<bool>(true);
};

class Inspector final : public IEngineInspector, strict::EngineInspector {
  public:
    explicit Inspector(const Plan& plan) : json(describe(plan)) {
        mImpl = this;
        note("+inspector %p", static_cast<void*>(this));
    }

    ~Inspector() noexcept override { note("-inspector %p", static_cast<void*>(this)); }

    const char* getEngineInformation(LayerInformationFormat format) const noexcept override {
        return format == LayerInformationFormat::kJSON ? json.c_str() : nullptr;
    }

  private:
    std::string json;
};

class Engine final : public ICudaEngine, strict::CudaEngine {
  public:
    Engine(const Plan& plan, IErrorRecorder* recorder) : plan(plan), recorder(recorder) {
        mImpl = this;
        note("+plan %p", static_cast<void*>(this));
    }

    ~Engine() noexcept override { note("-plan %p", static_cast<void*>(this)); }

    int32_t getNbIOTensors() const noexcept override { return static_cast<int32_t>(plan.ports.size()); }
    int32_t getNbOptimizationProfiles() const noexcept override { return static_cast<int32_t>(plan.profiles); }
    int64_t getDeviceMemorySizeV2() const noexcept override { return static_cast<int64_t>(plan.workspace_bytes); }

    const char* getIOTensorName(int32_t index) const noexcept override {
        return plan.ports[static_cast<size_t>(index)].name.c_str();
    }

    DataType getTensorDataType(const char* name) const noexcept override { return type_of(port(name).type); }
    TensorLocation getTensorLocation(const char*) const noexcept override { return TensorLocation::kDEVICE; }
    Dims getTensorShape(const char* name) const noexcept override { return to_dims(port(name).shape); }

    TensorIOMode getTensorIOMode(const char* name) const noexcept override {
        return port(name).input ? TensorIOMode::kINPUT : TensorIOMode::kOUTPUT;
    }

    Dims getProfileShape(const char* name, int32_t index, OptProfileSelector which) const noexcept override {
        const Range& of = port(name).profiles.at(static_cast<size_t>(index));
        return to_dims(which == OptProfileSelector::kMIN ? of.min : which == OptProfileSelector::kOPT ? of.opt : of.max);
    }

    IEngineInspector* createEngineInspector() const noexcept override {
        Call call("createEngineInspector");
        if (call.refused) return report(recorder, call.refused), nullptr;
        return new Inspector(plan);
    }

    IExecutionContext* createExecutionContext(ExecutionContextAllocationStrategy strategy) noexcept override {
        Call call("createExecutionContext");
        if (call.refused) return report(recorder, call.refused), nullptr;
        return new Context(plan, strategy != ExecutionContextAllocationStrategy::kUSER_MANAGED);
    }

  private:
    const Port& port(const char* name) const {
        for (const Port& one : plan.ports)
            if (one.name == name) return one;
        fatal("the plan has no tensor `%s`", name);
    }

    Plan plan;
    IErrorRecorder* recorder;
};

class Runtime final : public IRuntime, strict::Runtime {
  public:
    Runtime() {
        mImpl = this;
        note("+runtime %p", static_cast<void*>(this));
    }

    ~Runtime() noexcept override { note("-runtime %p", static_cast<void*>(this)); }

    void setErrorRecorder(IErrorRecorder* to) noexcept override { recorder = to; }

    int32_t getNbDLACores() const noexcept override { return setting("REVOADA_EMULATOR_DEVICE", "") == "orin" ? 2 : 0; }

    void setDLACore(int32_t core) noexcept override { note("runtime on DLA core %d", core); }

    void setEngineHostCodeAllowed(bool) noexcept override { Call call("setEngineHostCodeAllowed"); }

    nvinfer1::ICudaEngine* deserializeCudaEngine(const void* bytes, std::size_t size) noexcept override {
        Call call("deserializeCudaEngine");
        if (call.refused) return report(recorder, call.refused), nullptr;
        Plan plan;
        if (!read_plan(static_cast<const char*>(bytes), size, plan) || !is_known(plan.operation)) {
            if (recorder)
                recorder->reportError(ErrorCode::kINTERNAL_ERROR,
                                      "IRuntime::deserializeCudaEngine: Error Code 1: Serialization (Serialization "
                                      "assertion magicTagRead == kMAGIC_TAG failed.Magic tag does not match)");
            return nullptr;
        }
        return new Engine(plan, recorder);
    }

  private:
    IErrorRecorder* recorder = nullptr;
};

}  // namespace

EXPORT int32_t getInferLibVersion() noexcept {
    return NV_TENSORRT_VERSION;
}

EXPORT void* createInferRuntime_INTERNAL(void*, int32_t) noexcept {
    Call call("createInferRuntime_INTERNAL");
    return call.refused ? nullptr : static_cast<IRuntime*>(new Runtime());
}
