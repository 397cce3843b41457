/* The flat face of TensorRT: one table of C functions for each version of it that the shim was compiled against.
 *
 * Rust reads this header with bindgen. Nothing of TensorRT's own headers stands in it, so it is the same for
 * every version. Handles are opaque and belong to whoever opened them; a child must be closed before its parent.
 * No function throws, and none calls the host after it has returned, but for those of a runtime, an engine and a
 * context, whose host must outlive them. Texts are UTF-8 that ends with a zero byte; one that a function returns
 * lives as long as the handle that it came from, unless it says otherwise.
 */
#ifndef REVOADA_TENSORRT_H
#define REVOADA_TENSORRT_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* How a call ended. */
#define TRT_REFUSED 0 /* TensorRT said no; why went to the host */
#define TRT_DONE 1
#define TRT_ABSENT 2 /* this version of TensorRT knows no such thing */

/* Types of elements. */
#define TRT_TYPE_OTHER (-1)
#define TRT_TYPE_F32 0
#define TRT_TYPE_F16 1
#define TRT_TYPE_BF16 2
#define TRT_TYPE_F8 3
#define TRT_TYPE_F4 4
#define TRT_TYPE_I64 5
#define TRT_TYPE_I32 6
#define TRT_TYPE_I8 7
#define TRT_TYPE_I4 8
#define TRT_TYPE_U8 9
#define TRT_TYPE_BOOL 10

/* How urgent a line of TensorRT's log is. */
#define TRT_LOG_INTERNAL_ERROR 0
#define TRT_LOG_ERROR 1
#define TRT_LOG_WARNING 2
#define TRT_LOG_INFO 3
#define TRT_LOG_VERBOSE 4

/* The code under which an exception of C++ is reported to the host: none of TensorRT's own. */
#define TRT_EXCEPTION (-1)

/* Which devices may run a plan, beside those like the one it is built on. */
#define TRT_HARDWARE_SAME 0
#define TRT_HARDWARE_AMPERE_PLUS 1
#define TRT_HARDWARE_SAME_COMPUTE_CAPABILITY 2

/* What a range of shapes says. */
#define TRT_PROFILE_MIN 0
#define TRT_PROFILE_OPT 1
#define TRT_PROFILE_MAX 2

#define TRT_DIMS_MAX 8

/* What TensorRT calls back. Any thread of TensorRT's may call, several at once. */
typedef struct TrtHost {
    void *user;
    void (*log)(void *user, int32_t severity, const char *text);
    /* `code` is TensorRT's own, or TRT_EXCEPTION. */
    void (*error)(void *user, int32_t code, const char *text);
    /* `parent` is null for an outermost phase. */
    void (*phase_started)(void *user, const char *phase, const char *parent, int32_t steps);
    /* Zero asks the build to end. */
    int32_t (*step_done)(void *user, const char *phase, int32_t step);
    void (*phase_finished)(void *user, const char *phase);
} TrtHost;

/* Takes bytes that are gone when it returns. */
typedef struct TrtSink {
    void *user;
    void (*write)(void *user, const void *bytes, size_t size);
} TrtSink;

/* Takes the time of a layer; the name is gone when it returns. */
typedef struct TrtLayerTimes {
    void *user;
    void (*layer)(void *user, const char *name, float milliseconds);
} TrtLayerTimes;

/* A negative value is a dimension that is not known. */
typedef struct TrtDims {
    int32_t count;
    int64_t values[TRT_DIMS_MAX];
} TrtDims;

typedef struct TrtTensor {
    const char *name;
    int32_t type;
    int32_t is_input;
    /* Whether the values are read on the host: they are a shape. */
    int32_t on_host;
    TrtDims dims;
} TrtTensor;

typedef struct TrtLayer {
    const char *name;
    const char *kind;
    int32_t inputs;
    int32_t outputs;
} TrtLayer;

typedef struct TrtParserError {
    int32_t code;
    int32_t node;
    /* Each of these may be null, or empty. */
    const char *description;
    const char *node_name;
    const char *node_operator;
} TrtParserError;

/* What is to be built: a builder, a network, its configuration and the parser that fills the network. */
typedef struct TrtBuild TrtBuild;
typedef struct TrtRuntime TrtRuntime;
typedef struct TrtEngine TrtEngine;
typedef struct TrtContext TrtContext;

/* The functions of the libraries that make everything else. */
typedef void *(*TrtCreate)(void *logger, int32_t version);
typedef void *(*TrtCreateParser)(void *network, void *logger, int32_t version);

