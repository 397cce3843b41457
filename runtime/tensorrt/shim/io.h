// What a runtime holds, and what inputs and outputs are asked by: by name in `tensors.cpp`, and in `bindings.cpp` for
// the versions that number them.
#pragma once

#include "host.h"

struct TrtRuntime {
    explicit TrtRuntime(const TrtHost &to) : host(to), logger(to), recorder(to) {}

    TrtHost host;
    REVOADA_DIALECT::Logger logger;
    REVOADA_DIALECT::Recorder recorder;
    REVOADA_DIALECT::Owned<nvinfer1::IRuntime> runtime;
};

struct TrtEngine {
    TrtHost host;
    REVOADA_DIALECT::Owned<nvinfer1::ICudaEngine> engine;
};

struct TrtContext {
    explicit TrtContext(const TrtHost &to) : host(to), recorder(to) {}

    TrtHost host;
    // Its own, so that contexts on several threads do not take each other's errors.
    REVOADA_DIALECT::Recorder recorder;
    REVOADA_DIALECT::Owned<nvinfer1::IExecutionContext> context;
    nvinfer1::ICudaEngine *engine = nullptr;
    bool own_memory = true;
#if REVOADA_BINDINGS
    std::vector<void *> addresses;
#endif
};

namespace REVOADA_DIALECT {

int32_t io_count(nvinfer1::ICudaEngine &engine);
bool io_tensor(nvinfer1::ICudaEngine &engine, int32_t index, TrtTensor &tensor);
nvinfer1::Dims io_profile(nvinfer1::ICudaEngine &engine, const char *input, int32_t profile,
                          nvinfer1::OptProfileSelector selector);

bool io_set_shape(TrtContext &context, const char *input, const nvinfer1::Dims &shape);
nvinfer1::Dims io_shape(TrtContext &context, const char *name);
bool io_set_address(TrtContext &context, const char *name, void *address);
bool io_missing(TrtContext &context, const TrtSink &names);
bool io_enqueue(TrtContext &context, cudaStream_t stream);

} // namespace REVOADA_DIALECT
