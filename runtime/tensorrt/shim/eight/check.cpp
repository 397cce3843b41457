// Holds this folder's description of TensorRT 8 against real headers: compile it with those on the include path, and
// run it. It prints how many facts it has compared, and fails with each that is wrong.

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <type_traits>

#include <NvInfer.h>
#include <NvOnnxParser.h>

#define REVOADA_EIGHT_MINOR NV_TENSORRT_MINOR

namespace {

int compared = 0;
int wrong = 0;

template <typename Member>
struct Signature;

template <typename Table, typename Answer, typename... Arguments>
struct Signature<Answer (Table::*)(Arguments...) const noexcept> {
    using Type = Answer(Arguments...);
};

template <typename Table, typename Answer, typename... Arguments>
struct Signature<Answer (Table::*)(Arguments...) noexcept> {
    using Type = Answer(Arguments...);
};

template <typename Table, typename Answer, typename... Arguments>
struct Signature<Answer (Table::*)(Arguments...) const> {
    using Type = Answer(Arguments...);
};

template <typename Table, typename Answer, typename... Arguments>
struct Signature<Answer (Table::*)(Arguments...)> {
    using Type = Answer(Arguments...);
};

// The place of a virtual function in its table, out of a pointer to it: on AArch64 that is its offset, on x86-64 one
// more.
template <typename Member>
std::size_t number_of(Member member) {
    std::uintptr_t offset = 0;
    std::memcpy(&offset, &member, sizeof offset);
    return offset / sizeof(void *);
}

void compare(const char *what, std::size_t found, std::size_t described) {
    ++compared;
    if (found != described) {
        ++wrong;
        std::printf("%s is %zu, not %zu\n", what, found, described);
    }
}

template <typename Enumerator>
std::size_t value_of(Enumerator enumerator) {
    return static_cast<std::size_t>(enumerator);
}

} // namespace

int main() {
    using namespace nvinfer1;

#define REVOADA_SLOT(table, entry, place, answer, arguments)                                                           \
    static_assert(std::is_same<Signature<decltype(&apiv::table::entry)>::Type, answer arguments>::value,               \
                  "`" #table "::" #entry "` has another signature");                                                   \
    compare(#table "::" #entry, number_of(&apiv::table::entry), place);
#include "slots.h"
#undef REVOADA_SLOT

#define REVOADA_ENUM(enumeration)
#define REVOADA_VALUE(enumeration, enumerator, number)                                                                 \
    compare(#enumeration "::" #enumerator, value_of(enumeration::enumerator), number);
#define REVOADA_END
#include "values.h"
#undef REVOADA_VALUE

    compare("ILogger::log", number_of(&ILogger::log), 0);
    compare("IProfiler::reportLayerTime", number_of(&IProfiler::reportLayerTime), 0);
    compare("IErrorRecorder::getNbErrors", number_of(&IErrorRecorder::getNbErrors), 2);
    compare("IErrorRecorder::getErrorCode", number_of(&IErrorRecorder::getErrorCode), 3);
    compare("IErrorRecorder::getErrorDesc", number_of(&IErrorRecorder::getErrorDesc), 4);
    compare("IErrorRecorder::hasOverflowed", number_of(&IErrorRecorder::hasOverflowed), 5);
    compare("IErrorRecorder::clear", number_of(&IErrorRecorder::clear), 6);
    compare("IErrorRecorder::reportError", number_of(&IErrorRecorder::reportError), 7);
    compare("IErrorRecorder::incRefCount", number_of(&IErrorRecorder::incRefCount), 8);
    compare("IErrorRecorder::decRefCount", number_of(&IErrorRecorder::decRefCount), 9);
    compare("IParserError::code", number_of(&nvonnxparser::IParserError::code), 0);
    compare("IParserError::desc", number_of(&nvonnxparser::IParserError::desc), 1);
    compare("IParserError::node", number_of(&nvonnxparser::IParserError::node), 5);
    compare("IParser::parse", number_of(&nvonnxparser::IParser::parse), 0);
    compare("IParser::destroy", number_of(&nvonnxparser::IParser::destroy), 5);
    compare("IParser::getNbErrors", number_of(&nvonnxparser::IParser::getNbErrors), 6);
    compare("IParser::getError", number_of(&nvonnxparser::IParser::getError), 7);
    compare("IParser::clearErrors", number_of(&nvonnxparser::IParser::clearErrors), 8);

    // A table's address, and the pointer to what does the work.
    compare("sizeof(IBuilder)", sizeof(IBuilder), 2 * sizeof(void *));
    compare("sizeof(INetworkDefinition)", sizeof(INetworkDefinition), 2 * sizeof(void *));
    compare("sizeof(IBuilderConfig)", sizeof(IBuilderConfig), 2 * sizeof(void *));
    compare("sizeof(ICudaEngine)", sizeof(ICudaEngine), 2 * sizeof(void *));
    compare("sizeof(IExecutionContext)", sizeof(IExecutionContext), 2 * sizeof(void *));
    compare("sizeof(IRuntime)", sizeof(IRuntime), 2 * sizeof(void *));
    compare("sizeof(ILayer)", sizeof(ILayer), 2 * sizeof(void *));
    compare("sizeof(ITensor)", sizeof(ITensor), 2 * sizeof(void *));
    compare("sizeof(IHostMemory)", sizeof(IHostMemory), 2 * sizeof(void *));
    compare("sizeof(IOptimizationProfile)", sizeof(IOptimizationProfile), 2 * sizeof(void *));
    compare("sizeof(ITimingCache)", sizeof(ITimingCache), 2 * sizeof(void *));
    compare("sizeof(IEngineInspector)", sizeof(IEngineInspector), 2 * sizeof(void *));
    compare("sizeof(Dims)", sizeof(Dims), 9 * sizeof(int32_t));

    std::printf("%d facts of TensorRT 8.%d compared, %d wrong\n", compared, NV_TENSORRT_MINOR, wrong);
    return wrong == 0 ? 0 : 1;
}
