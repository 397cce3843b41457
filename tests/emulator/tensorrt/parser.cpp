// The ONNX parser of the emulated TensorRT: it takes every model that can be read, and hands it on.

#include <dlfcn.h>

#include <NvInfer.h>
#include <NvOnnxParser.h>

#include "control.h"
#include "strict_parser.h"

#define EXPORT extern "C" __attribute__((visibility("default")))

using namespace emulator;

namespace {

using ReadNetwork = bool (*)(void*, const char*, size_t);

class NotAModel final : public nvonnxparser::IParserError {
  public:
    nvonnxparser::ErrorCode code() const override { return nvonnxparser::ErrorCode::kMODEL_DESERIALIZE_FAILED; }
    const char* desc() const override { return "Failed to parse the ONNX model."; }
    const char* file() const override { return ""; }
    int line() const override { return 0; }
    const char* func() const override { return ""; }
    int node() const override { return -1; }
    const char* nodeName() const override { return ""; }
    const char* nodeOperator() const override { return ""; }
    const char* const* localFunctionStack() const override { return nullptr; }
    int32_t localFunctionStackSize() const override { return 0; }
};

class Parser final : public strict::Parser {
  public:
    explicit Parser(void* network) : network(network) {}

    bool parse(const void* model, size_t size, const char*) noexcept override {
        void* infer = dlopen("libnvinfer.so.10", RTLD_NOW | RTLD_NOLOAD);
        auto read = reinterpret_cast<ReadNetwork>(infer ? dlsym(infer, "emulator_read_network") : nullptr);
        if (!read) fatal("libnvinfer.so.10 is not the emulator's");
        failed = !read(network, static_cast<const char*>(model), size);
        return !failed;
    }

    int getNbErrors() const noexcept override { return failed ? 1 : 0; }
    const nvonnxparser::IParserError* getError(int) const noexcept override { return &error; }

  private:
    void* network;
    bool failed = false;
    NotAModel error;
};

}  // namespace

EXPORT int getNvOnnxParserVersion() noexcept {
    return NV_ONNX_PARSER_VERSION;
}

EXPORT void* createNvOnnxParser_INTERNAL(void* network, void*, int) noexcept {
    return static_cast<nvonnxparser::IParser*>(new Parser(network));
}
