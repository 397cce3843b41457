// Hands out the table of this dialect.

#include <type_traits>

#include "dialect.h"

namespace REVOADA_DIALECT {

int32_t type_of(nvinfer1::DataType type) noexcept {
    switch (type) {
    case nvinfer1::DataType::kFLOAT: return TRT_TYPE_F32;
    case nvinfer1::DataType::kHALF: return TRT_TYPE_F16;
    case nvinfer1::DataType::kINT8: return TRT_TYPE_I8;
    case nvinfer1::DataType::kINT32: return TRT_TYPE_I32;
    case nvinfer1::DataType::kBOOL: return TRT_TYPE_BOOL;
#if REVOADA_MAJOR >= 10
    case nvinfer1::DataType::kUINT8: return TRT_TYPE_U8;
    case nvinfer1::DataType::kFP8: return TRT_TYPE_F8;
    case nvinfer1::DataType::kBF16: return TRT_TYPE_BF16;
    case nvinfer1::DataType::kINT64: return TRT_TYPE_I64;
    case nvinfer1::DataType::kINT4: return TRT_TYPE_I4;
#endif
#if REVOADA_MAJOR >= 11 || (NV_TENSORRT_MAJOR == 10 && NV_TENSORRT_MINOR >= 8)
    case nvinfer1::DataType::kFP4: return TRT_TYPE_F4;
#endif
    default: return TRT_TYPE_OTHER;
    }
}

bool to_dims(const TrtDims &from, nvinfer1::Dims &to) noexcept {
    if (from.count < 0 || from.count > TRT_DIMS_MAX || from.count > nvinfer1::Dims::MAX_DIMS) {
        return false;
    }
    to.nbDims = from.count;
    for (int32_t index = 0; index < from.count; ++index) {
        using Value = std::decay_t<decltype(to.d[0])>;
        to.d[index] = static_cast<Value>(from.values[index]);
        if (to.d[index] != from.values[index]) {
            return false;
        }
    }
    return true;
}

TrtDims from_dims(const nvinfer1::Dims &dims) noexcept {
    TrtDims result{};
    result.count = dims.nbDims > TRT_DIMS_MAX ? -1 : dims.nbDims;
    for (int32_t index = 0; index < result.count; ++index) {
        result.values[index] = dims.d[index];
    }
    return result;
}

} // namespace REVOADA_DIALECT

extern "C" const TrtApi *REVOADA_JOIN(REVOADA_DIALECT, _api)(void) {
    static const TrtApi api = [] {
        TrtApi table{};
        table.major = NV_TENSORRT_MAJOR;
        table.minor = NV_TENSORRT_MINOR;
        table.patch = NV_TENSORRT_PATCH;
        table.rtx = REVOADA_RTX;
        table.strongly_typed = REVOADA_STRONGLY_TYPED;
        REVOADA_DIALECT::add_build(table);
        REVOADA_DIALECT::add_network(table);
        REVOADA_DIALECT::add_runtime(table);
        return table;
    }();
    return &api;
}
