// Parsing a model, and looking at the network that came of it.

#include "build.h"

namespace REVOADA_DIALECT {
namespace {

using namespace nvinfer1;

int32_t build_parse(TrtBuild *build, const void *model, size_t size, const char *path) {
    return guarded<int32_t>(build->host, TRT_REFUSED,
                            [&] { return done_if(build->parser->parse(model, size, path)); });
}

int32_t build_error_count(TrtBuild *build) {
    return guarded<int32_t>(build->host, 0, [&] { return build->parser->getNbErrors(); });
}

int32_t build_error(TrtBuild *build, int32_t index, TrtParserError *error) {
    return guarded<int32_t>(build->host, TRT_REFUSED, [&] {
        const nvonnxparser::IParserError *found = build->parser->getError(index);
        if (found == nullptr) {
            return TRT_REFUSED;
        }
        error->code = static_cast<int32_t>(found->code());
        error->node = found->node();
        error->description = found->desc();
#if REVOADA_MAJOR >= 10
        error->node_name = found->nodeName();
        error->node_operator = found->nodeOperator();
#else
        error->node_name = nullptr;
        error->node_operator = nullptr;
#endif
        return TRT_DONE;
    });
}

int32_t build_input_count(TrtBuild *build) {
    return guarded<int32_t>(build->host, 0, [&] { return build->network->getNbInputs(); });
}

int32_t build_input(TrtBuild *build, int32_t index, TrtTensor *tensor) {
    return guarded<int32_t>(build->host, TRT_REFUSED, [&] {
        const ITensor *input = build->network->getInput(index);
        if (input == nullptr) {
            return TRT_REFUSED;
        }
        tensor->name = input->getName();
        tensor->type = type_of(input->getType());
        tensor->is_input = 1;
        tensor->on_host = input->isShapeTensor() ? 1 : 0;
        tensor->dims = from_dims(input->getDimensions());
        return TRT_DONE;
    });
}

const char *kind_of(LayerType type) noexcept {
    switch (type) {
    case LayerType::kCONVOLUTION: return "convolution";
    case LayerType::kACTIVATION: return "activation";
    case LayerType::kPOOLING: return "pooling";
    case LayerType::kLRN: return "lrn";
    case LayerType::kSCALE: return "scale";
    case LayerType::kSOFTMAX: return "softmax";
    case LayerType::kDECONVOLUTION: return "deconvolution";
    case LayerType::kCONCATENATION: return "concatenation";
    case LayerType::kELEMENTWISE: return "elementwise";
    case LayerType::kUNARY: return "unary";
    case LayerType::kPADDING: return "padding";
    case LayerType::kSHUFFLE: return "shuffle";
    case LayerType::kREDUCE: return "reduce";
    case LayerType::kTOPK: return "topk";
    case LayerType::kGATHER: return "gather";
    case LayerType::kMATRIX_MULTIPLY: return "matrix multiply";
    case LayerType::kRAGGED_SOFTMAX: return "ragged softmax";
    case LayerType::kCONSTANT: return "constant";
    case LayerType::kIDENTITY: return "identity";
    case LayerType::kPLUGIN: return "plugin";
    case LayerType::kPLUGIN_V2: return "plugin";
    case LayerType::kSLICE: return "slice";
    case LayerType::kSHAPE: return "shape";
    case LayerType::kPARAMETRIC_RELU: return "parametric relu";
    case LayerType::kRESIZE: return "resize";
    case LayerType::kTRIP_LIMIT: return "trip limit";
    case LayerType::kRECURRENCE: return "recurrence";
    case LayerType::kITERATOR: return "iterator";
    case LayerType::kLOOP_OUTPUT: return "loop output";
    case LayerType::kSELECT: return "select";
    case LayerType::kFILL: return "fill";
    case LayerType::kQUANTIZE: return "quantize";
    case LayerType::kDEQUANTIZE: return "dequantize";
    case LayerType::kCONDITION: return "condition";
    case LayerType::kCONDITIONAL_INPUT: return "conditional input";
    case LayerType::kCONDITIONAL_OUTPUT: return "conditional output";
    case LayerType::kSCATTER: return "scatter";
    case LayerType::kEINSUM: return "einsum";
    case LayerType::kASSERTION: return "assertion";
#if REVOADA_MAJOR >= 10
    case LayerType::kCAST: return "cast";
    case LayerType::kONE_HOT: return "one hot";
    case LayerType::kNON_ZERO: return "non zero";
    case LayerType::kGRID_SAMPLE: return "grid sample";
    case LayerType::kNMS: return "non-maximum suppression";
    case LayerType::kREVERSE_SEQUENCE: return "reverse sequence";
    case LayerType::kNORMALIZATION: return "normalization";
    case LayerType::kPLUGIN_V3: return "plugin";
#endif
    default: return "other";
    }
}

int32_t build_layer_count(TrtBuild *build) {
    return guarded<int32_t>(build->host, 0, [&] { return build->network->getNbLayers(); });
}

int32_t build_layer(TrtBuild *build, int32_t index, TrtLayer *layer) {
    return guarded<int32_t>(build->host, TRT_REFUSED, [&] {
        const ILayer *found = build->network->getLayer(index);
        if (found == nullptr) {
            return TRT_REFUSED;
        }
        layer->name = found->getName();
        layer->kind = kind_of(found->getType());
        layer->inputs = found->getNbInputs();
        layer->outputs = found->getNbOutputs();
        return TRT_DONE;
    });
}

int32_t build_layer_type(TrtBuild *build, int32_t layer, int32_t is_output, int32_t index) {
    return guarded<int32_t>(build->host, TRT_TYPE_OTHER, [&] {
        const ILayer *found = build->network->getLayer(layer);
        const ITensor *tensor = found == nullptr  ? nullptr
                                : is_output != 0 ? found->getOutput(index)
                                                 : found->getInput(index);
        return tensor == nullptr ? TRT_TYPE_OTHER : type_of(tensor->getType());
    });
}

#if !REVOADA_STRONGLY_TYPED
// A layer whose values are numbers to compute with, so that it may be told in which type.
bool computes(const ILayer &layer) {
    switch (layer.getType()) {
    case LayerType::kCONSTANT:
    case LayerType::kSHAPE:
    case LayerType::kQUANTIZE:
    case LayerType::kDEQUANTIZE: return false;
    default: break;
    }
    for (int32_t index = 0; index < layer.getNbOutputs(); ++index) {
        const ITensor *output = layer.getOutput(index);
        if (output->isShapeTensor() ||
            (output->getType() != DataType::kFLOAT && output->getType() != DataType::kHALF)) {
            return false;
        }
    }
    return layer.getNbOutputs() > 0;
}
#endif

int32_t build_obey_types(TrtBuild *build) {
#if REVOADA_STRONGLY_TYPED
    static_cast<void>(build);
    return TRT_DONE;
#else
    return guarded<int32_t>(build->host, TRT_REFUSED, [&] {
        for (int32_t index = 0; index < build->network->getNbLayers(); ++index) {
            ILayer *layer = build->network->getLayer(index);
            if (layer->getType() == LayerType::kQUANTIZE || layer->getType() == LayerType::kDEQUANTIZE) {
                build->config->setFlag(BuilderFlag::kINT8);
            }
            if (!computes(*layer)) {
                continue;
            }
            layer->setPrecision(layer->getOutput(0)->getType());
            for (int32_t output = 0; output < layer->getNbOutputs(); ++output) {
                const DataType type = layer->getOutput(output)->getType();
                layer->setOutputType(output, type);
                if (type == DataType::kHALF) {
                    build->config->setFlag(BuilderFlag::kFP16);
                }
            }
        }
        build->config->setFlag(BuilderFlag::kOBEY_PRECISION_CONSTRAINTS);
        return TRT_DONE;
    });
#endif
}

} // namespace

void add_network(TrtApi &api) noexcept {
    api.build_parse = build_parse;
    api.build_error_count = build_error_count;
    api.build_error = build_error;
    api.build_input_count = build_input_count;
    api.build_input = build_input;
    api.build_layer_count = build_layer_count;
    api.build_layer = build_layer;
    api.build_layer_type = build_layer_type;
    api.build_obey_types = build_obey_types;
}

} // namespace REVOADA_DIALECT
