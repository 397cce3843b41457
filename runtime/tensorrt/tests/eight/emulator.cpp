// A TensorRT 8 for tests, with tables as `shim/eight` describes them: a plan is the list of calls that led to it, and an
// engine doubles one number. It proves how the shim calls, never what TensorRT does.
//
// Compile it with REVOADA_EIGHT_MINOR and -I of `shim/eight` and `shim/cuda`; one library is builder, runtime and parser.

#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>

#include <NvInfer.h>
#include <NvOnnxParser.h>

namespace {

using namespace nvinfer1;

// The tables that TensorRT would have are longer than any entry that is called.
constexpr std::size_t kEntries = 80;

// What the classes of `NvInfer.h` point to.
struct Impl {
    void **table = entries;
    void *entries[kEntries] = {};

    template <typename Slot, typename Function>
    void put(Function function) {
        entries[Slot::number] = reinterpret_cast<void *>(+function);
    }
};

// An object with TensorRT's layout, and what it owns behind that: ended through its own table.
struct Shell {
    explicit Shell(std::shared_ptr<Impl> own = std::make_shared<Impl>()) : impl(own.get()), owner(std::move(own)) {}
    virtual ~Shell() = default;

    Impl *impl;
    std::shared_ptr<Impl> owner;
};

std::string calls;
ILogger *logger = nullptr;
IErrorRecorder *recorder = nullptr;
bool half = false;
std::string model;

void note(const std::string &call) { calls += call + "\n"; }

std::string text(const Dims &dims) {
    std::string result;
    for (int32_t index = 0; index < dims.nbDims; ++index) {
        result += (index == 0 ? "" : "x") + std::to_string(dims.d[index]);
    }
    return result;
}

Dims shape(int32_t batch) { return Dims{2, {batch, 3}}; }

template <typename Object>
Object *as(Shell *shell) {
    return reinterpret_cast<Object *>(shell);
}

struct Memory : Impl {
    std::string bytes;
};

IHostMemory *memory(const std::string &bytes) {
    auto impl = std::make_shared<Memory>();
    auto *shell = new Shell(impl);
    impl->bytes = bytes;
    impl->put<slots::VHostMemory_data>([](void *self) -> void * { return static_cast<Memory *>(self)->bytes.data(); });
    impl->put<slots::VHostMemory_size>([](void *self) { return static_cast<Memory *>(self)->bytes.size(); });
    return as<IHostMemory>(shell);
}

ITensor *tensor(bool input) {
    static Shell *input_shell = new Shell;
    static Shell *output_shell = new Shell;
    Shell *shell = input ? input_shell : output_shell;
    if (input) {
        shell->impl->put<slots::VTensor_getName>([](void *) -> char const * { return "x"; });
    } else {
        shell->impl->put<slots::VTensor_getName>([](void *) -> char const * { return "y"; });
    }
    shell->impl->put<slots::VTensor_getType>([](void *) { return half ? DataType::kHALF : DataType::kFLOAT; });
    shell->impl->put<slots::VTensor_isShapeTensor>([](void *) { return false; });
    shell->impl->put<slots::VTensor_getDimensions>([](void *) { return shape(-1); });
    return as<ITensor>(shell);
}

ILayer *layer() {
    static Shell *shell = new Shell;
    Impl &impl = *shell->impl;
    impl.put<slots::VLayer_getType>([](void *) { return LayerType::kELEMENTWISE; });
    impl.put<slots::VLayer_getName>([](void *) -> char const * { return "double"; });
    impl.put<slots::VLayer_getNbInputs>([](void *) { return 1; });
    impl.put<slots::VLayer_getInput>([](void *, int32_t) { return tensor(true); });
    impl.put<slots::VLayer_getNbOutputs>([](void *) { return 1; });
    impl.put<slots::VLayer_getOutput>([](void *, int32_t) { return tensor(false); });
    impl.put<slots::VLayer_setPrecision>(
        [](void *, DataType type) { note("precision " + std::to_string(static_cast<int>(type))); });
    impl.put<slots::VLayer_setOutputType>([](void *, int32_t index, DataType type) {
        note("output " + std::to_string(index) + " type " + std::to_string(static_cast<int>(type)));
    });
    return as<ILayer>(shell);
}

INetworkDefinition *network(NetworkDefinitionCreationFlags flags) {
    note("network " + std::to_string(flags));
    auto *shell = new Shell;
    Impl &impl = *shell->impl;
    impl.put<slots::VNetworkDefinition_getNbLayers>([](void *) { return 1; });
    impl.put<slots::VNetworkDefinition_getLayer>([](void *, int32_t) { return layer(); });
    impl.put<slots::VNetworkDefinition_getNbInputs>([](void *) { return 1; });
    impl.put<slots::VNetworkDefinition_getInput>([](void *, int32_t) { return tensor(true); });
    impl.put<slots::VNetworkDefinition_setErrorRecorder>([](void *, IErrorRecorder *) {});
    return as<INetworkDefinition>(shell);
}

IOptimizationProfile *profile() {
    static Shell *shell = new Shell;
    shell->impl->put<slots::VOptimizationProfile_setDimensions>(
        [](void *, char const *input, OptProfileSelector selector, Dims dims) {
            note(std::string("range ") + input + " " + std::to_string(static_cast<int>(selector)) + " " + text(dims));
            return true;
        });
    return as<IOptimizationProfile>(shell);
}

ITimingCache *cache() {
    auto *shell = new Shell;
    shell->impl->put<slots::VTimingCache_serialize>([](void *) { return memory("timings"); });
    return as<ITimingCache>(shell);
}

IBuilderConfig *config() {
    auto *shell = new Shell;
    Impl &impl = *shell->impl;
    impl.put<slots::VBuilderConfig_setMaxWorkspaceSize>(
        [](void *, std::size_t bytes) { note("workspace " + std::to_string(bytes)); });
#if REVOADA_EIGHT_MINOR >= 5
    impl.put<slots::VBuilderConfig_setMemoryPoolLimit>([](void *, MemoryPoolType pool, std::size_t bytes) {
        note("pool " + std::to_string(static_cast<int>(pool)) + " " + std::to_string(bytes));
    });
#endif
#if REVOADA_EIGHT_MINOR >= 6
    impl.put<slots::VBuilderConfig_setHardwareCompatibilityLevel>([](void *, HardwareCompatibilityLevel level) {
        note("hardware " + std::to_string(static_cast<int>(level)));
    });
#endif
    impl.put<slots::VBuilderConfig_setFlag>(
        [](void *, BuilderFlag flag) { note("flag " + std::to_string(static_cast<int>(flag))); });
    impl.put<slots::VBuilderConfig_setDLACore>([](void *, int32_t core) { note("dla " + std::to_string(core)); });
    impl.put<slots::VBuilderConfig_setDefaultDeviceType>(
        [](void *, DeviceType type) { note("device " + std::to_string(static_cast<int>(type))); });
    impl.put<slots::VBuilderConfig_addOptimizationProfile>([](void *, IOptimizationProfile const *) {
        note("profile");
        return 0;
    });
    impl.put<slots::VBuilderConfig_setProfilingVerbosity>([](void *, ProfilingVerbosity) {});
    impl.put<slots::VBuilderConfig_createTimingCache>([](void *, void const *bytes, std::size_t size) {
        note("timings " + std::string(static_cast<char const *>(bytes), size));
        return cache();
    });
    impl.put<slots::VBuilderConfig_setTimingCache>([](void *, ITimingCache const &, bool) { return true; });
    impl.put<slots::VBuilderConfig_getTimingCache>([](void *) -> ITimingCache const * {
        static ITimingCache *kept = cache();
        return kept;
    });
    return as<IBuilderConfig>(shell);
}

IHostMemory *build(void *, INetworkDefinition &, IBuilderConfig &) {
    if (model == "refuse") {
        recorder->reportError(static_cast<ErrorCode>(4), "double: no kernel is fast enough");
        return nullptr;
    }
    return memory(calls);
}

constexpr int32_t kProfiles = 2;

struct Running : Impl {
    IProfiler *profiler = nullptr;
    int32_t profile = 0;
    int32_t batch = -1;
    void *addresses[2] = {};
};

void run(Running &running, void *const *addresses, int32_t batch) {
    for (int32_t index = 0; index < batch * 3; ++index) {
        static_cast<float *>(addresses[1])[index] = 2 * static_cast<float *>(addresses[0])[index];
    }
    if (running.profiler != nullptr) {
        running.profiler->reportLayerTime("double", 0.5F * static_cast<float>(batch));
    }
}

IExecutionContext *context(void *) {
    auto impl = std::make_shared<Running>();
    auto *shell = new Shell(impl);
    impl->put<slots::VExecutionContext_setErrorRecorder>([](void *, IErrorRecorder *) {});
    impl->put<slots::VExecutionContext_setProfiler>(
        [](void *self, IProfiler *profiler) { static_cast<Running *>(self)->profiler = profiler; });
    impl->put<slots::VExecutionContext_setDeviceMemory>([](void *, void *) {});
    impl->put<slots::VExecutionContext_getOptimizationProfile>([](void *self) { return static_cast<Running *>(self)->profile; });
    impl->put<slots::VExecutionContext_setOptimizationProfileAsync>([](void *self, int32_t profile, cudaStream_t) {
        static_cast<Running *>(self)->profile = profile;
        return profile < kProfiles;
    });
    impl->put<slots::VExecutionContext_setBindingDimensions>([](void *self, int32_t binding, Dims dims) {
        auto &running = *static_cast<Running *>(self);
        running.batch = dims.d[0];
        return binding == 2 * running.profile && dims.nbDims == 2 && dims.d[1] == 3;
    });
    impl->put<slots::VExecutionContext_getBindingDimensions>(
        [](void *self, int32_t) { return shape(static_cast<Running *>(self)->batch); });
    impl->put<slots::VExecutionContext_enqueueV2>([](void *self, void *const *bindings, cudaStream_t, cudaEvent_t *) {
        auto &running = *static_cast<Running *>(self);
        run(running, bindings + 2 * running.profile, running.batch);
        return true;
    });
#if REVOADA_EIGHT_MINOR >= 5
    impl->put<slots::VExecutionContext_setInputShape>([](void *self, char const *name, Dims const &dims) {
        static_cast<Running *>(self)->batch = dims.d[0];
        return std::strcmp(name, "x") == 0 && dims.nbDims == 2 && dims.d[1] == 3;
    });
    impl->put<slots::VExecutionContext_getTensorShape>(
        [](void *self, char const *) { return shape(static_cast<Running *>(self)->batch); });
    impl->put<slots::VExecutionContext_setTensorAddress>([](void *self, char const *name, void *address) {
        static_cast<Running *>(self)->addresses[std::strcmp(name, "x") == 0 ? 0 : 1] = address;
        return true;
    });
    impl->put<slots::VExecutionContext_inferShapes>([](void *self, int32_t names_max, char const **names) {
        if (static_cast<Running *>(self)->batch >= 0 || names_max < 1) {
            return 0;
        }
        names[0] = "x";
        return 1;
    });
    impl->put<slots::VExecutionContext_enqueueV3>([](void *self, cudaStream_t) {
        auto &running = *static_cast<Running *>(self);
        run(running, running.addresses, running.batch);
        return true;
    });
#endif
    return as<IExecutionContext>(shell);
}

IEngineInspector *inspector() {
    auto *shell = new Shell;
    shell->impl->put<slots::VEngineInspector_getEngineInformation>(
        [](void *, LayerInformationFormat) -> char const * { return "{\"Layers\": [\"double\"]}"; });
    return as<IEngineInspector>(shell);
}

Dims range(int32_t profile, OptProfileSelector selector) {
    return shape((profile + 1) * (1 + static_cast<int32_t>(selector)));
}

ICudaEngine *engine() {
    auto *shell = new Shell;
    Impl &impl = *shell->impl;
    impl.put<slots::VCudaEngine_getNbLayers>([](void *) { return 1; });
    impl.put<slots::VCudaEngine_createExecutionContext>(&context);
    impl.put<slots::VCudaEngine_createExecutionContextWithoutDeviceMemory>(&context);
    impl.put<slots::VCudaEngine_getDeviceMemorySize>([](void *) { return std::size_t{4096}; });
    impl.put<slots::VCudaEngine_getNbOptimizationProfiles>([](void *) { return kProfiles; });
    impl.put<slots::VCudaEngine_createEngineInspector>([](void *) { return inspector(); });
    impl.put<slots::VCudaEngine_getNbBindings>([](void *) { return 2 * kProfiles; });
    impl.put<slots::VCudaEngine_getBindingIndex>(
        [](void *, char const *name) { return std::strcmp(name, "x") == 0 ? 0 : std::strcmp(name, "y") == 0 ? 1 : -1; });
    impl.put<slots::VCudaEngine_getBindingName>([](void *, int32_t binding) -> char const * {
        static const char *const names[] = {"x", "y", "x [profile 1]", "y [profile 1]"};
        return names[binding];
    });
    impl.put<slots::VCudaEngine_bindingIsInput>([](void *, int32_t binding) { return binding % 2 == 0; });
    impl.put<slots::VCudaEngine_getBindingDimensions>([](void *, int32_t) { return shape(-1); });
    impl.put<slots::VCudaEngine_getBindingDataType>([](void *, int32_t) { return DataType::kFLOAT; });
    impl.put<slots::VCudaEngine_getLocation>([](void *, int32_t) { return TensorLocation::kDEVICE; });
    impl.put<slots::VCudaEngine_getProfileDimensions>(
        [](void *, int32_t, int32_t profile, OptProfileSelector selector) { return range(profile, selector); });
#if REVOADA_EIGHT_MINOR >= 5
    impl.put<slots::VCudaEngine_getNbIOTensors>([](void *) { return 2; });
    impl.put<slots::VCudaEngine_getIOTensorName>([](void *, int32_t index) -> char const * { return index == 0 ? "x" : "y"; });
    impl.put<slots::VCudaEngine_getTensorDataType>([](void *, char const *) { return DataType::kFLOAT; });
    impl.put<slots::VCudaEngine_getTensorIOMode>([](void *, char const *name) {
        return std::strcmp(name, "x") == 0 ? TensorIOMode::kINPUT : TensorIOMode::kOUTPUT;
    });
    impl.put<slots::VCudaEngine_getTensorLocation>([](void *, char const *) { return TensorLocation::kDEVICE; });
    impl.put<slots::VCudaEngine_getTensorShape>([](void *, char const *) { return shape(-1); });
    impl.put<slots::VCudaEngine_getProfileShape>(
        [](void *, char const *, int32_t profile, OptProfileSelector selector) { return range(profile, selector); });
#endif
    return as<ICudaEngine>(shell);
}

struct Error final : nvonnxparser::IParserError {
    int32_t code() const override { return 6; }
    char const *desc() const override { return "Assertion failed: (a == b): the operator is unknown."; }
    void file() override {}
    void line() override {}
    void func() override {}
    int node() const override { return 7; }
};

struct Parser final : nvonnxparser::IParser {
    Error error;

