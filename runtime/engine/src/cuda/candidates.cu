// Finds the cells of a YOLO output that can become detections, so that only these travel to the CPU: every thread
// looks at one cell of one picture.
//
// C++14 without any header, shared memory or barriers, as `stage.cu`. Found cells take the next free place in
// whatever order they come; the CPU sorts them.

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

enum Element { F32 = 0, F16 = 1 };
enum Layout { CHANNELS_FIRST = 0, CELLS_FIRST = 1, OBJECTNESS = 2 };

// The fields of `FilterParameters` in `candidates.rs`.
struct Filter {
    u64 input;
    u64 found;
    u64 counts;
    u32 element;
    u32 layout;
    u32 cells;
    u32 classes;
    u32 candidates_max;
    float score_min;
};
static_assert(sizeof(Filter) == 48, "the fields of `FilterParameters`");

// The fields of `Candidate` in `candidates.rs`.
struct Candidate {
    u32 cell;
    u32 label;
    float score;
    float box[4];
};

struct Counts {
    u32 found;
    u32 non_finite;
};

static __device__ float float_of(u16 half) {
    union {
        u32 bits;
        float number;
    } word;
    u32 sign = (u32)(half & 0x8000u) << 16, magnitude = half & 0x7fffu;
    if (magnitude < 0x400u) {
        word.number = (float)magnitude * (1.0f / 16777216.0f);
        word.bits |= sign;
        return word.number;
    }
    word.bits = sign | (magnitude >= 0x7c00u ? 0x7f800000u | (magnitude & 0x3ffu) << 13 : (magnitude << 13) + 0x38000000u);
    return word.number;
}

static __device__ float read(const Filter& filter, u64 index) {
    if (filter.element == F16) return float_of(((const u16*)filter.input)[index]);
    return ((const float*)filter.input)[index];
}

static __device__ bool is_finite(float value) {
    return value - value == 0.0f;
}

extern "C" __global__ void filter_candidates(Filter filter) {
    u32 cell = blockIdx.x * blockDim.x + threadIdx.x, picture = blockIdx.y;
    if (cell >= filter.cells) return;
    Counts* counts = (Counts*)filter.counts + picture;

    u32 before = filter.layout == OBJECTNESS ? 5 : 4, channels = before + filter.classes;
    u64 first = (u64)picture * channels * filter.cells, step = filter.cells;
    if (filter.layout == CHANNELS_FIRST) {
        first += cell;
    } else {
        first += (u64)cell * channels;
        step = 1;
    }

    float objectness = 1.0f;
    if (filter.layout == OBJECTNESS) {
        objectness = read(filter, first + 4 * step);
        if (!is_finite(objectness)) {
            atomicAdd(&counts->non_finite, 1u);
            return;
        }
        if (!(objectness >= filter.score_min)) return;
    }
    // The first of the greatest scores; a comparison with what is no number is false.
    bool any = false;
    float best = 0.0f;
    u32 label = 0;
    for (u32 index = 0; index < filter.classes; index++) {
        float score = read(filter, first + (before + index) * step);
        if (any ? score > best : score == score) {
            any = true;
            best = score;
            label = index;
        }
    }
    if (!any || !is_finite(best)) {
        atomicAdd(&counts->non_finite, 1u);
        return;
    }
    float score = objectness * best;
    if (!(score >= filter.score_min)) return;

    u32 place = atomicAdd(&counts->found, 1u);
    if (place >= filter.candidates_max) return;
    Candidate* found = (Candidate*)filter.found + (u64)picture * filter.candidates_max + place;
    found->cell = cell;
    found->label = label;
    found->score = score;
    for (u32 i = 0; i < 4; i++) found->box[i] = read(filter, first + i * step);
}
