// The shortest way from an ONNX file to a plan with TensorRT for RTX: what `revoada build` is held against.
//
//     g++ -O2 -std=c++17 -I HEADERS -I runtime/tensorrt/shim/cuda bare_tensorrt.cpp -ldl -o bare_tensorrt
//     bare_tensorrt LIBRARIES MODEL PLAN CAPABILITY [INPUT SHAPE]
//
// It prints how many milliseconds TensorRT took.

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <dlfcn.h>
#include <fstream>
#include <memory>
#include <sstream>
#include <string>

#include "NvInfer.h"
#include "NvOnnxParser.h"

namespace {

struct Silent : nvinfer1::ILogger {
    void log(Severity severity, char const* line) noexcept override {
        if (severity <= Severity::kERROR) std::fprintf(stderr, "%s\n", line);
    }
};

void* symbol(std::string const& library, char const* name) {
    void* handle = dlopen(library.c_str(), RTLD_NOW);
    void* found = handle ? dlsym(handle, name) : nullptr;
    if (!found) {
        std::fprintf(stderr, "%s\n", dlerror());
        std::exit(1);
    }
    return found;
}

nvinfer1::Dims dims(std::string const& text) {
    nvinfer1::Dims dims{};
    std::istringstream words(text);
    for (std::string word; std::getline(words, word, 'x');) dims.d[dims.nbDims++] = std::stol(word);
    return dims;
}

}  // namespace

int main(int count, char** words) {
    if (count != 5 && count != 7) return 2;
    std::string const folder = words[1];
    auto const create_builder = reinterpret_cast<void* (*)(void*, int)>(
        symbol(folder + "/libtensorrt_rtx.so.1", "createInferBuilder_INTERNAL"));
    auto const create_parser = reinterpret_cast<void* (*)(void*, void*, int)>(
        symbol(folder + "/libtensorrt_onnxparser_rtx.so.1", "createNvOnnxParser_INTERNAL"));

    Silent logger;
    std::unique_ptr<nvinfer1::IBuilder> builder(
        static_cast<nvinfer1::IBuilder*>(create_builder(&logger, NV_TENSORRT_VERSION)));
    std::unique_ptr<nvinfer1::INetworkDefinition> network(builder->createNetworkV2(0));
    std::unique_ptr<nvonnxparser::IParser> parser(
        static_cast<nvonnxparser::IParser*>(create_parser(network.get(), &logger, NV_ONNX_PARSER_VERSION)));
    if (!parser->parseFromFile(words[2], 1)) return 1;
    std::unique_ptr<nvinfer1::IBuilderConfig> config(builder->createBuilderConfig());
    config->setNbComputeCapabilities(1);
    config->setComputeCapability(static_cast<nvinfer1::ComputeCapability>(std::atoi(words[4])), 0);
    if (count == 7) {
        auto* profile = builder->createOptimizationProfile();
        for (auto kind : {nvinfer1::OptProfileSelector::kMIN, nvinfer1::OptProfileSelector::kOPT,
                          nvinfer1::OptProfileSelector::kMAX})
            profile->setDimensions(words[5], kind, dims(words[6]));
        config->addOptimizationProfile(profile);
    }
    auto const started = std::chrono::steady_clock::now();
    std::unique_ptr<nvinfer1::IHostMemory> plan(builder->buildSerializedNetwork(*network, *config));
    if (!plan) return 1;
    std::chrono::duration<double, std::milli> const took = std::chrono::steady_clock::now() - started;
    std::ofstream(words[3], std::ios::binary).write(static_cast<char const*>(plan->data()), plan->size());
    std::printf("%.1f\n", took.count());
    return 0;
}
