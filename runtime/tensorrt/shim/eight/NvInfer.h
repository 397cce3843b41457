// TensorRT 8 as far as the shim goes, for builds that have no headers of it: classes with the layout of TensorRT's own,
// whose methods call the entries that `slots.h` lists.
#pragma once

#include <cstddef>
#include <cstdint>

#include <cuda_runtime_api.h>

#include "NvInferVersion.h"

namespace nvinfer1 {

#define REVOADA_ENUM(enumeration) enum class enumeration : int32_t {
#define REVOADA_VALUE(enumeration, enumerator, number) enumerator = number,
#define REVOADA_END };
#include "values.h"
#undef REVOADA_ENUM
#undef REVOADA_VALUE
#undef REVOADA_END

using AsciiChar = char;
using NetworkDefinitionCreationFlags = uint32_t;

struct Dims {
    static constexpr int32_t MAX_DIMS = 8;
    int32_t nbDims;
    int32_t d[MAX_DIMS];
};

class ILogger {
public:
    enum class Severity : int32_t { kINTERNAL_ERROR = 0, kERROR = 1, kWARNING = 2, kINFO = 3, kVERBOSE = 4 };

    virtual void log(Severity severity, AsciiChar const *text) noexcept = 0;
    virtual ~ILogger() = default;
};

class IErrorRecorder {
public:
    using ErrorDesc = char const *;
    using RefCount = int32_t;

    virtual ~IErrorRecorder() noexcept = default;
    virtual int32_t getNbErrors() const noexcept = 0;
    virtual ErrorCode getErrorCode(int32_t index) const noexcept = 0;
    virtual ErrorDesc getErrorDesc(int32_t index) const noexcept = 0;
    virtual bool hasOverflowed() const noexcept = 0;
    virtual void clear() noexcept = 0;
    virtual bool reportError(ErrorCode code, ErrorDesc text) noexcept = 0;
    virtual RefCount incRefCount() noexcept = 0;
    virtual RefCount decRefCount() noexcept = 0;
};

class IProfiler {
public:
    virtual void reportLayerTime(char const *layer, float milliseconds) noexcept = 0;
    virtual ~IProfiler() noexcept = default;
};

class IPluginFactory;
class ITensor;
class ILayer;
class INetworkDefinition;
class IHostMemory;
class ITimingCache;
class IOptimizationProfile;
class IBuilderConfig;
class IExecutionContext;
class IEngineInspector;
class ICudaEngine;

// What the entries are called with, by table and name.
namespace slots {
#define REVOADA_SLOT(table, entry, place, answer, arguments)                                                           \
    struct table##_##entry {                                                                                           \
        static constexpr std::size_t number = place;                                                                   \
        using Signature = answer arguments;                                                                            \
    };
#include "slots.h"
#undef REVOADA_SLOT
} // namespace slots

template <typename Signature>
struct Entry;

template <typename Answer, typename... Arguments>
struct Entry<Answer(Arguments...)> {
    // A member function is called as one that takes its object first: so say the C++ ABIs of x86-64 and AArch64.
    static Answer call(void *object, std::size_t number, Arguments... arguments) noexcept {
        using Function = Answer (*)(void *, Arguments...);
        auto *table = *static_cast<Function **>(object);
        return table[number](object, static_cast<Arguments>(arguments)...);
    }
};

// All objects of TensorRT's own begin like this; they are made, and end, in its library.
class Object {
public:
    Object(Object const &) = delete;
    Object &operator=(Object const &) = delete;
    virtual ~Object() = default;

protected:
    Object() = default;

    template <typename Slot, typename... Arguments>
    auto call(Arguments &&...arguments) const noexcept {
        return Entry<typename Slot::Signature>::call(table_, Slot::number, arguments...);
    }

private:
    void *table_ = nullptr;
};

class IHostMemory : public Object {
public:
    void *data() const noexcept { return call<slots::VHostMemory_data>(); }
    std::size_t size() const noexcept { return call<slots::VHostMemory_size>(); }
};

class ITensor : public Object {
public:
    char const *getName() const noexcept { return call<slots::VTensor_getName>(); }
    Dims getDimensions() const noexcept { return call<slots::VTensor_getDimensions>(); }
    DataType getType() const noexcept { return call<slots::VTensor_getType>(); }
    bool isShapeTensor() const noexcept { return call<slots::VTensor_isShapeTensor>(); }
};

class IOptimizationProfile : public Object {
public:
    bool setDimensions(char const *input, OptProfileSelector selector, Dims dims) noexcept {
        return call<slots::VOptimizationProfile_setDimensions>(input, selector, dims);
    }
};

class ITimingCache : public Object {
public:
    IHostMemory *serialize() const noexcept { return call<slots::VTimingCache_serialize>(); }
};

class IEngineInspector : public Object {
public:
    char const *getEngineInformation(LayerInformationFormat format) const noexcept {
        return call<slots::VEngineInspector_getEngineInformation>(format);
    }
};