typedef struct TrtApi {
    /* The version of the headers, and whether they are those of TensorRT for RTX. */
    int32_t major;
    int32_t minor;
    int32_t patch;
    int32_t rtx;
    /* Whether a network takes the types of its tensors from the graph alone. */
    int32_t strongly_typed;

    /* `version` is that of the library. Null where it could not be made. */
    TrtBuild *(*build_open)(TrtCreate builder, TrtCreateParser parser, int32_t version, int32_t parser_version,
                            const TrtHost *host);
    void (*build_close)(TrtBuild *build);
    /* `path` says where the model lies, for weights outside it; it may be null. */
    int32_t (*build_parse)(TrtBuild *build, const void *model, size_t size, const char *path);
    int32_t (*build_error_count)(TrtBuild *build);
    int32_t (*build_error)(TrtBuild *build, int32_t index, TrtParserError *error);
    int32_t (*build_input_count)(TrtBuild *build);
    int32_t (*build_input)(TrtBuild *build, int32_t index, TrtTensor *tensor);
    int32_t (*build_layer_count)(TrtBuild *build);
    int32_t (*build_layer)(TrtBuild *build, int32_t index, TrtLayer *layer);
    /* The type of a layer's input or output; TRT_TYPE_OTHER for an input that is left out. */
    int32_t (*build_layer_type)(TrtBuild *build, int32_t layer, int32_t is_output, int32_t index);
    /* Where types are hints, demands those that the network's tensors have. */
    int32_t (*build_obey_types)(TrtBuild *build);
    /* Begins a further set of ranges of shapes. Null where it could not be made. */
    void *(*build_profile)(TrtBuild *build);
    int32_t (*build_profile_range)(TrtBuild *build, void *profile, const char *input, const TrtDims *min,
                                   const TrtDims *opt, const TrtDims *max);
    int32_t (*build_profile_done)(TrtBuild *build, void *profile);
    int32_t (*build_workspace)(TrtBuild *build, uint64_t bytes);
    int32_t (*build_timing_cache)(TrtBuild *build, const void *cache, size_t size);
    int32_t (*build_version_compatible)(TrtBuild *build);
    int32_t (*build_hardware)(TrtBuild *build, int32_t level);
    /* `capabilities` are such as 86. */
    int32_t (*build_targets)(TrtBuild *build, const int32_t *capabilities, int32_t count);
    int32_t (*build_dla_cores)(TrtBuild *build);
    int32_t (*build_dla)(TrtBuild *build, int32_t core);
    int32_t (*build_run)(TrtBuild *build, const TrtSink *plan);
    /* TRT_ABSENT where the build kept no timings. */
    int32_t (*build_timings)(TrtBuild *build, const TrtSink *cache);

    TrtRuntime *(*runtime_open)(TrtCreate runtime, int32_t version, const TrtHost *host);
    void (*runtime_close)(TrtRuntime *runtime);
    int32_t (*runtime_dla)(TrtRuntime *runtime, int32_t core);
    /* Lets plans run code of their own on the host, as version-compatible ones need. */
    int32_t (*runtime_host_code)(TrtRuntime *runtime);

    TrtEngine *(*engine_open)(TrtRuntime *runtime, const void *plan, size_t size);
    void (*engine_close)(TrtEngine *engine);
    int32_t (*engine_tensor_count)(TrtEngine *engine);
    int32_t (*engine_tensor)(TrtEngine *engine, int32_t index, TrtTensor *tensor);
    int32_t (*engine_profile_count)(TrtEngine *engine);
    int32_t (*engine_profile)(TrtEngine *engine, const char *input, int32_t profile, int32_t selector, TrtDims *dims);
    int64_t (*engine_memory)(TrtEngine *engine);
    int32_t (*engine_layer_count)(TrtEngine *engine);
    int32_t (*engine_inspect)(TrtEngine *engine, const TrtSink *json);

    /* With `own_memory` zero, the context must be given memory before it runs. */
    TrtContext *(*context_open)(TrtEngine *engine, int32_t own_memory, const TrtHost *host);
    void (*context_close)(TrtContext *context);
    int32_t (*context_profile)(TrtContext *context, int32_t profile, uint64_t stream);
    int32_t (*context_shape)(TrtContext *context, const char *input, const TrtDims *dims);
    /* A negative value where it is not known yet. */
    int32_t (*context_tensor_dims)(TrtContext *context, const char *name, TrtDims *dims);
    int32_t (*context_address)(TrtContext *context, const char *name, uint64_t address);
    /* Writes the names of the inputs whose shape or values are missing to `names`, each with its zero byte. */
    int32_t (*context_missing)(TrtContext *context, const TrtSink *names);
    int32_t (*context_memory)(TrtContext *context, uint64_t address, int64_t size);
    int32_t (*context_enqueue)(TrtContext *context, uint64_t stream);
    /* Runs once and waits for it, and tells how long each layer took. */
    int32_t (*context_time_layers)(TrtContext *context, uint64_t stream, const TrtLayerTimes *times);
} TrtApi;

#ifdef __cplusplus
}
#endif

#endif
