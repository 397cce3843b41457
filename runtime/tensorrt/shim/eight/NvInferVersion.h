// Which version of TensorRT 8 this folder describes: REVOADA_EIGHT_MINOR says.
#pragma once

#define NV_TENSORRT_MAJOR 8
#define NV_TENSORRT_MINOR REVOADA_EIGHT_MINOR
#define NV_TENSORRT_PATCH 0
