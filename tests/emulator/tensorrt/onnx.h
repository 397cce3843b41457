// As much of an ONNX model as the emulated builder wants to know.
#pragma once

#include <cstddef>
#include <map>
#include <string>
#include <vector>

#include "plan.h"

namespace emulator {

struct Node {
    std::string name, operation;
    std::vector<std::string> inputs, outputs;
};

struct Graph {
    std::string name;
    std::vector<Node> nodes;
    // With -1 for lengths that are open.
    std::vector<Port> inputs, outputs;
    // Of every tensor, as the shim calls element types.
    std::map<std::string, std::string> types;
};

// Whether the bytes are a model.
bool read_onnx(const char* bytes, size_t size, Graph& graph);

}  // namespace emulator
