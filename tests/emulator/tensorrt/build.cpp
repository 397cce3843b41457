// The builder of the emulated TensorRT: a network of which it knows the layers and their types, and plans that compute
// one of the emulator's own operations, the one that the graph is called by, or else `mixture`.

#include <algorithm>
#include <cstring>
#include <list>
#include <map>
#include <memory>
#include <sstream>
#include <string>

#include <NvInfer.h>

#include "control.h"
#include "onnx.h"
#include "plan.h"
#include "strict.h"
#include "types.h"

#define EXPORT extern "C" __attribute__((visibility("default")))

using namespace emulator;
using namespace nvinfer1;

namespace {

LayerType kind_of(const std::string& operation) {
    if (operation == "Conv") return LayerType::kCONVOLUTION;
    if (operation == "QuantizeLinear") return LayerType::kQUANTIZE;
    if (operation == "DequantizeLinear") return LayerType::kDEQUANTIZE;
    if (operation == "Cast") return LayerType::kCAST;
    if (operation == "MatMul" || operation == "Gemm") return LayerType::kMATRIX_MULTIPLY;
    return LayerType::kELEMENTWISE;
}

class Memory final : public IHostMemory, strict::HostMemory {
  public:
    explicit Memory(std::string bytes) : bytes(std::move(bytes)) { mImpl = this; }
    ~Memory() noexcept override = default;
    void* data() const noexcept override { return const_cast<char*>(bytes.data()); }
    std::size_t size() const noexcept override { return bytes.size(); }

  private:
    std::string bytes;
};

class Tensor final : public ITensor, strict::Tensor {
  public:
    Tensor(std::string name, std::string type, Shape shape)
        : name(std::move(name)), type(std::move(type)), shape(std::move(shape)) {
        mImpl = this;
    }
    const char* getName() const noexcept override { return name.c_str(); }
    DataType getType() const noexcept override { return type_of(type); }
    bool isShapeTensor() const noexcept override { return false; }
    Dims getDimensions() const noexcept override {
        Dims dims{};
        dims.nbDims = static_cast<int32_t>(shape.size());
        for (size_t i = 0; i < shape.size(); i++) dims.d[i] = shape[i];
        return dims;
    }

  private:
    std::string name, type;
    Shape shape;
};

class Layer final : public ILayer, strict::Layer {
  public:
    Layer(Node node, std::vector<ITensor*> inputs, std::vector<ITensor*> outputs)
        : node(std::move(node)), inputs(std::move(inputs)), outputs(std::move(outputs)) {
        mLayer = this;
    }
    LayerType getType() const noexcept override { return kind_of(node.operation); }
    const char* getName() const noexcept override { return node.name.c_str(); }
    int32_t getNbInputs() const noexcept override { return static_cast<int32_t>(inputs.size()); }
    int32_t getNbOutputs() const noexcept override { return static_cast<int32_t>(outputs.size()); }
    ITensor* getInput(int32_t index) const noexcept override { return inputs[static_cast<size_t>(index)]; }
    ITensor* getOutput(int32_t index) const noexcept override { return outputs[static_cast<size_t>(index)]; }

  private:
    Node node;
    std::vector<ITensor*> inputs, outputs;
};

class Network final : public INetworkDefinition, strict::NetworkDefinition {
  public:
    Network() { mImpl = this; }
    void setErrorRecorder(IErrorRecorder*) noexcept override {}
    int32_t getNbLayers() const noexcept override { return static_cast<int32_t>(layers.size()); }
    int32_t getNbInputs() const noexcept override { return static_cast<int32_t>(inputs.size()); }
    ITensor* getInput(int32_t index) const noexcept override { return inputs[static_cast<size_t>(index)]; }
    ILayer* getLayer(int32_t index) const noexcept override {
        auto layer = layers.begin();
        std::advance(layer, index);
        return const_cast<Layer*>(&*layer);
    }

