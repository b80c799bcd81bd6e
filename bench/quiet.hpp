#pragma once
// Figures from a machine that others use too: what they took during a measurement, and measuring again when it was much.

#include "machine_limits.hpp"

#include <sys/times.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <string>

namespace quiet {

/// Cores' seconds that programs other than this one and its children have used since the machine started; steal by other
/// virtual machines is among them. 0 where the system doesn't tell.
inline double other_programs_seconds() {
  std::ifstream stat("/proc/stat");
  std::string name;
  double user = 0, nice = 0, system = 0, idle = 0, io = 0, irq = 0, soft_irq = 0, steal = 0;
  if (!(stat >> name >> user >> nice >> system >> idle >> io >> irq >> soft_irq >> steal)) return 0;
  tms own{};
  times(&own);
  const auto ours = static_cast<double>(own.tms_utime + own.tms_stime + own.tms_cutime + own.tms_cstime);
  return (user + nice + system + irq + soft_irq + steal - ours) / static_cast<double>(sysconf(_SC_CLK_TCK));
}

/// Takes measurements again, up to `retries` times, that other programs disturbed.
struct taker {
  int retries = 0;
  double worst = 0;  ///< the most of a core that others took during a measurement that was kept

  static constexpr double tolerated = 0.05;  ///< of a core

  /// The value that `measurement()` returns; of several, that of the least disturbed.
  template <class Measurement>
  double take(const Measurement& measurement) {
    double kept = 0, least = 1e30;
    for (int i = 0; i <= retries && least > tolerated; ++i) {
      const double others = other_programs_seconds(), start = machine_limits::seconds_now();
      const double value = measurement();
      // The counters tick every 10 ms: less than two ticks mean nothing.
      const double share =
          std::max(0.0, other_programs_seconds() - others - 0.02) / (machine_limits::seconds_now() - start);
      if (share < least) kept = value, least = share;
    }
    worst = std::max(worst, least);
    return kept;
  }
};

}  // namespace quiet
