#pragma once
// In place of tests/simt/hopper.hpp, on the GPU.

#include "simt/host.hpp"

#include <effinfer/execution/simt/hopper.cuh>

namespace simt_host {

using simt::make_tensor_map;

}  // namespace simt_host
