#pragma once
// A file that takes its place when it is whole: others see the old file or the new one, and never a half.

#include <effinfer/core/error.hpp>

#include <fcntl.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdio>
#include <cstring>
#include <span>
#include <string>
#include <utility>

namespace effinfer::inline v0::checkpoint {

/// Writes beside `path` under another name, and renames at the end. What is not finished is removed.
class replacing_file {
 public:
  /// Errors: `io`, with the system's reason, as for all members.
  explicit replacing_file(const std::string& path) : path_(path) {
    const auto now = std::chrono::steady_clock::now().time_since_epoch().count();
    const std::string name = path + "." + std::to_string(::getpid()) + "." + std::to_string(now) + ".partial";
    file_ = ::open(name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (file_ < 0) fail("can't be created");
    partial_ = name;
  }
  replacing_file(const replacing_file&) = delete;
  replacing_file& operator=(const replacing_file&) = delete;
  ~replacing_file() {
    if (file_ >= 0) ::close(file_);
    if (!partial_.empty()) ::unlink(partial_.c_str());
  }

  /// Writes `head` and then `data`, as the whole file, and puts it in its place.
  void finish(std::span<const std::byte> head, std::span<const std::byte> data) {
    // In blocks that begin at whole huge pages of the file: what is written at once, the system keeps together, and a
    // file that lies in huge pages is mapped 20 times sooner than one in small pages (1.3 GB: 2 ms and 40 to 120 ms).
    constexpr std::size_t block = std::size_t{4} << 20;
    const std::size_t total = head.size() + data.size();
    for (std::size_t at = 0; at < total;) {
      const std::size_t end = std::min(total, (at / block + 1) * block);
      std::array<iovec, 2> parts{};
      std::size_t count = 0;
      if (at < head.size()) parts[count++] = part(head, at, std::min(end, head.size()));
      if (end > head.size()) parts[count++] = part(data, std::max(at, head.size()) - head.size(), end - head.size());
      const ssize_t written = ::writev(file_, parts.data(), static_cast<int>(count));
      if (written < 0 && errno != EINTR) fail("can't be written");
      if (written > 0) at += static_cast<std::size_t>(written);
    }
    if (::close(std::exchange(file_, -1)) != 0) fail("can't be written");
    if (std::rename(partial_.c_str(), path_.c_str()) != 0) fail("can't be put in its place");
    partial_.clear();
  }

 private:
  [[noreturn]] void fail(const std::string& what) const {
    throw error(error_code::io, path_, what + ": " + std::strerror(errno));
  }
  static iovec part(std::span<const std::byte> bytes, std::size_t begin, std::size_t end) {
    return {const_cast<std::byte*>(bytes.data()) + begin, end - begin};
  }

  std::string path_, partial_;
  int file_ = -1;
};

}  // namespace effinfer::inline v0::checkpoint
