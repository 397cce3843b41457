// All that TensorRT's headers want of CUDA's: two handles, which the shim only passes on.
#pragma once

typedef struct CUstream_st *cudaStream_t;
typedef struct CUevent_st *cudaEvent_t;
