#pragma once
// The whole library in one include. Needs RapidJSON, PCRE2 and utf8proc; programs that use kernels or models only may
// include finer headers and link nothing (effinfer/model.hpp, effinfer/attention/..., effinfer/quantization/...).

#include <effinfer/attention/alibi.hpp>
#include <effinfer/attention/grouped_query.hpp>
#include <effinfer/attention/linear.hpp>
#include <effinfer/attention/sinks.hpp>
#include <effinfer/attention/sliding_window.hpp>
#include <effinfer/attention/soft_cap.hpp>
#include <effinfer/attention/softmax.hpp>
#include <effinfer/attention/streaming_window.hpp>
#include <effinfer/decoding/chain.hpp>
#include <effinfer/decoding/greedy.hpp>
#include <effinfer/decoding/log_probability.hpp>
#include <effinfer/decoding/min_p.hpp>
#include <effinfer/decoding/prompt_lookup.hpp>
#include <effinfer/decoding/sample.hpp>
#include <effinfer/decoding/speculative.hpp>
#include <effinfer/decoding/temperature.hpp>
#include <effinfer/decoding/top_k.hpp>
#include <effinfer/decoding/top_p.hpp>
#include <effinfer/pipeline.hpp>
#include <effinfer/quantization/at_load.hpp>
#include <effinfer/text/chat_template.hpp>
#include <effinfer/version.hpp>
