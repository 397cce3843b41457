// The shortest loop around a plan: what `revoada bench` is held against.
//
//     g++ -O2 -std=c++17 -I HEADERS -I runtime/tensorrt/shim/cuda bare_enqueue.cpp -ldl -o bare_enqueue
//     bare_enqueue LIBNVINFER ENGINE SECONDS
//
// ENGINE is what TensorRT serialised; it runs the largest shapes of its first profile. Inputs stay on the device, and outputs too. Two contexts on streams
// of their own take turns, so that the device always has work. It prints inferences a second.

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <dlfcn.h>
#include <fstream>
#include <iterator>
#include <memory>
#include <vector>

#include "NvInfer.h"

namespace {

struct Silent : nvinfer1::ILogger {
    void log(Severity severity, char const* line) noexcept override {
        if (severity <= Severity::kERROR) std::fprintf(stderr, "%s\n", line);
    }
};

template <typename Function>
Function symbol(void* library, char const* name) {
    void* found = library ? dlsym(library, name) : nullptr;
    if (!found) {
        std::fprintf(stderr, "%s\n", dlerror());
        std::exit(1);
    }
    return reinterpret_cast<Function>(found);
}

void check(int code, char const* what) {
    if (code == 0) return;
    std::fprintf(stderr, "`%s` failed with %d\n", what, code);
    std::exit(1);
}

std::size_t bytes_of(nvinfer1::Dims const& dims) {
    // Enough for every type.
    std::size_t bytes = 8;
    for (int index = 0; index < dims.nbDims; ++index) bytes *= static_cast<std::size_t>(dims.d[index]);
    return bytes;
}

}  // namespace

int main(int count, char** words) {
    if (count != 4) return 2;
    void* driver = dlopen("libcuda.so.1", RTLD_NOW);
    auto const init = symbol<int (*)(unsigned)>(driver, "cuInit");
    auto const retain = symbol<int (*)(void**, int)>(driver, "cuDevicePrimaryCtxRetain");
    auto const set_current = symbol<int (*)(void*)>(driver, "cuCtxSetCurrent");
    auto const allocate = symbol<int (*)(std::uintptr_t*, std::size_t)>(driver, "cuMemAlloc_v2");
    auto const create_stream = symbol<int (*)(cudaStream_t*, unsigned)>(driver, "cuStreamCreate");
    auto const synchronize = symbol<int (*)(cudaStream_t)>(driver, "cuStreamSynchronize");
    void* context = nullptr;
    check(init(0), "cuInit");
    check(retain(&context, 0), "cuDevicePrimaryCtxRetain");
    check(set_current(context), "cuCtxSetCurrent");

    Silent logger;
    void* library = dlopen(words[1], RTLD_NOW);
    auto const create = symbol<void* (*)(void*, int)>(library, "createInferRuntime_INTERNAL");
    std::unique_ptr<nvinfer1::IRuntime> runtime(
        static_cast<nvinfer1::IRuntime*>(create(&logger, symbol<int (*)()>(library, "getInferLibVersion")())));
    std::ifstream file(words[2], std::ios::binary);
    std::vector<char> plan{std::istreambuf_iterator<char>(file), {}};
    std::unique_ptr<nvinfer1::ICudaEngine> engine(runtime->deserializeCudaEngine(plan.data(), plan.size()));
    if (!engine) return 1;

    constexpr int kStreams = 2;
    cudaStream_t streams[kStreams];
    std::unique_ptr<nvinfer1::IExecutionContext> contexts[kStreams];
    for (int index = 0; index < kStreams; ++index) {
        check(create_stream(&streams[index], 1), "cuStreamCreate");
        contexts[index].reset(engine->createExecutionContext());
        for (int tensor = 0; tensor < engine->getNbIOTensors(); ++tensor) {
            char const* name = engine->getIOTensorName(tensor);
            if (engine->getTensorIOMode(name) == nvinfer1::TensorIOMode::kINPUT)
                contexts[index]->setInputShape(name, engine->getProfileShape(name, 0, nvinfer1::OptProfileSelector::kMAX));
        }
        for (int tensor = 0; tensor < engine->getNbIOTensors(); ++tensor) {
            char const* name = engine->getIOTensorName(tensor);
            std::uintptr_t memory = 0;
            check(allocate(&memory, bytes_of(contexts[index]->getTensorShape(name))), "cuMemAlloc");
            contexts[index]->setTensorAddress(name, reinterpret_cast<void*>(memory));
        }
    }
    auto const run = [&](double seconds) {
        auto const started = std::chrono::steady_clock::now();
        std::chrono::duration<double> took{};
        long runs = 0;
        while (took.count() < seconds) {
            int const turn = static_cast<int>(runs % kStreams);
            check(synchronize(streams[turn]), "cuStreamSynchronize");
            if (!contexts[turn]->enqueueV3(streams[turn])) std::exit(1);
            ++runs;
            took = std::chrono::steady_clock::now() - started;
        }
        for (cudaStream_t stream : streams) check(synchronize(stream), "cuStreamSynchronize");
        took = std::chrono::steady_clock::now() - started;
        return static_cast<double>(runs) / took.count();
    };
    run(0.5);
    std::printf("%.3f\n", run(std::atof(words[3])));
    return 0;
}
