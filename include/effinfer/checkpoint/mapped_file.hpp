#pragma once
// A file mapped into memory, read-only: loading costs nothing until a page is read, and processes share the pages.

#include <effinfer/core/error.hpp>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <utility>

namespace effinfer::inline v0::checkpoint {

/// Owns the mapping; movable, and `bytes()` stays where it is across moves. A file that another process cuts short
/// while it is mapped ends a reading process by SIGBUS, as with every mapping: replace checkpoints by renaming.
class mapped_file {
 public:
  mapped_file() = default;
  /// Errors: `io` (with the system's reason; also for a folder).
  explicit mapped_file(const std::string& path) : path_(path) {
    // O_NONBLOCK: opening a pipe must not wait for a writer; files don't care.
    const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (file < 0) throw error(error_code::io, path, std::string("can't be opened: ") + std::strerror(errno));
    struct stat status {};
    if (::fstat(file, &status) != 0 || !S_ISREG(status.st_mode)) {
      ::close(file);
      throw error(error_code::io, path, "is not a regular file");
    }
    size_ = static_cast<std::size_t>(status.st_size);
    modified_ = static_cast<std::int64_t>(status.st_mtime);
    if (size_ != 0) {
      void* at = ::mmap(nullptr, size_, PROT_READ, MAP_SHARED, file, 0);
      if (at == MAP_FAILED) {
        const int reason = errno;
        ::close(file);
        throw error(error_code::io, path, std::string("can't be mapped: ") + std::strerror(reason));
      }
      data_ = static_cast<const std::byte*>(at);
    }
    ::close(file);
  }
  mapped_file(mapped_file&& other) noexcept
      : path_(std::move(other.path_)),
        data_(std::exchange(other.data_, nullptr)),
        size_(std::exchange(other.size_, 0)),
        modified_(other.modified_) {}
  mapped_file& operator=(mapped_file&& other) noexcept {
    std::swap(path_, other.path_);
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    std::swap(modified_, other.modified_);
    return *this;
  }
  mapped_file(const mapped_file&) = delete;
  mapped_file& operator=(const mapped_file&) = delete;
  ~mapped_file() {
    if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), size_);
  }

  [[nodiscard]] const std::string& path() const noexcept { return path_; }
  [[nodiscard]] std::span<const std::byte> bytes() const noexcept { return {data_, size_}; }
  [[nodiscard]] std::string_view text() const noexcept { return {reinterpret_cast<const char*>(data_), size_}; }
  /// When it was last written, in seconds since 1970.
  [[nodiscard]] std::int64_t modified() const noexcept { return modified_; }

 private:
  std::string path_;
  const std::byte* data_ = nullptr;
  std::size_t size_ = 0;
  std::int64_t modified_ = 0;
};

/// Whether pages of a mapped file will be read here and there, so that the system need not read what lies around them.
inline void expect_scattered_reads(std::span<const std::byte> file, bool scattered) {
  ::madvise(const_cast<std::byte*>(file.data()), file.size(), scattered ? MADV_RANDOM : MADV_NORMAL);
}

/// Lets go of the pages that lie wholly in `bytes` of a mapped file: they take no memory until they are read again.
inline void release_pages(std::span<const std::byte> bytes) {
  const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  const auto first = reinterpret_cast<std::size_t>(bytes.data());
  const std::size_t begin = (first + page - 1) / page * page, end = (first + bytes.size()) / page * page;
  if (begin < end) ::madvise(const_cast<std::byte*>(bytes.data()) + (begin - first), end - begin, MADV_DONTNEED);
}

/// True of a path that names something readable as a file.
inline bool is_file(const std::string& path) {
  struct stat status {};
  return ::stat(path.c_str(), &status) == 0 && S_ISREG(status.st_mode);
}
inline bool is_folder(const std::string& path) {
  struct stat status {};
  return ::stat(path.c_str(), &status) == 0 && S_ISDIR(status.st_mode);
}

}  // namespace effinfer::inline v0::checkpoint