    bool read(const char* bytes, size_t size) {
        if (!read_onnx(bytes, size, graph)) return false;
        for (const Port& port : graph.inputs) inputs.push_back(tensor(port.name, port.shape));
        for (const Node& node : graph.nodes) {
            std::vector<ITensor*> in, out;
            for (const std::string& name : node.inputs) in.push_back(tensor(name, {}));
            for (const std::string& name : node.outputs) out.push_back(tensor(name, {}));
            layers.emplace_back(node, in, out);
        }
        return true;
    }

    Graph graph;

  private:
    ITensor* tensor(const std::string& name, const Shape& shape) {
        auto found = tensors.find(name);
        if (found == tensors.end())
            found = tensors.emplace(name, std::make_unique<Tensor>(name, graph.types[name], shape)).first;
        return found->second.get();
    }

    std::map<std::string, std::unique_ptr<Tensor>> tensors;
    std::vector<ITensor*> inputs;
    std::list<Layer> layers;
};

class Profile final : public IOptimizationProfile, strict::OptimizationProfile {
  public:
    Profile() { mImpl = this; }
    bool setDimensions(const char* input, OptProfileSelector which, const Dims& dims) noexcept override {
        ranges[input][static_cast<size_t>(which)] = Shape(dims.d, dims.d + dims.nbDims);
        return true;
    }

    std::map<std::string, std::map<size_t, Shape>> ranges;
};

// The names of the layers that were timed once, a line each.
class Timings final : public ITimingCache, strict::TimingCache {
  public:
    explicit Timings(std::string lines) : lines(std::move(lines)) { mImpl = this; }
    ~Timings() noexcept override = default;
    IHostMemory* serialize() const noexcept override { return new Memory(lines); }

    bool add(const std::string& layer) {
        if (("\n" + lines).find("\n" + layer + "\n") != std::string::npos) return false;
        lines += layer + "\n";
        return true;
    }

  private:
    std::string lines;
};

class Config final : public IBuilderConfig, strict::BuilderConfig {
  public:
    Config() { mImpl = this; }
    ~Config() noexcept override = default;
    void setProfilingVerbosity(ProfilingVerbosity) noexcept override {}
    void setProgressMonitor(IProgressMonitor* to) noexcept override { monitor = to; }
    void setFlag(BuilderFlag flag) noexcept override { note("builder flag %d", static_cast<int>(flag)); }
    void setDefaultDeviceType(DeviceType type) noexcept override { note("device type %d", static_cast<int>(type)); }
    void setDLACore(int32_t core) noexcept override { note("DLA core %d", core); }
    void setHardwareCompatibilityLevel(HardwareCompatibilityLevel level) noexcept override {
        note("hardware compatibility %d", static_cast<int>(level));
    }
    void setMemoryPoolLimit(MemoryPoolType, std::size_t bytes) noexcept override { note("workspace %zu", bytes); }
    int32_t addOptimizationProfile(const IOptimizationProfile* profile) noexcept override {
        profiles.push_back(static_cast<const Profile*>(profile));
        return static_cast<int32_t>(profiles.size()) - 1;
    }
    ITimingCache* createTimingCache(const void* bytes, std::size_t size) const noexcept override {
        std::string lines(static_cast<const char*>(bytes), size);
        return lines.empty() || lines.back() == '\n' ? new Timings(lines) : nullptr;
    }
    bool setTimingCache(const ITimingCache& cache, bool) noexcept override {
        timings = const_cast<Timings*>(static_cast<const Timings*>(&cache));
        return true;
    }
    const ITimingCache* getTimingCache() const noexcept override { return timings; }

