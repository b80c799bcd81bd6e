// generate --device cuda: the pipelines of generate.cpp with one policy changed, compiled by nvcc.

#include "generate.hpp"

#include <cstdlib>
#include <stdexcept>

namespace generate {

int on_cuda(const arguments& a) {
  using ei::quantization::at_load;
  if (a.attention != "full") throw std::runtime_error("--attention: " + a.attention + " runs with --device cpu");
  const ei::execution::cuda where{.device = a.device.size() > 5 ? std::atoi(a.device.c_str() + 5) : 0};
  if (a.beam.beams != 0) {
    return run<ei::pipeline<at_load, ei::decoding::beam<>, ei::execution::cuda>>(a, "full", a.beam, weights_of(a),
                                                                                 where);
  }
  return run<ei::pipeline<at_load, sampling, ei::execution::cuda>>(a, "full", sampling_of(a), weights_of(a), where);
}

}  // namespace generate
