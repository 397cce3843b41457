// Opening plans and running them.

#include "io.h"

namespace REVOADA_DIALECT {
namespace {

using namespace nvinfer1;

cudaStream_t stream_of(uint64_t handle) noexcept { return reinterpret_cast<cudaStream_t>(static_cast<uintptr_t>(handle)); }

void *address_of(uint64_t address) noexcept { return reinterpret_cast<void *>(static_cast<uintptr_t>(address)); }

TrtRuntime *runtime_open(TrtCreate create, int32_t version, const TrtHost *host) {
    return guarded<TrtRuntime *>(*host, nullptr, [&]() -> TrtRuntime * {
        auto runtime = std::make_unique<TrtRuntime>(*host);
        runtime->runtime.reset(made<IRuntime>(create(&runtime->logger, version)));
        if (!runtime->runtime) {
            return nullptr;
        }
        runtime->runtime->setErrorRecorder(&runtime->recorder);
        return runtime.release();
    });
}

void runtime_close(TrtRuntime *runtime) { delete runtime; }

int32_t runtime_dla(TrtRuntime *runtime, int32_t core) {
    return guarded<int32_t>(runtime->host, TRT_REFUSED, [&] {
        if (core < 0 || core >= runtime->runtime->getNbDLACores()) {
            return TRT_ABSENT;
        }
        runtime->runtime->setDLACore(core);
        return TRT_DONE;
    });
}

int32_t runtime_host_code(TrtRuntime *runtime) {
#if REVOADA_MAJOR >= 10 || NV_TENSORRT_MINOR >= 6
    return guarded<int32_t>(runtime->host, TRT_REFUSED, [&] {
        runtime->runtime->setEngineHostCodeAllowed(true);
        return TRT_DONE;
    });
#else
    static_cast<void>(runtime);
    return TRT_ABSENT;
#endif
}

TrtEngine *engine_open(TrtRuntime *runtime, const void *plan, size_t size) {
    return guarded<TrtEngine *>(runtime->host, nullptr, [&]() -> TrtEngine * {
        Owned<ICudaEngine> engine(made<ICudaEngine>(runtime->runtime->deserializeCudaEngine(plan, size)));
        if (!engine) {
            return nullptr;
        }
        return new TrtEngine{runtime->host, std::move(engine)};
    });
}

void engine_close(TrtEngine *engine) { delete engine; }

int32_t engine_tensor_count(TrtEngine *engine) {
    return guarded<int32_t>(engine->host, 0, [&] { return io_count(*engine->engine); });
}

int32_t engine_tensor(TrtEngine *engine, int32_t index, TrtTensor *tensor) {
    return guarded<int32_t>(engine->host, TRT_REFUSED, [&] { return done_if(io_tensor(*engine->engine, index, *tensor)); });
}

int32_t engine_profile_count(TrtEngine *engine) {
    return guarded<int32_t>(engine->host, 0, [&] { return engine->engine->getNbOptimizationProfiles(); });
}

int32_t engine_profile(TrtEngine *engine, const char *input, int32_t profile, int32_t selector, TrtDims *dims) {
    return guarded<int32_t>(engine->host, TRT_REFUSED, [&] {
        const OptProfileSelector which = selector == TRT_PROFILE_MIN   ? OptProfileSelector::kMIN
                                         : selector == TRT_PROFILE_OPT ? OptProfileSelector::kOPT
                                                                       : OptProfileSelector::kMAX;
        *dims = from_dims(io_profile(*engine->engine, input, profile, which));
        return done_if(dims->count >= 0);
    });
}

int64_t engine_memory(TrtEngine *engine) {
    return guarded<int64_t>(engine->host, -1, [&] {
#if REVOADA_MAJOR >= 11 || (NV_TENSORRT_MAJOR == 10 && NV_TENSORRT_MINOR >= 1)
        return engine->engine->getDeviceMemorySizeV2();
#else
        return static_cast<int64_t>(engine->engine->getDeviceMemorySize());
#endif
    });
}

int32_t engine_layer_count(TrtEngine *engine) {
    return guarded<int32_t>(engine->host, 0, [&] { return engine->engine->getNbLayers(); });
}

int32_t engine_inspect(TrtEngine *engine, const TrtSink *json) {
    return guarded<int32_t>(engine->host, TRT_REFUSED, [&] {
        Owned<IEngineInspector> inspector(engine->engine->createEngineInspector());
        const char *text =
            inspector ? inspector->getEngineInformation(LayerInformationFormat::kJSON) : nullptr;
        if (text == nullptr) {
            return TRT_REFUSED;
        }
        json->write(json->user, text, std::strlen(text));
        return TRT_DONE;
    });
}

TrtContext *context_open(TrtEngine *engine, int32_t own_memory, const TrtHost *host) {
    return guarded<TrtContext *>(*host, nullptr, [&]() -> TrtContext * {
        auto context = std::make_unique<TrtContext>(*host);
        context->engine = engine->engine.get();
        context->own_memory = own_memory != 0;
#if REVOADA_MAJOR >= 10
        context->context.reset(engine->engine->createExecutionContext(
            own_memory != 0 ? ExecutionContextAllocationStrategy::kSTATIC
                            : ExecutionContextAllocationStrategy::kUSER_MANAGED));
#else
        context->context.reset(own_memory != 0 ? engine->engine->createExecutionContext()
                                               : engine->engine->createExecutionContextWithoutDeviceMemory());
#endif
        if (!context->context) {
            return nullptr;
        }
        context->context->setErrorRecorder(&context->recorder);
        return context.release();
    });
}

void context_close(TrtContext *context) { delete context; }

int32_t context_profile(TrtContext *context, int32_t profile, uint64_t stream) {
    return guarded<int32_t>(context->host, TRT_REFUSED, [&] {
        return done_if(context->context->setOptimizationProfileAsync(profile, stream_of(stream)));
    });
}

int32_t context_shape(TrtContext *context, const char *input, const TrtDims *dims) {
    return guarded<int32_t>(context->host, TRT_REFUSED, [&] {
        Dims shape{};
        return done_if(to_dims(*dims, shape) && io_set_shape(*context, input, shape));
    });
}

int32_t context_tensor_dims(TrtContext *context, const char *name, TrtDims *dims) {
    return guarded<int32_t>(context->host, TRT_REFUSED, [&] {
        *dims = from_dims(io_shape(*context, name));
        return done_if(dims->count >= 0);
    });
}

int32_t context_address(TrtContext *context, const char *name, uint64_t address) {
    return guarded<int32_t>(context->host, TRT_REFUSED,
                            [&] { return done_if(io_set_address(*context, name, address_of(address))); });
}

int32_t context_missing(TrtContext *context, const TrtSink *names) {
    return guarded<int32_t>(context->host, TRT_REFUSED, [&] { return done_if(io_missing(*context, *names)); });
}

int32_t context_memory(TrtContext *context, uint64_t address, int64_t size) {
    return guarded<int32_t>(context->host, TRT_REFUSED, [&] {
        if (context->own_memory) {
            return TRT_ABSENT;
        }
#if REVOADA_MAJOR >= 11 || (NV_TENSORRT_MAJOR == 10 && NV_TENSORRT_MINOR >= 1)
        context->context->setDeviceMemoryV2(address_of(address), size);
#else
        static_cast<void>(size);
        context->context->setDeviceMemory(address_of(address));
#endif
        return TRT_DONE;
    });
}

int32_t context_enqueue(TrtContext *context, uint64_t stream) {
    return guarded<int32_t>(context->host, TRT_REFUSED,
                            [&] { return done_if(io_enqueue(*context, stream_of(stream))); });
}

int32_t context_time_layers(TrtContext *context, uint64_t stream, const TrtLayerTimes *times) {
    Profiler profiler(*times);
    return guarded<int32_t>(context->host, TRT_REFUSED, [&] {
        struct Attached {
            IExecutionContext &context;
            ~Attached() { context.setProfiler(nullptr); }
        };
        context->context->setProfiler(&profiler);
        Attached attached{*context->context};
        // Enqueuing waits and reports by itself: that is how every context begins, and nobody has it otherwise.
        return done_if(io_enqueue(*context, stream_of(stream)));
    });
}

} // namespace

void add_runtime(TrtApi &api) noexcept {
    api.runtime_open = runtime_open;
    api.runtime_close = runtime_close;
    api.runtime_dla = runtime_dla;
    api.runtime_host_code = runtime_host_code;
    api.engine_open = engine_open;
    api.engine_close = engine_close;
    api.engine_tensor_count = engine_tensor_count;
    api.engine_tensor = engine_tensor;
    api.engine_profile_count = engine_profile_count;
    api.engine_profile = engine_profile;
    api.engine_memory = engine_memory;
    api.engine_layer_count = engine_layer_count;
    api.engine_inspect = engine_inspect;
    api.context_open = context_open;
    api.context_close = context_close;
    api.context_profile = context_profile;
    api.context_shape = context_shape;
    api.context_tensor_dims = context_tensor_dims;
    api.context_address = context_address;
    api.context_missing = context_missing;
    api.context_memory = context_memory;
    api.context_enqueue = context_enqueue;
    api.context_time_layers = context_time_layers;
}

} // namespace REVOADA_DIALECT
