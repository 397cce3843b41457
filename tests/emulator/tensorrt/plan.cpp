#include "plan.h"

#include <cmath>
#include <cstring>
#include <map>
#include <sstream>

namespace emulator {

namespace {

bool read_shape(const std::string& text, Shape& shape) {
    std::istringstream lengths(text);
    for (std::string length; std::getline(lengths, length, ',');) {
        char* end = nullptr;
        shape.push_back(std::strtoll(length.c_str(), &end, 10));
        if (length.empty() || *end) return false;
    }
    return !shape.empty();
}

float from_half(uint16_t bits) {
    float sign = bits & 0x8000 ? -1.f : 1.f;
    int exponent = bits >> 10 & 31, fraction = bits & 1023;
    if (exponent == 31) return fraction ? NAN : sign * INFINITY;
    if (exponent == 0) return sign * std::ldexp(static_cast<float>(fraction), -24);
    return sign * std::ldexp(static_cast<float>(fraction + 1024), exponent - 25);
}

float number(const Bound& bound, size_t index) {
    const char* at = bound.address + index * size_of(bound.port.type);
    if (bound.port.type == "u8") return static_cast<unsigned char>(*at);
    if (bound.port.type == "f16") {
        uint16_t bits;
        std::memcpy(&bits, at, 2);
        return from_half(bits);
    }
    float value;
    std::memcpy(&value, at, 4);
    return value;
}

float* floats(const Bound& bound) {
    return reinterpret_cast<float*>(bound.address);
}

using Bounds = std::vector<Bound>;
using Operation = void (*)(const Bounds&, const Bounds&);

void increment(const Bounds& in, const Bounds& out) {
    for (size_t i = 0; i < count(in[0].shape); i++) floats(out[0])[i] = number(in[0], i) + 1;
}

void widen(const Bounds& in, const Bounds& out) {
    for (size_t i = 0; i < count(in[0].shape); i++) floats(out[0])[i] = number(in[0], i);
}

// Of pictures of three channels; they are the second dimension where that is what is three long, else the last.
void channel_means(const Bounds& in, const Bounds& out) {
    size_t rows = static_cast<size_t>(in[0].shape[0]), pixels = count(in[0].shape) / rows / 3;
    bool planes = in[0].shape[1] == 3;
    for (size_t row = 0; row < rows; row++)
        for (size_t channel = 0; channel < 3; channel++) {
            double sum = 0;
            for (size_t pixel = 0; pixel < pixels; pixel++)
                sum += number(in[0], row * 3 * pixels + (planes ? channel * pixels + pixel : pixel * 3 + channel));
            floats(out[0])[row * 3 + channel] = static_cast<float>(sum / static_cast<double>(pixels));
        }
}

void sum(const Bounds& in, const Bounds& out) {
    for (size_t i = 0; i < count(in[0].shape); i++) floats(out[0])[i] = number(in[0], i) + number(in[1], i);
}

void sum_and_scaled_difference(const Bounds& in, const Bounds& out) {
    for (size_t i = 0; i < count(in[0].shape); i++) {
        float a = number(in[0], i), b = number(in[1], i);
        floats(out[0])[i] = a + b;
        floats(out[1])[i] = (a - b) * number(in[2], 0);
    }
}

void transpose(const Bounds& in, const Bounds& out) {
    size_t rows = static_cast<size_t>(in[0].shape[0]), columns = static_cast<size_t>(in[0].shape[1]);
    size_t size = size_of(in[0].port.type);
    for (size_t row = 0; row < rows; row++)
        for (size_t column = 0; column < columns; column++)
            std::memcpy(out[0].address + (column * rows + row) * size, in[0].address + (row * columns + column) * size, size);
}

// Weighted sums of each row: any network, to who only compares its answers with each other.
void mixture(const Bounds& in, const Bounds& out) {
    size_t rows = static_cast<size_t>(in[0].shape[0]), length = count(in[0].shape) / rows;
    size_t scores = count(out[0].shape) / rows;
    for (size_t row = 0; row < rows; row++)
        for (size_t score = 0; score < scores; score++) {
            float sum = 0;
            for (size_t i = 0; i < length; i++)
                sum += number(in[0], row * length + i) * (static_cast<float>((i * 7 + score * 13) % 11) - 5);
            floats(out[0])[row * scores + score] = sum;
        }
}

const std::map<std::string, Operation>& operations() {
    static const std::map<std::string, Operation> known = {
        {"increment", increment},   {"widen", widen},
        {"transpose", transpose},   {"channel_means", channel_means},
        {"mixture", mixture},       {"sum_and_scaled_difference", sum_and_scaled_difference},
        {"sum", sum},
    };
    return known;
}

}  // namespace

size_t size_of(const std::string& type) {
    return type == "i64" ? 8 : type == "f32" || type == "i32" ? 4 : type == "f16" ? 2 : 1;
}

size_t count(const Shape& shape) {
    size_t product = 1;
    for (int64_t length : shape) product *= static_cast<size_t>(length);
    return product;
}

bool read_plan(const char* bytes, size_t size, Plan& plan) {
    std::istringstream lines(std::string(bytes, size));
    std::string line;
    if (!std::getline(lines, line) || line != "EMULATED PLAN") return false;
    while (std::getline(lines, line)) {
        std::istringstream words(line);
        std::string what, shape;
        Port port;
        words >> what;
        if (what == "operation") {
            words >> plan.operation;
        } else if (what == "workspace") {
            words >> plan.workspace_bytes;
        } else if (what == "layer") {
            Layer layer;
            words >> layer.name >> layer.kind >> layer.type >> layer.microseconds;
            for (char& letter : layer.name)
                if (letter == '~') letter = ' ';
            plan.layers.push_back(layer);
        } else if (what == "input" || what == "output") {
            port.input = what == "input";
            words >> port.name >> port.type >> shape;
            if (!read_shape(shape, port.shape)) return false;
            for (std::string min, opt, max; port.input && words >> min;) {
                Range range;
                words >> opt >> max;
                if (!read_shape(min, range.min) || !read_shape(opt, range.opt) || !read_shape(max, range.max)) return false;
                port.profiles.push_back(range);
            }
            if (port.input) {
                if (port.profiles.empty() || port.profiles.size() != (plan.profiles ? plan.profiles : port.profiles.size()))
                    return false;
                plan.profiles = port.profiles.size();
                // The end of the line is what ended its ranges.
                words.clear();
            }
            plan.ports.push_back(port);
        } else {
            return false;
        }
        if (!words) return false;
    }
    if (plan.layers.empty()) plan.layers.push_back({plan.operation, "Emulated", "Float", 100});
    return true;
}

std::string describe(const Plan& plan) {
    std::ostringstream json;
    const char* between = "{\"Layers\": [";
    for (const Layer& layer : plan.layers) {
        auto tensor = [&](const char* side) {
            json << "\"" << side << "\": [{\"Name\": \"" << layer.name << "." << side << "\", \"Location\": \"Device\", "
                 << "\"Format/Datatype\": \"" << layer.type << "\"}]";
        };
        json << between << "{\"Name\": \"" << layer.name << "\", \"LayerType\": \"" << layer.kind << "\", ";
        tensor("Inputs");
        json << ", ";
        tensor("Outputs");
        json << "}";
        between = ", ";
    }
    json << "], \"Bindings\": []}";
    return json.str();
}

bool is_known(const std::string& operation) {
    return operations().count(operation) != 0;
}

void calculate(const std::string& operation, const Bounds& inputs, const Bounds& outputs) {
    operations().at(operation)(inputs, outputs);
}

}  // namespace emulator
