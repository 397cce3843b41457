// Inputs and outputs by number, as TensorRT has them before 8.5. Each profile has numbers of its own, in the same
// order; those of the first bear the tensors' plain names.

#include <algorithm>

#include "io.h"

#if REVOADA_BINDINGS

namespace REVOADA_DIALECT {

using namespace nvinfer1;

namespace {

// The number of a tensor in the profile that a context has taken; negative where there is no such tensor.
int32_t binding_of(TrtContext &context, const char *name) {
    const int32_t first = context.engine->getBindingIndex(name);
    const int32_t count = io_count(*context.engine);
    const int32_t profile = context.context->getOptimizationProfile();
    return first < 0 || first >= count || profile < 0 ? -1 : profile * count + first;
}

bool is_known(const Dims &dims) {
    for (int32_t index = 0; index < dims.nbDims; ++index) {
        if (dims.d[index] < 0) {
            return false;
        }
    }
    return dims.nbDims >= 0;
}

Dims unknown() {
    Dims dims{};
    dims.nbDims = -1;
    return dims;
}

} // namespace

int32_t io_count(ICudaEngine &engine) {
    const int32_t profiles = engine.getNbOptimizationProfiles();
    return profiles > 0 ? engine.getNbBindings() / profiles : 0;
}

bool io_tensor(ICudaEngine &engine, int32_t index, TrtTensor &tensor) {
    const char *name = index < 0 || index >= io_count(engine) ? nullptr : engine.getBindingName(index);
    if (name == nullptr) {
        return false;
    }
    tensor.name = name;
    tensor.type = type_of(engine.getBindingDataType(index));
    tensor.is_input = engine.bindingIsInput(index) ? 1 : 0;
    tensor.on_host = engine.getLocation(index) == TensorLocation::kHOST ? 1 : 0;
    tensor.dims = from_dims(engine.getBindingDimensions(index));
    return true;
}

Dims io_profile(ICudaEngine &engine, const char *input, int32_t profile, OptProfileSelector selector) {
    const int32_t first = engine.getBindingIndex(input);
    return first < 0 ? unknown() : engine.getProfileDimensions(first, profile, selector);
}

bool io_set_shape(TrtContext &context, const char *input, const Dims &shape) {
    const int32_t binding = binding_of(context, input);
    return binding >= 0 && context.context->setBindingDimensions(binding, shape);
}

Dims io_shape(TrtContext &context, const char *name) {
    const int32_t binding = binding_of(context, name);
    return binding < 0 ? unknown() : context.context->getBindingDimensions(binding);
}

bool io_set_address(TrtContext &context, const char *name, void *address) {
    const int32_t first = context.engine->getBindingIndex(name);
    if (first < 0 || first >= io_count(*context.engine)) {
        return false;
    }
    context.addresses.resize(static_cast<std::size_t>(io_count(*context.engine)));
    context.addresses[static_cast<std::size_t>(first)] = address;
    return true;
}

bool io_missing(TrtContext &context, const TrtSink &names) {
    for (int32_t index = 0; index < io_count(*context.engine); ++index) {
        const char *name = context.engine->getBindingName(index);
        if (name != nullptr && context.engine->bindingIsInput(index) && !is_known(io_shape(context, name))) {
            names.write(names.user, name, std::strlen(name) + 1);
        }
    }
    return true;
}

bool io_enqueue(TrtContext &context, cudaStream_t stream) {
    const auto count = static_cast<std::size_t>(io_count(*context.engine));
    const int32_t profile = context.context->getOptimizationProfile();
    if (profile < 0 || context.addresses.size() != count) {
        return false;
    }
    // The numbers of other profiles stay empty.
    std::vector<void *> all(static_cast<std::size_t>(context.engine->getNbBindings()));
    std::copy(context.addresses.begin(), context.addresses.end(), all.begin() + profile * static_cast<std::ptrdiff_t>(count));
    return context.context->enqueueV2(all.data(), stream, nullptr);
}

} // namespace REVOADA_DIALECT

#endif