    bool parse(void const *bytes, std::size_t size, char const *) override {
        model.assign(static_cast<char const *>(bytes), size);
        half = model == "half";
        if (model == "throw") {
            throw std::runtime_error("the parser has lost its way");
        }
        return model != "unknown";
    }
    void parseFromFile() override {}
    void supportsModel() override {}
    void parseWithWeightDescriptors() override {}
    void supportsOperator() override {}
    void destroy() override { delete this; }
    int getNbErrors() const override { return model == "unknown" ? 1 : 0; }
    nvonnxparser::IParserError const *getError(int) const override { return &error; }
    void clearErrors() override {}
};

constexpr int kVersion = 8000 + 100 * REVOADA_EIGHT_MINOR + 1;

} // namespace

extern "C" int getInferLibVersion() { return kVersion; }
extern "C" int getNvOnnxParserVersion() { return 801; }

extern "C" void *createInferBuilder_INTERNAL(void *log, int version) {
    if (version != kVersion) {
        return nullptr;
    }
    calls.clear();
    logger = static_cast<ILogger *>(log);
    logger->log(ILogger::Severity::kINFO, "a builder begins");
    auto *shell = new Shell;
    Impl &impl = *shell->impl;
    impl.put<slots::VBuilder_getNbDLACores>([](void *) { return 2; });
    impl.put<slots::VBuilder_createBuilderConfig>([](void *) { return config(); });
    impl.put<slots::VBuilder_createNetworkV2>([](void *, NetworkDefinitionCreationFlags flags) { return network(flags); });
    impl.put<slots::VBuilder_createOptimizationProfile>([](void *) { return profile(); });
    impl.put<slots::VBuilder_setErrorRecorder>([](void *, IErrorRecorder *to) { recorder = to; });
    impl.put<slots::VBuilder_buildSerializedNetwork>(&build);
    return shell;
}

