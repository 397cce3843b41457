// The kernels that are compiled into the emulator, by name.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <tuple>

namespace emulator {

struct Dimensions {
    unsigned x, y, z;
};

// Where in the grid the thread stands that is being run.
inline thread_local Dimensions gridDim, blockDim, blockIdx, threadIdx;

// One thread of a kernel, its parameters bound.
using Thread = std::function<void()>;
// Copies the parameters out of the array that `cuLaunchKernel` is given.
using Bind = std::function<Thread(void** parameters)>;

inline std::map<std::string, Bind>& kernels() {
    static std::map<std::string, Bind> known;
    return known;
}

class Registration {
  public:
    template <class... Parameters> Registration(const char* name, void (*kernel)(Parameters...)) {
        kernels()[name] = [kernel](void** parameters) {
            return bind(kernel, parameters, std::index_sequence_for<Parameters...>());
        };
    }

  private:
    template <class... Parameters, std::size_t... Index>
    static Thread bind(void (*kernel)(Parameters...), void** parameters, std::index_sequence<Index...>) {
        std::tuple<Parameters...> copied(*static_cast<Parameters*>(parameters[Index])...);
        return [kernel, copied] { std::apply(kernel, copied); };
    }
};

// Last to first: a device promises no order, and who counts on the natural one shall notice.
inline void run_grid(const Thread& thread, Dimensions grid, Dimensions block) {
    gridDim = grid;
    blockDim = block;
    for (blockIdx.z = grid.z; blockIdx.z-- > 0;)
        for (blockIdx.y = grid.y; blockIdx.y-- > 0;)
            for (blockIdx.x = grid.x; blockIdx.x-- > 0;)
                for (threadIdx.z = block.z; threadIdx.z-- > 0;)
                    for (threadIdx.y = block.y; threadIdx.y-- > 0;)
                        for (threadIdx.x = block.x; threadIdx.x-- > 0;) thread();
}

}  // namespace emulator
