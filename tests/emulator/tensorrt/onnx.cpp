#include "onnx.h"

#include <cstdint>

namespace emulator {

namespace {

// One field of a message of Protocol Buffers: a number, or bytes.
struct Field {
    uint64_t number = 0, value = 0;
    const char* bytes = nullptr;
    size_t size = 0;

    std::string text() const { return std::string(bytes, size); }
};

class Message {
  public:
    Message(const char* bytes, size_t size) : at(bytes), end(bytes + size) {}
    explicit Message(const Field& field) : Message(field.bytes, field.size) {}

    // The next field; none at the end, or where the bytes are no message.
    bool next(Field& field) {
        uint64_t key;
        if (at == end || !varint(key)) return false;
        field = Field{};
        field.number = key >> 3;
        switch (key & 7) {
        case 0: return varint(field.value);
        case 1: return skip(8);
        case 5: return skip(4);
        case 2: {
            uint64_t size;
            if (!varint(size)) return false;
            field.bytes = at;
            field.size = static_cast<size_t>(size);
            return skip(size);
        }
        default: return broken = true, false;
        }
    }

    bool is_whole() const { return !broken && at == end; }

  private:
    bool varint(uint64_t& value) {
        value = 0;
        for (int shift = 0; at != end && shift < 64; shift += 7) {
            auto byte = static_cast<unsigned char>(*at++);
            value |= static_cast<uint64_t>(byte & 127) << shift;
            if (byte < 128) return true;
        }
        return broken = true, false;
    }

    bool skip(uint64_t size) {
        if (size > static_cast<uint64_t>(end - at)) return broken = true, false;
        at += size;
        return true;
    }

    const char *at, *end;
    bool broken = false;
};

// `TensorProto.DataType`.
std::string type_name(uint64_t number) {
    switch (number) {
    case 2: return "u8";
    case 3: return "i8";
    case 6: return "i32";
    case 7: return "i64";
    case 9: return "bool";
    case 10: return "f16";
    default: return "f32";
    }
}

// `ValueInfoProto` → `TypeProto` → `Tensor` → `TensorShapeProto` → `Dimension`.
Port read_port(Message info, bool input) {
    Port port;
    port.input = input;
    for (Field field; info.next(field);) {
        if (field.number == 1) port.name = field.text();
        if (field.number != 2) continue;
        Message type(field);
        for (Field kind; type.next(kind);) {
            if (kind.number != 1) continue;
            Message tensor(kind);
            for (Field part; tensor.next(part);) {
                if (part.number == 1) port.type = type_name(part.value);
                if (part.number != 2) continue;
                Message shape(part);
                for (Field dimension; shape.next(dimension);) {
                    int64_t length = -1;
                    Message dim(dimension);
                    for (Field value; dim.next(value);)
                        if (value.number == 1) length = static_cast<int64_t>(value.value);
                    port.shape.push_back(length);
                }
            }
        }
    }
    return port;
}

// `NodeProto`, and what a `Cast` casts to.
Node read_node(Message proto, std::string& cast) {
    Node node;
    for (Field field; proto.next(field);) {
        if (field.number == 1) node.inputs.push_back(field.text());
        if (field.number == 2) node.outputs.push_back(field.text());
        if (field.number == 3) node.name = field.text();
        if (field.number == 4) node.operation = field.text();
        if (field.number != 5) continue;
        std::string name;
        uint64_t value = 0;
        Message attribute(field);
        for (Field part; attribute.next(part);) {
            if (part.number == 1) name = part.text();
            if (part.number == 3) value = part.value;
        }
        if (name == "to") cast = type_name(value);
    }
    return node;
}

// What a strongly typed network computes in: the type of what goes in, but for the operators that change it.
std::string output_type(const Node& node, const std::string& cast, const Graph& graph) {
    if (node.operation == "Cast") return cast;
    if (node.operation == "QuantizeLinear") return "i8";
    if (node.operation == "Shape" || node.operation == "ArgMax") return "i64";
    size_t decides = node.operation == "DequantizeLinear" ? 1 : 0;
    if (node.inputs.size() <= decides) return "f32";
    auto known = graph.types.find(node.inputs[decides]);
    return known == graph.types.end() ? "f32" : known->second;
}

bool read_graph(Message proto, Graph& graph) {
    std::vector<Field> nodes;
    for (Field field; proto.next(field);) {
        if (field.number == 1) nodes.push_back(field);
        if (field.number == 2) graph.name = field.text();
        if (field.number == 11) graph.inputs.push_back(read_port(Message(field), true));
        if (field.number == 12) graph.outputs.push_back(read_port(Message(field), false));
        if (field.number != 5) continue;
        // `TensorProto`
        std::string name, type;
        Message tensor(field);
        for (Field part; tensor.next(part);) {
            if (part.number == 2) type = type_name(part.value);
            if (part.number == 8) name = part.text();
        }
        graph.types[name] = type;
    }
    for (const Port& port : graph.inputs) graph.types[port.name] = port.type;
    for (const Field& field : nodes) {
        std::string cast;
        Node node = read_node(Message(field), cast);
        std::string type = output_type(node, cast, graph);
        for (const std::string& output : node.outputs) graph.types[output] = type;
        graph.nodes.push_back(node);
    }
    return proto.is_whole();
}

}  // namespace

bool read_onnx(const char* bytes, size_t size, Graph& graph) {
    Message model(bytes, size);
    bool found = false;
    for (Field field; model.next(field);)
        if (field.number == 7) found = read_graph(Message(field), graph);
    return found && model.is_whole();
}

}  // namespace emulator