extern "C" void *createNvOnnxParser_INTERNAL(void *, void *, int version) { return version == 801 ? new Parser : nullptr; }

extern "C" void *createInferRuntime_INTERNAL(void *log, int version) {
    if (version != kVersion) {
        return nullptr;
    }
    logger = static_cast<ILogger *>(log);
    auto *shell = new Shell;
    Impl &impl = *shell->impl;
    impl.put<slots::VRuntime_deserializeCudaEngine>(
        [](void *, void const *plan, std::size_t size, IPluginFactory *) -> ICudaEngine * {
            if (std::string(static_cast<char const *>(plan), size).rfind("network ", 0) == 0) {
                return engine();
            }
            recorder->reportError(static_cast<ErrorCode>(1), "Serialization assertion magic failed.Magic tag does not match");
            return nullptr;
        });
    impl.put<slots::VRuntime_setDLACore>([](void *, int32_t) {});
    impl.put<slots::VRuntime_getNbDLACores>([](void *) { return 2; });
    impl.put<slots::VRuntime_setErrorRecorder>([](void *, IErrorRecorder *to) { recorder = to; });
#if REVOADA_EIGHT_MINOR >= 6
    impl.put<slots::VRuntime_setEngineHostCodeAllowed>([](void *, bool) {});
#endif
    return shell;
}