class INetworkDefinition : public Object {
public:
    int32_t getNbLayers() const noexcept { return call<slots::VNetworkDefinition_getNbLayers>(); }
    ILayer *getLayer(int32_t index) const noexcept { return call<slots::VNetworkDefinition_getLayer>(index); }
    int32_t getNbInputs() const noexcept { return call<slots::VNetworkDefinition_getNbInputs>(); }
    ITensor *getInput(int32_t index) const noexcept { return call<slots::VNetworkDefinition_getInput>(index); }
    void setErrorRecorder(IErrorRecorder *recorder) noexcept {
        call<slots::VNetworkDefinition_setErrorRecorder>(recorder);
    }
};

class IBuilderConfig : public Object {
public:
    void setMaxWorkspaceSize(std::size_t bytes) noexcept { call<slots::VBuilderConfig_setMaxWorkspaceSize>(bytes); }
#if NV_TENSORRT_MINOR >= 5
    void setMemoryPoolLimit(MemoryPoolType pool, std::size_t bytes) noexcept {
        call<slots::VBuilderConfig_setMemoryPoolLimit>(pool, bytes);
    }
#endif
    void setFlag(BuilderFlag flag) noexcept { call<slots::VBuilderConfig_setFlag>(flag); }
    void setDLACore(int32_t core) noexcept { call<slots::VBuilderConfig_setDLACore>(core); }
    void setDefaultDeviceType(DeviceType type) noexcept { call<slots::VBuilderConfig_setDefaultDeviceType>(type); }
    int32_t addOptimizationProfile(IOptimizationProfile const *profile) noexcept {
        return call<slots::VBuilderConfig_addOptimizationProfile>(profile);
    }
    void setProfilingVerbosity(ProfilingVerbosity verbosity) noexcept {
        call<slots::VBuilderConfig_setProfilingVerbosity>(verbosity);
    }
    ITimingCache *createTimingCache(void const *bytes, std::size_t size) const noexcept {
        return call<slots::VBuilderConfig_createTimingCache>(bytes, size);
    }
    bool setTimingCache(ITimingCache const &cache, bool ignore_mismatch) noexcept {
        return call<slots::VBuilderConfig_setTimingCache>(cache, ignore_mismatch);
    }
    ITimingCache const *getTimingCache() const noexcept { return call<slots::VBuilderConfig_getTimingCache>(); }
#if NV_TENSORRT_MINOR >= 6
    void setHardwareCompatibilityLevel(HardwareCompatibilityLevel level) noexcept {
        call<slots::VBuilderConfig_setHardwareCompatibilityLevel>(level);
    }
#endif
};

class IBuilder : public Object {
public:
    int32_t getNbDLACores() const noexcept { return call<slots::VBuilder_getNbDLACores>(); }
    IBuilderConfig *createBuilderConfig() noexcept { return call<slots::VBuilder_createBuilderConfig>(); }
    INetworkDefinition *createNetworkV2(NetworkDefinitionCreationFlags flags) noexcept {
        return call<slots::VBuilder_createNetworkV2>(flags);
    }
    IOptimizationProfile *createOptimizationProfile() noexcept {
        return call<slots::VBuilder_createOptimizationProfile>();
    }
    void setErrorRecorder(IErrorRecorder *recorder) noexcept { call<slots::VBuilder_setErrorRecorder>(recorder); }
    IHostMemory *buildSerializedNetwork(INetworkDefinition &network, IBuilderConfig &config) noexcept {
        return call<slots::VBuilder_buildSerializedNetwork>(network, config);
    }
};

class IExecutionContext : public Object {
public:
    void setProfiler(IProfiler *profiler) noexcept { call<slots::VExecutionContext_setProfiler>(profiler); }
    void setDeviceMemory(void *memory) noexcept { call<slots::VExecutionContext_setDeviceMemory>(memory); }
    void setErrorRecorder(IErrorRecorder *recorder) noexcept {
        call<slots::VExecutionContext_setErrorRecorder>(recorder);
    }
    int32_t getOptimizationProfile() const noexcept { return call<slots::VExecutionContext_getOptimizationProfile>(); }
    bool setOptimizationProfileAsync(int32_t profile, cudaStream_t stream) noexcept {
        return call<slots::VExecutionContext_setOptimizationProfileAsync>(profile, stream);
    }
    bool setBindingDimensions(int32_t binding, Dims dims) noexcept {
        return call<slots::VExecutionContext_setBindingDimensions>(binding, dims);
    }
    Dims getBindingDimensions(int32_t binding) const noexcept {
        return call<slots::VExecutionContext_getBindingDimensions>(binding);
    }
    bool enqueueV2(void *const *bindings, cudaStream_t stream, cudaEvent_t *consumed) noexcept {
        return call<slots::VExecutionContext_enqueueV2>(bindings, stream, consumed);
    }
#if NV_TENSORRT_MINOR >= 5
    bool setInputShape(char const *name, Dims const &dims) noexcept {
        return call<slots::VExecutionContext_setInputShape>(name, dims);
    }
    Dims getTensorShape(char const *name) const noexcept {
        return call<slots::VExecutionContext_getTensorShape>(name);
    }
    bool setTensorAddress(char const *name, void *address) noexcept {
        return call<slots::VExecutionContext_setTensorAddress>(name, address);
    }
    int32_t inferShapes(int32_t names_max, char const **names) noexcept {
        return call<slots::VExecutionContext_inferShapes>(names_max, names);
    }
    bool enqueueV3(cudaStream_t stream) noexcept { return call<slots::VExecutionContext_enqueueV3>(stream); }
#endif
};

