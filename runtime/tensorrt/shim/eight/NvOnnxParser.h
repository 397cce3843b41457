// The ONNX parser of TensorRT 8, as far as the shim goes. Its objects hold their tables themselves.
#pragma once

#include "NvInfer.h"

namespace nvonnxparser {

// No class of our own derives from these, and none is made here: the entries that are not called have no signature.
class IParserError {
public:
    virtual int32_t code() const = 0;
    virtual char const *desc() const = 0;
    virtual void file() = 0;
    virtual void line() = 0;
    virtual void func() = 0;
    virtual int node() const = 0;

protected:
    ~IParserError() = default;
};

class IParser {
public:
    virtual bool parse(void const *model, std::size_t size, char const *path = nullptr) = 0;
    virtual void parseFromFile() = 0;
    virtual void supportsModel() = 0;
    virtual void parseWithWeightDescriptors() = 0;
    virtual void supportsOperator() = 0;
    virtual void destroy() = 0;
    virtual int getNbErrors() const = 0;
    virtual IParserError const *getError(int index) const = 0;
    virtual void clearErrors() = 0;

protected:
    ~IParser() = default;
};

} // namespace nvonnxparser
