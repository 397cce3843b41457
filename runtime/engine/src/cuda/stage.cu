// Stages the pictures of a whole batch in one launch: every thread makes one network pixel of one row.
//
// C++14 without any header, so that NVRTC compiles it on the device as it stands, and without shared memory or
// barriers, so that a C++ compiler that knows the CUDA names can run it thread by thread. What it computes is
// defined by `stage_reference` in Rust.

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;

enum Format { NV12 = 0, I420 = 1, RGB = 2, BGR = 3, GRAY = 4 };
enum Element { F32 = 0, F16 = 1, U8 = 2 };

// One row of the batch; `StageParameters` in `stage.rs` has the same fields in the same order.
struct StageRow {
    u64 planes[3];
    u64 target;
    // Where the centre of network pixel 0 lies in the source and how far the next one is from it, in
    // 2^-FRACTION_BITS of a pixel: exact over the longest row, where single precision is not.
    i64 start_x, step_x, start_y, step_y;
    u32 strides[3];
    u32 format;
    u32 source_width, source_height;
    u32 network_width, network_height;
    // The part of the network's input that shows the picture; around it is padding.
    u32 left, top, right, bottom;
    u32 channels;
    u32 interleaved;
    u32 element;
    // From components to channels, mean and scale included.
    float matrix[9];
    float offset[3], lowest[3], highest[3];
    float padding[3];
};
static_assert(sizeof(StageRow) == 208, "the fields of `StageParameters`");

static const int FRACTION_BITS = 40;

// Two neighbouring source pixels along one axis and the share of the second.
struct Tap {
    u32 first, second;
    float weight;
};

static __device__ Tap tap_at(i64 start, i64 step, u32 index, u32 pixels) {
    // Unsigned, because the product of a step without bounds may wrap; what comes out is clamped all the same.
    i64 position = (i64)((u64)start + (u64)step * index);
    i64 last = (i64)(pixels - 1) << FRACTION_BITS;
    position = position < 0 ? 0 : (position > last ? last : position);
    Tap tap;
    tap.first = (u32)(position >> FRACTION_BITS);
    tap.second = tap.first + 1 < pixels ? tap.first + 1 : tap.first;
    // The upper 24 bits of the fraction are what a float holds.
    tap.weight = (float)((u32)(position >> (FRACTION_BITS - 24)) & 0xffffffu) * (1.0f / 16777216.0f);
    return tap;
}

// Reads one component, `step` bytes apart from pixel to pixel, between four pixels.
static __device__ float blend(const StageRow& row, u32 plane, u32 step, u32 byte, Tap across, Tap down) {
    const u8* data = (const u8*)row.planes[plane] + byte;
    const u8* upper = data + (u64)down.first * row.strides[plane];
    const u8* lower = data + (u64)down.second * row.strides[plane];
    float a = upper[across.first * step], b = upper[across.second * step];
    float c = lower[across.first * step], d = lower[across.second * step];
    float top = a + (b - a) * across.weight;
    float bottom = c + (d - c) * across.weight;
    return top + (bottom - top) * down.weight;
}

// A subsampled sample stands for both pixels of its pair.
static __device__ Tap halved(Tap tap) {
    tap.first /= 2;
    tap.second /= 2;
    return tap;
}

// The stored components: Y, U, V or R, G, B or grey; what no channel reads is left at zero.
static __device__ void read_components(const StageRow& row, Tap across, Tap down, float components[3]) {
    components[1] = components[2] = 0.0f;
    switch (row.format) {
    case NV12:
    case I420:
        components[0] = blend(row, 0, 1, 0, across, down);
        if (row.channels == 1) return;
        across = halved(across);
        down = halved(down);
        if (row.format == NV12) {
            components[1] = blend(row, 1, 2, 0, across, down);
            components[2] = blend(row, 1, 2, 1, across, down);
        } else {
            components[1] = blend(row, 1, 1, 0, across, down);
            components[2] = blend(row, 2, 1, 0, across, down);
        }
        return;
    case RGB:
    case BGR:
        for (u32 i = 0; i < 3; i++) components[i] = blend(row, 0, 3, i, across, down);
        return;
    default:
        components[0] = blend(row, 0, 1, 0, across, down);
    }
}

// IEEE 754 binary16, rounded half to even.
static __device__ u16 half_of(float value) {
    union {
        float number;
        u32 bits;
    } word;
    word.number = value;
    u32 sign = (word.bits >> 16) & 0x8000u, magnitude = word.bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u) return (u16)(sign | 0x7e00u);
    // From 65520 on the nearest number is infinity; up to 2^-25 it is zero.
    if (magnitude >= 0x477ff000u) return (u16)(sign | 0x7c00u);
    if (magnitude <= 0x33000000u) return (u16)sign;
    u32 mantissa, shift;
    if (magnitude < 0x38800000u) {
        // Subnormal: a multiple of 2^-24.
        mantissa = (magnitude & 0x7fffffu) | 0x800000u;
        shift = 126 - (magnitude >> 23);
    } else {
        mantissa = magnitude - 0x38000000u;
        shift = 13;
    }
    u32 result = mantissa >> shift, rest = mantissa & ((1u << shift) - 1), middle = 1u << (shift - 1);
    // A carry out of the mantissa is the next exponent, as it should be.
    if (rest > middle || (rest == middle && (result & 1))) result++;
    return (u16)(sign | result);
}

static __device__ void store(const StageRow& row, u64 index, float value) {
    switch (row.element) {
    case F32:
        ((float*)row.target)[index] = value;
        return;
    case F16:
        ((u16*)row.target)[index] = half_of(value);
        return;
    default:
        ((u8*)row.target)[index] = (u8)rintf(fminf(fmaxf(value, 0.0f), 255.0f));
    }
}

extern "C" __global__ void stage_rows(const StageRow* rows) {
    const StageRow& row = rows[blockIdx.z];
    u32 x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x >= row.network_width || y >= row.network_height) return;

    bool inside = x >= row.left && x < row.right && y >= row.top && y < row.bottom;
    float components[3];
    if (inside) {
        Tap across = tap_at(row.start_x, row.step_x, x, row.source_width);
        Tap down = tap_at(row.start_y, row.step_y, y, row.source_height);
        read_components(row, across, down, components);
    }
    u64 pixel = (u64)y * row.network_width + x, plane = (u64)row.network_width * row.network_height;
    for (u32 c = 0; c < row.channels; c++) {
        float value = row.padding[c];
        if (inside) {
            const float* factors = row.matrix + 3 * c;
            value = row.offset[c] + factors[0] * components[0] + factors[1] * components[1] + factors[2] * components[2];
            value = fminf(fmaxf(value, row.lowest[c]), row.highest[c]);
        }
        store(row, row.interleaved ? pixel * row.channels + c : c * plane + pixel, value);
    }
}