class ICudaEngine : public Object {
public:
    int32_t getNbLayers() const noexcept { return call<slots::VCudaEngine_getNbLayers>(); }
    IExecutionContext *createExecutionContext() noexcept { return call<slots::VCudaEngine_createExecutionContext>(); }
    IExecutionContext *createExecutionContextWithoutDeviceMemory() noexcept {
        return call<slots::VCudaEngine_createExecutionContextWithoutDeviceMemory>();
    }
    std::size_t getDeviceMemorySize() const noexcept { return call<slots::VCudaEngine_getDeviceMemorySize>(); }
    int32_t getNbOptimizationProfiles() const noexcept { return call<slots::VCudaEngine_getNbOptimizationProfiles>(); }
    IEngineInspector *createEngineInspector() const noexcept {
        return call<slots::VCudaEngine_createEngineInspector>();
    }
    int32_t getNbBindings() const noexcept { return call<slots::VCudaEngine_getNbBindings>(); }
    int32_t getBindingIndex(char const *name) const noexcept { return call<slots::VCudaEngine_getBindingIndex>(name); }
    char const *getBindingName(int32_t binding) const noexcept {
        return call<slots::VCudaEngine_getBindingName>(binding);
    }
    bool bindingIsInput(int32_t binding) const noexcept { return call<slots::VCudaEngine_bindingIsInput>(binding); }
    Dims getBindingDimensions(int32_t binding) const noexcept {
        return call<slots::VCudaEngine_getBindingDimensions>(binding);
    }
    DataType getBindingDataType(int32_t binding) const noexcept {
        return call<slots::VCudaEngine_getBindingDataType>(binding);
    }
    TensorLocation getLocation(int32_t binding) const noexcept { return call<slots::VCudaEngine_getLocation>(binding); }
    Dims getProfileDimensions(int32_t binding, int32_t profile, OptProfileSelector selector) const noexcept {
        return call<slots::VCudaEngine_getProfileDimensions>(binding, profile, selector);
    }
#if NV_TENSORRT_MINOR >= 5
    int32_t getNbIOTensors() const noexcept { return call<slots::VCudaEngine_getNbIOTensors>(); }
    char const *getIOTensorName(int32_t index) const noexcept { return call<slots::VCudaEngine_getIOTensorName>(index); }
    DataType getTensorDataType(char const *name) const noexcept {
        return call<slots::VCudaEngine_getTensorDataType>(name);
    }
    TensorIOMode getTensorIOMode(char const *name) const noexcept { return call<slots::VCudaEngine_getTensorIOMode>(name); }
    TensorLocation getTensorLocation(char const *name) const noexcept {
        return call<slots::VCudaEngine_getTensorLocation>(name);
    }
    Dims getTensorShape(char const *name) const noexcept { return call<slots::VCudaEngine_getTensorShape>(name); }
    Dims getProfileShape(char const *name, int32_t profile, OptProfileSelector selector) const noexcept {
        return call<slots::VCudaEngine_getProfileShape>(name, profile, selector);
    }
#endif
};

class IRuntime : public Object {
public:
    ICudaEngine *deserializeCudaEngine(void const *plan, std::size_t size) noexcept {
        // The factory is of plugins that have not existed since 7.
        return call<slots::VRuntime_deserializeCudaEngine>(plan, size, static_cast<IPluginFactory *>(nullptr));
    }
    void setDLACore(int32_t core) noexcept { call<slots::VRuntime_setDLACore>(core); }
    int32_t getNbDLACores() const noexcept { return call<slots::VRuntime_getNbDLACores>(); }
    void setErrorRecorder(IErrorRecorder *recorder) noexcept { call<slots::VRuntime_setErrorRecorder>(recorder); }
#if NV_TENSORRT_MINOR >= 6
    void setEngineHostCodeAllowed(bool allowed) noexcept { call<slots::VRuntime_setEngineHostCodeAllowed>(allowed); }
#endif
};

class ILayer : public Object {
public:
    LayerType getType() const noexcept { return call<slots::VLayer_getType>(); }
    char const *getName() const noexcept { return call<slots::VLayer_getName>(); }
    int32_t getNbInputs() const noexcept { return call<slots::VLayer_getNbInputs>(); }
    ITensor *getInput(int32_t index) const noexcept { return call<slots::VLayer_getInput>(index); }
    int32_t getNbOutputs() const noexcept { return call<slots::VLayer_getNbOutputs>(); }
    ITensor *getOutput(int32_t index) const noexcept { return call<slots::VLayer_getOutput>(index); }
    void setPrecision(DataType type) noexcept { call<slots::VLayer_setPrecision>(type); }
    void setOutputType(int32_t index, DataType type) noexcept { call<slots::VLayer_setOutputType>(index, type); }
};

} // namespace nvinfer1