    IProgressMonitor* monitor = nullptr;
    Timings* timings = nullptr;
    std::vector<const Profile*> profiles;
};

std::string text_of(const Shape& shape) {
    std::ostringstream text;
    for (size_t i = 0; i < shape.size(); i++) text << (i ? "," : "") << shape[i];
    return text.str();
}

// Words are what lines of a plan are made of.
std::string escaped(std::string name) {
    for (char& letter : name)
        if (letter == ' ') letter = '~';
    return name;
}

std::string plan_of(const Graph& graph, const Config& config) {
    std::ostringstream plan;
    plan << "EMULATED PLAN\noperation " << (is_known(graph.name) ? graph.name : "mixture") << "\nworkspace 64\n";
    for (const Port& port : graph.inputs) {
        plan << "input " << port.name << " " << port.type << " " << text_of(port.shape);
        // Without a profile there is one of the shapes that the graph declares.
        for (size_t index = 0; index < std::max<size_t>(config.profiles.size(), 1); index++)
            for (size_t which = 0; which < 3; which++) {
                const Profile* profile = config.profiles.empty() ? nullptr : config.profiles[index];
                bool said = profile && profile->ranges.count(port.name);
                plan << " " << text_of(said ? profile->ranges.at(port.name).at(which) : port.shape);
            }
        plan << "\n";
    }
    // Told to fail here, it does what nobody asked for: it computes in another precision.
    bool as_asked = !Call("choose tactics").refused;
    for (const Node& node : graph.nodes) {
        if (node.operation != "Conv" && node.operation != "MatMul" && node.operation != "Gemm") continue;
        std::string type = as_asked ? graph.types.at(node.inputs[0]) : "f32";
        for (const Node& before : graph.nodes)
            if (as_asked && before.operation == "DequantizeLinear" && before.outputs[0] == node.inputs[0]) type = "i8";
        plan << "layer " << escaped(node.name) << " Emulated "
             << (type == "f16" ? "Half" : type == "i8" ? "Int8" : "Float") << " 100\n";
    }
    for (const Port& port : graph.outputs)
        plan << "output " << port.name << " " << port.type << " " << text_of(port.shape) << "\n";
    return plan.str();
}

class Builder final : public IBuilder, strict::Builder {
  public:
    Builder() { mImpl = this; }
    ~Builder() noexcept override = default;
    void setErrorRecorder(IErrorRecorder* to) noexcept override { recorder = to; }
    int32_t getNbDLACores() const noexcept override { return setting("REVOADA_EMULATOR_DEVICE", "") == "orin" ? 2 : 0; }
    INetworkDefinition* createNetworkV2(NetworkDefinitionCreationFlags) noexcept override { return new Network(); }
    IBuilderConfig* createBuilderConfig() noexcept override { return new Config(); }
    IOptimizationProfile* createOptimizationProfile() noexcept override {
        profiles.emplace_back();
        return &profiles.back();
    }

    IHostMemory* buildSerializedNetwork(INetworkDefinition& network, IBuilderConfig& settings) noexcept override {
        const Graph& graph = static_cast<Network&>(network).graph;
        auto& config = static_cast<Config&>(settings);
        {
            Call call("buildSerializedNetwork");
            if (call.refused) {
                if (recorder)
                    recorder->reportError(ErrorCode::kINTERNAL_ERROR,
                                          ("Error Code 10: Internal Error (Could not find any implementation for node " +
                                           graph.nodes.front().name + ".)")
                                              .c_str());
                return nullptr;
            }
        }
        const char* phase = "Building engine";
        if (config.monitor) config.monitor->phaseStart(phase, nullptr, static_cast<int32_t>(graph.nodes.size()));
        bool goes_on = true;
        for (size_t i = 0; goes_on && i < graph.nodes.size(); i++) {
            if (config.timings && config.timings->add(graph.nodes[i].name)) note("timed a layer");
            if (config.monitor) goes_on = config.monitor->stepComplete(phase, static_cast<int32_t>(i));
        }
        if (config.monitor) config.monitor->phaseFinish(phase);
        return goes_on ? new Memory(plan_of(graph, config)) : nullptr;
    }

  private:
    std::list<Profile> profiles;
    IErrorRecorder* recorder = nullptr;
};

}  // namespace

EXPORT void* createInferBuilder_INTERNAL(void*, int32_t) noexcept {
    Call call("createInferBuilder_INTERNAL");
    return call.refused ? nullptr : static_cast<IBuilder*>(new Builder());
}

// For the parser, which is a library of its own.
EXPORT bool emulator_read_network(void* network, const char* bytes, size_t size) noexcept {
    return static_cast<Network*>(static_cast<INetworkDefinition*>(network))->read(bytes, size);
}
