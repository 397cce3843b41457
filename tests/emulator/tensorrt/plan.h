// What the emulator has for a plan: a few lines of text that say what goes in, what comes out, and which of a few known
// operations is between them.
//
//     EMULATED PLAN
//     operation increment
//     workspace 64
//     input x f32 -1,3 1,3 4,3 8,3
//     output y f32 -1,3
//
// Lines such as `layer conv+relu CaskConvolution Half 250` name the layers, with what runs each, the type around it, and
// how many microseconds it is said to take: a number like the others, which nothing was measured for; `~` is a space
// in a name. A plan without them has one layer, its operation.
//
// An input has its shape and those of its profiles, as many for each input: the smallest, the one it is tuned for and the
// largest. The open lengths (-1) of an output are those of the first input, in their order; -2 is one that depends on the data.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace emulator {

using Shape = std::vector<int64_t>;

struct Range {
    Shape min, opt, max;
};

struct Port {
    std::string name, type;
    bool input = false;
    Shape shape;
    // Of an input, profile by profile.
    std::vector<Range> profiles;
};

struct Layer {
    std::string name, kind, type;
    unsigned microseconds = 0;
};

struct Plan {
    std::string operation;
    size_t workspace_bytes = 0;
    // How many there are; a plan without inputs has none.
    size_t profiles = 0;
    std::vector<Port> ports;
    std::vector<Layer> layers;
};

// Whether the bytes are a plan.
bool read_plan(const char* bytes, size_t size, Plan& plan);

size_t size_of(const std::string& type);
// Of a shape without open lengths.
size_t count(const Shape& shape);

// A port as it is bound for one run.
struct Bound {
    Port port;
    Shape shape;
    char* address = nullptr;
};

// What the engine inspector says of the layers.
std::string describe(const Plan& plan);

// Whether there is an operation of this name.
bool is_known(const std::string& operation);
// Inputs first, then outputs, each in the plan's order.
void calculate(const std::string& operation, const std::vector<Bound>& inputs, const std::vector<Bound>& outputs);

}  // namespace emulator
