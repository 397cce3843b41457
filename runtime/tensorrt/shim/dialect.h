// One version of TensorRT, as the sources of the shim see it.
//
// Each source is compiled once for each set of headers, with three macros that keep the versions apart in one
// program: `nvinfer1` and `nvonnxparser` are renamed, and REVOADA_DIALECT names the namespace of the shim's own
// code, its handles, and the function that hands out the table.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <exception>
#include <memory>

#include <NvInfer.h>
#include <NvOnnxParser.h>

#ifndef REVOADA_DIALECT
#error "REVOADA_DIALECT names the dialect"
#endif

// The handles are other structs in each dialect, so they have other names, too.
#define REVOADA_JOINED(first, second) first##second
#define REVOADA_JOIN(first, second) REVOADA_JOINED(first, second)
#define TrtBuild REVOADA_JOIN(REVOADA_DIALECT, _Build)
#define TrtRuntime REVOADA_JOIN(REVOADA_DIALECT, _Runtime)
#define TrtEngine REVOADA_JOIN(REVOADA_DIALECT, _Engine)
#define TrtContext REVOADA_JOIN(REVOADA_DIALECT, _Context)

#include "revoada_tensorrt.h"

#if defined(TRT_MAJOR_RTX)
#define REVOADA_RTX 1
// TensorRT for RTX counts its versions anew; 1.x is of the age of 11.
#define REVOADA_MAJOR 11
#else
#define REVOADA_RTX 0
#define REVOADA_MAJOR NV_TENSORRT_MAJOR
#endif

// From 10 on a network can take all its types from the graph.
#define REVOADA_STRONGLY_TYPED (REVOADA_MAJOR >= 10)

namespace REVOADA_DIALECT {

// Before 8.5 inputs and outputs are bindings that are known by number, after it tensors that are known by name.
#define REVOADA_BINDINGS (REVOADA_MAJOR == 8 && NV_TENSORRT_MINOR < 5)

template <typename T>
struct End {
    void operator()(T *object) const noexcept { delete object; }
};

#if REVOADA_MAJOR < 10
template <>
struct End<nvonnxparser::IParser> {
    void operator()(nvonnxparser::IParser *parser) const noexcept { parser->destroy(); }
};
#endif

template <typename T>
using Owned = std::unique_ptr<T, End<T>>;

// Runs `body`; an exception becomes an error of the host and the answer `otherwise`.
template <typename Answer, typename Body>
Answer guarded(const TrtHost &host, Answer otherwise, Body &&body) noexcept {
    try {
        return body();
    } catch (const std::exception &exception) {
        host.error(host.user, TRT_EXCEPTION, exception.what());
    } catch (...) {
        host.error(host.user, TRT_EXCEPTION, "an exception that says nothing");
    }
    return otherwise;
}

// What a library's creating function has made, or null. Where CUDA cannot start, TensorRT 10 and 11 answer a null pointer
// that they have already moved to a base class: 0x228 and the like, where no object lies.
template <typename T>
T *made(void *object) noexcept {
    constexpr std::uintptr_t kFirstPage = 4096;
    return reinterpret_cast<std::uintptr_t>(object) < kFirstPage ? nullptr : static_cast<T *>(object);
}

inline int32_t done_if(bool done) noexcept { return done ? TRT_DONE : TRT_REFUSED; }

int32_t type_of(nvinfer1::DataType type) noexcept;

// False where there are more dimensions than TensorRT has.
bool to_dims(const TrtDims &from, nvinfer1::Dims &to) noexcept;

TrtDims from_dims(const nvinfer1::Dims &dims) noexcept;

// The functions that the table names, by the file that has them.
void add_build(TrtApi &api) noexcept;
void add_network(TrtApi &api) noexcept;
void add_runtime(TrtApi &api) noexcept;

} // namespace REVOADA_DIALECT
