#pragma once
// A folder of a test's own among the system's temporary ones, removed with all that is in it.

#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>

namespace test {

class scratch_folder {
 public:
  scratch_folder() {
    static std::atomic<int> count{0};
    path_ = std::filesystem::temp_directory_path() /
            ("effinfer-test-" + std::to_string(::getpid()) + "-" + std::to_string(count++));
    std::filesystem::create_directories(path_);
  }
  scratch_folder(const scratch_folder&) = delete;
  scratch_folder& operator=(const scratch_folder&) = delete;
  ~scratch_folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }

  [[nodiscard]] std::string path() const { return path_.string(); }
  [[nodiscard]] std::string path(std::string_view name) const { return (path_ / name).string(); }

  /// Writes `bytes` to the file `name`, in place of what was there; returns its path.
  std::string write(std::string_view name, std::string_view bytes) const {
    const std::string at = path(name);
    std::filesystem::remove(at);  // a file that is mapped keeps its bytes
    std::ofstream(at, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    return at;
  }
  /// A symbolic link `name` to `target`, which need not be there.
  std::string link(std::string_view name, std::string_view target) const {
    std::filesystem::create_symlink(target, path(name));
    return path(name);
  }

 private:
  std::filesystem::path path_;
};

/// All bytes of a file.
inline std::string read_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

}  // namespace test
