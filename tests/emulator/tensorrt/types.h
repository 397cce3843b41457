// Element types by the names that plans and our shim have for them.
#pragma once

#include <string>

#include <NvInferRuntimeBase.h>

namespace emulator {

inline nvinfer1::DataType type_of(const std::string& type) {
    using nvinfer1::DataType;
    if (type == "f16") return DataType::kHALF;
    if (type == "u8") return DataType::kUINT8;
    if (type == "i8") return DataType::kINT8;
    if (type == "i32") return DataType::kINT32;
    if (type == "i64") return DataType::kINT64;
    if (type == "bool") return DataType::kBOOL;
    return DataType::kFLOAT;
}

}  // namespace emulator
