// What one build holds.
#pragma once

#include "host.h"

// In this order, so that the members end before what they were made from.
struct TrtBuild {
    explicit TrtBuild(const TrtHost &to) : host(to), logger(to), recorder(to) {}

    TrtHost host;
    REVOADA_DIALECT::Logger logger;
    REVOADA_DIALECT::Recorder recorder;
#if REVOADA_MAJOR >= 10
    REVOADA_DIALECT::Monitor monitor{host};
#endif
    REVOADA_DIALECT::Owned<nvinfer1::IBuilder> builder;
    REVOADA_DIALECT::Owned<nvinfer1::INetworkDefinition> network;
    REVOADA_DIALECT::Owned<nvonnxparser::IParser> parser;
    REVOADA_DIALECT::Owned<nvinfer1::ITimingCache> cache;
    REVOADA_DIALECT::Owned<nvinfer1::IBuilderConfig> config;
};
