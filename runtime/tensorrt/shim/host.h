// What TensorRT calls back: its log, its errors and its progress, all handed to the host.
#pragma once

#include <atomic>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "dialect.h"

namespace REVOADA_DIALECT {

class Logger final : public nvinfer1::ILogger {
public:
    explicit Logger(const TrtHost &host) noexcept : host_(host) {}

    void log(Severity severity, nvinfer1::AsciiChar const *text) noexcept override {
        host_.log(host_.user, static_cast<int32_t>(severity), text == nullptr ? "" : text);
    }

private:
    TrtHost host_;
};

// Keeps what TensorRT may ask for again, and tells the host at once. Its owner outlives every object that it is
// given to, so it counts references only because TensorRT wants to hear a number.
class Recorder final : public nvinfer1::IErrorRecorder {
public:
    explicit Recorder(const TrtHost &host) noexcept : host_(host) {}

    int32_t getNbErrors() const noexcept override {
        std::lock_guard<std::mutex> guard(mutex_);
        return static_cast<int32_t>(errors_.size());
    }

    nvinfer1::ErrorCode getErrorCode(int32_t index) const noexcept override {
        std::lock_guard<std::mutex> guard(mutex_);
        return holds(index) ? errors_[index].first : nvinfer1::ErrorCode::kINVALID_ARGUMENT;
    }

    ErrorDesc getErrorDesc(int32_t index) const noexcept override {
        std::lock_guard<std::mutex> guard(mutex_);
        return holds(index) ? errors_[index].second.c_str() : "";
    }

    bool hasOverflowed() const noexcept override {
        std::lock_guard<std::mutex> guard(mutex_);
        return overflowed_;
    }

    void clear() noexcept override {
        std::lock_guard<std::mutex> guard(mutex_);
        errors_.clear();
        overflowed_ = false;
    }

    bool reportError(nvinfer1::ErrorCode code, ErrorDesc text) noexcept override {
        text = text == nullptr ? "" : text;
        host_.error(host_.user, static_cast<int32_t>(code), text);
        try {
            std::lock_guard<std::mutex> guard(mutex_);
            if (errors_.size() < kErrorsMax) {
                errors_.emplace_back(code, text);
            } else {
                overflowed_ = true;
            }
        } catch (...) {
            // Without memory for the text the host still has it.
        }
        return code != nvinfer1::ErrorCode::kSUCCESS;
    }

    RefCount incRefCount() noexcept override { return ++references_; }
    RefCount decRefCount() noexcept override { return --references_; }

private:
    // A failing build reports a handful; more than this is a loop.
    static constexpr std::size_t kErrorsMax = 256;

    bool holds(int32_t index) const noexcept { return index >= 0 && static_cast<std::size_t>(index) < errors_.size(); }

    TrtHost host_;
    mutable std::mutex mutex_;
    // Reserved whole, so that a text handed out does not move.
    std::vector<std::pair<nvinfer1::ErrorCode, std::string>> errors_ = reserved();
    bool overflowed_ = false;
    std::atomic<int32_t> references_{0};

    static std::vector<std::pair<nvinfer1::ErrorCode, std::string>> reserved() {
        std::vector<std::pair<nvinfer1::ErrorCode, std::string>> errors;
        errors.reserve(kErrorsMax);
        return errors;
    }
};

// Hears of the layers of one run, on the thread that runs it.
class Profiler final : public nvinfer1::IProfiler {
public:
    explicit Profiler(const TrtLayerTimes &times) noexcept : times_(times) {}

    void reportLayerTime(nvinfer1::AsciiChar const *layer, float milliseconds) noexcept override {
        times_.layer(times_.user, layer == nullptr ? "" : layer, milliseconds);
    }

private:
    TrtLayerTimes times_;
};

#if REVOADA_MAJOR >= 10
class Monitor final : public nvinfer1::IProgressMonitor {
public:
    explicit Monitor(const TrtHost &host) noexcept : host_(host) {}

    void phaseStart(char const *phase, char const *parent, int32_t steps) noexcept override {
        host_.phase_started(host_.user, phase, parent, steps);
    }

    bool stepComplete(char const *phase, int32_t step) noexcept override {
        return host_.step_done(host_.user, phase, step) != 0;
    }

    void phaseFinish(char const *phase) noexcept override { host_.phase_finished(host_.user, phase); }

private:
    TrtHost host_;
};
#endif

} // namespace REVOADA_DIALECT
