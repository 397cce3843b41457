// Configuring and running a build.

#include "build.h"

namespace REVOADA_DIALECT {
namespace {

using namespace nvinfer1;

TrtBuild *build_open(TrtCreate create_builder, TrtCreateParser create_parser, int32_t version, int32_t parser_version,
                     const TrtHost *host) {
    return guarded<TrtBuild *>(*host, nullptr, [&]() -> TrtBuild * {
        auto build = std::make_unique<TrtBuild>(*host);
        build->builder.reset(made<IBuilder>(create_builder(&build->logger, version)));
        if (!build->builder) {
            return nullptr;
        }
        build->builder->setErrorRecorder(&build->recorder);
#if REVOADA_STRONGLY_TYPED
        const auto flags = 1U << static_cast<uint32_t>(NetworkDefinitionCreationFlag::kSTRONGLY_TYPED);
#else
        const auto flags = 1U << static_cast<uint32_t>(NetworkDefinitionCreationFlag::kEXPLICIT_BATCH);
#endif
        build->network.reset(build->builder->createNetworkV2(flags));
        build->config.reset(build->builder->createBuilderConfig());
        if (!build->network || !build->config) {
            return nullptr;
        }
        build->network->setErrorRecorder(&build->recorder);
        // The inspector tells types and formats only of a plan that keeps them.
        build->config->setProfilingVerbosity(ProfilingVerbosity::kDETAILED);
#if REVOADA_MAJOR >= 10
        build->config->setProgressMonitor(&build->monitor);
#endif
        build->parser.reset(
            made<nvonnxparser::IParser>(create_parser(build->network.get(), &build->logger, parser_version)));
        return build->parser ? build.release() : nullptr;
    });
}

void build_close(TrtBuild *build) { delete build; }

void *build_profile(TrtBuild *build) {
    return guarded<void *>(build->host, nullptr, [&]() -> void * { return build->builder->createOptimizationProfile(); });
}

int32_t build_profile_range(TrtBuild *build, void *profile, const char *input, const TrtDims *min, const TrtDims *opt,
                            const TrtDims *max) {
    return guarded<int32_t>(build->host, TRT_REFUSED, [&] {
        const std::pair<OptProfileSelector, const TrtDims *> ranges[] = {
            {OptProfileSelector::kMIN, min}, {OptProfileSelector::kOPT, opt}, {OptProfileSelector::kMAX, max}};
        for (const auto &range : ranges) {
            Dims dims{};
            if (!to_dims(*range.second, dims) ||
                !static_cast<IOptimizationProfile *>(profile)->setDimensions(input, range.first, dims)) {
                return TRT_REFUSED;
            }
        }
        return TRT_DONE;
    });
}

int32_t build_profile_done(TrtBuild *build, void *profile) {
    return guarded<int32_t>(build->host, TRT_REFUSED, [&] {
        return done_if(build->config->addOptimizationProfile(static_cast<IOptimizationProfile *>(profile)) >= 0);
    });
}

int32_t build_workspace(TrtBuild *build, uint64_t bytes) {
    return guarded<int32_t>(build->host, TRT_REFUSED, [&] {
#if NV_TENSORRT_MAJOR == 8 && NV_TENSORRT_MINOR < 4
        build->config->setMaxWorkspaceSize(bytes);
#else
        build->config->setMemoryPoolLimit(MemoryPoolType::kWORKSPACE, bytes);
#endif
        return TRT_DONE;
    });
}

int32_t build_timing_cache(TrtBuild *build, const void *bytes, size_t size) {
    return guarded<int32_t>(build->host, TRT_REFUSED, [&] {
        Owned<ITimingCache> cache(build->config->createTimingCache(bytes, size));
        if (!cache || !build->config->setTimingCache(*cache, false)) {
            return TRT_REFUSED;
        }
        build->cache = std::move(cache);
        return TRT_DONE;
    });
}

int32_t build_version_compatible(TrtBuild *build) {
#if REVOADA_MAJOR >= 10 || NV_TENSORRT_MINOR >= 6
    return guarded<int32_t>(build->host, TRT_REFUSED, [&] {
        build->config->setFlag(BuilderFlag::kVERSION_COMPATIBLE);
        return TRT_DONE;
    });
#else
    static_cast<void>(build);
    return TRT_ABSENT;
#endif
}

int32_t build_hardware(TrtBuild *build, int32_t level) {
#if REVOADA_MAJOR >= 10 || NV_TENSORRT_MINOR >= 6
    return guarded<int32_t>(build->host, TRT_REFUSED, [&] {
        switch (level) {
        case TRT_HARDWARE_SAME:
            build->config->setHardwareCompatibilityLevel(HardwareCompatibilityLevel::kNONE);
            return TRT_DONE;
        case TRT_HARDWARE_AMPERE_PLUS:
            build->config->setHardwareCompatibilityLevel(HardwareCompatibilityLevel::kAMPERE_PLUS);
            return TRT_DONE;
#if REVOADA_MAJOR >= 11 || (NV_TENSORRT_MAJOR == 10 && NV_TENSORRT_MINOR >= 9)
        case TRT_HARDWARE_SAME_COMPUTE_CAPABILITY:
            build->config->setHardwareCompatibilityLevel(HardwareCompatibilityLevel::kSAME_COMPUTE_CAPABILITY);
            return TRT_DONE;
#endif
        default:
            return TRT_ABSENT;
        }
    });
#else
    static_cast<void>(build);
    return level == TRT_HARDWARE_SAME ? TRT_DONE : TRT_ABSENT;
#endif
}

int32_t build_targets(TrtBuild *build, const int32_t *capabilities, int32_t count) {
#if REVOADA_RTX
    return guarded<int32_t>(build->host, TRT_REFUSED, [&] {
        if (!build->config->setNbComputeCapabilities(count)) {
            return TRT_REFUSED;
        }
        for (int32_t index = 0; index < count; ++index) {
            // The enumerators have the numbers of what they name, and TensorRT refuses one that it lacks.
            if (!build->config->setComputeCapability(static_cast<ComputeCapability>(capabilities[index]), index)) {
                return TRT_REFUSED;
            }
        }
        return TRT_DONE;
    });
#else
    static_cast<void>(build);
    static_cast<void>(capabilities);
    static_cast<void>(count);
    return TRT_ABSENT;
#endif
}

int32_t build_dla_cores(TrtBuild *build) {
    return guarded<int32_t>(build->host, 0, [&] { return build->builder->getNbDLACores(); });
}

int32_t build_dla(TrtBuild *build, int32_t core) {
    return guarded<int32_t>(build->host, TRT_REFUSED, [&] {
        build->config->setDefaultDeviceType(DeviceType::kDLA);
        build->config->setDLACore(core);
        build->config->setFlag(BuilderFlag::kGPU_FALLBACK);
        return TRT_DONE;
    });
}

int32_t build_run(TrtBuild *build, const TrtSink *plan) {
    return guarded<int32_t>(build->host, TRT_REFUSED, [&] {
        Owned<IHostMemory> memory(build->builder->buildSerializedNetwork(*build->network, *build->config));
        if (!memory || memory->size() == 0) {
            return TRT_REFUSED;
        }
        plan->write(plan->user, memory->data(), memory->size());
        return TRT_DONE;
    });
}

int32_t build_timings(TrtBuild *build, const TrtSink *sink) {
    return guarded<int32_t>(build->host, TRT_REFUSED, [&] {
        const ITimingCache *cache = build->config->getTimingCache();
        Owned<IHostMemory> memory(cache == nullptr ? nullptr : cache->serialize());
        if (!memory || memory->size() == 0) {
            return TRT_ABSENT;
        }
        sink->write(sink->user, memory->data(), memory->size());
        return TRT_DONE;
    });
}

} // namespace

void add_build(TrtApi &api) noexcept {
    api.build_open = build_open;
    api.build_close = build_close;
    api.build_profile = build_profile;
    api.build_profile_range = build_profile_range;
    api.build_profile_done = build_profile_done;
    api.build_workspace = build_workspace;
    api.build_timing_cache = build_timing_cache;
    api.build_version_compatible = build_version_compatible;
    api.build_hardware = build_hardware;
    api.build_targets = build_targets;
    api.build_dla_cores = build_dla_cores;
    api.build_dla = build_dla;
    api.build_run = build_run;
    api.build_timings = build_timings;
}

} // namespace REVOADA_DIALECT
