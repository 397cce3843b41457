// Inputs and outputs by name, as TensorRT has them from 8.5 on.

#include "io.h"

#if !REVOADA_BINDINGS

namespace REVOADA_DIALECT {

using namespace nvinfer1;

namespace {

// More is never missing: no network of ours has more inputs.
constexpr int32_t kNamesMax = 256;

} // namespace

int32_t io_count(ICudaEngine &engine) { return engine.getNbIOTensors(); }

bool io_tensor(ICudaEngine &engine, int32_t index, TrtTensor &tensor) {
    const char *name = engine.getIOTensorName(index);
    if (name == nullptr) {
        return false;
    }
    tensor.name = name;
    tensor.type = type_of(engine.getTensorDataType(name));
    tensor.is_input = engine.getTensorIOMode(name) == TensorIOMode::kINPUT ? 1 : 0;
    tensor.on_host = engine.getTensorLocation(name) == TensorLocation::kHOST ? 1 : 0;
    tensor.dims = from_dims(engine.getTensorShape(name));
    return true;
}

Dims io_profile(ICudaEngine &engine, const char *input, int32_t profile, OptProfileSelector selector) {
    return engine.getProfileShape(input, profile, selector);
}

bool io_set_shape(TrtContext &context, const char *input, const Dims &shape) {
    return context.context->setInputShape(input, shape);
}

Dims io_shape(TrtContext &context, const char *name) { return context.context->getTensorShape(name); }

bool io_set_address(TrtContext &context, const char *name, void *address) {
    return context.context->setTensorAddress(name, address);
}

bool io_missing(TrtContext &context, const TrtSink &names) {
    const char *missing[kNamesMax] = {};
    const int32_t count = context.context->inferShapes(kNamesMax, missing);
    for (int32_t index = 0; index < count && index < kNamesMax; ++index) {
        if (missing[index] != nullptr) {
            names.write(names.user, missing[index], std::strlen(missing[index]) + 1);
        }
    }
    return count >= 0;
}

bool io_enqueue(TrtContext &context, cudaStream_t stream) { return context.context->enqueueV3(stream); }

} // namespace REVOADA_DIALECT

#endif
